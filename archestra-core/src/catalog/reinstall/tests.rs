//! What each kind of change asks of an installation, one test for each.

use super::{FixedSecrets, Reinstall, ReinstallReason, reinstall};
use crate::catalog::EntrySpec;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NOTHING: Reinstall = Reinstall::Nothing;
const AUTOMATIC: Reinstall = Reinstall::Automatic;

fn new_input(names: &[&str]) -> Reinstall {
    Reinstall::Required(ReinstallReason::NewInput(names.iter().map(|&name| name.to_owned()).collect()))
}

fn type_changed(names: &[&str]) -> Reinstall {
    Reinstall::Required(ReinstallReason::TypeChanged(names.iter().map(|&name| name.to_owned()).collect()))
}

/// A self-hosted server that installations gave `REGION` and `KEY`, and could have given `ZONE`.
fn hosted() -> Value {
    json!({
        "name": "tracker",
        "selfHosted": {
            "image": "registry.example.com/tracker:1",
            "command": ["tracker"],
            "args": ["serve"],
            "transport": "streamable-http",
            "port": 8080,
            "path": "/mcp",
            "env": [
                {"name": "LOG_LEVEL", "value": "info"},
                {"name": "TOKEN", "secret": true, "value": {"stored": true}},
                {"name": "REGION", "prompt": true, "required": true},
                {"name": "KEY", "prompt": true, "secret": true},
                {"name": "ZONE", "prompt": true},
                {"name": "LIMIT", "prompt": true, "default": "10"},
            ],
            "imagePullSecrets": [{"existing": "regcred"}, {"server": "r.example.com", "username": "u", "password": {"stored": true}}],
            "deploymentYaml": "spec: {replicas: 1}",
        },
        "additionalHeaders": [{"name": "x-tenant", "value": "acme"}, {"name": "x-region", "prompt": true}],
        "labels": {"department": "finance"},
    })
}

fn remote() -> Value {
    json!({
        "name": "tracker",
        "remote": {"url": "https://mcp.example.com/mcp"},
        "credential": {"static": [
            {"name": "token", "header": "Authorization", "prefix": "Bearer ", "required": true},
            {"name": "account", "header": "x-account", "secret": false},
        ]},
    })
}

fn spec(value: Value) -> EntrySpec {
    serde_json::from_value(value).unwrap()
}

#[track_caller]
fn judge(before: Value, given: &[&str], change: impl FnOnce(&mut Value)) -> Reinstall {
    let mut after = before.clone();
    change(&mut after);
    assert_ne!(before, after, "the change changes nothing");
    let given: BTreeSet<String> = given.iter().map(|&name| name.to_owned()).collect();
    reinstall(&spec(before), &spec(after), &given, FixedSecrets::Unchanged)
}

#[track_caller]
fn of_hosted(change: impl FnOnce(&mut Value)) -> Reinstall {
    judge(hosted(), &["REGION", "KEY"], change)
}

/// Of a change to the self-hosted server alone.
#[track_caller]
fn of_server(change: impl FnOnce(&mut Value)) -> Reinstall {
    of_hosted(|entry| change(&mut entry["selfHosted"]))
}

#[track_caller]
fn of_env(change: impl FnOnce(&mut Vec<Value>)) -> Reinstall {
    of_server(|server| change(server["env"].as_array_mut().unwrap()))
}

#[track_caller]
fn of_remote(change: impl FnOnce(&mut Value)) -> Reinstall {
    judge(remote(), &["token"], change)
}

#[test]
fn an_entry_that_did_not_change_asks_for_nothing() {
    for (entry, given) in [(hosted(), vec!["REGION", "KEY"]), (remote(), vec!["token"])] {
        let given = given.into_iter().map(str::to_owned).collect();
        assert_eq!(reinstall(&spec(entry.clone()), &spec(entry), &given, FixedSecrets::Unchanged), NOTHING);
    }
}

#[test]
fn metadata_asks_for_nothing() {
    for field in ["description", "instructions", "docsUrl", "repository", "icon", "version"] {
        assert_eq!(of_hosted(|entry| entry[field] = json!("https://example.com")), NOTHING, "{field}");
        assert_eq!(of_remote(|entry| entry[field] = json!("https://example.com")), NOTHING, "{field}");
    }
    assert_eq!(of_hosted(|entry| entry["callTimeout"] = json!(30)), NOTHING);
}

#[test]
fn a_rename_asks_for_nothing() {
    assert_eq!(of_hosted(|entry| entry["name"] = json!("other")), NOTHING);
    assert_eq!(of_remote(|entry| entry["name"] = json!("other")), NOTHING);
}

#[test]
fn labels_ask_for_nothing() {
    assert_eq!(of_hosted(|entry| entry["labels"] = json!({"department": "legal"})), NOTHING);
}

#[test]
fn a_new_optional_field_asks_for_nothing() {
    assert_eq!(of_env(|env| env.push(json!({"name": "NEW", "prompt": true}))), NOTHING);
    let field = json!({"name": "new", "header": "x-new", "required": false});
    assert_eq!(of_remote(|entry| entry["credential"]["static"].as_array_mut().unwrap().push(field)), NOTHING);
    let header = json!({"name": "x-new", "prompt": true});
    assert_eq!(of_hosted(|entry| entry["additionalHeaders"].as_array_mut().unwrap().push(header)), NOTHING);
}

#[test]
fn required_to_optional_asks_for_nothing() {
    assert_eq!(of_env(|env| env[2]["required"] = json!(false)), NOTHING);
    assert_eq!(of_remote(|entry| entry["credential"]["static"][0]["required"] = json!(false)), NOTHING);
}

#[test]
fn what_only_the_next_prompt_shows_asks_for_nothing() {
    assert_eq!(of_env(|env| env[2]["description"] = json!("where")), NOTHING);
    assert_eq!(of_env(|env| env[2]["default"] = json!("eu")), NOTHING, "a value was given");
    assert_eq!(
        of_remote(|entry| entry["credential"]["static"][0]["description"] = json!("from your profile")),
        NOTHING
    );
    assert_eq!(of_hosted(|entry| entry["additionalHeaders"][1]["description"] = json!("where")), NOTHING);
}

#[test]
fn the_order_of_fields_asks_for_nothing() {
    assert_eq!(of_env(|env| env.reverse()), NOTHING);
    assert_eq!(of_server(|server| server["imagePullSecrets"].as_array_mut().unwrap().reverse()), NOTHING);
    assert_eq!(of_hosted(|entry| entry["additionalHeaders"].as_array_mut().unwrap().reverse()), NOTHING);
    assert_eq!(of_remote(|entry| entry["credential"]["static"].as_array_mut().unwrap().reverse()), NOTHING);
}

#[test]
fn a_new_required_field_asks_for_it() {
    let required = json!({"name": "NEW", "prompt": true, "required": true});
    assert_eq!(of_env(|env| env.push(required)), new_input(&["NEW"]));
    let field = json!({"name": "new", "header": "x-new", "required": true});
    assert_eq!(
        of_remote(|entry| entry["credential"]["static"].as_array_mut().unwrap().push(field)),
        new_input(&["new"])
    );
    let header = json!({"name": "x-new", "prompt": true, "required": true});
    assert_eq!(
        of_hosted(|entry| entry["additionalHeaders"].as_array_mut().unwrap().push(header)),
        new_input(&["x-new"])
    );
}

#[test]
fn new_client_credentials_ask_for_what_the_entry_does_not_fix() {
    let credential =
        |config: Value| move |entry: &mut Value| entry["credential"] = json!({"clientCredentials": config});
    assert_eq!(of_remote(credential(json!({}))), new_input(&["clientId", "clientSecret"]));
    assert_eq!(of_remote(credential(json!({"clientId": "a"}))), new_input(&["clientSecret"]));
    assert_eq!(of_remote(credential(json!({"clientId": "a", "clientSecret": {"stored": true}}))), AUTOMATIC);
    assert_eq!(of_remote(credential(json!({"clientId": "a", "tokenEndpointAuth": "private_key_jwt"}))), AUTOMATIC);
}

#[test]
fn a_new_required_field_with_a_default_applies_by_itself() {
    let required = json!({"name": "NEW", "prompt": true, "required": true, "default": "x"});
    assert_eq!(of_env(|env| env.push(required)), AUTOMATIC);
}

#[test]
fn a_default_that_holds_applies_by_itself() {
    assert_eq!(of_env(|env| env[5]["default"] = json!("20")), AUTOMATIC);
    assert_eq!(of_env(|env| env[4]["default"] = json!("a")), AUTOMATIC);
    assert_eq!(
        judge(hosted(), &["REGION", "LIMIT"], |entry| entry["selfHosted"]["env"][5]["default"] = json!("20")),
        NOTHING
    );
}

#[test]
fn optional_to_required_asks_unless_a_value_is_stored() {
    assert_eq!(of_env(|env| env[3]["required"] = json!(true)), NOTHING);
    assert_eq!(of_env(|env| env[4]["required"] = json!(true)), new_input(&["ZONE"]));
    assert_eq!(of_remote(|entry| entry["credential"]["static"][1]["required"] = json!(true)), new_input(&["account"]));
}

#[test]
fn a_changed_type_asks_for_the_field_again() {
    assert_eq!(of_env(|env| env[2]["type"] = json!("number")), type_changed(&["REGION"]));
    assert_eq!(of_env(|env| env[4]["type"] = json!("number")), NOTHING, "nothing is stored for it");
    assert_eq!(of_env(|env| env[5]["type"] = json!("number")), NOTHING, "the default fits both");
    assert_eq!(of_env(|env| env[0]["type"] = json!("string")), NOTHING);
}

#[test]
fn a_field_that_turns_secret_or_back_asks_for_it_again() {
    assert_eq!(of_env(|env| env[2]["secret"] = json!(true)), type_changed(&["REGION"]));
    assert_eq!(of_env(|env| env[3]["secret"] = json!(false)), type_changed(&["KEY"]));
    assert_eq!(of_env(|env| env[4]["secret"] = json!(true)), NOTHING, "nothing is stored for it");
    let flip = |entry: &mut Value| entry["credential"]["static"][0]["secret"] = json!(false);
    assert_eq!(of_remote(flip), type_changed(&["token"]));
}

#[test]
fn a_fixed_value_that_turns_secret_applies_by_itself() {
    let secret = json!({"name": "LOG_LEVEL", "secret": true, "value": {"stored": true}});
    assert_eq!(of_env(|env| env[0] = secret), AUTOMATIC);
}

#[test]
fn a_removed_prompted_field_applies_by_itself() {
    assert_eq!(of_env(|env| drop(env.remove(2))), AUTOMATIC);
    assert_eq!(of_env(|env| drop(env.remove(4))), NOTHING, "nothing was given for it");
    assert_eq!(of_remote(|entry| entry["credential"] = json!("none")), AUTOMATIC);
}

#[test]
fn a_prompted_field_that_is_fixed_applies_by_itself_and_the_reverse_asks() {
    assert_eq!(of_env(|env| env[2] = json!({"name": "REGION", "value": "eu"})), AUTOMATIC);
    let prompted = json!({"name": "LOG_LEVEL", "prompt": true, "required": true});
    assert_eq!(of_env(|env| env[0] = prompted), new_input(&["LOG_LEVEL"]));
    assert_eq!(of_env(|env| env[0] = json!({"name": "LOG_LEVEL", "prompt": true})), AUTOMATIC);
}

#[test]
fn what_is_run_applies_by_itself() {
    for (field, value) in [
        ("command", json!(["tracker", "--verbose"])),
        ("args", json!(["serve", "--all"])),
        ("image", json!("registry.example.com/tracker:2")),
        ("port", json!(9090)),
        ("path", json!("/")),
        ("deploymentYaml", json!("spec: {replicas: 2}")),
        ("serviceAccount", json!("reader")),
        ("runAsUser", json!(1000)),
        ("imagePullSecrets", json!([{"existing": "other"}])),
        ("transport", json!("stdio")),
        ("envFrom", json!([{"type": "configMap", "name": "settings"}, {"type": "secret", "name": "shared"}])),
    ] {
        assert_eq!(of_server(|server| server[field] = value), AUTOMATIC, "{field}");
    }
    for (field, value) in [("toolConcurrency", json!("exclusive")), ("sharedDeployment", json!(true))] {
        assert_eq!(of_hosted(|entry| entry[field] = value), AUTOMATIC, "{field}");
    }
    let moved = |entry: &mut Value| {
        entry["remote"] = json!({"url": "https://mcp.example.com"});
        entry["selfHosted"] = Value::Null;
    };
    assert_eq!(of_hosted(moved), AUTOMATIC);
}

#[test]
fn what_variables_come_from_applies_by_itself() {
    let of_sources = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut before = hosted();
        before["selfHosted"]["envFrom"] =
            json!([{"type": "configMap", "name": "settings", "prefix": "A_"}, {"type": "secret", "name": "shared"}]);
        judge(before, &["REGION"], |entry| change(entry["selfHosted"]["envFrom"].as_array_mut().unwrap()))
    };
    assert_eq!(of_sources(&|all| drop(all.pop())), AUTOMATIC);
    assert_eq!(of_sources(&|all| all[0]["prefix"] = json!("B_")), AUTOMATIC);
    assert_eq!(of_sources(&|all| all[1]["type"] = json!("configMap")), AUTOMATIC);
    assert_eq!(of_sources(&|all| all.reverse()), AUTOMATIC, "the last one wins where they say the same");
}

#[test]
fn a_fixed_value_applies_by_itself() {
    assert_eq!(of_env(|env| env[0]["value"] = json!("debug")), AUTOMATIC);
    assert_eq!(of_env(|env| drop(env.remove(0))), AUTOMATIC);
    assert_eq!(of_env(|env| env.push(json!({"name": "NEW", "value": 1}))), AUTOMATIC);
    assert_eq!(of_env(|env| env.push(json!({"name": "NEW"}))), NOTHING, "it has no value");
    assert_eq!(of_hosted(|entry| entry["additionalHeaders"][0]["value"] = json!("other")), AUTOMATIC);
}

#[test]
fn a_flipped_mount_applies_by_itself() {
    assert_eq!(of_env(|env| env[1]["mount"] = json!(true)), AUTOMATIC);
    assert_eq!(of_env(|env| env[3]["mount"] = json!(true)), AUTOMATIC);
}

#[test]
fn another_header_or_prefix_applies_by_itself() {
    assert_eq!(of_remote(|entry| entry["credential"]["static"][0]["header"] = json!("x-token")), AUTOMATIC);
    assert_eq!(of_remote(|entry| entry["credential"]["static"][0]["prefix"] = json!("Token ")), AUTOMATIC);
    assert_eq!(of_hosted(|entry| entry["additionalHeaders"][0]["name"] = json!("x-account")), AUTOMATIC);
}

#[test]
fn oauth_added_or_removed_asks_for_a_person() {
    let oauth =
        json!({"name": "tracker", "remote": {"url": "https://mcp.example.com/mcp"}, "credential": {"oauth": {}}});
    let added = of_remote(|entry| entry["credential"] = json!({"oauth": {}}));
    assert_eq!(added, Reinstall::Required(ReinstallReason::OAuthAdded));
    let removed = judge(oauth.clone(), &[], |entry| entry["credential"] = json!("none"));
    assert_eq!(removed, Reinstall::Required(ReinstallReason::OAuthRemoved));
    let scopes = judge(oauth, &[], |entry| entry["credential"] = json!({"oauth": {"scopes": ["read"]}}));
    assert_eq!(scopes, AUTOMATIC);
}

#[test]
fn a_rotated_secret_of_the_entry_applies_by_itself() {
    let given = ["REGION".to_owned(), "KEY".to_owned()].into();
    assert_eq!(reinstall(&spec(hosted()), &spec(hosted()), &given, FixedSecrets::Changed), AUTOMATIC);
}

#[test]
fn another_url_applies_by_itself() {
    assert_eq!(of_remote(|entry| entry["remote"]["url"] = json!("https://other.example.com/mcp")), AUTOMATIC);
}

#[test]
fn what_a_person_must_give_comes_before_what_applies_by_itself() {
    let change = |entry: &mut Value| {
        entry["selfHosted"]["image"] = json!("registry.example.com/tracker:2");
        entry["selfHosted"]["env"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "NEW", "prompt": true, "required": true}));
    };
    assert_eq!(of_hosted(change), new_input(&["NEW"]));
}

#[test]
fn an_edit_while_input_is_missing_still_asks_for_it() {
    let pending = |entry: &mut Value| entry["description"] = json!("new");
    assert_eq!(judge(hosted(), &["KEY"], pending), new_input(&["REGION"]));
}
