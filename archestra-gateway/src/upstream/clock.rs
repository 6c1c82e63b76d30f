//! Milliseconds since the start, small enough for an atomic.

use tokio::time::Instant;

/// Counts from when it was made; clones count from the same moment.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    started: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// Milliseconds since the start.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
