//! Milliseconds since the start, small enough for an atomic.

#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

/// Counts from when it was made; clones count from the same moment.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    started: Instant,
    #[cfg(test)]
    skipped: Arc<AtomicU64>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            #[cfg(test)]
            skipped: Arc::default(),
        }
    }

    /// Milliseconds since the start.
    pub(super) fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        #[cfg(test)]
        let elapsed = elapsed + self.skipped.load(Ordering::SeqCst);
        elapsed
    }

    /// Lets so much time pass at once.
    #[cfg(test)]
    pub(super) fn skip(&self, time: std::time::Duration) {
        self.skipped.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }
}
