//! How long ago the change feeds were last confirmed: what was revoked since then could still look valid.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// A store whose feed is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Catalog,
    Identity,
}

/// The times of the last confirmations.
#[derive(Debug)]
pub(crate) struct Freshness {
    epoch: Instant,
    allowed: Duration,
    catalog: AtomicU64,
    identity: AtomicU64,
}

/// Nothing was confirmed for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stale;

impl Freshness {
    /// Nothing may be older than `allowed`. Nothing is confirmed yet.
    pub(crate) fn new(allowed: Duration) -> Self {
        Self { epoch: Instant::now(), allowed, catalog: AtomicU64::new(0), identity: AtomicU64::new(0) }
    }

    /// Notes that everything is taken in that a feed had when it was `asked`.
    pub(crate) fn confirm(&self, source: Source, asked: Instant) {
        // Zero says "never", so that the clock starts at one.
        let at = millis(asked.saturating_duration_since(self.epoch)).saturating_add(1);
        self.cell(source).store(at, Ordering::Release);
    }

    /// Whether both feeds were confirmed recently enough.
    pub(crate) fn check(&self) -> Result<(), Stale> {
        let now = self.since_epoch();
        let allowed = millis(self.allowed);
        let fresh = |source| {
            let confirmed = self.cell(source).load(Ordering::Acquire);
            confirmed != 0 && now.saturating_sub(confirmed) <= allowed
        };
        if fresh(Source::Catalog) && fresh(Source::Identity) { Ok(()) } else { Err(Stale) }
    }

    fn since_epoch(&self) -> u64 {
        millis(self.epoch.elapsed())
    }

    const fn cell(&self, source: Source) -> &AtomicU64 {
        match source {
            Source::Catalog => &self.catalog,
            Source::Identity => &self.identity,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn both_feeds_must_have_been_confirmed_within_the_time_allowed() {
        let freshness = Freshness::new(Duration::from_secs(5));
        assert_eq!(freshness.check(), Err(Stale));
        freshness.confirm(Source::Catalog, Instant::now());
        assert_eq!(freshness.check(), Err(Stale));
        freshness.confirm(Source::Identity, Instant::now());
        assert_eq!(freshness.check(), Ok(()));
        tokio::time::advance(Duration::from_secs(4)).await;
        freshness.confirm(Source::Identity, Instant::now());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(freshness.check(), Err(Stale));
        freshness.confirm(Source::Catalog, Instant::now());
        assert_eq!(freshness.check(), Ok(()));
    }
}
