//! The background tasks of a platform: followers, reconciler, workload metrics; each owned, each ended in order.

use super::{Shared, refresh::Refresh, workloads::Observer};
use crate::{
    auth::IdentityFollower,
    lifecycle::Lifecycle,
    mcp::front::Told,
    route::{Follower, Names},
    upstream::Upstreams,
};
use archestra_core::{
    Error,
    catalog::{CatalogStoreExt as _, Kind, Query},
    installation::{Installation, InstallationState},
    state::AuditSink,
};
use chrono::{TimeDelta, Utc};
use futures::FutureExt as _;
use std::{num::NonZeroUsize, sync::Arc, time::Duration};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

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

    pub(super) fn start(&self, shared: &Arc<Shared>, lifecycle: &Lifecycle, follower: Follower, names: Arc<Names>) {
        self.tasks.spawn(follower.run(self.stop.clone()));
        let identity = IdentityFollower { authenticator: Arc::clone(&shared.authenticator) };
        self.tasks.spawn(identity.run(self.stop.clone()));
        let (reconciler, stop) = (lifecycle.clone(), self.stop.clone());
        self.tasks.spawn(async move { reconciler.run(stop).await });
        self.own(refresh(shared, lifecycle));
        self.own(end_sessions(shared.sessions.ends(), shared.upstreams.clone()));
        let (sessions, in_flight) = (shared.sessions.clone(), shared.in_flight.clone());
        self.own(Told { store: Arc::clone(&shared.state), sessions, in_flight }.listen());
        if let Some(retention) = shared.options.audit_retention {
            self.own(prune_audit(Arc::clone(&shared.sink), retention));
        }
        if let Some(runtime) = &shared.runtime {
            let (runtime, upstreams) = (Arc::clone(runtime), shared.upstreams.clone());
            self.own(Observer { runtime, upstreams, meters: shared.meters.clone(), names }.run());
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
fn refresh(shared: &Shared, lifecycle: &Lifecycle) -> impl Future<Output = ()> + Send + use<> {
    let (catalog, lifecycle) = (Arc::clone(&shared.catalog), lifecycle.clone());
    let ready = move || {
        let catalog = Arc::clone(&catalog);
        async move {
            let all = catalog.list_all::<Installation>(Query::all(Kind::Installation)).await?;
            let ready = all.into_iter().map(|found| found.value);
            Ok(ready.filter(|found| found.state == InstallationState::Ready).map(|found| found.id).collect())
        }
        .boxed()
    };
    let list = move |installation| {
        let lifecycle = lifecycle.clone();
        async move { lifecycle.list_announced(installation).await }.boxed()
    };
    let parallel = NonZeroUsize::new(shared.options.lifecycle.parallel).unwrap_or(NonZeroUsize::MIN);
    // From now on, and not only from when the task has begun.
    Refresh { ready, list, parallel }.run(shared.upstreams.tools_changed())
}

/// Gives up at servers what was kept there for sessions that end. What is missed is given up once it has been idle.
async fn end_sessions(mut ends: broadcast::Receiver<u128>, upstreams: Upstreams) {
    loop {
        match ends.recv().await {
            Ok(session) => upstreams.end_session(session),
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
