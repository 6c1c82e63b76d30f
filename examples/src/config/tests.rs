//! Defaults, decisions and refusals.

use super::{Database, KeyFile, Quickstart, RuntimeKind, ServeConfig, Surroundings};
use crate::{
    environment::Environment,
    failure::Failure,
    flags::{self, Command},
};
use std::path::PathBuf;

fn decide(flags: &[&str], environment: &Environment, surroundings: Surroundings) -> Result<ServeConfig, Failure> {
    let line = ["archestra"].iter().chain(flags).copied();
    let Command::Serve(settings) = flags::parse(line).unwrap() else { panic!("not `serve`") };
    ServeConfig::decide(flags::resolve(*settings, environment)?, environment, surroundings)
}

fn here(flags: &[&str]) -> Result<ServeConfig, Failure> {
    decide(flags, &Environment::default(), Surroundings::Machine)
}

fn refusal(decided: Result<ServeConfig, Failure>) -> String {
    decided.unwrap_err().text().to_owned()
}

#[test]
fn a_bare_start_is_a_quickstart_on_loopback() {
    let config = here(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:9000");
    assert_eq!(config.metrics_listen.unwrap().to_string(), "127.0.0.1:9050");
    assert_eq!(config.database, Database::Sqlite("./archestra.db".into()));
    assert_eq!(config.key_file, KeyFile::Default(PathBuf::from("./archestra.key")));
    assert_eq!((config.runtime, config.quickstart), (RuntimeKind::Process, Quickstart::IfEmpty));
    assert!(config.private_networks.contains("localhost", "127.0.0.1".parse().unwrap()));
    assert_eq!(config.body_limit, 4 * 1024 * 1024);
}

#[test]
fn the_process_runtime_must_be_named_where_others_can_reach_us() {
    assert!(refusal(here(&["--listen", "0.0.0.0:9000"])).contains("without isolation"));
    let config = here(&["--listen", "0.0.0.0:9000", "--runtime", "process"]).unwrap();
    assert_eq!((config.runtime, config.quickstart), (RuntimeKind::Process, Quickstart::No));
    assert!(config.private_networks.is_empty());
}

#[test]
fn the_process_runtime_is_never_chosen_in_a_cluster() {
    let home = Environment::from([("HOME", "/root")]);
    assert_eq!(decide(&[], &home, Surroundings::Cluster).unwrap().runtime, RuntimeKind::Kubernetes);
    let environment = Environment::from([("ARCHESTRA_ORCHESTRATOR_K8S_NAMESPACE", "mcp"), ("HOME", "/root")]);
    let config = decide(&[], &environment, Surroundings::Machine).unwrap();
    assert_eq!((config.runtime, config.quickstart), (RuntimeKind::Kubernetes, Quickstart::No));
    assert_eq!(config.kubernetes.unwrap().namespace, "mcp");
    assert_eq!(
        decide(&["--runtime", "none"], &Environment::default(), Surroundings::Cluster).unwrap().runtime,
        RuntimeKind::None
    );
}

#[test]
fn replicas_listen_for_each_other_on_kubernetes_only() {
    assert!(refusal(here(&["--peer-listen", "127.0.0.1:9001"])).contains("--runtime kubernetes"));
    let environment = Environment::from([("HOME", "/root")]);
    let arguments = ["--peer-listen", "127.0.0.1:9001", "--runtime", "kubernetes"];
    assert!(decide(&arguments, &environment, Surroundings::Machine).unwrap().peers.is_some());
}

#[test]
fn a_quickstart_needs_the_process_runtime() {
    assert!(refusal(here(&["--runtime", "none", "--quickstart", "true"])).contains("--runtime process"));
    assert_eq!(here(&["--runtime", "none"]).unwrap().quickstart, Quickstart::No);
    assert_eq!(here(&["--database-url", "sqlite://x.db"]).unwrap().quickstart, Quickstart::No);
    assert_eq!(here(&["--database-url", "sqlite://x.db", "--quickstart", "true"]).unwrap().quickstart, Quickstart::Yes);
}

#[test]
fn other_databases_are_refused() {
    assert!(refusal(here(&["--database-url", "mysql://db"])).contains("sqlite://PATH"));
    assert!(refusal(here(&["--database-url", "sqlite::memory:"])).contains("name a file"));
    assert_eq!(
        here(&["--database-url", "sqlite:///var/lib/a.db"]).unwrap().database,
        Database::Sqlite("/var/lib/a.db".into())
    );
    let url = "postgres://u:canary@db/archestra";
    assert!(refusal(here(&["--database-url", url])).contains("ARCHESTRA_DATABASE_URL"));
    let environment = Environment::from([("ARCHESTRA_DATABASE_URL", url)]);
    let config = decide(&[], &environment, Surroundings::Machine).unwrap();
    assert_eq!((&config.database, config.quickstart), (&Database::Postgres(url.to_owned()), Quickstart::No));
    assert!(!format!("{config:?}").contains("canary"));
}

#[test]
fn public_urls_are_checked() {
    for url in ["example.com", "ftp://example.com", "https://u:p@example.com", "https://example.com/?a=b"] {
        let refused = refusal(here(&["--public-url", url]));
        assert!(refused.starts_with("--public-url: ") & !refused.contains("u:p"), "{refused}");
    }
    assert_eq!(here(&["--public-url", "https://example.com/mcp"]).unwrap().public_url.unwrap().path(), "/mcp");
}

#[test]
fn networks_and_tokens_are_checked() {
    assert!(refusal(here(&["--private-networks", "10.1.2.3/8"])).contains("10.0.0.0/8"));
    let config = here(&["--private-networks", "10.0.0.0/8,git.corp"]).unwrap();
    assert!(!config.private_networks.contains("localhost", "127.0.0.1".parse().unwrap()));
    let refused =
        refusal(decide(&[], &Environment::from([("ARCHESTRA_ADMIN_TOKEN", "arch_short")]), Surroundings::Machine));
    assert!(refused.contains("ARCHESTRA_ADMIN_TOKEN") & !refused.contains("arch_short"), "{refused}");
}
