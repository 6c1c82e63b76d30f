//! What watchers are sent: a snapshot first, and another one instead of what they were too slow to take.

use super::{Observer, synced::Problem};
use archestra_core::{Result, runtime::WorkloadEvent};
use futures::{StreamExt, stream, stream::BoxStream};
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};

/// How many events may wait for the slowest watcher.
pub(super) const CAPACITY: usize = 1024;

/// What is sent to all watchers.
#[derive(Debug, Clone)]
pub(super) enum Update {
    /// One workload.
    Event(WorkloadEvent),
    /// Everything was listed again.
    Resync,
}

#[derive(Debug)]
enum Watcher {
    /// Nothing can be told yet; this was the last problem it was told of.
    Waiting(Option<Problem>),
    Following(broadcast::Receiver<Update>),
}

/// Everything there is, and from then on what changes. It does not end.
pub(super) fn watch(observer: Arc<Observer>) -> BoxStream<'static, Result<WorkloadEvent>> {
    let start = (observer, Watcher::Waiting(None));
    let next = async |(observer, watcher): (Arc<Observer>, Watcher)| {
        let (item, watcher) = match watcher {
            Watcher::Waiting(told) => first(&observer, told).await,
            Watcher::Following(receiver) => following(&observer, receiver).await,
        };
        Some((item, (observer, watcher)))
    };
    stream::unfold(start, next).boxed()
}

async fn first(observer: &Observer, told: Option<Problem>) -> (Result<WorkloadEvent>, Watcher) {
    let mut progress = observer.progress.subscribe();
    loop {
        let problem = {
            let now = progress.borrow_and_update();
            if now.is_complete() {
                break;
            }
            now.problem().cloned()
        };
        if let Some(problem) = problem
            && told.as_ref() != Some(&problem)
        {
            return (Err(problem.to_error()), Watcher::Waiting(Some(problem)));
        }
        if progress.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
    again(observer)
}

async fn following(observer: &Observer, mut receiver: broadcast::Receiver<Update>) -> (Result<WorkloadEvent>, Watcher) {
    match receiver.recv().await {
        Ok(Update::Event(event)) => (Ok(event), Watcher::Following(receiver)),
        Ok(Update::Resync) | Err(RecvError::Lagged(_) | RecvError::Closed) => again(observer),
    }
}

/// A snapshot, and all that comes after it: both are taken at one moment, so nothing older can follow.
fn again(observer: &Observer) -> (Result<WorkloadEvent>, Watcher) {
    let (snapshot, receiver) = observer.snapshot();
    (Ok(WorkloadEvent::Snapshot(snapshot)), Watcher::Following(receiver))
}
