//! Precedence, the configuration file, refusals, help.

use super::{Command, DEFAULTS, Settings, parse, resolve, variable};
use crate::environment::Environment;
use std::path::PathBuf;

fn settings(arguments: &[&str]) -> Settings {
    match parse(["archestra"].iter().chain(arguments).copied()).unwrap() {
        Command::Serve(settings) => *settings,
        other => panic!("{other:?}"),
    }
}

fn refused(arguments: &[&str], environment: &Environment) -> String {
    resolve(settings(arguments), environment).unwrap_err().text().to_owned()
}

/// A configuration file that is removed at the end.
struct Config(PathBuf);

impl Config {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("archestra-flags-{}-{name}.yaml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let file = Config::new(
        "precedence",
        "listen: 127.0.0.1:1\nmetrics-listen: 127.0.0.1:1\ndataDir: /file\ncall-timeout: 5\nallowed-hosts: [a, b]\n",
    );
    let environment = Environment::from([
        ("ARCHESTRA_LISTEN", "127.0.0.1:2"),
        ("ARCHESTRA_METRICS_LISTEN", "127.0.0.1:2"),
        ("ARCHESTRA_DATA_DIR", ""),
    ]);
    let set = resolve(settings(&["--listen", "127.0.0.1:3", "--config", file.path()]), &environment).unwrap();
    assert_eq!(set.listen.unwrap().port(), 3);
    assert_eq!(set.metrics_listen.unwrap().0.unwrap().port(), 2);
    assert_eq!(set.data_dir.unwrap(), PathBuf::from("/file"));
    assert_eq!(set.call_timeout.unwrap().as_secs(), 5);
    assert_eq!(set.allowed_hosts.unwrap(), ["a", "b"]);
    assert_eq!(set.drain_timeout.unwrap().as_secs(), 30);
}

#[test]
fn the_file_may_be_named_by_its_variable_and_may_be_empty() {
    let file = Config::new("variable", "# nothing yet\n");
    let environment = Environment::from([("ARCHESTRA_CONFIG", file.path())]);
    assert!(resolve(settings(&[]), &environment).is_ok());
}

#[test]
fn what_cannot_be_used_is_named_with_its_source() {
    let file = Config::new("unknown", "listne: 1\n");
    let told = refused(&["--config", file.path()], &Environment::default());
    assert!(told.contains("there is no setting listne") && told.contains("listen, "), "{told}");
    let file = Config::new("value", "drain-timeout: soon\n");
    let told = refused(&["--config", file.path()], &Environment::default());
    assert!(
        told.ends_with(
            "value.yaml: drain-timeout: invalid value 'soon': use a number and a unit, as in `500ms`, `30s` or `5m`"
        ),
        "{told}"
    );
    let file = Config::new("yaml", "a: [1\n");
    assert!(refused(&["--config", file.path()], &Environment::default()).contains("not YAML at line"));
    let told = refused(&[], &Environment::from([("ARCHESTRA_RUNTIME", "docker")]));
    assert_eq!(told, "ARCHESTRA_RUNTIME: invalid value 'docker': use `auto`, `kubernetes`, `process` or `none`");
    assert!(refused(&["--config", "/does/not/exist"], &Environment::default()).contains("/does/not/exist"));
}

#[test]
fn a_password_in_a_flag_is_refused_and_not_repeated() {
    for url in ["postgres://archestra:hunter2@db/archestra", "postgres://db/archestra?user=a&password=hunter2"] {
        let told = refused(&["--database-url", url], &Environment::default());
        assert!(told.contains("ARCHESTRA_DATABASE_URL") && !told.contains("hunter2"), "{told}");
        assert!(resolve(settings(&[]), &Environment::from([("ARCHESTRA_DATABASE_URL", url)])).is_ok());
    }
}

#[test]
fn unsupported_choices_are_explained() {
    for (flags, expected) in [
        (["--secrets", "file"], "vault-readonly"),
        (["--workload-allow", "everything"], "host-path"),
        (["--body-limit", "1TB"], "4MiB"),
    ] {
        let error = parse(["archestra", flags[0], flags[1]]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn help_names_every_variable_and_default() {
    let help = parse(["archestra", "--help"]).unwrap_err().to_string();
    for (flag, default) in DEFAULTS {
        let line =
            help.lines().skip_while(|line| !line.contains(&format!("--{flag} "))).take(3).collect::<Vec<_>>().join(" ");
        assert!(
            line.contains(&format!("[env: {}]", variable(flag))) && line.contains(&format!("[default: {default}]")),
            "{flag}: {help}"
        );
    }
    assert!(!help.contains("supervise"));
}

#[test]
fn audit_records_are_kept_for_days_or_for_ever() {
    let kept = |flags: &[&str]| {
        let set = resolve(settings(flags), &Environment::default()).unwrap();
        set.audit_retention.unwrap().0.map(|kept| kept.as_secs() / 86_400)
    };
    assert_eq!(kept(&[]), Some(90));
    assert_eq!(kept(&["--audit-retention", "7"]), Some(7));
    assert_eq!(kept(&["--audit-retention", "0"]), None);
    for wrong in ["-1", "1h", "36501"] {
        assert!(parse(["archestra", &format!("--audit-retention={wrong}")]).is_err(), "{wrong}");
    }
}

#[test]
fn commands_are_told_apart() {
    assert!(matches!(parse(["archestra", "serve", "--listen", "127.0.0.1:1"]).unwrap(), Command::Serve(_)));
    assert!(
        matches!(parse(["archestra", "apply", "-f", "-", "--dry-run"]).unwrap(), Command::Apply(flags) if flags.dry_run)
    );
    assert!(matches!(parse(["archestra", "version"]).unwrap(), Command::Version));
    assert!(parse(["archestra", "apply", "-f", "x", "--prune"]).is_err(), "--prune needs --set");
    assert!(parse(["archestra", "appyl"]).is_err());
}
