//! Bad input, foreign credentials and hostile requests: each gets an error that helps, and nothing is left half done.
#![expect(clippy::unwrap_used, reason = "this is test code")]

mod threats {
    mod clients;
    mod door;
    mod messages;
    mod servers;
}

use archestra_tests::{Answer, Home, Mcp, Running, Start, mcp::response};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// A server behind a gateway of its own.
async fn installed(binary: &Running, name: &str, kind: &Value) {
    let api = binary.api();
    let mut entry = json!({ "name": name, "scope": "organization" });
    entry.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
    api.post("/api/v1/entries", &entry).await.ok();
    api.post("/api/v1/installations", &json!({ "entry": name, "scope": "organization" })).await.ok();
    let tools = [json!({ "entry": name, "tool": "*", "credential": "resolveAtCallTime" })];
    api.post("/api/v1/gateways", &json!({ "slug": name, "scope": "organization", "tools": tools })).await.ok();
    let gateway: Mcp = binary.gateway(name);
    until(async || gateway.modern("tools/list", json!({})).await.status == 200, 30).await;
}

async fn start(home: &Home, args: &[&str]) -> Running {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    home.start(&Start { args, env: vec![("ARCHESTRA_QUICKSTART", "false".to_owned())] }).await
}

async fn demo(home: &Home) -> Running {
    let binary = home.quickstart().await;
    binary.gateway("demo").until_listed("demo__echo").await;
    binary
}

async fn until(mut holds: impl AsyncFnMut() -> bool, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds().await {
        assert!(Instant::now() < end, "it does not hold after {seconds} s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn assert_error(answer: &Answer, status: u16, code: i64) -> String {
    let error = response(answer)["error"].clone();
    assert_eq!((answer.status, error["code"].as_i64()), (status, Some(code)), "{}", answer.text());
    error["message"].as_str().unwrap_or_default().to_owned()
}
