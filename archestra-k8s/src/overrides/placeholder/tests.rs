//! Placeholders are filled where they stand, and never as YAML.

use super::*;
use crate::{config::KubernetesConfig, platform::Platform};
use archestra_core::{
    runtime::{WorkloadEnv, WorkloadSpec},
    testing::fixtures::{workload, workload_spec},
};

fn filled(yaml: &str) -> Result<Value, Vec<Finding>> {
    filled_with(yaml, Variables::All)
}

fn filled_with(yaml: &str, variables: Variables) -> Result<Value, Vec<Finding>> {
    let spec = WorkloadSpec {
        args: vec!["a b".to_owned(), "$(X)".to_owned()],
        env: vec![
            WorkloadEnv { name: "P".to_owned(), value: EnvValue::Plain("x: [y]\n$(Z)".to_owned()) },
            WorkloadEnv { name: "S".to_owned(), value: EnvValue::Secret("env.S".to_owned()) },
        ],
        ..workload_spec("server", &["run", "it"])
    };
    let workload = workload(spec);
    let config = KubernetesConfig::default();
    let platform = Platform::stored(&workload.spec.platform, &config).unwrap();
    let cx = Context {
        workload: &workload,
        config: &config,
        platform,
        namespace: "servers",
        key: crate::manifest::Key::None,
        variables,
    };
    let mut node = Node::parse(yaml).unwrap();
    let findings = Values::of(&cx).fill(&mut node);
    if findings.is_empty() { Ok(node.to_value()) } else { Err(findings) }
}

#[test]
fn values_are_data_and_not_yaml() {
    let value = filled("annotations: {a: '${env.P}', b: 'in ${archestra.namespace}', c: '${env.UNKNOWN}'}").unwrap();
    assert_eq!(value["annotations"], json!({"a": "x: [y]\n$(Z)", "b": "in servers", "c": ""}));
}

#[test]
fn values_are_escaped_where_kubernetes_expands() {
    let value =
        filled("env: [{name: A, value: '${env.P} $(OWN)'}]\nargs: ['${env.P}']\ncommand: ['$HOME', '${HOME}']\n")
            .unwrap();
    assert_eq!(value["env"][0]["value"], "x: [y]\n$$(Z) $(OWN)");
    assert_eq!(value["args"][0], "x: [y]\n$$(Z)");
    assert_eq!(value["command"], json!(["$HOME", "${HOME}"]));
}

#[test]
fn commands_and_arguments_are_lists() {
    let value = filled("command: ${archestra.command}\nargs: [first, '${archestra.arguments}', last]\nannotations: {a: 'runs ${archestra.command}'}").unwrap();
    assert_eq!(value["command"], json!(["run", "it"]));
    assert_eq!(value["args"], json!(["first", "a b", "$$(X)", "last"]));
    assert_eq!(value["annotations"]["a"], "runs [\"run\",\"it\"]");
}

#[test]
fn a_secret_becomes_a_reference_and_nothing_else() {
    let value = filled("env: [{name: A, value: '${secret.S}'}]").unwrap();
    let reference = &value["env"][0]["valueFrom"]["secretKeyRef"];
    assert_eq!(reference["key"], "env.S");
    assert!(reference["name"].as_str().unwrap().starts_with("mcp-"));
    for yaml in
        ["env: [{name: A, value: 'x${secret.S}'}]", "args: ['${secret.S}']", "a: '${env.S}'", "a: '${archestra.x}'"]
    {
        assert_eq!(filled(yaml).unwrap_err().len(), 1, "{yaml}");
    }
}

#[test]
fn a_secret_that_was_left_blank_is_no_variable() {
    let yaml = "env: [{name: A, value: '${secret.OPTIONAL}'}, {name: B, value: '${secret.S}'}]";
    let refused = filled_with(yaml, Variables::All).unwrap_err();
    assert!(refused[0].reason.contains("no secret variable OPTIONAL"), "{refused:?}");
    let value = filled_with(yaml, Variables::Given).unwrap();
    let reference = json!({"name": "B", "valueFrom": value["env"][0]["valueFrom"]});
    assert_eq!(value["env"], json!([reference]));
    assert!(filled_with("env: [{name: A, value: 'x ${secret.OPTIONAL}'}]", Variables::Given).is_err());
    assert!(filled_with("annotations: {a: '${secret.OPTIONAL}'}", Variables::Given).is_err());
}
