//! Self-hosted servers through the API: saved, installed, waited for, and given to a gateway.

use crate::{Api, Mcp, Running};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// How long anything may take on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A platform that can be asked, wherever it runs.
pub trait Platform: Sync {
    /// Its API, as the admin.
    fn api(&self) -> Api;
}

impl Platform for Running {
    fn api(&self) -> Api {
        Self::api(self)
    }
}

/// Saves an entry.
pub async fn save(binary: &impl Platform, name: &str, hosted: &Value) {
    binary.api().post("/api/v1/entries", &json!({ "name": name, "selfHosted": hosted })).await.ok();
}

/// Saves another version of an entry.
pub async fn replace(binary: &impl Platform, name: &str, hosted: &Value) {
    let entry = json!({ "name": name, "selfHosted": hosted });
    binary.api().put(&format!("/api/v1/entries/{name}"), &entry).await.ok();
}

/// Installs an entry, and returns the installation's id.
pub async fn install(binary: &impl Platform, entry: &str, scope: Value, values: Value) -> String {
    let body = json!({ "entry": entry, "scope": scope, "values": values });
    binary.api().post("/api/v1/installations", &body).await.ok()["id"].as_str().unwrap().to_owned()
}

/// A gateway with all tools of these entries, once calls are routed by it.
pub async fn gateway(binary: &impl Platform, slug: &str, entries: &[&str]) -> Mcp {
    let tools: Vec<_> =
        entries.iter().map(|entry| json!({ "entry": entry, "tool": "*", "credential": "resolveAtCallTime" })).collect();
    let body = json!({ "slug": slug, "scope": "organization", "tools": tools });
    binary.api().post("/api/v1/gateways", &body).await.ok();
    known(Mcp::new(binary.api(), slug)).await
}

/// Waits until calls are routed by what was saved.
pub async fn known(gateway: Mcp) -> Mcp {
    let until = Instant::now() + LIMIT;
    while gateway.modern("tools/list", json!({})).await.status != 200 {
        assert!(Instant::now() < until, "{} is not served", gateway.url());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gateway
}

/// Calls until the call does not fail.
pub async fn eventually(gateway: &Mcp, tool: &str, arguments: Value) -> Value {
    let until = Instant::now() + LIMIT;
    loop {
        let result = gateway.call(tool, arguments.clone()).await;
        if !result.is_null() && result["isError"] != true {
            return result;
        }
        assert!(Instant::now() < until, "{tool}: {result}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How an installation is, and what runs for it.
pub async fn status(binary: &impl Platform, id: &str) -> Value {
    binary.api().get(&format!("/api/v1/installations/{id}/status")).await.ok()
}

/// Waits until an installation is as wanted.
pub async fn until_status(binary: &impl Platform, id: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + LIMIT;
    loop {
        let status = status(binary, id).await;
        if fits(&status) {
            return status;
        }
        assert!(Instant::now() < until, "{status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the server of an installation answers and its tools are known.
pub async fn until_running(binary: &impl Platform, id: &str) -> Value {
    until_status(binary, id, |status| status["workload"]["phase"] == "running" && status["state"]["phase"] == "ready")
        .await
}

/// Whether a text tells a person anything.
pub fn is_clear(reason: &str) -> bool {
    reason.len() >= 15 && !reason.contains("panicked") && !reason.contains("Error(")
}
