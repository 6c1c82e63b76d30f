//! Fills a catalog.

use std::time::Duration;

use archestra_core::{
    Result,
    catalog::{CatalogChanges, CatalogStore as _, Entry, Record},
    consumer::{CredentialChoice, ToolSelector},
    feed::Expect,
    id::TeamId,
    installation::Owner,
    testing::fixtures,
};
use archestra_store::SqlStore;
use tokio::time::Instant;

use super::Size;

/// How many records one commit writes.
const COMMIT: usize = 500;

/// Writes all records; says how long that took.
pub(super) async fn fill(store: &SqlStore, size: Size) -> Result<Duration> {
    let begun = Instant::now();
    let mut writer = Writer { store, changes: CatalogChanges::new() };
    let entries: Vec<_> = (0..size.entries).map(|n| fixtures::remote_entry(&format!("entry-{n:05}"))).collect();
    let mut gateways: Vec<_> = (0..size.gateways).map(|n| fixtures::gateway(&format!("gateway-{n}"))).collect();
    for (n, gateway) in gateways.iter_mut().enumerate() {
        // Without it the platform would take the assignments back.
        gateway.tools = entries.iter().skip(n).step_by(size.gateways).map(every_tool).collect();
        writer.write(gateway.clone());
    }
    for (n, entry) in entries.iter().enumerate() {
        writer.write(entry.clone());
        let tools: Vec<_> = (0..size.tools_each).map(|t| fixtures::tool(entry, &format!("tool_{t:02}"))).collect();
        for owner in 0..size.installations_each {
            let owner = if owner == 0 { Owner::Organization } else { Owner::Team(TeamId::new()) };
            let mut installation = fixtures::installation(entry, owner);
            installation.tools = tools.iter().map(|tool| (tool.name.clone(), tool.hash)).collect();
            writer.write(installation);
        }
        for tool in tools {
            writer.write(fixtures::assignment(&gateways[n % gateways.len()], entry, &tool));
            writer.write(tool);
        }
        // What refers to each other goes together.
        writer.flush_if_full().await?;
    }
    writer.flush().await?;
    Ok(begun.elapsed())
}

fn every_tool(entry: &Entry) -> ToolSelector {
    ToolSelector {
        entry: entry.id,
        tool: ToolSelector::ALL.to_owned(),
        credential: CredentialChoice::ResolveAtCallTime,
    }
}

struct Writer<'a> {
    store: &'a SqlStore,
    changes: CatalogChanges,
}

impl Writer<'_> {
    fn write(&mut self, record: impl Into<Record>) {
        self.changes.push_put(record, Expect::Absent);
    }

    async fn flush_if_full(&mut self) -> Result<()> {
        if self.changes.operations().len() < COMMIT {
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<()> {
        self.store.commit(std::mem::take(&mut self.changes)).await.map(|_| ())
    }
}
