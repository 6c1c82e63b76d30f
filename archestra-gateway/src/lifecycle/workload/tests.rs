//! Tests of `build_workload_spec` and of picking secrets.

use super::*;
use archestra_core::testing::fixtures::{bundle, self_hosted_entry};
use serde_json::json;

fn spec(hosted: serde_json::Value) -> EntrySpec {
    let mut spec = self_hosted_entry("My Server", &[]).spec;
    spec.self_hosted = Some(serde_json::from_value(hosted).unwrap());
    spec
}

fn full() -> EntrySpec {
    spec(json!({
        "image": "registry.example.com/server:1",
        "command": ["node", "server.js"],
        "args": ["--region=${user_config.REGION}", "${user_config.NOTHING}", "--port", "${archestra.http_port}", "${user_config.REGION", "${user_config.TOKEN}"],
        "transport": "streamable-http",
        "port": 3000,
        "env": [
            {"name": "LOG_LEVEL", "value": "info"},
            {"name": "REGION", "prompt": true, "default": "eu"},
            {"name": "NOTHING", "prompt": true},
            {"name": "TOKEN", "secret": true, "prompt": true, "required": true},
            {"name": "CERT", "secret": true, "prompt": true, "mount": true},
            {"name": "FIXED", "secret": true, "value": "f1xed"},
            {"name": "OPTIONAL", "secret": true, "prompt": true},
            {"name": "RETRIES", "type": "number", "default": 3}
        ],
        "envFrom": [{"type": "secret", "name": "shared-keys"}, {"type": "configMap", "name": "settings", "prefix": "APP_"}],
        "imagePullSecrets": [{"existing": "regcred"}, {"server": "registry.example.com", "username": "u", "password": "p4ss"}],
        "runAsUser": 1000
    }))
}

fn values() -> WorkloadValues {
    WorkloadValues {
        plain: [("REGION".to_owned(), "us ${user_config.TOKEN}".to_owned())].into(),
        secret: ["TOKEN".to_owned(), "CERT".to_owned()].into(),
        team: None,
    }
}

#[test]
fn everything_arrives_where_it_belongs() {
    let mut entry = full();
    entry.take_secrets();
    let platform = [("baseImage".to_owned(), "base:1".to_owned())].into();
    let built = build_workload_spec(&entry, &values(), &platform).unwrap();
    let expected = json!({
        "name": "my_server",
        "image": "registry.example.com/server:1",
        "command": ["node", "server.js"],
        // A value is filled in once: what looks like a placeholder in it stays text, and no secret gets into arguments.
        "args": ["--region=us ${user_config.TOKEN}", "", "--port", "${archestra.http_port}", "${user_config.REGION", ""],
        "env": [
            {"name": "LOG_LEVEL", "value": {"plain": "info"}},
            {"name": "REGION", "value": {"plain": "us ${user_config.TOKEN}"}},
            {"name": "TOKEN", "value": {"secret": "TOKEN"}},
            {"name": "CERT", "value": {"mounted": "CERT"}},
            {"name": "FIXED", "value": {"secret": "env.FIXED"}},
            {"name": "RETRIES", "value": {"plain": "3"}},
        ],
        "envFrom": [{"type": "secret", "name": "shared-keys"}, {"type": "configMap", "name": "settings", "prefix": "APP_"}],
        "transport": {"type": "streamable-http", "port": 3000, "path": "/mcp"},
        "exclusive": false,
        "pullSecrets": [
            {"existing": {"name": "regcred"}},
            {"credentials": {"server": "registry.example.com", "username": "u", "password_key": "pull.registry.example.com.u", "email": null}},
        ],
        "runAsUser": 1000,
        "platform": {"baseImage": "base:1"},
    });
    assert_eq!(serde_json::to_value(&built).unwrap(), expected);
}

#[test]
fn a_default_holds_when_nothing_is_given() {
    let built = build_workload_spec(&full(), &WorkloadValues::default(), &BTreeMap::new()).unwrap();
    assert_eq!(built.args[0], "--region=eu");
    assert!(built.env.iter().any(|var| var.name == "REGION" && var.value == EnvValue::Plain("eu".to_owned())));
    assert!(!built.env.iter().any(|var| var.name == "TOKEN"), "a secret without a value is left out");
}

#[test]
fn a_remote_server_has_no_workload() {
    let spec = archestra_core::testing::fixtures::entry_spec("remote");
    assert_eq!(build_workload_spec(&spec, &WorkloadValues::default(), &BTreeMap::new()), None);
}

#[test]
fn secrets_are_picked_by_key_and_missing_ones_are_named() {
    let built = build_workload_spec(&full(), &values(), &BTreeMap::new()).unwrap();
    let fixed = bundle(&[("env.FIXED", "f"), ("field.header", "h"), ("pull.registry.example.com.u", "p")]);
    let own = bundle(&[("TOKEN", "t"), ("UNUSED", "u")]);
    assert_eq!(pick_secrets(&built, &[fixed.clone(), own]).unwrap_err(), ["CERT"]);
    let own = bundle(&[("TOKEN", "t"), ("CERT", "c")]);
    let picked = pick_secrets(&built, &[fixed, own]).unwrap();
    assert_eq!(picked.keys().collect::<Vec<_>>(), ["CERT", "TOKEN", "env.FIXED", "pull.registry.example.com.u"]);
}

#[test]
fn a_sample_has_a_value_of_the_right_type_for_every_field() {
    let spec = full();
    let sample = WorkloadValues::sample(&spec);
    for field in install_fields(&spec) {
        let there =
            if field.secret { sample.secret.contains(&field.name) } else { sample.plain.contains_key(&field.name) };
        assert!(there, "{} has no sample", field.name);
    }
}

#[test]
fn names_and_platform_values_make_no_difference_to_what_runs() {
    let a = build_workload_spec(&full(), &values(), &BTreeMap::new()).unwrap();
    let mut b = a.clone();
    b.name = "renamed".to_owned();
    b.platform.insert("baseImage".to_owned(), "base:2".to_owned());
    b.namespace = Some("elsewhere".to_owned());
    assert!(same_workload(&a, &b));
    b.args.push("--more".to_owned());
    assert!(!same_workload(&a, &b));
}
