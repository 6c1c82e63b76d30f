//! Who is let in: tokens, sessions, hosts and origins, rules, and what a challenge leads to.

use crate::{demo, until};
use archestra_tests::{
    Home, Start,
    mcp::{modern, text},
};
use http::Method;
use serde_json::json;

#[tokio::test]
async fn the_door_opens_to_valid_tokens_only() {
    let home = Home::new();
    let binary = demo(&home).await;
    let gateway = binary.gateway("demo");

    let none = gateway.as_token(None).modern("tools/list", json!({})).await;
    assert_eq!(none.status, 401);
    let challenge = none.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("Bearer"), "{challenge}");
    let foreign =
        gateway.as_token(Some("arch_0000000000000000000000000000000000")).modern("tools/list", json!({})).await;
    assert_eq!(foreign.status, 401);
    assert!(foreign.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"));

    let api = binary.api();
    // On a slow machine a token that lives for moments may be over before it is used.
    for lifetime in [2, 10, 60] {
        let wanted = json!({ "name": "short", "scope": "organization", "expiresIn": lifetime });
        let made = api.post("/api/v1/tokens", &wanted).await.ok();
        let short = gateway.as_token(made["token"].as_str());
        let opened = short.modern("tools/list", json!({})).await.status == 200;
        until(async || short.modern("tools/list", json!({})).await.status == 401, lifetime + 30).await;
        if opened {
            break;
        }
        assert!(lifetime < 60, "a token that lives for a minute opens nothing");
    }

    let made = api.post("/api/v1/tokens", &json!({ "name": "revoked", "scope": "organization" })).await.ok();
    let token = made["token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.as_token(Some(&token)).modern("tools/list", json!({})).await.status, 200);
    api.delete(&format!("/api/v1/tokens/{}", made["id"].as_str().unwrap())).await.ok();
    until(async || gateway.as_token(Some(&token)).modern("tools/list", json!({})).await.status == 401, 30).await;

    let unknown = binary.gateway("nowhere").modern("tools/list", json!({})).await;
    assert_eq!(unknown.status, 404, "{}", unknown.text());
}

#[tokio::test]
async fn a_token_for_one_gateway_opens_nothing_else() {
    let home = Home::new();
    let binary = demo(&home).await;
    let api = binary.api();
    api.post("/api/v1/gateways", &json!({ "slug": "second", "scope": "organization" })).await.ok();
    let made = api.post("/api/v1/tokens", &json!({ "name": "for the demo", "consumer": "demo" })).await.ok();
    assert_eq!(made["consumer"], "demo");
    let token = made["token"].as_str();
    let demo = binary.gateway("demo").as_token(token);
    assert!(text(&demo.call("demo__echo", json!({ "message": "x" })).await).contains('x'));
    assert_eq!(binary.gateway("second").as_token(token).modern("tools/list", json!({})).await.status, 404);
    let refused = api.as_token(token).get("/api/v1/entries").await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let unknown = api.post("/api/v1/tokens", &json!({ "name": "x", "consumer": "nowhere" })).await;
    assert_eq!(unknown.status, 422, "{}", unknown.text());
}

#[tokio::test]
async fn a_session_belongs_to_its_caller_and_its_gateway() {
    let home = Home::new();
    let binary = demo(&home).await;
    let api = binary.api();
    let token = api.post("/api/v1/tokens", &json!({ "name": "other", "scope": "organization" })).await.ok();
    api.post("/api/v1/gateways", &json!({ "slug": "second", "scope": "organization" })).await.ok();
    let session = binary.gateway("demo").session().await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let header = [("mcp-session-id", session.id.as_str())];
    let other = binary.gateway("demo").as_token(token["token"].as_str());
    assert_eq!(other.raw(&header, ping.clone()).await.status, 404);
    until(async || binary.gateway("second").modern("tools/list", json!({})).await.status == 200, 30).await;
    assert_eq!(binary.gateway("second").raw(&header, ping.clone()).await.status, 404);
    let tampered = format!("{}x", session.id);
    assert_eq!(binary.gateway("demo").raw(&[("mcp-session-id", &tampered)], ping.clone()).await.status, 404);
    assert_eq!(binary.gateway("demo").raw(&header, ping.clone()).await.status, 200);
    let ended = api.send(Method::DELETE, "/v1/mcp/demo", &header, None).await;
    assert_eq!(ended.status, 204);
    assert_eq!(binary.gateway("demo").raw(&header, ping).await.status, 404);
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let home = Home::new();
    let binary = demo(&home).await;
    let gateway = binary.gateway("demo");
    let (headers, body) = modern("tools/list", json!({}), 1);
    for (name, value) in [("host", "evil.example"), ("origin", "https://evil.example"), ("origin", "null")] {
        let mut all: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.push((name, value));
        assert_eq!(gateway.raw(&all, body.clone()).await.status, 403, "{name}: {value}");
    }
    let answer = binary.api().send(Method::GET, "/api/v1/entries", &[("origin", "https://evil.example")], None).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn rules_block_by_tool_and_by_principal() {
    let home = Home::new();
    let binary = demo(&home).await;
    let (api, gateway) = (binary.api(), binary.gateway("demo"));
    let rule = json!({ "name": "no echo", "entry": "demo", "tool": "echo", "action": "block", "message": "echo is closed today" });
    let made = api.post("/api/v1/policies", &rule).await.ok();
    until(async || gateway.call("demo__echo", json!({ "message": "x" })).await["isError"] == true, 30).await;
    let blocked = gateway.call("demo__echo", json!({ "message": "x" })).await;
    assert_eq!(text(&blocked), "echo is closed today");
    assert_eq!(text(&gateway.call("demo__add", json!({ "a": 1, "b": 2 })).await), "3");
    let token = api.post("/api/v1/tokens", &json!({ "name": "machine", "scope": "organization" })).await.ok();
    let machine = gateway.as_token(token["token"].as_str());
    let admit = json!({ "name": "machines may", "entry": "demo", "tool": "echo", "priority": 10, "callers": ["organization"], "action": "allow" });
    api.post("/api/v1/policies", &admit).await.ok();
    until(async || machine.call("demo__echo", json!({ "message": "x" })).await["isError"] != true, 30).await;
    assert_eq!(gateway.call("demo__echo", json!({ "message": "x" })).await["isError"], true);
    api.delete(&format!("/api/v1/policies/{}", made["id"].as_str().unwrap())).await.ok();
    until(async || gateway.call("demo__echo", json!({ "message": "x" })).await["isError"] != true, 30).await;
}

#[tokio::test]
async fn the_challenge_leads_to_the_metadata_also_below_a_path() {
    let home = Home::new();
    let args = vec!["--public-url".to_owned(), "http://localhost/base".to_owned()];
    let binary = home.start(&Start { args, env: Vec::new() }).await;
    binary.gateway("demo").until_listed("demo__echo").await;
    let refused = binary.gateway("demo").as_token(None).modern("tools/list", json!({})).await;
    let challenge = refused.headers["www-authenticate"].to_str().unwrap();
    let path = "/.well-known/oauth-protected-resource/base/v1/mcp/demo";
    assert!(challenge.contains(&format!("resource_metadata=\"http://localhost{path}\"")), "{challenge}");
    let metadata = binary.api().as_token(None).get(path).await.ok();
    assert_eq!(metadata["resource"], "http://localhost/base/v1/mcp/demo");
}
