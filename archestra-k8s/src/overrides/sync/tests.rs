//! What changed or went is dropped from an override, and all else stays.

use super::*;
use archestra_core::catalog::{FieldType, FixedValue};

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        field_type: FieldType::String,
        secret: false,
        prompt: false,
        required: false,
        value: Some(FixedValue::Plain(value.to_owned())),
        default: None,
        description: None,
        mount: false,
    }
}

const YAML: &str = "\
# kept
spec:
  template:
    spec:
      containers:
      - name: mcp-server
        env:
        - name: A
          value: old
        # about B
        - {name: B, value: old}
        - name: OWN   # mine
          value: x
        image: localhost/x:1
      - name: side
        env: [{name: A, value: other}]
";

#[test]
fn what_changed_or_went_is_dropped_and_all_else_stays() {
    let before = [variable("A", "1"), variable("B", "1")];
    let after = [variable("A", "1"), variable("B", "2")];
    let synced = sync_env(YAML, &before, &after).unwrap();
    assert_eq!(synced, YAML.replace("        - {name: B, value: old}\n", ""));
    let synced = sync_env(YAML, &before, &[]).unwrap();
    let expected = YAML.replace("        - name: A\n          value: old\n", "");
    assert_eq!(synced, expected.replace("        - {name: B, value: old}\n", ""));
    assert_eq!(sync_env(YAML, &before, &before).unwrap(), YAML);
    assert_eq!(sync_env(YAML, &[], &before).unwrap(), YAML, "what was its own stays its own");
}

#[test]
fn an_empty_list_is_left_and_no_null() {
    let before = [variable("A", "1"), variable("B", "1"), variable("OWN", "1")];
    let synced = sync_env(YAML, &before, &[]).unwrap();
    assert!(synced.contains("        env: []\n"), "{synced}");
    let whole = "kind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n      - env:\n        - name: A\n          value: b\n        name: own\n";
    assert!(sync_env(whole, &before, &[]).unwrap().contains("- env: []\n        name: own"));
}

#[test]
fn what_cannot_be_cut_out_is_refused_with_its_line() {
    let flow = "spec:\n  template: {spec: {containers: [{name: mcp-server, env: [{name: A, value: b}]}]}}\n";
    let error = sync_env(flow, &[variable("A", "1")], &[]).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("the definition of A changed"), "{error}");
    assert!(sync_env("a: [", &[variable("A", "1")], &[]).is_err());
    assert_eq!(sync_env(flow, &[variable("X", "1")], &[]).unwrap(), flow);
}

#[test]
fn what_variables_come_from_no_more_is_dropped() {
    let yaml = "\
spec:
  template:
    spec:
      containers:
      - name: mcp-server
        envFrom:
        - secretRef: {name: shared}
        # the settings
        - prefix: APP_
          configMapRef: {name: shared}
        - configMapRef: {name: own}
";
    let source =
        |kind, prefix: Option<&str>| EnvFrom { kind, name: "shared".to_owned(), prefix: prefix.map(str::to_owned) };
    let secret = source(EnvFromKind::Secret, None);
    let settings = source(EnvFromKind::ConfigMap, Some("APP_"));
    let hosted = |sources: &[&EnvFrom]| SelfHosted {
        env_from: sources.iter().copied().cloned().collect(),
        ..SelfHosted::default()
    };
    let both = hosted(&[&secret, &settings]);
    assert_eq!(sync_overrides(yaml, &both, &both).unwrap(), yaml);
    let one = yaml.replace("        - secretRef: {name: shared}\n", "");
    assert_eq!(sync_overrides(yaml, &both, &hosted(&[&settings])).unwrap(), one);
    let none = one.replace("        - prefix: APP_\n          configMapRef: {name: shared}\n", "");
    assert_eq!(sync_overrides(yaml, &both, &hosted(&[])).unwrap(), none);
    let renamed = source(EnvFromKind::ConfigMap, Some("B_"));
    assert_eq!(sync_overrides(&one, &hosted(&[&settings]), &hosted(&[&renamed])).unwrap(), none);
    let flow = "spec: {template: {spec: {containers: [{name: mcp-server, envFrom: [{secretRef: {name: shared}}]}]}}}";
    let error = sync_overrides(flow, &both, &hosted(&[])).unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("the definition of shared changed"), "{error}");
}
