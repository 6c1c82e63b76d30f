//! Findings about clients and identity providers, and what of them survives JSON.

#![expect(clippy::needless_pass_by_value, reason = "tables read best with their values in place")]

use super::{Client, GrantType, IdentityProvider};
use crate::{Validate, id::ConsumerId};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

const ID: &str = "0190a000-0000-7000-8000-000000000001";
const SOME_KEY: &str = r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#;

fn with(mut base: Value, fields: &Value) -> Value {
    base.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    base
}

#[track_caller]
fn check<T: DeserializeOwned + Validate>(base: Value, fields: Value, expected: &[&str]) {
    let findings = serde_json::from_value::<T>(with(base, &fields)).unwrap().findings();
    assert!(findings.iter().all(|finding| !finding.reason.is_empty() && !finding.remedy.is_empty()), "{findings:?}");
    let paths: Vec<_> = findings.iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(paths, expected, "{fields}: {findings:?}");
}

#[track_caller]
fn client(fields: Value, expected: &[&str]) {
    let base = json!({
        "id": ID, "clientId": "app", "name": "App", "tokenEndpointAuth": "none", "createdAt": "2026-11-20T00:00:00Z",
        "redirectUris": ["https://app.example/callback"], "grantTypes": ["authorization_code", "refresh_token"],
    });
    check::<Client>(base, fields, expected);
}

#[track_caller]
fn provider(fields: Value, expected: &[&str]) {
    let base = json!({
        "id": ID, "name": "okta", "issuer": "https://okta.example.com/", "clientId": "archestra",
        "createdAt": "2026-11-20T00:00:00Z",
    });
    check::<IdentityProvider>(base, fields, expected);
}

#[test]
fn a_client_is_called_something_and_asks_for_scopes() {
    client(json!({"scopes": ["mcp", "a:b"]}), &[]);
    for id in ["", " ", "ä", "a\nb"] {
        client(json!({"clientId": id}), &["clientId"]);
    }
    for name in ["", " a", "a\nb"] {
        client(json!({"name": name}), &["name"]);
    }
    client(json!({"scopes": ["a b"]}), &["scopes[0]"]);
}

#[test]
fn a_client_shows_who_it_is_in_one_way() {
    let hash = "ab".repeat(32);
    for (auth, secret, jwks, expected) in [
        ("none", None, None, None),
        ("none", Some(&hash), None, Some("tokenEndpointAuth")),
        ("client_secret_basic", Some(&hash), None, None),
        ("client_secret_post", Some(&hash), None, None),
        ("client_secret_basic", None, None, Some("tokenEndpointAuth")),
        ("private_key_jwt", None, Some(SOME_KEY), None),
        ("private_key_jwt", None, None, Some("jwks")),
        ("private_key_jwt", None, Some("{}"), Some("jwks")),
        ("private_key_jwt", None, Some(r#"{"keys": []}"#), Some("jwks")),
        ("private_key_jwt", None, Some("no keys"), Some("jwks")),
    ] {
        let expected: Vec<_> = expected.into_iter().collect();
        client(json!({"tokenEndpointAuth": auth, "secretHash": secret, "jwks": jwks}), &expected);
    }
    let document = json!({"clientId": "https://app.example/client.json", "tokenEndpointAuth": "private_key_jwt"});
    client(document, &[]);
}

#[test]
fn codes_go_where_nobody_else_reads_them() {
    for uri in [
        "https://app.example/callback?x=1",
        "http://127.0.0.1:8765/callback",
        "http://localhost/cb",
        "http://[::1]:1/cb",
        "com.example.app:/callback",
    ] {
        client(json!({"redirectUris": [uri]}), &[]);
    }
    for uri in
        ["", "callback", "http://app.example/cb", "https://app.example/#x", "javascript:alert(1)", "data:,x", "app:/cb"]
    {
        client(json!({"redirectUris": [uri]}), &["redirectUris[0]"]);
    }
    client(json!({"redirectUris": []}), &["redirectUris"]);
}

#[test]
fn a_machine_is_told_what_it_may_use_and_proves_itself() {
    let machine = json!({"grantTypes": ["client_credentials"], "redirectUris": [], "consumers": [ID]});
    let proven = json!({"tokenEndpointAuth": "client_secret_basic", "secretHash": "ab".repeat(32)});
    client(with(machine.clone(), &proven), &[]);
    client(machine.clone(), &["tokenEndpointAuth"]);
    client(with(with(machine, &proven), &json!({"consumers": []})), &["consumers"]);
}

#[test]
fn a_machine_may_use_what_it_names_while_it_may_come_alone() {
    let machine: Client = serde_json::from_value(json!({
        "id": ID, "clientId": "ci", "name": "CI", "grantTypes": ["client_credentials"], "consumers": [ID],
        "createdAt": "2026-11-20T00:00:00Z",
    }))
    .unwrap();
    let consumer: ConsumerId = ID.parse().unwrap();
    assert!(machine.may_use(consumer) && !machine.may_use(ConsumerId::new()));
    let other = Client { grant_types: [GrantType::JwtBearer].into(), ..machine };
    assert!(!other.may_use(consumer), "the list is of those who come with nothing but their own credentials");
}

#[test]
fn a_provider_is_reached_and_its_tokens_are_read() {
    provider(
        json!({
            "tokenEndpointAuth": "private_key_jwt", "authorizationEndpoint": "https://okta.example.com/authorize",
            "tokenEndpoint": "https://okta.example.com/token", "jwksUri": "https://okta.example.com/keys",
            "scopes": ["email"], "audience": "api://archestra", "emailClaim": "upn", "nameClaim": "display_name",
        }),
        &[],
    );
    for name in ["", "Okta", "a b", "a/b", &"a".repeat(65)] {
        provider(json!({"name": name}), &["name"]);
    }
    for field in ["issuer", "authorizationEndpoint", "tokenEndpoint", "jwksUri"] {
        for url in ["okta.example.com", "ftp://okta.example.com", "https://u:p@okta.example.com"] {
            provider(json!({field: url}), &[field]);
        }
    }
    for field in ["clientId", "audience", "emailClaim", "nameClaim"] {
        provider(json!({field: ""}), &[field]);
    }
    provider(json!({"scopes": ["a b"]}), &["scopes[0]"]);
    provider(json!({"clientSecret": "provider/x", "tokenEndpointAuth": "none"}), &["tokenEndpointAuth"]);
}

#[test]
fn both_survive_json_and_what_was_stored_before() {
    fn survives<T: Serialize + DeserializeOwned>(stored: Value) {
        let value: T = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(serde_json::to_value(&value).unwrap(), stored);
    }
    survives::<Client>(json!({
        "id": ID, "clientId": "app", "name": "App", "secretHash": "ab".repeat(32), "jwks": SOME_KEY,
        "tokenEndpointAuth": "client_secret_post", "scopes": ["mcp"], "redirectUris": [],
        "grantTypes": ["client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer"], "consumers": [ID],
        "createdAt": "2026-11-20T00:00:00Z",
    }));
    survives::<IdentityProvider>(json!({
        "id": ID, "name": "okta", "issuer": "https://a.example", "clientId": "c", "clientSecret": "provider/x",
        "tokenEndpointAuth": "client_secret_basic", "authorizationEndpoint": "https://a.example/a",
        "tokenEndpoint": "https://a.example/t", "scopes": ["email"], "audience": "a", "jwksUri": "https://a.example/k",
        "emailClaim": "e", "nameClaim": "n", "createdAt": "2026-11-20T00:00:00Z",
    }));
    let before = json!({"id": ID, "name": "o", "issuer": "https://a.example", "clientId": "c", "createdAt": "2026-11-20T00:00:00Z"});
    let read: IdentityProvider = serde_json::from_value(before).unwrap();
    assert_eq!((read.scopes.len(), read.token_endpoint), (0, None));
}
