//! Installations whose tools could not be listed although something asked for it: they are listed later, after growing
//! pauses, until it succeeds.

use super::Lifecycle;
use archestra_core::id::InstallationId;
use futures::{StreamExt as _, stream};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

/// The pause after the first failure. Each further one doubles it.
const FIRST: Duration = Duration::from_secs(10);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);

/// The listings that are owed.
#[derive(Debug, Default)]
pub(super) struct Owed {
    listings: Mutex<HashMap<InstallationId, Debt>>,
    /// There may be one that is due earlier.
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Debt {
    pause: Duration,
    /// When it is tried again; nothing while it is being tried, which ends in one more failure or in success.
    due: Option<Instant>,
}

impl Owed {
    /// Notes a failure.
    pub(super) fn add(&self, id: InstallationId) {
        let mut listings = self.lock();
        let pause = listings.get(&id).map_or(FIRST, |debt| (debt.pause * 2).min(LONGEST));
        listings.insert(id, Debt { pause, due: Some(Instant::now() + pause) });
        drop(listings);
        self.changed.notify_one();
    }

    /// Notes a success, or that there is nothing to list any more.
    pub(super) fn settle(&self, id: InstallationId) {
        self.lock().remove(&id);
    }

    fn next(&self) -> Option<Instant> {
        self.lock().values().filter_map(|debt| debt.due).min()
    }

    fn take_due(&self) -> Vec<InstallationId> {
        let now = Instant::now();
        let mut listings = self.lock();
        let due = listings.iter_mut().filter(|(_, debt)| debt.due.is_some_and(|due| due <= now));
        due.map(|(id, debt)| {
            debt.due = None;
            *id
        })
        .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstallationId, Debt>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lifecycle {
    /// Lists what is owed until the lifecycle is shut down.
    pub(super) fn listing_owed(&self) -> AbortOnDropHandle<()> {
        let (this, stop) = (self.clone(), self.inner.stop.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            stop.run_until_cancelled(this.list_owed_forever()).await;
        }))
    }

    async fn list_owed_forever(&self) {
        let owed = &self.inner.owed;
        loop {
            let changed = owed.changed.notified();
            match owed.next() {
                None => changed.await,
                Some(due) if due > Instant::now() => {
                    tokio::select! {
                        () = changed => {}
                        () = sleep_until(due) => {}
                    }
                }
                Some(_) => self.list_owed(owed.take_due()),
            }
        }
    }

    /// A few at a time, in a task of its own: a server that hangs keeps those that are due later from nothing.
    fn list_owed(&self, ids: Vec<InstallationId>) {
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let list = |id| {
                let this = &this;
                async move {
                    // Whoever has the claim starts over, and says how that ended.
                    if let Some(claim) = this.inner.jobs.claim(id) {
                        this.work(id, claim).await;
                    }
                }
            };
            let all = stream::iter(ids).for_each_concurrent(this.options().parallel.max(1), list);
            tokio::select! {
                () = this.inner.stop.cancelled() => {}
                () = all => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_longest_and_begin_anew_after_a_success() {
        let (owed, id) = (Owed::default(), InstallationId::new());
        let pause = || owed.next().unwrap() - Instant::now();
        owed.add(id);
        assert_eq!(pause(), FIRST);
        assert_eq!(owed.take_due(), []);
        for _ in 0..3 {
            tokio::time::advance(pause()).await;
            assert_eq!(owed.take_due(), [id]);
            assert_eq!((owed.next(), owed.take_due()), (None, vec![]), "it is being tried");
            owed.add(id);
        }
        assert_eq!(pause(), FIRST * 8);
        for _ in 0..8 {
            owed.add(id);
        }
        assert_eq!(pause(), LONGEST);
        owed.settle(id);
        assert_eq!(owed.next(), None);
        owed.add(id);
        assert_eq!(pause(), FIRST);
    }
}
