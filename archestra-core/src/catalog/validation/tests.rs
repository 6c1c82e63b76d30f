//! Every finding about an entry: the path of its field, and that it says what is wrong and what to do.

#![expect(clippy::needless_pass_by_value, reason = "tables read best with their values in place")]

mod credential;
mod self_hosted;

use crate::{Validate, catalog::EntrySpec};
use serde_json::{Value, json};

/// The findings of an entry with these fields beside its name are at these paths, in this order.
#[track_caller]
fn check(fields: Value, expected: &[&str]) {
    let mut spec = json!({"name": "tracker"});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let spec: EntrySpec = serde_json::from_value(spec).unwrap();
    let findings = spec.findings();
    for finding in &findings {
        assert!(!finding.reason.trim().is_empty() && !finding.remedy.trim().is_empty(), "{finding:?}");
        assert!(!finding.to_string().contains("s3cret"), "{finding}");
    }
    let paths: Vec<_> = findings.iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(paths, expected, "{findings:?}");
    assert_eq!(spec.validate().is_ok(), expected.is_empty());
}

/// As [`check`], of a remote server.
#[track_caller]
fn check_remote(fields: Value, expected: &[&str]) {
    let mut all = json!({"remote": {"url": "https://mcp.example.com/mcp"}});
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    check(all, expected);
}

#[test]
fn an_entry_is_called_something_that_tools_can_be_called_after() {
    for name in ["a", "My Server", "Ärger 1", &"n".repeat(128)] {
        check_remote(json!({"name": name}), &[]);
    }
    for name in ["", "  ", " a", "a ", "a\nb", "\u{7f}", "日本語", "__", &"n".repeat(129)] {
        check_remote(json!({"name": name}), &["name"]);
    }
}

#[test]
fn an_entry_describes_exactly_one_server() {
    check(json!({}), &["remote"]);
    check(json!({"remote": {"url": "https://a.example"}, "selfHosted": {"command": ["x"]}}), &["remote"]);
    check(json!({"selfHosted": {"command": ["x"]}}), &[]);
}

#[test]
fn urls_are_http_and_hold_no_credentials() {
    for url in ["https://mcp.example.com/mcp?tenant=1", "http://127.0.0.1:8080/", "https://[::1]/mcp"] {
        check(json!({"remote": {"url": url}}), &[]);
    }
    for url in [
        "",
        "mcp.example.com",
        "ftp://a.example",
        "file:///etc/passwd",
        "https://u:s3cret@a.example",
        "https://u@a.example",
        "https://a.example/#x",
        "https://",
    ] {
        check(json!({"remote": {"url": url}}), &["remote.url"]);
        check_remote(json!({"docsUrl": url, "repository": url}), &["docsUrl", "repository"]);
    }
}

#[test]
fn an_icon_is_an_emoji_or_an_image() {
    for icon in ["🐙", "👩🏽‍💻", "🇩🇪", "1️⃣", "☎️", "https://example.com/icon.svg", "data:image/png;base64,AAAA"]
    {
        check_remote(json!({"icon": icon}), &[]);
    }
    for icon in [
        "",
        "x",
        "javascript:alert(1)",
        "http://example.com/i.png",
        "data:text/html,<script>",
        "<img>",
        "https://u:p@example.com/i.png",
    ] {
        check_remote(json!({"icon": icon}), &["icon"]);
    }
    check_remote(json!({"icon": format!("data:image/png;base64,{}", "A".repeat(64 * 1024))}), &["icon"]);
}

#[test]
fn a_call_takes_some_time() {
    check_remote(json!({"callTimeout": 1}), &[]);
    check_remote(json!({"callTimeout": 0}), &["callTimeout"]);
}

#[test]
fn labels_have_keys_and_values() {
    check_remote(json!({"labels": {"department": ["finance", "legal"], "tier": "1"}}), &[]);
    check_remote(json!({"labels": {"department": ""}}), &["labels.department"]);
    check_remote(json!({"labels": {"department": ["finance", " "]}}), &["labels.department"]);
    check_remote(json!({"labels": {"": "x"}}), &["labels"]);
    check_remote(json!({"labels": {"k": "v".repeat(129)}}), &["labels.k"]);
    check_remote(json!({"labels": {"k": "a\nb"}}), &["labels.k"]);
}

#[test]
fn additional_headers_have_a_value_or_a_prompt_and_are_set_once() {
    let one = |header: Value| json!({"additionalHeaders": [header]});
    check_remote(one(json!({"name": "x-tenant", "value": "acme"})), &[]);
    check_remote(one(json!({"name": "x-tenant", "prompt": true, "required": true})), &[]);
    check_remote(one(json!({"name": "x-tenant"})), &["additionalHeaders[0].value"]);
    check_remote(one(json!({"name": "x-tenant", "value": "a", "prompt": true})), &["additionalHeaders[0].value"]);
    check_remote(one(json!({"name": "x-tenant", "value": "a\r\nb: c"})), &["additionalHeaders[0].value"]);
    check_remote(one(json!({"name": "x-tenant", "value": "ä"})), &["additionalHeaders[0].value"]);
    for name in ["Mcp-Tenant", "mcp-parameters", "x-mcp-session-id"] {
        check_remote(one(json!({"name": name, "value": "a"})), &[]);
    }
    for name in [
        "",
        "x tenant",
        "x:y",
        "Ä",
        "Host",
        "content-length",
        "Mcp-Session-Id",
        "MCP-Protocol-Version",
        "mcp-method",
        "Mcp-Name",
        "mcp-param-region",
        &"x".repeat(257),
    ] {
        check_remote(one(json!({"name": name, "value": "a"})), &["additionalHeaders[0].name"]);
    }
    let twice = json!({"additionalHeaders": [{"name": "x-tenant", "value": "a"}, {"name": "X-Tenant", "value": "b"}]});
    check_remote(twice, &["additionalHeaders[1].name"]);
}

#[test]
fn additional_headers_leave_the_credential_alone() {
    let header = json!([{"name": "authorization", "value": "x"}]);
    for credential in [
        json!({"static": [{"name": "token", "header": "Authorization"}]}),
        json!({"oauth": {}}),
        json!({"clientCredentials": {}}),
        json!({"enterprise": {"strategy": "token-exchange"}}),
        json!({"enterprise": {"strategy": "entra-obo", "resource": "api://x", "injection": {"header": "Authorization"}}}),
        json!("jwtPassthrough"),
    ] {
        check_remote(json!({"credential": credential, "additionalHeaders": header}), &["additionalHeaders[0].name"]);
    }
    check_remote(json!({"additionalHeaders": header}), &[]);
    let elsewhere = json!({"enterprise": {"strategy": "id-jag", "injection": {"header": "x-token"}}});
    check_remote(json!({"credential": elsewhere, "additionalHeaders": header}), &[]);
}

#[test]
fn an_installation_is_asked_for_each_field_once() {
    let hosted = json!({"command": ["x"], "transport": "streamable-http", "env": [{"name": "TOKEN", "prompt": true}, {"name": "FIXED", "value": 1}]});
    let tokens = json!({"static": [{"name": "TOKEN", "header": "x-token"}]});
    check(json!({"selfHosted": hosted, "credential": tokens}), &["credential.static[0].name"]);
    let headers = json!([{"name": "FIXED", "prompt": true}, {"name": "TOKEN", "prompt": true}]);
    check(json!({"selfHosted": hosted, "additionalHeaders": headers}), &["additionalHeaders[1].name"]);
    let headers = json!([{"name": "clientId", "prompt": true}]);
    check_remote(
        json!({"credential": {"clientCredentials": {}}, "additionalHeaders": headers}),
        &["additionalHeaders[0].name"],
    );
    let fixed = json!({"clientCredentials": {"clientId": "a"}});
    check_remote(json!({"credential": fixed, "additionalHeaders": headers}), &[]);
}

#[test]
fn what_goes_in_headers_needs_http() {
    let hosted = |transport: &str| json!({"command": ["x"], "transport": transport});
    for credential in [
        json!({"static": [{"name": "token", "header": "x-token"}]}),
        json!({"oauth": {}}),
        json!({"clientCredentials": {}}),
        json!({"enterprise": {"strategy": "token-exchange"}}),
        json!("jwtPassthrough"),
    ] {
        check(json!({"selfHosted": hosted("stdio"), "credential": credential}), &["credential"]);
        check(json!({"selfHosted": hosted("streamable-http"), "credential": credential}), &[]);
    }
    check(json!({"selfHosted": hosted("stdio"), "credential": {"oauth": {"accessTokenEnv": "TOKEN"}}}), &[]);
    let headers = json!([{"name": "x-tenant", "value": "acme"}]);
    check(json!({"selfHosted": hosted("stdio"), "additionalHeaders": headers}), &["additionalHeaders"]);
}

#[test]
fn only_a_process_on_its_pipe_is_exclusive() {
    check(json!({"selfHosted": {"command": ["x"]}, "toolConcurrency": "exclusive"}), &[]);
    check_remote(json!({"toolConcurrency": "exclusive"}), &["toolConcurrency"]);
    let hosted = json!({"command": ["x"], "transport": "streamable-http"});
    check(json!({"selfHosted": hosted, "toolConcurrency": "exclusive"}), &["toolConcurrency"]);
}

#[test]
fn a_shared_deployment_is_a_streamable_http_server_without_values_of_installations() {
    let hosted = |env: Value| json!({"command": ["x"], "transport": "streamable-http", "env": env});
    let shared = |hosted: Value| json!({"selfHosted": hosted, "sharedDeployment": true});
    check(shared(hosted(json!([{"name": "A", "value": "a"}]))), &[]);
    check(shared(json!({"command": ["x"]})), &["sharedDeployment"]);
    check_remote(json!({"sharedDeployment": true}), &["sharedDeployment"]);
    let prompted = hosted(json!([{"name": "A", "prompt": true}, {"name": "B", "prompt": true}]));
    check(shared(prompted), &["sharedDeployment", "sharedDeployment"]);
    let mut token = shared(hosted(json!([])));
    token["credential"] = json!({"oauth": {"accessTokenEnv": "TOKEN"}});
    check(token, &["sharedDeployment"]);
}
