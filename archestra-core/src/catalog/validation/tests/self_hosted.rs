//! Every finding about a self-hosted server and its environment.

use super::check;
use serde_json::{Value, json};

#[track_caller]
fn check_hosted(fields: Value, expected: &[&str]) {
    let mut hosted = json!({"command": ["server"]});
    hosted.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let expected: Vec<_> = expected.iter().map(|field| format!("selfHosted.{field}")).collect();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    check(json!({"selfHosted": hosted}), &expected);
}

#[track_caller]
fn check_env(var: Value, expected: &[&str]) {
    let expected: Vec<_> = expected.iter().map(|field| format!("env[0].{field}")).collect();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    check_hosted(json!({"env": [var]}), &expected);
}

#[test]
fn there_is_something_to_run() {
    check_hosted(json!({"command": []}), &["command"]);
    check_hosted(json!({"command": [], "image": "localhost/mcp-node:1"}), &[]);
    check_hosted(json!({"command": ["", "x"]}), &["command"]);
    check_hosted(json!({"command": ["a", "b\0"]}), &["command[1]"]);
    check_hosted(json!({"args": ["a", "b\0"]}), &["args[1]"]);
    for image in ["", "a b", "a\n", &"i".repeat(513)] {
        check_hosted(json!({"image": image}), &["image"]);
    }
}

#[test]
fn only_http_has_a_port_and_a_path() {
    check_hosted(json!({"port": 8080, "path": "/mcp"}), &["port", "path"]);
    let http = |port: u16, path: &str| json!({"transport": "streamable-http", "port": port, "path": path});
    check_hosted(http(8080, "/mcp"), &[]);
    check_hosted(http(0, "/"), &["port"]);
    for path in ["", "mcp", "/a b", "/a?b", "/a#b", "/a\n"] {
        check_hosted(http(8080, path), &["path"]);
    }
}

#[test]
fn arguments_hold_plain_values_that_are_there() {
    let env = json!([{"name": "REGION", "prompt": true}, {"name": "KEY", "secret": true, "prompt": true}]);
    check_hosted(
        json!({"env": env, "args": ["--region=${user_config.REGION}", "${archestra.http_port}", "$(X)"]}),
        &[],
    );
    check_hosted(json!({"env": env, "args": ["a", "${user_config.KEY}"]}), &["args[1]"]);
    check_hosted(json!({"env": env, "args": ["${user_config.NONE}-${user_config.KEY}"]}), &["args[0]", "args[0]"]);
    check_hosted(json!({"env": env, "command": ["x", "${user_config.REGION}"]}), &["command[1]"]);
}

#[test]
fn sources_of_variables_are_named_once_and_make_names() {
    let from = |sources: Value| json!({"envFrom": sources});
    let secret = json!({"type": "secret", "name": "shared.keys"});
    let map = json!({"type": "configMap", "name": "shared.keys", "prefix": "APP_"});
    check_hosted(from(json!([secret, map])), &[]);
    let again = json!({"type": "configMap", "name": "shared.keys", "prefix": "_b2"});
    check_hosted(from(json!([map, again])), &[]);
    check_hosted(from(json!([map, secret, map])), &["envFrom[2]"]);
    for name in ["", "A", "a/b", "-a", "a_b", "../a", &"a".repeat(254)] {
        check_hosted(from(json!([secret, {"type": "secret", "name": name}])), &["envFrom[1].name"]);
    }
    for prefix in ["", "1A", "A-", "A.", "A=", "Ä", &"A".repeat(129)] {
        check_hosted(from(json!([{"type": "configMap", "name": "a", "prefix": prefix}])), &["envFrom[0].prefix"]);
    }
    let many: Vec<_> = (0..33).map(|n| json!({"type": "secret", "name": format!("s{n}")})).collect();
    check_hosted(from(json!(many)), &["envFrom"]);
    check_hosted(from(json!(many[1..])), &[]);
}

#[test]
fn pull_secrets_are_named_or_whole_and_there_once() {
    let pulls = |pulls: Value| json!({"imagePullSecrets": pulls});
    let full = json!({"server": "registry.example.com:5000", "username": "u", "password": "s3cret"});
    check_hosted(pulls(json!([{"existing": "regcred"}, full])), &[]);
    for name in ["", " ", "Reg", "-a", "a..b", "a/b", &"a".repeat(254)] {
        check_hosted(pulls(json!([{"existing": name}])), &["imagePullSecrets[0].existing"]);
    }
    let blank = json!({"server": " ", "username": "", "password": "s3cret"});
    check_hosted(pulls(json!([blank])), &["imagePullSecrets[0].server", "imagePullSecrets[0].username"]);
    let without = json!({"server": "registry.example.com", "username": "u"});
    check_hosted(pulls(json!([without])), &["imagePullSecrets[0].password"]);
    check_hosted(pulls(json!([full, {"existing": "a"}, full])), &["imagePullSecrets[2]"]);
}

#[test]
fn what_kubernetes_is_told_has_its_forms() {
    check_hosted(json!({"serviceAccount": "mcp-reader", "runAsUser": 0}), &[]);
    check_hosted(json!({"serviceAccount": "MCP"}), &["serviceAccount"]);
    check_hosted(json!({"runAsUser": -1}), &["runAsUser"]);
    check_hosted(json!({"runAsUser": 2_147_483_648_i64}), &["runAsUser"]);
}

#[test]
fn an_override_is_a_yaml_mapping() {
    check_hosted(json!({"deploymentYaml": "spec: {template: {spec: {nodeSelector: {disk: ssd}}}}\n"}), &[]);
    for yaml in ["", "- a\n", "text", "spec: [", "a: 1\na: 2\n", "spec:\n\t- a"] {
        check_hosted(json!({"deploymentYaml": yaml}), &["deploymentYaml"]);
    }
}

#[test]
fn variables_are_named_once_and_as_the_system_allows() {
    for name in ["A", "_a1", "API_KEY"] {
        check_env(json!({"name": name, "value": "v"}), &[]);
    }
    for name in ["", "1A", "A-B", "A B", "A=B", "Ä", "A\0", &"A".repeat(257)] {
        check_env(json!({"name": name, "value": "v"}), &["name"]);
    }
    check_hosted(json!({"env": [{"name": "A"}, {"name": "B"}, {"name": "A"}]}), &["env[2].name"]);
}

#[test]
fn variables_are_fixed_or_prompted_and_of_their_type() {
    check_env(json!({"name": "A", "prompt": true, "required": true, "default": "x"}), &[]);
    check_env(json!({"name": "A", "required": true, "default": "x"}), &[]);
    check_env(json!({"name": "A", "prompt": true, "value": "x"}), &["value"]);
    check_env(json!({"name": "A", "required": true}), &["value"]);
    for (kind, good, bad) in [("number", json!(5), json!("five")), ("boolean", json!(true), json!("yes"))] {
        check_env(json!({"name": "A", "type": kind, "value": good}), &[]);
        check_env(json!({"name": "A", "type": kind, "value": bad}), &["value"]);
        check_env(json!({"name": "A", "type": kind, "prompt": true, "default": good}), &[]);
        check_env(json!({"name": "A", "type": kind, "prompt": true, "default": bad}), &["default"]);
    }
    for nothing in ["inf", "NaN", ""] {
        check_env(json!({"name": "A", "type": "number", "value": nothing}), &["value"]);
    }
    check_env(json!({"name": "A", "value": "a\0b"}), &["value"]);
    check_env(json!({"name": "A", "prompt": true, "default": "a\0b"}), &["default"]);
}

#[test]
fn secrets_are_never_where_everybody_sees_them() {
    check_env(json!({"name": "A", "secret": true, "value": "s3cret", "mount": true}), &[]);
    check_env(json!({"name": "A", "secret": true, "value": {"stored": true}}), &[]);
    check_env(json!({"name": "A", "secret": true, "prompt": true, "default": "s3cret"}), &["default"]);
    check_env(
        json!({"name": "A", "secret": true, "type": "number", "prompt": true, "default": "s3cret"}),
        &["default", "default"],
    );
    check_env(json!({"name": "A", "secret": true, "type": "number", "value": "s3cret"}), &["value"]);
    check_env(json!({"name": "A", "value": {"stored": true}}), &["value"]);
    check_env(json!({"name": "A", "value": "x", "mount": true}), &["mount"]);
}
