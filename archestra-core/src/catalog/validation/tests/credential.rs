//! Every finding about a credential model.

use super::{check, check_remote};
use crate::{
    Validate,
    catalog::{FixedValue, StaticField},
};
use serde_json::{Value, json};

#[track_caller]
fn check_credential(credential: Value, expected: &[&str]) {
    check_remote(json!({"credential": credential}), expected);
}

#[track_caller]
fn check_static(field: Value, expected: &[&str]) {
    let expected: Vec<_> = expected.iter().map(|field| format!("credential.static[0].{field}")).collect();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    check_credential(json!({"static": [field]}), &expected);
}

#[test]
fn static_fields_have_a_name_a_header_and_a_value_or_a_prompt() {
    check_static(json!({"name": "token", "header": "Authorization", "prefix": "Bearer "}), &[]);
    check_static(json!({"name": "api-key", "header": "x-api-key", "secret": false, "value": "v"}), &[]);
    check_static(json!({"name": "token", "header": "x-key", "value": "s3cret"}), &[]);
    for name in ["", "-a", "1a", "a.b", "a b", "ä"] {
        check_static(json!({"name": name, "header": "x-key"}), &["name"]);
    }
    for header in ["", "x key", "connection", "Mcp-Name", "Content-Type"] {
        check_static(json!({"name": "token", "header": header}), &["header"]);
    }
    check_static(json!({"name": "token", "header": "x-key", "prefix": "Bearer\n"}), &["prefix"]);
    check_static(json!({"name": "token", "header": "x-key", "prompt": true, "value": "s3cret"}), &["value"]);
    check_static(json!({"name": "token", "header": "x-key", "prompt": false}), &["value"]);
    check_static(json!({"name": "token", "header": "x-key", "value": "s3cret\r\nx: y"}), &["value"]);
    check_static(json!({"name": "t", "header": "x-key", "secret": false, "value": {"stored": true}}), &["value"]);
}

#[test]
fn a_secret_in_a_field_that_everybody_sees_is_refused() {
    let mut field: StaticField =
        serde_json::from_value(json!({"name": "t", "header": "h", "secret": false, "value": "v"})).unwrap();
    field.value = Some(FixedValue::Secret("s3cret".into()));
    assert_eq!(field.findings().len(), 1);
}

#[test]
fn static_fields_differ_in_name_and_header() {
    let fields =
        json!([{"name": "a", "header": "x-a"}, {"name": "a", "header": "x-b"}, {"name": "c", "header": "X-A"}]);
    check_credential(json!({"static": fields}), &["credential.static[1].name", "credential.static[2].header"]);
}

#[test]
fn oauth_is_discovered_or_given_whole() {
    let endpoints =
        json!({"authorizationEndpoint": "https://a.example/authorize", "tokenEndpoint": "https://a.example/token"});
    check_credential(json!({"oauth": endpoints}), &[]);
    check_credential(json!({"oauth": {"clientId": "a", "clientSecret": "s3cret", "scopes": ["x"]}}), &[]);
    for field in ["issuer", "resource"] {
        check_credential(json!({"oauth": {field: "a.example"}}), &[&format!("credential.oauth.{field}")]);
    }
    let both = json!({"authorizationEndpoint": "ftp://a.example", "tokenEndpoint": "nothing"});
    check_credential(
        json!({"oauth": both}),
        &["credential.oauth.authorizationEndpoint", "credential.oauth.tokenEndpoint"],
    );
    check_credential(
        json!({"oauth": {"tokenEndpoint": "https://a.example/t"}}),
        &["credential.oauth.authorizationEndpoint"],
    );
    check_credential(
        json!({"oauth": {"authorizationEndpoint": "https://a.example/a"}}),
        &["credential.oauth.tokenEndpoint"],
    );
    check_credential(json!({"oauth": {"clientSecret": "s3cret"}}), &["credential.oauth.clientId"]);
}

#[test]
fn an_access_token_goes_into_an_environment_that_has_room_for_it() {
    let hosted = json!({"command": ["x"], "env": [{"name": "TAKEN", "value": 1}]});
    let with = |name: &str| json!({"selfHosted": hosted, "credential": {"oauth": {"accessTokenEnv": name}}});
    check(with("TOKEN"), &[]);
    check(with("not a name"), &["credential.oauth.accessTokenEnv"]);
    check(with("TAKEN"), &["credential.oauth.accessTokenEnv"]);
    check_credential(json!({"oauth": {"accessTokenEnv": "TOKEN"}}), &["credential.oauth.accessTokenEnv"]);
}

#[test]
fn client_credentials_have_endpoints_and_a_client_that_proves_itself() {
    check_credential(json!({"clientCredentials": {}}), &[]);
    check_credential(json!({"clientCredentials": {"tokenEndpointAuth": "private_key_jwt", "clientId": "a"}}), &[]);
    let bad = json!({"tokenEndpoint": "x", "resource": "https://a.example/#f"});
    check_credential(
        json!({"clientCredentials": bad}),
        &["credential.clientCredentials.tokenEndpoint", "credential.clientCredentials.resource"],
    );
    check_credential(
        json!({"clientCredentials": {"tokenEndpointAuth": "none"}}),
        &["credential.clientCredentials.tokenEndpointAuth"],
    );
}

#[test]
fn an_exchanged_credential_goes_in_a_header() {
    check_credential(json!({"enterprise": {"strategy": "id-jag", "injection": "raw"}}), &[]);
    check_credential(
        json!({"enterprise": {"strategy": "id-jag", "resource": "x"}}),
        &["credential.enterprise.resource"],
    );
    let injection = json!({"strategy": "id-jag", "injection": {"header": "te"}});
    check_credential(json!({"enterprise": injection}), &["credential.enterprise.injection.header"]);
}
