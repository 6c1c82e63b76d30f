//! Entries as people write them: the documented examples, what is refused, and that secrets never come out again.

use super::{AdditionalHeader, EntrySpec, EnvVar, FixedValue, PullSecret, Scalar, StaticField};
use crate::Validate;
use serde_json::{Value, json};

const EXAMPLES: &str = r#"
- name: everything
  labels: {department: finance}
  selfHosted:
    image: localhost/mcp-node:1
    command: [node]
    args: [/srv/server.js, stdio]
    transport: stdio
    env:
    - {name: LOG_LEVEL, value: info}
    - {name: API_KEY, secret: true, prompt: true, required: true}
    envFrom: [{type: secret, name: shared-keys}, {type: configMap, name: settings, prefix: APP_}]
    imagePullSecrets: [{existing: regcred}, {server: registry.example.com, username: u, password: {stored: true}}]
    deploymentYaml: |
      spec: {template: {spec: {nodeSelector: {disk: ssd}}}}
- name: tracker
  remote: {url: "https://mcp.example.com/mcp"}
  credential: {static: [{name: token, header: Authorization, prefix: "Bearer ", secret: true, required: true}]}
  additionalHeaders: [{name: x-tenant, value: acme}]
"#;

/// One entry with a secret in every place that takes one.
fn secretive() -> EntrySpec {
    let spec = json!({
        "name": "a",
        "selfHosted": {
            "command": ["x"], "transport": "streamable-http",
            "env": [{"name": "KEY", "secret": true, "value": "s3cret-env"}, {"name": "PIN", "secret": true, "type": "number", "value": 5_113_377}, {"name": "LOG", "value": "info"}],
            "imagePullSecrets": [{"server": "r.example.com", "username": "u", "password": "s3cret-pull"}, {"existing": "regcred"}],
        },
        "credential": {"static": [{"name": "token", "header": "x-token", "value": "s3cret-field"}, {"name": "region", "header": "x-region", "secret": false, "value": "eu"}]},
    });
    serde_json::from_value(spec).unwrap()
}

#[test]
fn the_documented_examples_are_valid_and_survive() {
    let entries: Vec<EntrySpec> = serde_saphyr::from_str(EXAMPLES).unwrap();
    assert_eq!(entries.len(), 2);
    for entry in &entries {
        assert_eq!(entry.findings(), []);
        let yaml = serde_saphyr::to_string(entry).unwrap();
        assert_eq!(&serde_saphyr::from_str::<EntrySpec>(&yaml).unwrap(), entry, "{yaml}");
        let json = serde_json::to_string(entry).unwrap();
        assert_eq!(&serde_json::from_str::<EntrySpec>(&json).unwrap(), entry, "{json}");
    }
    let hosted = entries[0].self_hosted.as_ref().unwrap();
    assert_eq!(hosted.args, ["/srv/server.js", "stdio"]);
    assert!(hosted.env[1].secret && hosted.env[1].prompt && hosted.env[1].required);
}

#[test]
fn every_credential_model_survives() {
    for credential in [
        json!("none"),
        json!("jwtPassthrough"),
        json!({"static": [{"name": "t", "header": "h", "secret": false, "prompt": true, "required": false}]}),
        json!({"oauth": {"issuer": "https://a.example", "clientId": "c", "clientSecret": {"stored": true}, "tokenEndpointAuth": "client_secret_post", "scopes": ["s"]}}),
        json!({"clientCredentials": {"clientId": "c", "tokenEndpointAuth": "client_secret_basic", "scopes": [], "audience": "a"}}),
        json!({"oauth": {"resourceMetadataUrl": "https://a.example/.well-known/oauth-protected-resource/mcp", "wellKnownUrl": "https://a.example/.well-known/openid-configuration", "tokenEndpointAuth": "none", "scopes": [], "defaultScopes": ["read"], "resource": "https://a.example/mcp", "audience": "a"}}),
        json!({"enterprise": {"strategy": "entra-obo", "scopes": ["s"], "injection": {"header": "x-token"}}}),
        json!({"enterprise": {"strategy": "token-exchange", "requestedTokenType": "jwt", "subjectTokenType": "id_token", "requestedIssuer": "google", "audience": "a", "resource": "https://a.example", "scopes": [], "tokenPath": "data.credential", "injection": "raw"}}),
        json!({"enterprise": {"strategy": "id-jag", "requestedTokenType": "id-jag", "scopes": [], "resourceClient": {"tokenEndpoint": "https://a.example/token", "clientId": "c", "clientSecret": {"stored": true}, "tokenEndpointAuth": "client_secret_post"}, "injection": "bearer"}}),
    ] {
        let spec: EntrySpec = serde_json::from_value(
            json!({"name": "a", "remote": {"url": "https://a.example"}, "credential": credential}),
        )
        .unwrap();
        assert_eq!(spec.findings(), []);
        assert_eq!(serde_json::to_value(&spec).unwrap()["credential"], credential);
    }
}

#[test]
fn a_secret_never_comes_out_again() {
    let mut spec = secretive();
    assert_eq!(spec.findings(), []);
    let shown = format!("{spec:?} {spec:#?}");
    assert!(!shown.contains("s3cret") && !shown.contains("5113377"), "{shown}");
    let error = serde_json::to_string(&spec).unwrap_err().to_string();
    assert!(!error.contains("s3cret"), "{error}");

    let bundle = spec.take_secrets();
    let expected = [
        ("env.KEY", "s3cret-env"),
        ("env.PIN", "5113377"),
        ("field.token", "s3cret-field"),
        ("pull.r.example.com.u", "s3cret-pull"),
    ];
    assert_eq!(bundle.iter().map(|(key, value)| (key, value.expose())).collect::<Vec<_>>(), expected);
    assert!(!format!("{bundle:?}").contains("s3cret"));
    assert!(spec.stored_secret_keys().iter().map(String::as_str).eq(bundle.keys()));

    let json = serde_json::to_string(&spec).unwrap();
    assert!(!json.contains("s3cret") && !json.contains("5113377"), "{json}");
    let mut back: EntrySpec = serde_json::from_str(&json).unwrap();
    assert_eq!(back, spec);
    assert_eq!(back.findings(), []);
    assert!(back.take_secrets().is_empty(), "what is stored is not taken again");
    assert_eq!(back.stored_secret_keys(), spec.stored_secret_keys());
}

#[test]
fn passwords_of_different_registries_and_users_have_different_keys() {
    let key = |server: &str, user: &str| {
        let pull: PullSecret = serde_json::from_value(json!({"server": server, "username": user})).unwrap();
        pull.password_key().unwrap()
    };
    let pairs = [("r.example", "a.b"), ("r.example.a", "b"), ("r", "example.a.b"), ("r.example", "a%2Eb")];
    let keys: std::collections::BTreeSet<_> = pairs.iter().map(|(server, user)| key(server, user)).collect();
    assert_eq!(keys.len(), pairs.len(), "{keys:?}");
}

#[test]
fn the_secrets_of_clients_are_taken_too() {
    let client = json!({"clientId": "c", "clientSecret": "s3cret"});
    let enterprise = json!({"strategy": "id-jag", "resourceClient": client});
    for (model, config, key) in [
        ("oauth", &client, "oauth.clientSecret"),
        ("clientCredentials", &client, "clientCredentials.clientSecret"),
        ("enterprise", &enterprise, "enterprise.resourceClient.clientSecret"),
    ] {
        let spec = json!({"name": "a", "remote": {"url": "https://a.example"}, "credential": {model: config}});
        let mut spec: EntrySpec = serde_json::from_value(spec).unwrap();
        assert!(!format!("{spec:?}").contains("s3cret"));
        assert!(spec.stored_secret_keys().is_empty());
        let bundle = spec.take_secrets();
        assert_eq!(bundle.get(key).map(crate::secret::SecretValue::expose), Some("s3cret"));
        assert!(spec.stored_secret_keys().iter().eq([key]));
        assert!(!serde_json::to_string(&spec).unwrap().contains("s3cret"));
    }
}

#[test]
fn a_secret_that_a_program_set_as_plain_text_is_taken_too() {
    let mut spec = secretive();
    spec.self_hosted.as_mut().unwrap().env[0].value = Some(FixedValue::Plain("s3cret-plain".to_owned()));
    let bundle = spec.take_secrets();
    assert_eq!(bundle.get("env.KEY").map(crate::secret::SecretValue::expose), Some("s3cret-plain"));
    assert!(!serde_json::to_string(&spec).unwrap().contains("s3cret"));
    assert_eq!(spec.self_hosted.unwrap().env[2].value, Some(FixedValue::Plain("info".to_owned())));
}

#[test]
fn stored_is_true_or_nothing() {
    for bad in [json!({"stored": false}), json!({"stored": true, "value": "x"}), json!({}), json!(["a"])] {
        let error = serde_json::from_value::<EnvVar>(json!({"name": "A", "secret": true, "value": bad}))
            .unwrap_err()
            .to_string();
        assert!(error.contains("stored: true"), "{error}");
    }
}

#[test]
fn what_cannot_be_read_is_not_shown_where_a_secret_belongs() {
    for bad in [json!(["s3cret"]), json!({"value": "s3cret"}), json!({"stored": "s3cret"})] {
        let field = json!({"name": "a", "header": "h", "value": bad});
        let error = serde_json::from_value::<StaticField>(field).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
        let pull = json!({"server": "s", "username": "u", "password": bad});
        let error = serde_json::from_value::<PullSecret>(pull).unwrap_err().to_string();
        assert!(!error.contains("s3cret") && error.contains("existing"), "{error}");
    }
}

#[test]
fn scalars_are_taken_as_their_text() {
    for (scalar, text) in [
        (json!(5), "5"),
        (json!(-5), "-5"),
        (json!(1.5), "1.5"),
        (json!(true), "true"),
        (json!("x"), "x"),
        (json!(u64::MAX), "18446744073709551615"),
    ] {
        assert_eq!(serde_json::from_value::<Scalar>(scalar.clone()).unwrap().0.expose(), text);
        let var: EnvVar = serde_json::from_value(json!({"name": "A", "value": scalar, "default": scalar})).unwrap();
        assert_eq!(var.value.as_ref().and_then(FixedValue::plain), Some(text));
        assert_eq!(var.default.as_deref(), Some(text));
        let header: AdditionalHeader = serde_json::from_value(json!({"name": "h", "value": scalar})).unwrap();
        assert_eq!(header.value.as_deref(), Some(text));
        let field: StaticField = serde_json::from_value(json!({"name": "a", "header": "h", "value": scalar})).unwrap();
        assert_eq!(field.value, Some(FixedValue::Secret(text.into())));
    }
    let env: Vec<EnvVar> = serde_saphyr::from_str("- {name: PORT, type: number, value: 8080}\n- {name: DEBUG, type: boolean, value: true}\n- {name: WORD, value: \"5\"}\n").unwrap();
    let values: Vec<_> = env.iter().map(|var| var.value.as_ref().and_then(FixedValue::plain).unwrap()).collect();
    assert_eq!(values, ["8080", "true", "5"]);
    for bad in [json!(null), json!([]), json!({})] {
        serde_json::from_value::<Scalar>(bad).unwrap_err();
    }
}

#[test]
fn a_static_field_is_prompted_and_secret_unless_it_says_otherwise() {
    let field: StaticField = serde_json::from_value(json!({"name": "a", "header": "h"})).unwrap();
    assert!(field.prompt && field.secret && !field.required);
    let fixed: StaticField =
        serde_json::from_value(json!({"name": "a", "header": "h", "value": "v", "secret": false})).unwrap();
    assert!(!fixed.prompt && fixed.value == Some(FixedValue::Plain("v".to_owned())));
}

#[test]
fn a_command_is_a_program_or_a_list() {
    for command in [json!("node"), json!(["node"])] {
        let spec: EntrySpec = serde_json::from_value(json!({"name": "a", "selfHosted": {"command": command}})).unwrap();
        assert_eq!(spec.self_hosted.unwrap().command, ["node"]);
    }
    let error = serde_json::from_value::<EntrySpec>(json!({"name": "a", "selfHosted": {"command": 5}}))
        .unwrap_err()
        .to_string();
    assert!(error.contains("a program"), "{error}");
}

#[test]
fn unknown_fields_are_refused_everywhere() {
    let hosted = |fields: Value| {
        let mut hosted = json!({"command": ["x"]});
        hosted.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"selfHosted": hosted})
    };
    let credential = |credential: Value| json!({"remote": {"url": "https://a.example"}, "credential": credential});
    for (place, fields) in [
        ("entry", json!({"remote": {"url": "https://a.example"}, "extra": 1})),
        ("remote", json!({"remote": {"url": "https://a.example", "extra": 1}})),
        ("self-hosted", hosted(json!({"extra": 1}))),
        ("env", hosted(json!({"env": [{"name": "A", "extra": 1}]}))),
        ("kind of source", hosted(json!({"envFrom": [{"type": "file", "name": "a"}]}))),
        ("source", hosted(json!({"envFrom": [{"type": "secret", "name": "a", "optional": true}]}))),
        ("no kind", hosted(json!({"envFrom": [{"name": "a"}]}))),
        ("existing", hosted(json!({"imagePullSecrets": [{"existing": "a", "extra": 1}]}))),
        ("both", hosted(json!({"imagePullSecrets": [{"existing": "a", "server": "s", "username": "u"}]}))),
        ("credentials", hosted(json!({"imagePullSecrets": [{"server": "s", "username": "u", "extra": 1}]}))),
        ("transport", hosted(json!({"transport": "sse"}))),
        ("static", credential(json!({"static": [{"name": "a", "header": "h", "extra": 1}]}))),
        ("oauth", credential(json!({"oauth": {"extra": 1}}))),
        ("clientCredentials", credential(json!({"clientCredentials": {"extra": 1}}))),
        ("enterprise", credential(json!({"enterprise": {"strategy": "id-jag", "extra": 1}}))),
        (
            "client",
            credential(json!({"enterprise": {"strategy": "id-jag", "resourceClient": {"clientId": "c", "extra": 1}}})),
        ),
        ("model", credential(json!({"magic": {}}))),
        (
            "header",
            json!({"remote": {"url": "https://a.example"}, "additionalHeaders": [{"name": "a", "value": "b", "extra": 1}]}),
        ),
    ] {
        let mut spec = json!({"name": "a"});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        assert!(serde_json::from_value::<EntrySpec>(spec.clone()).is_err(), "{place}");
        let yaml = serde_saphyr::to_string(&spec).unwrap();
        assert!(serde_saphyr::from_str::<EntrySpec>(&yaml).is_err(), "{place}");
    }
}

#[test]
fn a_secret_may_say_where_it_is_kept() {
    let mut spec: EntrySpec = serde_json::from_value(json!({
        "name": "tracker",
        "remote": {"url": "https://mcp.example.com/mcp"},
        "credential": {"static": [{"name": "token", "header": "Authorization", "prompt": false,
            "value": {"vault": "mcp/tickets#token"}}]},
    }))
    .unwrap();
    assert_eq!(spec.findings(), []);
    let bundle = spec.take_secrets();
    assert_eq!(bundle.get("field.token").unwrap().external().unwrap().as_str(), "mcp/tickets#token");
    for wrong in
        ["{\"vault\": \"mcp/../tickets#token\"}", "{\"vault\": \"canary\"}", "{\"vault\": 5}", "{\"other\": \"a#b\"}"]
    {
        let error = serde_json::from_str::<super::Given>(wrong).unwrap_err().to_string();
        assert!(error.contains("path#key") && !error.contains("canary"), "{error}");
    }
}
