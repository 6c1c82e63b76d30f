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
    check_static(json!({"name": "token", "header": "mcp-token"}), &[]);
    for name in ["", "-a", "1a", "a.b", "a b", "ä"] {
        check_static(json!({"name": name, "header": "x-key"}), &["name"]);
    }
    for header in ["", "x key", "connection", "Host", "Content-Length", "Mcp-Name", "mcp-param-x", "Content-Type"] {
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

#[test]
fn clients_scopes_and_audiences_are_what_oauth_allows() {
    let good =
        json!({"clientId": "app 1", "clientSecret": "s3cret", "scopes": ["read", "a:b/c", "!"], "audience": "a b"});
    for (model, base) in
        [("oauth", json!({})), ("clientCredentials", json!({})), ("enterprise", json!({"strategy": "token-exchange"}))]
    {
        let with = |fields: &Value| {
            let mut config = base.clone();
            config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            json!({ model: config })
        };
        let at = |field: &str| format!("credential.{model}.{field}");
        if model != "enterprise" {
            check_credential(with(&good), &[]);
            for id in ["", " ", "ä", "a\nb"] {
                check_credential(with(&json!({"clientId": id})), &[&at("clientId")]);
            }
            check_credential(with(&json!({"clientSecret": "s3cret"})), &[&at("clientId")]);
            for secret in ["", "s3crät", "s3cret\n"] {
                check_credential(with(&json!({"clientId": "a", "clientSecret": secret})), &[&at("clientSecret")]);
            }
            check_credential(
                with(&json!({"clientId": "a", "clientSecret": "s3cret", "tokenEndpointAuth": "private_key_jwt"})),
                &[&at("clientSecret")],
            );
        }
        for scope in ["", "a b", "a\"b", "a\\b", "ä", "a\n"] {
            check_credential(with(&json!({"scopes": ["ok", scope]})), &[&at("scopes[1]")]);
        }
        for audience in ["", "ä", "a\r\n"] {
            check_credential(with(&json!({"audience": audience})), &[&at("audience")]);
        }
        check_credential(with(&json!({"resource": "api://0b6f/server"})), &[]);
        for resource in ["server", "https://u:s3cret@a.example", "https://a.example/#f"] {
            check_credential(with(&json!({"resource": resource})), &[&at("resource")]);
        }
    }
    check_credential(json!({"oauth": {"defaultScopes": ["a b"]}}), &["credential.oauth.defaultScopes[0]"]);
    let public = json!({"clientId": "a", "clientSecret": "s3cret", "tokenEndpointAuth": "none"});
    check_credential(json!({"oauth": public}), &["credential.oauth.clientSecret"]);
    check_credential(
        json!({"clientCredentials": public}),
        &["credential.clientCredentials.tokenEndpointAuth", "credential.clientCredentials.clientSecret"],
    );
}

#[test]
fn oauth_is_discovered_in_one_place() {
    for field in ["resourceMetadataUrl", "wellKnownUrl"] {
        check_credential(json!({"oauth": {field: "https://a.example/x"}}), &[]);
        check_credential(json!({"oauth": {field: "a.example"}}), &[&format!("credential.oauth.{field}")]);
    }
    let both = json!({"wellKnownUrl": "https://a.example/x", "authorizationEndpoint": "https://a.example/a", "tokenEndpoint": "https://a.example/t"});
    check_credential(json!({"oauth": both}), &["credential.oauth.wellKnownUrl"]);
}

#[test]
fn an_exchange_asks_for_what_its_strategy_gives() {
    let check = |config: Value, expected: &[&str]| {
        let expected: Vec<_> = expected.iter().map(|field| format!("credential.enterprise.{field}")).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        check_credential(json!({"enterprise": config}), &expected);
    };
    check(json!({"strategy": "entra-obo", "scopes": ["api://x/.default"]}), &[]);
    check(json!({"strategy": "entra-obo", "resource": "api://x"}), &[]);
    check(json!({"strategy": "entra-obo"}), &["scopes"]);
    check(json!({"strategy": "entra-obo", "scopes": ["s"], "requestedTokenType": "jwt"}), &["requestedTokenType"]);
    check(json!({"strategy": "id-jag", "requestedTokenType": "access_token"}), &["requestedTokenType"]);
    check(json!({"strategy": "token-exchange", "requestedTokenType": "id-jag"}), &[]);
    check(json!({"strategy": "token-exchange", "requestedIssuer": ""}), &["requestedIssuer"]);
    check(json!({"strategy": "token-exchange", "tokenPath": "data.credential"}), &[]);
    for path in ["", ".", "a..b", "a b"] {
        check(json!({"strategy": "token-exchange", "tokenPath": path}), &["tokenPath"]);
    }
    let client = json!({"clientId": "a", "clientSecret": "s3cret"});
    check(json!({"strategy": "id-jag", "resourceClient": client}), &[]);
    check(json!({"strategy": "token-exchange", "resourceClient": client}), &["resourceClient"]);
    for (client, field) in [
        (json!({"clientId": "a"}), "clientSecret"),
        (json!({"clientId": "", "tokenEndpointAuth": "none"}), "clientId"),
        (json!({"clientId": "a", "tokenEndpointAuth": "none", "tokenEndpoint": "x"}), "tokenEndpoint"),
        (json!({"clientId": "a", "tokenEndpointAuth": "none", "clientSecret": "s3cret"}), "clientSecret"),
    ] {
        check(json!({"strategy": "id-jag", "resourceClient": client}), &[&format!("resourceClient.{field}")]);
    }
}

#[test]
fn no_header_is_sent_twice_whatever_its_case() {
    let both = |static_header: &str, additional: &str| {
        json!({
            "credential": {"static": [{"name": "t", "header": static_header}]},
            "additionalHeaders": [{"name": additional, "value": "v"}],
        })
    };
    check_remote(both("x-api-key", "x-tenant"), &[]);
    check_remote(both("X-Api-Key", "x-api-key"), &["additionalHeaders[0].name"]);
    check_remote(both("x-key", "Mcp-Name"), &["additionalHeaders[0].name"]);
}
