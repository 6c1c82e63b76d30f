//! The command line: commands, flags, and what `--help` says about them.

mod kubernetes;
mod layers;
mod network;
mod values;
mod vault;

#[cfg(test)]
mod tests;

pub(crate) use kubernetes::KubernetesFlags;
pub(crate) use layers::resolve;
pub(crate) use network::NetworkFlags;
pub(crate) use values::{AuditRetention, LogFormat, MetricsListen, RuntimeChoice, SecretsChoice};
pub(crate) use vault::{VaultAuthChoice, VaultFlags};

use crate::environment::PREFIX;
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

/// What holds for a flag that nobody set, as it would be written.
pub(crate) const DEFAULTS: &[(&str, &str)] = &[
    ("listen", "127.0.0.1:9000"),
    ("metrics-listen", "127.0.0.1:9050"),
    ("data-dir", "."),
    ("runtime", "auto"),
    ("secrets", "database"),
    ("vault-mount", "secret"),
    ("vault-prefix", "archestra"),
    ("vault-auth", "token"),
    ("key-transit-mount", "transit"),
    ("body-limit", "4MiB"),
    ("call-timeout", "60s"),
    ("start-timeout", "60s"),
    ("write-timeout", "60s"),
    ("drain-timeout", "30s"),
    ("stale-grace", "0s"),
    ("max-calls-per-caller", "1024"),
    ("max-streams-per-caller", "32"),
    ("audit-retention", "90d"),
    ("log-format", "text"),
    ("log", "info"),
];

/// What is made from other flags when nobody sets it.
const DERIVED: &[(&str, &str)] = &[
    ("public-url", "http://<listen>"),
    ("database-url", "sqlite://<data-dir>/archestra.db"),
    ("key-file", "<data-dir>/archestra.key, made at the first start"),
    ("base-image", "ghcr.io/archestra-rs/mcp-base:<version>"),
    ("bridge-image", "ghcr.io/archestra-rs/archestra-bridge:<version>"),
    ("image-pull-policy", "what Kubernetes decides"),
    ("workload-requests", "cpu=50m,memory=128Mi,ephemeral-storage=256Mi"),
    ("workload-limits", "memory=512Mi,ephemeral-storage=1Gi"),
    ("workload-allow", "nothing"),
    ("workload-service-accounts", "none"),
    ("workload-secrets", "none"),
    ("workload-pull-secrets", "none"),
    ("workload-dns", "none"),
    ("workload-egress", "none; public addresses only"),
    ("workload-reach", "auto"),
    ("gateway-labels", "app.kubernetes.io/name=archestra"),
    ("gateway-namespace", "POD_NAMESPACE in a pod, else that of the servers"),
    ("gateway-networks", "none"),
    ("peer-listen", "none: servers that are attached to are called by one replica only"),
    ("peer-advertise", "--peer-listen; where that is no address, the one in POD_IP"),
    ("vault-namespace", "none"),
    ("vault-auth-mount", "the name of the method"),
    ("vault-aws-region", "the global endpoint"),
    ("vault-aws-server-id", "none"),
    ("vault-ca-file", "none"),
    ("key-transit", "none: they are there in clear"),
    ("private-networks", "none; loopback while --listen is a loopback address"),
    ("allowed-hosts", "the host of --public-url, beside loopback names"),
    ("allowed-origins", "none"),
    ("quickstart", "true with the default database while it is empty, the process runtime and a loopback listener"),
    ("server", crate::apply::DEFAULT_SERVER),
];

const SERVE_NOTES: &str = "\
A flag wins over its variable, a variable over the configuration file. Variables without a flag:
  ARCHESTRA_ADMIN_TOKEN  the token of admin@localhost, set at every start: `arch_` and at least 32 characters of
                         [A-Za-z0-9_-]; the former one is revoked. Without it the first start makes one, which is
                         printed once to a terminal, or else written to <data-dir>/admin-token
  ARCHESTRA_VAULT_TOKEN, ARCHESTRA_VAULT_SECRET_ID
                         the token or the secret id to log in to Vault with, unless --vault-credential-file holds it
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
                         for --vault-auth aws, unless --vault-credential-file holds them, under [default] or AWS_PROFILE
  ARCHESTRA_ORCHESTRATOR_KUBECONFIG
                         the kubeconfig of the cluster that self-hosted servers run in
  ARCHESTRA_ORCHESTRATOR_LOAD_KUBECONFIG_FROM_CURRENT_CLUSTER
                         `true`: the cluster that this server runs in, by its pod's service account
  ARCHESTRA_ORCHESTRATOR_K8S_NAMESPACE
                         the namespace they run in (default: default)
  ARCHESTRA_KEY          the keys instead of --key-file, its lines separated by line breaks or commas

The configuration file is YAML; its keys are the flags without the dashes in front: `listen: 0.0.0.0:9000`.";

const MIGRATE_NOTES: &str = "\
The stores are where the flags, variables and the configuration file of `serve` say. The command may be repeated: what arrived
before is left alone, and what changed since is copied again. Stop the server, migrate, and start it with the other --secrets:
beside a running server the command refuses to copy, and while it copies no server starts. One that was killed counts as running
for a minute.";

const BACKUP_NOTES: &str = "\
The database is where the flags, variables and the configuration file of `serve` say; a backup of SQLite can be restored into
PostgreSQL and the reverse. It holds what people set up: entries, installations, gateways, users, teams, tokens as hashes, and
secrets as the database has them, encrypted under the key file, which is not in it. Audit records and secrets in Vault are not in
it either. A server may run while a backup is made, and must not while one is restored.";

const APPLY_NOTES: &str = "\
The token comes from ARCHESTRA_TOKEN or --token-file. `{valueFrom: {env: NAME}}` and `{valueFrom: {file: PATH}}` in the
document are replaced before it is sent; paths are relative to the document, and one line break at a file's end is left out.

Exit codes: 0 it is as the document says; 1 the server refused it or cannot be reached; 2 the command line or the document
cannot be used, and nothing was sent.";

/// A private MCP registry and gateway. Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "archestra", version, args_conflicts_with_subcommands = true, disable_help_subcommand = true, next_line_help = true, after_help = SERVE_NOTES)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the gateway and its control plane (the default)
    #[command(next_line_help = true, after_help = SERVE_NOTES)]
    Serve(Box<Settings>),
    /// Make a running server be as a document says
    #[command(next_line_help = true, after_help = APPLY_NOTES)]
    Apply(ApplyFlags),
    /// Write all records and the sealed secrets of the database to a file
    #[command(next_line_help = true, after_help = BACKUP_NOTES)]
    Backup(Box<BackupFlags>),
    /// Read a backup into an empty database
    #[command(next_line_help = true, after_help = BACKUP_NOTES)]
    Restore(Box<RestoreFlags>),
    /// Move secrets
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Serve two tools, `echo` and `add`, on standard input and output
    DemoServer,
    /// Print the version
    Version,
}

/// What `backup` can be told.
#[derive(Debug, Args)]
pub(crate) struct BackupFlags {
    /// The file to write, which must not be there
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// What `restore` can be told.
#[derive(Debug, Args)]
pub(crate) struct RestoreFlags {
    /// The file that `backup` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) from: PathBuf,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Copy all secrets from one store to another, verify each, and remove none
    #[command(next_line_help = true, after_help = MIGRATE_NOTES)]
    Migrate(Box<MigrateFlags>),
}

/// What `secrets migrate` can be told.
#[derive(Debug, Args)]
pub(crate) struct MigrateFlags {
    /// The store that has the secrets: database or vault
    #[arg(long, value_name = "STORE")]
    pub(crate) from: SecretsChoice,
    /// The store that gets them: database or vault
    #[arg(long, value_name = "STORE")]
    pub(crate) to: SecretsChoice,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// What `serve` can be told.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Settings {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", value_parser = values::address)]
    pub(crate) listen: Option<SocketAddr>,
    /// The URL under which clients reach this server
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Where metrics are served, or `none`
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<MetricsListen>,
    /// Where the database, the key file and the state of local servers are
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The database, as `sqlite://PATH` or `postgres://USER@HOST/DATABASE`; refused as a flag when it holds a password
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// The keys that everything secret is encrypted under: lines of `<id> <base64 of 32 bytes>`, newest first; with
    /// --key-transit of `<id> vault:v1:…`
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// What runs self-hosted servers: auto, kubernetes, process (local processes, not isolated) or none
    #[arg(long)]
    pub(crate) runtime: Option<RuntimeChoice>,
    #[command(flatten)]
    pub(crate) kubernetes: KubernetesFlags,
    /// Where secrets are kept: database (encrypted), vault, or vault-readonly (people put them there, and name where)
    #[arg(long)]
    pub(crate) secrets: Option<SecretsChoice>,
    #[command(flatten)]
    pub(crate) vault: VaultFlags,
    /// Private networks and hosts that entries may name: 10.0.0.0/8,git.corp.example,*.svc.cluster.local
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) private_networks: Option<Vec<String>>,
    /// Host names under which requests are accepted; `*` for any
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) allowed_hosts: Option<Vec<String>>,
    /// Origins whose pages may send requests from a browser
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) allowed_origins: Option<Vec<String>>,
    /// The largest request body
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    pub(crate) body_limit: Option<usize>,
    /// How long a tool call may take unless its gateway or entry says otherwise
    #[arg(long, value_name = "TIME", value_parser = values::deadline)]
    pub(crate) call_timeout: Option<Duration>,
    /// How long a self-hosted server may take until it answers after its start
    #[arg(long, value_name = "TIME", value_parser = values::deadline)]
    pub(crate) start_timeout: Option<Duration>,
    /// How long a client may leave its answer unread before its connection is closed
    #[arg(long, value_name = "TIME", value_parser = values::deadline)]
    pub(crate) write_timeout: Option<Duration>,
    /// How long calls under way may take to finish after SIGINT or SIGTERM
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) drain_timeout: Option<Duration>,
    /// How much longer than 5s cached credentials are used while the database does not answer
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) stale_grace: Option<Duration>,
    /// How many tool calls one caller may have under way at the same time; 0 for any number
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_calls_per_caller: Option<usize>,
    /// How many streams one caller may listen on at the same time; 0 for any number
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_streams_per_caller: Option<usize>,
    /// For how many days audit records are kept; 0 keeps them for ever
    #[arg(long, value_name = "DAYS")]
    pub(crate) audit_retention: Option<AuditRetention>,
    /// Whether to make a gateway `demo` with two tools
    #[arg(long, value_name = "BOOL")]
    pub(crate) quickstart: Option<bool>,
    /// How log lines are written: text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged: a level, or as in `info,archestra_gateway=debug`
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// A YAML file with any of these
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// What `apply` can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApplyFlags {
    /// The document, in YAML or JSON; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The URL of the server
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// A name for what this document makes, so that a later --prune knows it
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Option<String>,
    /// Remove what an earlier apply with the same --set made and this document no longer holds
    #[arg(long, requires = "set")]
    pub(crate) prune: bool,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The file that holds the token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Reads the command line, the program's name first.
///
/// # Errors
/// What clap found, which may also be a request for help.
pub(crate) fn parse<I, T>(arguments: I) -> Result<Command, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let matches = documented().try_get_matches_from(arguments)?;
    let line = CommandLine::from_arg_matches(&matches)?;
    Ok(line.command.unwrap_or_else(|| Command::Serve(Box::new(line.settings))))
}

/// The variable that may be set instead of a flag.
pub(crate) fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.replace('-', "_").to_ascii_uppercase())
}

/// The command line, each flag with its variable and default.
fn documented() -> clap::Command {
    CommandLine::command()
        .mut_args(with_notes)
        .mut_subcommand("serve", |serve| serve.mut_args(with_notes))
        .mut_subcommand("backup", |backup| backup.mut_args(with_notes_but_files))
        .mut_subcommand("restore", |restore| restore.mut_args(with_notes_but_files))
        .mut_subcommand("secrets", |secrets| {
            secrets.mut_subcommand("migrate", |migrate| migrate.mut_args(with_notes_but_files))
        })
        .mut_subcommand("apply", |apply| {
            apply.mut_args(
                |arg| if matches!(arg.get_long(), Some("server" | "token-file")) { with_notes(arg) } else { arg },
            )
        })
}

/// The same but for what only a command has.
fn with_notes_but_files(arg: Arg) -> Arg {
    if matches!(arg.get_long(), Some("from" | "to")) { arg } else { with_notes(arg) }
}

fn with_notes(arg: Arg) -> Arg {
    let Some(flag) = arg.get_long().filter(|flag| !matches!(*flag, "help" | "version")) else { return arg };
    let default = DEFAULTS
        .iter()
        .chain(DERIVED)
        .find(|(name, _)| *name == flag)
        .map(|(_, text)| format!(" [default: {text}]"))
        .unwrap_or_default();
    let help =
        format!("{} [env: {}]{default}", arg.get_help().map(ToString::to_string).unwrap_or_default(), variable(flag));
    arg.help(help)
}
