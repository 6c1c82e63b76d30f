//! The background tasks of a platform: followers, reconciler, workload metrics; each owned, each ended in order.

use super::Shared;
use crate::{auth::IdentityFollower, lifecycle::Lifecycle, observe::Meters, route::Follower, upstream::Upstreams};
use archestra_core::{
    catalog::{CatalogStore, CatalogStoreExt as _, Entry, Query},
    installation::Installation,
    runtime::{Runtime, WorkloadEvent, WorkloadId, WorkloadSummary},
};
use futures::StreamExt as _;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const RETRY: Duration = Duration::from_secs(1);

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

/// Keeps `mcp_server_deployment_status` what the runtime observes, and forgets connections to what is no longer there.
async fn observe(runtime: Arc<dyn Runtime>, catalog: Arc<dyn CatalogStore>, upstreams: Upstreams, meters: Meters) {
    let mut known: HashSet<WorkloadId> = HashSet::new();
    loop {
        let mut events = runtime.watch();
        while let Some(event) = events.next().await {
            match event {
                Ok(WorkloadEvent::Snapshot(all)) => {
                    let present: HashSet<_> = all.iter().map(|summary| summary.id.clone()).collect();
                    known.difference(&present).for_each(|gone| meters.workload_gone(gone));
                    known = present;
                    for summary in &all {
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
