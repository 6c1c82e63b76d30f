//! What Kubernetes would refuse is refused, in its words and with what to do.

use super::*;
use archestra_core::{catalog::EnvFromKind, testing::fixtures::workload_spec};

fn base() -> WorkloadSpec {
    workload_spec("server", &["npx"])
}

#[track_caller]
fn assert_refused(spec: &WorkloadSpec, field: &str, words: &str) {
    let findings = findings(spec, &KubernetesConfig::default());
    let found = findings.iter().any(|one| one.field == field && one.reason.contains(words) && !one.remedy.is_empty());
    assert!(found, "{field} {words:?} not in {findings:#?}");
}

fn env(name: &str, value: EnvValue) -> WorkloadSpec {
    WorkloadSpec { env: vec![WorkloadEnv { name: name.to_owned(), value }], ..base() }
}

#[test]
fn a_sound_workload_has_no_findings() {
    let pulls = vec![
        WorkloadPullSecret::Existing { name: "regcred.example".to_owned() },
        WorkloadPullSecret::Credentials {
            server: "https://index.docker.io/v1/".to_owned(),
            username: "robot$ci".to_owned(),
            password_key: "pull.x.y".to_owned(),
            email: Some("a@example.com".to_owned()),
        },
    ];
    let spec = WorkloadSpec {
        pull_secrets: pulls,
        run_as_user: Some(1000),
        ..env("API_KEY", EnvValue::Secret("API_KEY".to_owned()))
    };
    assert_eq!(findings(&spec, &KubernetesConfig::default()), []);
}

#[test]
fn images_and_commands() {
    let image = |image: &str| WorkloadSpec { image: Some(image.to_owned()), ..base() };
    assert_refused(&image("Node:20"), "selfHosted.image", "repository name must be lowercase");
    assert_refused(&image("a b"), "selfHosted.image", "couldn't parse image reference");
    assert_refused(&workload_spec("server", &[]), "selfHosted.command", "needs a command");
    assert_refused(&workload_spec("server", &[" "]), "selfHosted.command", "blank");
    assert_refused(&WorkloadSpec { args: vec!["a\0b".to_owned()], ..base() }, "selfHosted.args[0]", "NUL");
    assert_refused(&WorkloadSpec { args: vec!["x".repeat(MAX_TEXT + 1)], ..base() }, "selfHosted.args[0]", "Too long");
    assert_refused(&WorkloadSpec { args: vec!["x".repeat(100_000); 6], ..base() }, "selfHosted.args", "Too long");
}

#[test]
fn what_variables_come_from() {
    let from = |name: &str, prefix: Option<&str>| WorkloadSpec {
        env_from: vec![EnvFrom { kind: EnvFromKind::Secret, name: name.to_owned(), prefix: prefix.map(str::to_owned) }],
        ..base()
    };
    assert_eq!(findings(&from("shared.keys", Some("A_")), &KubernetesConfig::default()), []);
    for name in ["", "A", "../b", "a_b"] {
        assert_refused(&from(name, None), "selfHosted.envFrom[0].name", "a lowercase RFC 1123 subdomain must");
    }
    for name in ["mcp-0192d3b4c5d67e8f90a1b2c3d4e5f607", "mcp-shared-0192d3b4c5d67e8f90a1b2c3d4e5f607-bridge"] {
        assert_refused(&from(name, None), "selfHosted.envFrom[0].name", "belongs to a workload");
    }
    for prefix in ["", "1", "A-", "A.B"] {
        assert_refused(&from("a", Some(prefix)), "selfHosted.envFrom[0].prefix", "a valid C identifier must start");
    }
}

#[test]
fn variables() {
    for name in ["", "1A", "A-B", "A B", "ä"] {
        assert_refused(
            &env(name, EnvValue::Plain(String::new())),
            "selfHosted.env[0].name",
            "a valid C identifier must start with",
        );
    }
    assert_refused(&env("A", EnvValue::Plain("\0".to_owned())), "selfHosted.env[0].value", "NUL");
    assert_refused(
        &env("A", EnvValue::Secret("a/b".to_owned())),
        "selfHosted.env[0].name",
        "a valid config key must consist of",
    );
    let mut twice = env("A", EnvValue::Plain(String::new()));
    twice.env.push(twice.env[0].clone());
    assert_refused(&twice, "selfHosted.env[1].name", "Duplicate value: \"A\"");
}

#[test]
fn endpoints() {
    let http = |port, path: &str| WorkloadSpec {
        transport: WorkloadTransport::StreamableHttp { port, path: path.to_owned() },
        ..base()
    };
    assert_refused(&http(Some(0), "/mcp"), "selfHosted.port", "must be between 1 and 65535");
    for path in ["mcp", "/a b", "/a?b"] {
        assert_refused(&http(None, path), "selfHosted.path", "is not a path");
    }
}

#[test]
fn pull_secrets_and_identities() {
    let pull = |pull| WorkloadSpec { pull_secrets: vec![pull], ..base() };
    let existing = |name: &str| pull(WorkloadPullSecret::Existing { name: name.to_owned() });
    for name in ["", "Reg", "../x", "a_b", "-a"] {
        assert_refused(&existing(name), "selfHosted.imagePullSecrets[0].existing", "RFC 1123 subdomain");
    }
    let credentials = |server: &str, username: &str| {
        pull(WorkloadPullSecret::Credentials {
            server: server.to_owned(),
            username: username.to_owned(),
            password_key: "p".to_owned(),
            email: None,
        })
    };
    assert_refused(&credentials("a b", "u"), "selfHosted.imagePullSecrets[0].server", "is not a registry");
    assert_refused(&credentials("r", "u:p"), "selfHosted.imagePullSecrets[0].username", "is not a user");
    assert_refused(&WorkloadSpec { run_as_user: Some(0), ..base() }, "selfHosted.runAsUser", "must not run as root");
    assert_refused(
        &WorkloadSpec { run_as_user: Some(-1), ..base() },
        "selfHosted.runAsUser",
        "must be between 0 and 2147483647",
    );
    assert_refused(
        &WorkloadSpec { service_account: Some("A".to_owned()), ..base() },
        "selfHosted.serviceAccount",
        "RFC 1123",
    );
    assert_refused(
        &WorkloadSpec { service_account: Some("admin".to_owned()), ..base() },
        "selfHosted.serviceAccount",
        "may not run as",
    );
}

#[test]
fn policy_allows() {
    let mut config = KubernetesConfig::default();
    config.policy.allow.insert(Relaxation::Root);
    config.policy.service_accounts.insert("reader".to_owned());
    let spec = WorkloadSpec { run_as_user: Some(0), service_account: Some("reader".to_owned()), ..base() };
    assert_eq!(findings(&spec, &config), []);
}
