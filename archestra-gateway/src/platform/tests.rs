//! Calls through a whole platform on memory backends.

use super::*;
use crate::observe::Overflow;
use archestra_core::{
    Error, Result,
    catalog::CatalogChanges,
    consumer::{CredentialChoice, ToolSelector},
    event::AuditRecord,
    feed::Page,
    id::AuditId,
    secret::KeyRing,
    state::AuditQuery,
    testing::{MemoryAudit, MemoryCatalog, MemoryIdentity, MemorySecrets, MemoryState, fixtures},
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rustls::crypto::aws_lc_rs;
use serde_json::json;

/// A sink that takes nothing.
#[derive(Debug)]
struct Full;

#[async_trait]
impl AuditSink for Full {
    async fn write(&self, _: &[AuditRecord]) -> Result<()> {
        Err(Error::unavailable("the sink", "full"))
    }

    async fn list(&self, _: &AuditQuery) -> Result<Page<AuditRecord>> {
        Ok(Page { items: Vec::new(), next: None })
    }

    async fn get(&self, id: AuditId) -> Result<AuditRecord> {
        Err(Error::not_found("audit record", id))
    }

    async fn prune(&self, _: DateTime<Utc>) -> Result<u64> {
        Ok(0)
    }
}

/// A platform with the agent `robot`, which has the tool `tracker__search` of a server that nobody has installed.
async fn platform(audit: Arc<dyn AuditSink>, options: Options) -> Platform {
    drop(aws_lc_rs::default_provider().install_default());
    let catalog = MemoryCatalog::new();
    let (mut agent, entry) = (fixtures::agent("robot"), fixtures::remote_entry("tracker"));
    let credential = CredentialChoice::ResolveAtCallTime;
    agent.tools.push(ToolSelector { entry: entry.id, tool: ToolSelector::ALL.to_owned(), credential });
    let tool = fixtures::tool(&entry, "search");
    let assignment = fixtures::assignment(&agent, &entry, &tool);
    let changes = CatalogChanges::new().create(agent).create(entry).create(tool).create(assignment);
    catalog.commit(changes).await.unwrap();
    Platform::builder()
        .catalog(Arc::new(catalog))
        .identity(Arc::new(MemoryIdentity::new()))
        .secrets(Arc::new(MemorySecrets::new()))
        .state(Arc::new(MemoryState::new()))
        .audit(audit)
        .key_ring(Arc::new(KeyRing::generate().unwrap()))
        .options(options)
        .build()
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_audit_log_no_longer_than_it_may_take() {
    let options =
        Options { audit_overflow: Overflow::Wait, call_timeout: Duration::from_secs(3), ..Options::default() };
    let platform = platform(Arc::new(Full), options).await;
    let robot = platform.agent("robot");
    let code = |result: serde_json::Value| result["_meta"]["archestra.dev/error"]["code"].clone();
    assert_eq!(code(robot.call("tracker__search", &json!({})).await.unwrap()), "credentialMissing");
    // More than the queue holds, and again once the writer has taken what it cannot get rid of.
    for _ in 0..2 {
        for _ in 0..70_000 {
            platform.shared.audit.offer(fixtures::audit_record("any", Utc::now()));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let began = Instant::now();
    assert_eq!(code(robot.call("tracker__search", &json!({})).await.unwrap()), "auditUnavailable");
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    platform.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn calls_to_tools_that_nobody_has_are_counted_as_one() {
    let platform = platform(Arc::new(MemoryAudit::new()), Options::default()).await;
    for name in ["one", "two"] {
        platform.agent("robot").call(name, &json!({})).await.unwrap_err();
    }
    let shown = platform.meters().render();
    let series = r#"mcp_server_name="",tool_name="<unknown>",status="error"} 2"#;
    assert!(shown.lines().any(|line| line.starts_with("mcp_tool_calls_total") && line.ends_with(series)), "{shown}");
    platform.shutdown().await;
}
