//! The stream of what happens to workloads, for runtimes that tell all observers at once.

use super::{WorkloadEvent, WorkloadId, WorkloadSummary};
use crate::Result;
use futures::{StreamExt as _, stream, stream::BoxStream};
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// How far an observer may lag before it is given everything anew.
pub(crate) const CAPACITY: usize = 256;

/// What is there, and all that happens to it from then on.
pub(crate) trait Observed: Send + Sync + 'static {
    /// Both at one moment, so that nothing is missed between them.
    fn subscribe(&self) -> (Vec<WorkloadSummary>, Receiver<WorkloadEvent>);
}

/// Everything, then changes. After a lag everything again, and since nobody knows whose tools have changed meanwhile,
/// everybody's are said to.
pub(crate) fn watch<T: Observed>(observed: Arc<T>) -> BoxStream<'static, Result<WorkloadEvent>> {
    let (all, receiver) = observed.subscribe();
    let state = (observed, receiver, Vec::<WorkloadId>::new());
    let changes = stream::unfold(state, async |(observed, mut receiver, mut missed)| {
        if let Some(id) = missed.pop() {
            return Some((Ok(WorkloadEvent::ToolsChanged(id)), (observed, receiver, missed)));
        }
        match receiver.recv().await {
            Ok(event) => Some((Ok(event), (observed, receiver, missed))),
            Err(RecvError::Lagged(_)) => {
                let (all, receiver) = observed.subscribe();
                let missed = all.iter().map(|summary| summary.id.clone()).collect();
                Some((Ok(WorkloadEvent::Snapshot(all)), (observed, receiver, missed)))
            }
            Err(RecvError::Closed) => None,
        }
    });
    stream::iter([Ok(WorkloadEvent::Snapshot(all))]).chain(changes).boxed()
}
