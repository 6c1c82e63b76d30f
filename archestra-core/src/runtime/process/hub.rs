//! The observed state of all workloads, and the stream of its changes.

use crate::{
    Result,
    runtime::{
        WorkloadEvent, WorkloadId, WorkloadStatus, WorkloadSummary,
        watching::{self, CAPACITY, Observed},
    },
};
use futures::stream::BoxStream;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::broadcast::{self, Receiver};

/// What all workloads are like. Changes are sent while the map is locked, so that every observer sees them in their order.
#[derive(Debug)]
pub(super) struct Hub {
    known: Mutex<BTreeMap<WorkloadId, WorkloadStatus>>,
    events: broadcast::Sender<WorkloadEvent>,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self { known: Mutex::default(), events: broadcast::Sender::new(CAPACITY) }
    }

    pub(super) fn get(&self, id: &WorkloadId) -> Option<WorkloadStatus> {
        self.lock().get(id).cloned()
    }

    pub(super) fn all(&self) -> Vec<WorkloadSummary> {
        self.lock().iter().map(summary).collect()
    }

    pub(super) fn set(&self, id: &WorkloadId, status: WorkloadStatus) {
        let mut known = self.lock();
        let changed = WorkloadEvent::Changed(summary((id, &status)));
        if known.insert(id.clone(), status.clone()) != Some(status) {
            self.send(changed);
        }
    }

    pub(super) fn remove(&self, id: &WorkloadId) {
        let mut known = self.lock();
        if known.remove(id).is_some() {
            self.send(WorkloadEvent::Removed(id.clone()));
        }
    }

    pub(super) fn tools_changed(&self, id: &WorkloadId) {
        let known = self.lock();
        if known.contains_key(id) {
            self.send(WorkloadEvent::ToolsChanged(id.clone()));
        }
    }

    /// Everything, then changes.
    pub(super) fn watch(self: &Arc<Self>) -> BoxStream<'static, Result<WorkloadEvent>> {
        watching::watch(Arc::clone(self))
    }

    /// Nobody may be watching.
    fn send(&self, event: WorkloadEvent) {
        let _watchers = self.events.send(event);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkloadId, WorkloadStatus>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observed for Hub {
    fn subscribe(&self) -> (Vec<WorkloadSummary>, Receiver<WorkloadEvent>) {
        let known = self.lock();
        (known.iter().map(summary).collect(), self.events.subscribe())
    }
}

fn summary((id, status): (&WorkloadId, &WorkloadStatus)) -> WorkloadSummary {
    WorkloadSummary { id: id.clone(), namespace: None, status: status.clone(), drift: None }
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, Hub};
    use crate::runtime::{Phase, WorkloadEvent, WorkloadStatus};
    use futures::StreamExt;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_watcher_that_lags_is_given_everything_anew() {
        let hub = Arc::new(Hub::new());
        let id = "mcp-a".parse().unwrap();
        let mut watch = hub.watch();
        assert_eq!(watch.next().await.unwrap().unwrap(), WorkloadEvent::Snapshot(Vec::new()));
        for restarts in 0..=u32::try_from(CAPACITY).unwrap() {
            hub.set(&id, WorkloadStatus { restarts, ..WorkloadStatus::new(Phase::Restarting) });
        }
        assert_eq!(watch.next().await.unwrap().unwrap(), WorkloadEvent::Snapshot(hub.all()));
        assert_eq!(watch.next().await.unwrap().unwrap(), WorkloadEvent::ToolsChanged(id.clone()));
        hub.remove(&id);
        assert_eq!(watch.next().await.unwrap().unwrap(), WorkloadEvent::Removed(id));
    }
}
