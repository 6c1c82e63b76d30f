//! Messages, headers and documents that are wrong: each gets the protocol's own error.

use crate::{assert_error, demo};
use archestra_tests::{Home, Start, mcp::modern};
use http::Method;
use serde_json::json;

#[tokio::test]
async fn messages_that_are_wrong_get_the_protocols_own_errors() {
    let home = Home::new();
    let binary = demo(&home).await;
    let gateway = binary.gateway("demo");

    let answer = gateway.raw(&[], "{\"jsonrpc\": \"2.0\", \"id\": 1,").await;
    assert_error(&answer, 400, -32700);
    let answer = gateway.raw(&[], "[]").await;
    assert_error(&answer, 400, -32600);
    let answer = gateway.bare(&[("content-type", "text/plain"), ("accept", "application/json")], "{}").await;
    assert_eq!(answer.status, 415, "{}", answer.text());
    assert!(answer.text().contains("application/json"));
    let answer = gateway.bare(&[("content-type", "application/json"), ("accept", "image/png")], "{}").await;
    assert_eq!(answer.status, 406, "{}", answer.text());

    assert_error(&gateway.modern("tools/fly", json!({})).await, 404, -32601);
    let answer = gateway.modern("tools/call", json!({ "name": "demo__nothing", "arguments": {} })).await;
    let error = assert_error(&answer, 200, -32602);
    assert!(error.contains("demo__nothing"), "{error}");

    let session = gateway.session().await;
    assert_error(&session.request(2, "tools/fly", json!({})).await, 200, -32601);
    assert_error(&session.request(3, "tools/call", json!({ "name": "nothing" })).await, 200, -32602);
    assert_error(&session.request(4, "tools/call", json!({})).await, 200, -32602);

    let large = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": { "x": "y".repeat(5 << 20) } });
    let answer = gateway.raw(&[], large.to_string()).await;
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("4194304"), "{}", answer.text());
}

#[tokio::test]
async fn the_largest_body_is_what_the_operator_says() {
    let home = Home::new();
    let start = Start { args: vec!["--body-limit".to_owned(), "64KiB".to_owned()], ..Start::default() };
    let binary = home.start(&start).await;
    let gateway = binary.gateway("demo");
    let ping = |bytes| {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": { "x": "y".repeat(bytes) } });
        gateway.raw(&[], body.to_string())
    };
    let answer = ping(65 << 10).await;
    assert!(answer.status == 413 && answer.text().contains("65536"), "{} {}", answer.status, answer.text());
    assert_ne!(ping(60 << 10).await.status, 413);
}

#[tokio::test]
async fn headers_that_differ_from_the_body_are_refused_before_any_policy() {
    let home = Home::new();
    let binary = demo(&home).await;
    let gateway = binary.gateway("demo");
    let params = || json!({ "name": "demo__echo", "arguments": { "message": "x" } });
    for (name, value) in
        [("mcp-name", "demo__add"), ("mcp-method", "tools/list"), ("mcp-protocol-version", "2025-11-25")]
    {
        let (mut headers, body) = modern("tools/call", params(), 5);
        headers.iter_mut().filter(|(key, _)| *key == name).for_each(|(_, old)| *old = value.to_owned());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_error(&gateway.raw(&headers, body).await, 400, -32020);
    }
    let (headers, body) = modern("tools/call", params(), 5);
    let headers: Vec<_> =
        headers.iter().filter(|(key, _)| *key != "mcp-name").map(|(name, value)| (*name, value.as_str())).collect();
    assert_error(&gateway.raw(&headers, body).await, 400, -32020);
    let doubled = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"demo__add","name":"demo__echo"}}"#;
    assert_error(&gateway.raw(&[], doubled).await, 400, -32600);
}

#[tokio::test]
async fn apply_refuses_what_it_cannot_do_whole() {
    let home = Home::new();
    let binary = home.bare().await;
    let api = binary.api();
    let yaml = async |text: &str| {
        api.raw(Method::POST, "/api/v1/apply", &[("content-type", "application/yaml")], text.to_owned().into()).await
    };
    let broken = yaml("apiVersion: archestra.dev/v1\nentries:\n  - name: [unclosed\n").await;
    assert_eq!(broken.status, 400, "{}", broken.text());
    assert!(broken.text().contains("line"), "{}", broken.text());
    let half = "apiVersion: archestra.dev/v1\nteams: [{name: finance, priority: 1}]\nentries:\n- {name: ok, remote: {url: 'https://mcp.example.com/mcp'}}\n- {name: bad, remote: {url: 'ftp://x'}}\n";
    let refused = yaml(half).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("entries[1].remote.url"), "{}", refused.text());
    assert_eq!(api.get("/api/v1/entries").await.ok()["items"], json!([]));
    assert_eq!(api.get("/api/v1/teams").await.ok()["items"], json!([]));
}
