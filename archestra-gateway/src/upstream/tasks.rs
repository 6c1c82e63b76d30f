//! Tasks that somebody owns, such as an `Upstreams`: started here, ended together.

use std::future::Future;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks and ends them. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    // Guards that are dropped outside of the runtime start their last message with this.
    handle: Handle,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), handle: Handle::current() }
    }

    /// Runs `task` until it is done or everything is stopped; after that nothing is started any more.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if self.stop.is_cancelled() {
            return;
        }
        let stop = self.stop.clone();
        let guarded = async move {
            stop.run_until_cancelled(task).await;
        };
        drop(self.tracker.spawn_on(guarded, &self.handle));
    }

    /// Tells every task to end.
    pub(crate) fn stop(&self) {
        self.tracker.close();
        self.stop.cancel();
    }

    /// Waits until every task has ended.
    pub(super) async fn stopped(&self) {
        self.tracker.wait().await;
    }
}
