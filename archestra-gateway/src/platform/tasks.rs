//! The background tasks of a platform: followers, reconciler, workload metrics; each owned, each ended in order.

use super::Shared;
use crate::{
    auth::IdentityFollower, lifecycle::Lifecycle, mcp::front::Told, observe::Meters, route::Follower,
    upstream::Upstreams,
};
use archestra_core::{
    Error,
    catalog::{CatalogStore, CatalogStoreExt as _, Entry, Query},
    installation::Installation,
    runtime::{Runtime, WorkloadEvent, WorkloadId, WorkloadSummary},
    state::AuditSink,
};
use chrono::{TimeDelta, Utc};
use futures::StreamExt as _;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const RETRY: Duration = Duration::from_secs(1);
/// How often audit records that are too old are removed.
const PRUNE: Duration = Duration::from_secs(3600);

/// The tasks of one platform.
#[derive(Debug, Clone)]
pub(super) struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The audit writer ends last, so that everything that the others record is written.
    audit: (TaskTracker, CancellationToken),
}

impl Background {
    pub(super) fn new() -> Self {
        Self {
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            audit: (TaskTracker::new(), CancellationToken::new()),
        }
    }

    /// Where the audit writer lives.
    pub(super) const fn audit(&self) -> (&TaskTracker, &CancellationToken) {
        (&self.audit.0, &self.audit.1)
    }

    pub(super) fn start(&self, shared: &Arc<Shared>, lifecycle: &Lifecycle, follower: Follower) {
        self.tasks.spawn(follower.run(self.stop.clone()));
        let identity = IdentityFollower { authenticator: Arc::clone(&shared.authenticator) };
        self.tasks.spawn(identity.run(self.stop.clone()));
        let (reconciler, stop) = (lifecycle.clone(), self.stop.clone());
        self.tasks.spawn(async move { reconciler.run(stop).await });
        self.own(refresh(Arc::clone(shared), lifecycle.clone()));
        let (sessions, in_flight) = (shared.sessions.clone(), shared.in_flight.clone());
        self.own(Told { store: Arc::clone(&shared.state), sessions, in_flight }.listen());
        if let Some(retention) = shared.options.audit_retention {
            self.own(prune_audit(Arc::clone(&shared.sink), retention));
        }
        if let Some(runtime) = &shared.runtime {
            let (catalog, upstreams) = (Arc::clone(&shared.catalog), shared.upstreams.clone());
            self.own(observe(Arc::clone(runtime), catalog, upstreams, shared.meters.clone()));
        }
    }

    fn own(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(work).await });
    }

    pub(super) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.audit.1.cancel();
        self.audit.0.close();
        self.audit.0.wait().await;
    }
}

/// Lists the tools of servers again that say theirs have changed.
async fn refresh(shared: Arc<Shared>, lifecycle: Lifecycle) {
    let mut changed = shared.upstreams.tools_changed();
    loop {
        match changed.recv().await {
            Ok(installation) => {
                if let Err(error) = lifecycle.refresh_tools(installation).await {
                    tracing::warn!(%installation, %error, "tools could not be listed again");
                }
            }
            // What was missed is announced again by the next change, and found by the reconciler before that.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Removes audit records once they are older than `retention`.
async fn prune_audit(sink: Arc<dyn AuditSink>, retention: Duration) {
    loop {
        let before = TimeDelta::from_std(retention).ok().and_then(|age| Utc::now().checked_sub_signed(age));
        // What began before there was time is nothing.
        let Some(before) = before else { return };
        match sink.prune(before).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, %before, "removed old audit records"),
            Err(Error::Unsupported { .. }) => {
                tracing::info!("the audit sink keeps its own records: the retention of audit records is not applied");
                return;
            }
            Err(error) => tracing::warn!(%error, "old audit records could not be removed; trying again in an hour"),
        }
        tokio::time::sleep(PRUNE).await;
    }
}

/// Keeps `mcp_server_deployment_status` what the runtime observes, and forgets connections to what is no longer there.
async fn observe(runtime: Arc<dyn Runtime>, catalog: Arc<dyn CatalogStore>, upstreams: Upstreams, meters: Meters) {
    let mut known: HashSet<WorkloadId> = HashSet::new();
    loop {
        let mut events = runtime.watch();
        while let Some(event) = events.next().await {
            match event {
                Ok(WorkloadEvent::Snapshot(all)) => {
                    let present: HashSet<_> = all.iter().map(|summary| summary.id.clone()).collect();
                    for gone in known.difference(&present) {
                        upstreams.forget_workload(gone);
                        meters.workload_gone(gone);
                    }
                    known = present;
                    for summary in &all {
                        // What changed before a snapshot was not told one by one.
                        upstreams.forget_workload(&summary.id);
                        note(&*catalog, &meters, summary).await;
                    }
                }
                Ok(WorkloadEvent::Changed(summary)) => {
                    // Whatever answers next is another process, maybe at another place.
                    upstreams.forget_workload(&summary.id);
                    known.insert(summary.id.clone());
                    note(&*catalog, &meters, &summary).await;
                }
                Ok(WorkloadEvent::Removed(id)) => {
                    upstreams.forget_workload(&id);
                    known.remove(&id);
                    meters.workload_gone(&id);
                }
                Ok(WorkloadEvent::ToolsChanged(_)) => {}
                Err(error) => tracing::warn!(%error, "the runtime cannot be observed"),
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn note(catalog: &dyn CatalogStore, meters: &Meters, summary: &WorkloadSummary) {
    let name = server_name(catalog, &summary.id).await.unwrap_or_else(|| summary.id.to_string());
    meters.workload(&summary.id, &name, summary.status.phase);
}

/// The name of the entry that a workload was made from.
async fn server_name(catalog: &dyn CatalogStore, id: &WorkloadId) -> Option<String> {
    let all = catalog.list_all::<Installation>(Query::Installations { entry: None, owner: None }).await.ok()?;
    let entry = all.into_iter().find(|found| found.value.workload.as_ref() == Some(id))?.value.entry;
    Some(catalog.get_one::<Entry>(entry).await.ok()?.value.spec.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use archestra_core::{
        state::AuditQuery,
        testing::{MemoryAudit, fixtures},
    };

    #[tokio::test(start_paused = true)]
    async fn old_audit_records_go_and_young_ones_stay() {
        let sink = Arc::new(MemoryAudit::new());
        let record = |days| fixtures::audit_record("tool.call", Utc::now() - TimeDelta::days(days));
        let (old, young) = (record(91), record(89));
        sink.write(&[old, young.clone()]).await.unwrap();
        let pruning = prune_audit(Arc::clone(&sink) as Arc<dyn AuditSink>, Duration::from_secs(90 * 24 * 3600));
        tokio::time::timeout(PRUNE / 2, pruning).await.unwrap_err();
        let left = sink.list(&AuditQuery::default()).await.unwrap().items;
        assert_eq!(left.iter().map(|record| record.id).collect::<Vec<_>>(), [young.id]);
    }
}
