//! What `serve` does with its settings: every combination that cannot be honoured is refused here, before anything starts.

#[cfg(test)]
mod tests;

use crate::{
    environment::Environment,
    failure::Failure,
    flags::{AuditRetention, LogFormat, MetricsListen, RuntimeChoice, Settings},
    kubernetes::{self, ORCHESTRATOR, PeerPlace, Where},
    vault::{Secrets, Transit},
};
use archestra_core::{identity::PlainToken, secret::SecretValue};
use archestra_gateway::upstream::dial::PrivateNetworks;
use archestra_k8s::KubernetesConfig;
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use url::Url;

/// The variable that sets the token of the bootstrap admin.
pub(crate) const ADMIN_TOKEN: &str = "ARCHESTRA_ADMIN_TOKEN";
/// The variable that holds the keys instead of a file.
pub(crate) const KEY: &str = "ARCHESTRA_KEY";
/// What a pod finds where Kubernetes gave it a service account.
const CLUSTER_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// A deployment of the gateway, decided.
#[derive(Debug)]
pub(crate) struct ServeConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) public_url: Option<Url>,
    pub(crate) data_dir: PathBuf,
    pub(crate) database: Database,
    pub(crate) key_file: KeyFile,
    /// What wraps the keys in it.
    pub(crate) key_transit: Option<Transit>,
    pub(crate) secrets: Secrets,
    pub(crate) runtime: RuntimeKind,
    /// With the runtime of that name.
    pub(crate) kubernetes: Option<KubernetesConfig>,
    /// Where the other replicas reach this one, with the same runtime.
    pub(crate) peers: Option<PeerPlace>,
    pub(crate) private_networks: PrivateNetworks,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) body_limit: usize,
    pub(crate) call_timeout: Duration,
    pub(crate) start_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) max_calls_per_caller: usize,
    pub(crate) max_streams_per_caller: usize,
    pub(crate) stale_grace: Duration,
    pub(crate) audit_retention: Option<Duration>,
    pub(crate) quickstart: Quickstart,
    pub(crate) admin_token: Option<PlainToken>,
    pub(crate) log_format: LogFormat,
    pub(crate) log: String,
}

/// Where everything is stored.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Database {
    /// In an SQLite file.
    Sqlite(PathBuf),
    /// In PostgreSQL, at a URL that may hold a password.
    Postgres(String),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.debug_tuple("Postgres").finish_non_exhaustive(),
        }
    }
}

/// Where the key ring is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyFile {
    /// In the data directory; made when there is none.
    Default(PathBuf),
    /// Where the operator put it; never made.
    Named(PathBuf),
    /// In a variable, as the text of the file.
    Variable(SecretValue),
}

/// What runs self-hosted servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuntimeKind {
    Kubernetes,
    Process,
    None,
}

/// Whether a gateway to try is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quickstart {
    No,
    /// If nothing is in the catalog.
    IfEmpty,
    /// Unless it is there.
    Yes,
}

/// What surrounds the process, beside its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surroundings {
    Cluster,
    Machine,
}

impl Surroundings {
    /// Looks for the token that Kubernetes gives a pod.
    pub(crate) fn seen() -> Self {
        if Path::new(CLUSTER_TOKEN).exists() { Self::Cluster } else { Self::Machine }
    }
}

impl ServeConfig {
    /// Decides.
    ///
    /// # Errors
    /// What cannot be honoured, with the flag that says so.
    pub(crate) fn decide(
        settings: Settings,
        environment: &Environment,
        surroundings: Surroundings,
    ) -> Result<Self, Failure> {
        let secrets = Secrets::decide(set(settings.secrets), &settings.vault, environment)?;
        let key_transit = Transit::decide(&settings.vault, environment)?;
        let MetricsListen(metrics_listen) = set(settings.metrics_listen);
        let AuditRetention(audit_retention) = set(settings.audit_retention);
        let listen = set(settings.listen);
        let data_dir = set(settings.data_dir);
        let runtime = runtime(set(settings.runtime), listen, environment, surroundings)?;
        let place = match surroundings {
            Surroundings::Cluster => Where::Pod,
            Surroundings::Machine => Where::Outside,
        };
        let kubernetes = match runtime {
            RuntimeKind::Kubernetes => Some(kubernetes::decide(&settings.kubernetes, environment, place)?),
            RuntimeKind::Process | RuntimeKind::None => None,
        };
        let peers = PeerPlace::decide(&settings.kubernetes, environment)?;
        if peers.is_some() && runtime != RuntimeKind::Kubernetes {
            return Err(Failure::unusable(
                "--peer-listen needs --runtime kubernetes: replicas listen for each other's calls of servers that are attached to",
            ));
        }
        let quickstart = match settings.quickstart {
            Some(false) => Quickstart::No,
            Some(true) if runtime == RuntimeKind::Process => Quickstart::Yes,
            Some(true) => {
                return Err(Failure::unusable(
                    "--quickstart true needs --runtime process: the demo is a local process",
                ));
            }
            None if settings.database_url.is_none() && runtime == RuntimeKind::Process && listen.ip().is_loopback() => {
                Quickstart::IfEmpty
            }
            None => Quickstart::No,
        };
        Ok(Self {
            listen,
            metrics_listen,
            public_url: settings.public_url.as_deref().map(public_url).transpose()?,
            database: database(settings.database_url.as_deref(), &data_dir)?,
            key_file: key_file(settings.key_file, environment, &data_dir)?,
            key_transit,
            secrets,
            runtime,
            kubernetes,
            peers,
            private_networks: private_networks(settings.private_networks.as_deref(), listen)?,
            allowed_hosts: settings.allowed_hosts.unwrap_or_default(),
            allowed_origins: settings.allowed_origins.unwrap_or_default(),
            body_limit: set(settings.body_limit),
            call_timeout: set(settings.call_timeout),
            drain_timeout: set(settings.drain_timeout),
            start_timeout: set(settings.start_timeout),
            write_timeout: set(settings.write_timeout),
            max_calls_per_caller: set(settings.max_calls_per_caller),
            max_streams_per_caller: set(settings.max_streams_per_caller),
            stale_grace: set(settings.stale_grace),
            audit_retention,
            quickstart,
            admin_token: environment.get(ADMIN_TOKEN).map(admin_token).transpose()?,
            log_format: set(settings.log_format),
            log: set(settings.log),
            data_dir,
        })
    }
}

/// Where the key ring is.
pub(crate) fn key_file(named: Option<PathBuf>, environment: &Environment, data_dir: &Path) -> Result<KeyFile, Failure> {
    match (named, environment.get(KEY)) {
        (Some(_), Some(_)) => Err(Failure::unusable(format!("--key-file and {KEY} are both set: use one of them"))),
        (Some(path), None) => Ok(KeyFile::Named(path)),
        (None, Some(text)) => Ok(KeyFile::Variable(text.into())),
        (None, None) => Ok(KeyFile::Default(data_dir.join("archestra.key"))),
    }
}

/// The value of a setting that has a default.
fn set<T>(value: Option<T>) -> T {
    value.expect("`flags::DEFAULTS` has a value for it")
}

fn runtime(
    choice: RuntimeChoice,
    listen: SocketAddr,
    environment: &Environment,
    surroundings: Surroundings,
) -> Result<RuntimeKind, Failure> {
    match choice {
        RuntimeChoice::Kubernetes => return Ok(RuntimeKind::Kubernetes),
        RuntimeChoice::Process => return Ok(RuntimeKind::Process),
        RuntimeChoice::None => return Ok(RuntimeKind::None),
        RuntimeChoice::Auto => {}
    }
    if environment.has_any(ORCHESTRATOR).is_some() || surroundings == Surroundings::Cluster {
        return Ok(RuntimeKind::Kubernetes);
    }
    if listen.ip().is_loopback() {
        return Ok(RuntimeKind::Process);
    }
    Err(Failure::unusable(format!(
        "--runtime auto: {listen} can be reached from other machines, and local processes run as this user without isolation; name `process` if that is meant, `kubernetes`, or `none`, which serves remote servers only"
    )))
}

/// What a path of an SQLite URL cannot hold.
const IN_NO_PATH: [char; 3] = ['?', '#', '%'];

pub(crate) fn database(url: Option<&str>, data_dir: &Path) -> Result<Database, Failure> {
    let Some(url) = url else {
        let path = data_dir.join("archestra.db");
        let fits = path.to_str().is_some_and(|path| !path.contains(IN_NO_PATH));
        return if fits {
            Ok(Database::Sqlite(path))
        } else {
            Err(Failure::unusable("--data-dir: use a path without '?', '#' and '%', in UTF-8"))
        };
    };
    let scheme = url.split(':').next().unwrap_or_default();
    if matches!(scheme, "postgres" | "postgresql") {
        return Ok(Database::Postgres(url.to_owned()));
    }
    match url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path)) {
        Some(path) if path.contains(IN_NO_PATH) => Err(Failure::unusable(
            "--database-url: an SQLite URL takes no parameters or escapes here; use `sqlite://PATH`",
        )),
        Some("" | ":memory:") => {
            Err(Failure::unusable("--database-url: name a file, as in `sqlite:///var/lib/archestra/archestra.db`"))
        }
        Some(path) => Ok(Database::Sqlite(PathBuf::from(path))),
        None => Err(Failure::unusable("--database-url: use `sqlite://PATH` or `postgres://USER@HOST/DATABASE`")),
    }
}

fn public_url(text: &str) -> Result<Url, Failure> {
    let unusable =
        |reason: &str| Failure::unusable(format!("--public-url: {reason}; use as in `https://mcp.example.com`"));
    let url = Url::parse(text).map_err(|error| unusable(&error.to_string()))?;
    match url {
        url if !matches!(url.scheme(), "http" | "https") => {
            Err(unusable("clients reach servers over http and https only"))
        }
        url if !url.username().is_empty() || url.password().is_some() => Err(unusable("it holds credentials")),
        url if url.query().is_some() || url.fragment().is_some() => Err(unusable("it has parameters or a fragment")),
        url => Ok(url),
    }
}

fn private_networks(listed: Option<&[String]>, listen: SocketAddr) -> Result<PrivateNetworks, Failure> {
    match listed {
        Some(entries) => PrivateNetworks::parse(entries.iter().filter(|entry| !entry.trim().is_empty()))
            .map_err(|error| Failure::unusable(format!("--private-networks: {error}"))),
        None if listen.ip().is_loopback() => Ok(PrivateNetworks::loopback()),
        None => Ok(PrivateNetworks::default()),
    }
}

fn admin_token(text: &str) -> Result<PlainToken, Failure> {
    PlainToken::parse(text).map_err(|error| Failure::unusable(format!("{ADMIN_TOKEN}: {error}")))
}
