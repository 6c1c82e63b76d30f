//! Removes secrets that a row named until now, once others have heard of it: however many there are, by one reading of the
//! catalog.

use super::Lifecycle;
use archestra_core::secret::SecretRef;
use futures::{StreamExt as _, stream};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// For how long a secret is left that a row named until now: longer than any replica routes by an old row.
const LINGER: Duration = Duration::from_secs(10);
/// Beyond so many, secrets are left to the sweep.
const MOST: usize = 100_000;

/// The secrets that are to go.
#[derive(Debug, Default)]
pub(super) struct Retired(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// The oldest first.
    secrets: VecDeque<(Instant, SecretRef)>,
    /// Whether a task removes them.
    attended: bool,
}

/// Whether there is a task for what was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    There,
    Needed,
}

impl Retired {
    fn put(&self, reference: SecretRef) -> Task {
        let mut waiting = self.lock();
        if waiting.secrets.len() < MOST {
            waiting.secrets.push_back((Instant::now(), reference));
        }
        if std::mem::replace(&mut waiting.attended, true) { Task::There } else { Task::Needed }
    }

    /// Those that have waited for long enough; `None`, and no task any more, when none is left at all.
    fn take(&self) -> Option<Vec<SecretRef>> {
        let mut waiting = self.lock();
        waiting.attended = !waiting.secrets.is_empty();
        let due = waiting.secrets.iter().take_while(|(since, _)| since.elapsed() >= LINGER).count();
        waiting.attended.then(|| waiting.secrets.drain(..due).map(|(_, reference)| reference).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lifecycle {
    /// Removes what a row named until now, once others have heard of it too: their calls still go by what the row was. A row
    /// that names it again by then keeps it.
    pub(super) fn retire(&self, reference: Option<&SecretRef>) {
        let Some(reference) = reference.cloned() else { return };
        if self.inner.retired.put(reference) == Task::There {
            return;
        }
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                // The sweep does it later.
                () = this.inner.stop.cancelled() => {}
                () = this.remove_retired() => {}
            }
        });
    }

    async fn remove_retired(&self) {
        loop {
            // For a whole time each round, so that one reading serves all that come in meanwhile.
            sleep(LINGER).await;
            let Some(due) = self.inner.retired.take() else { return };
            if due.is_empty() {
                continue;
            }
            match self.named_references().await {
                Ok(named) => {
                    let gone = due.iter().filter(|reference| !named.contains(*reference));
                    let gone = stream::iter(gone.map(Some));
                    gone.for_each_concurrent(self.options().parallel.max(1), |reference| self.discard(reference)).await;
                }
                Err(error) => {
                    tracing::warn!(secrets = due.len(), %error, "whether secrets are still named could not be read; the sweep will do it");
                }
            }
        }
    }
}
