//! How long ago the change feeds were last confirmed: what was revoked since then could still look valid.

use archestra_core::feed::FeedEvent;
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

/// Since when what a feed tells holds.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// When the first commit was asked for that came since the last confirmation.
    unconfirmed: Option<Instant>,
}

impl Told {
    /// Since when an event holds that was `asked` for then. A confirmation that follows commits while others are made speaks of
    /// when the first of them was asked for; a commit alone confirms nothing, since others may be behind it.
    pub(crate) fn since<K>(&mut self, event: &FeedEvent<K>, asked: Instant) -> Instant {
        match event {
            FeedEvent::Changed { .. } => *self.unconfirmed.get_or_insert(asked),
            FeedEvent::Confirmed { .. } => self.unconfirmed.take().unwrap_or(asked),
            FeedEvent::Resync { .. } => {
                self.unconfirmed = None;
                asked
            }
        }
    }
}

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
    use archestra_core::feed::StoreRevision;

    #[test]
    fn a_commit_confirms_nothing_and_what_follows_it_holds_since_it_was_asked_for() {
        let (mut told, begun, revision) = (Told::default(), Instant::now(), StoreRevision(1));
        let at = |seconds| begun + Duration::from_secs(seconds);
        let changed = FeedEvent::Changed { revision, keys: vec![1_u8] };
        let confirmed = FeedEvent::<u8>::Confirmed { revision };
        assert_eq!([told.since(&changed, at(1)), told.since(&changed, at(3))], [at(1); 2]);
        assert_eq!([told.since(&confirmed, at(4)), told.since(&confirmed, at(5))], [at(1), at(5)]);
        told.since(&changed, at(6));
        assert_eq!(told.since(&FeedEvent::<u8>::Resync { revision }, at(8)), at(8));
        assert_eq!(told.since(&confirmed, at(9)), at(9));
    }

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
