//! What an installation is asked for, and what it may answer.

#![expect(clippy::needless_pass_by_value, reason = "tables read best with their values in place")]

use super::{CredentialHealth, check_values, install_fields};
use crate::catalog::EntrySpec;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn hosted(env: Value) -> EntrySpec {
    serde_json::from_value(
        json!({"name": "a", "selfHosted": {"command": ["x"], "transport": "streamable-http", "env": env}}),
    )
    .unwrap()
}

fn remote(credential: Value, headers: Value) -> EntrySpec {
    serde_json::from_value(json!({"name": "a", "remote": {"url": "https://a.example"}, "credential": credential, "additionalHeaders": headers})).unwrap()
}

/// The plain values and secret names that come of it, or the findings' fields and reasons.
#[track_caller]
fn given(spec: &EntrySpec, values: &[(&str, &str)], kept: &[&str]) -> Result<(Value, Vec<String>), Vec<String>> {
    let kept: BTreeSet<String> = kept.iter().map(|&name| name.to_owned()).collect();
    match check_values(spec, values.iter().map(|&(name, value)| (name.to_owned(), value.into())), &kept) {
        Ok(values) => Ok((json!(values.plain), values.secret.keys().map(str::to_owned).collect())),
        Err(findings) => {
            for finding in &findings {
                assert!(!finding.reason.trim().is_empty() && !finding.remedy.trim().is_empty(), "{finding:?}");
                assert!(!finding.to_string().contains("s3cret"), "{finding}");
            }
            Err(findings.into_iter().map(|finding| finding.field).collect())
        }
    }
}

#[track_caller]
fn accepted(spec: &EntrySpec, values: &[(&str, &str)], plain: Value, secret: &[&str]) {
    assert_eq!(given(spec, values, &[]), Ok((plain, secret.iter().map(|&name| name.to_owned()).collect())));
}

#[track_caller]
fn refused(spec: &EntrySpec, values: &[(&str, &str)], fields: &[&str]) {
    assert_eq!(given(spec, values, &[]), Err(fields.iter().map(|&field| format!("values.{field}")).collect()));
}

#[test]
fn an_installation_is_asked_for_what_the_entry_prompts() {
    let spec: EntrySpec = serde_json::from_value(json!({
        "name": "a",
        "selfHosted": {"command": ["x"], "transport": "streamable-http", "env": [
            {"name": "FIXED", "value": 1},
            {"name": "KEY", "secret": true, "prompt": true, "required": true, "description": "from your profile"},
            {"name": "LIMIT", "type": "number", "prompt": true, "required": true, "default": 10},
        ]},
        "credential": {"static": [{"name": "token", "header": "x-token"}, {"name": "fixed", "header": "x-fixed", "value": "s3cret"}]},
        "additionalHeaders": [{"name": "x-tenant", "prompt": true, "required": true}, {"name": "x-version", "value": "2"}],
    }))
    .unwrap();
    let expected = json!([
        {"name": "KEY", "type": "string", "secret": true, "required": true, "description": "from your profile"},
        {"name": "LIMIT", "type": "number", "secret": false, "required": false, "default": "10"},
        {"name": "token", "type": "string", "secret": true, "required": false},
        {"name": "x-tenant", "type": "string", "secret": false, "required": true},
    ]);
    assert_eq!(serde_json::to_value(install_fields(&spec)).unwrap(), expected);
}

#[test]
fn client_credentials_are_asked_for_where_the_entry_has_none() {
    let names = |config: Value| -> Vec<(String, bool)> {
        let fields = install_fields(&remote(json!({"clientCredentials": config}), json!([])));
        fields.into_iter().map(|field| (field.name, field.secret)).collect()
    };
    let (id, secret) = (("clientId".to_owned(), false), ("clientSecret".to_owned(), true));
    assert_eq!(names(json!({})), [id.clone(), secret.clone()]);
    assert_eq!(names(json!({"clientId": "a"})), [secret]);
    assert_eq!(names(json!({"clientId": "a", "clientSecret": "s3cret"})), []);
    assert_eq!(names(json!({"tokenEndpointAuth": "private_key_jwt"})), [id]);
}

#[test]
fn values_are_sorted_into_plain_and_secret_ones() {
    let spec = hosted(json!([{"name": "A", "prompt": true}, {"name": "B", "prompt": true, "secret": true}]));
    accepted(&spec, &[], json!({}), &[]);
    accepted(&spec, &[("A", "a"), ("B", "s3cret")], json!({"A": "a"}), &["B"]);
    accepted(&spec, &[("A", " a ")], json!({"A": " a "}), &[]);
}

#[test]
fn what_the_entry_does_not_ask_for_is_refused() {
    refused(
        &hosted(json!([{"name": "A", "prompt": true}, {"name": "F", "value": 1}])),
        &[("F", "2"), ("a", "s3cret")],
        &["F", "a"],
    );
    refused(&hosted(json!([])), &[("A", "s3cret")], &["A"]);
}

#[test]
fn required_fields_are_given() {
    let spec = hosted(
        json!([{"name": "A", "prompt": true, "required": true}, {"name": "B", "prompt": true, "required": true, "secret": true, "description": " "}]),
    );
    refused(&spec, &[], &["A", "B"]);
    refused(&spec, &[("A", "  "), ("B", "")], &["A", "B"]);
    accepted(&spec, &[("A", "a"), ("B", "s3cret")], json!({"A": "a"}), &["B"]);
    let defaulted = hosted(json!([{"name": "A", "prompt": true, "required": true, "default": "x"}]));
    accepted(&defaulted, &[], json!({}), &[]);
}

#[test]
fn a_stored_secret_need_not_be_given_again() {
    let spec = hosted(
        json!([{"name": "A", "prompt": true, "required": true}, {"name": "B", "prompt": true, "required": true, "secret": true}]),
    );
    assert_eq!(given(&spec, &[("A", "a")], &["B"]), Ok((json!({"A": "a"}), vec![])));
    assert_eq!(
        given(&spec, &[], &["A", "B"]),
        Err(vec!["values.A".to_owned()]),
        "a plain value is not kept by its name"
    );
}

#[test]
fn a_blank_value_is_none_but_for_a_plain_optional_text() {
    let spec = hosted(json!([
        {"name": "TEXT", "prompt": true, "default": "x"},
        {"name": "SECRET", "prompt": true, "secret": true},
        {"name": "NUMBER", "type": "number", "prompt": true},
        {"name": "FLAG", "type": "boolean", "prompt": true},
    ]));
    accepted(&spec, &[("TEXT", ""), ("SECRET", " "), ("NUMBER", ""), ("FLAG", "")], json!({"TEXT": ""}), &[]);
}

#[test]
fn values_are_of_their_type_and_said_to_be_wrong_once() {
    let spec = |kind: &str| {
        hosted(
            json!([{"name": "A", "type": kind, "prompt": true, "required": true}, {"name": "S", "type": kind, "prompt": true, "secret": true}]),
        )
    };
    for number in ["0", "-1.5", "1e3", " 7 "] {
        accepted(&spec("number"), &[("A", number)], json!({"A": number}), &[]);
    }
    for text in ["x", "1,5", "0x10", "inf", "NaN", "1 2"] {
        refused(&spec("number"), &[("A", text)], &["A"]);
    }
    for text in ["true", "false"] {
        accepted(&spec("boolean"), &[("A", text)], json!({"A": text}), &[]);
    }
    for text in ["True", "yes", "1"] {
        refused(&spec("boolean"), &[("A", text)], &["A"]);
    }
    refused(&spec("number"), &[("A", "1"), ("S", "s3cret")], &["S"]);
}

#[test]
fn values_can_be_carried_where_they_go() {
    let spec = hosted(json!([{"name": "A", "prompt": true}]));
    accepted(&spec, &[("A", "line\nline ä")], json!({"A": "line\nline ä"}), &[]);
    refused(&spec, &[("A", "a\0b")], &["A"]);
    let spec = remote(
        json!({"static": [{"name": "token", "header": "x-token"}]}),
        json!([{"name": "x-tenant", "prompt": true}]),
    );
    accepted(&spec, &[("token", "s3cret"), ("x-tenant", "a b")], json!({"x-tenant": "a b"}), &["token"]);
    refused(&spec, &[("token", "s3cret\r\nx: y"), ("x-tenant", "ä")], &["token", "x-tenant"]);
}

#[test]
fn the_health_of_a_credential_survives_json() {
    let stored = json!({
        "expiresAt": "2026-11-20T00:00:00Z",
        "refreshFailed": {"reason": "invalid_grant: the grant was revoked", "at": "2026-11-20T00:00:00Z"},
    });
    for stored in [stored, json!({})] {
        let health: CredentialHealth = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(serde_json::to_value(&health).unwrap(), stored);
    }
}
