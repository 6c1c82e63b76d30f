//! Follows the catalog's change feed and swaps in a new snapshot after each commit, building only what it touched.

use super::{
    Freshness, Snapshot, Source, Told,
    gaps::{Gaps, KINDS, Read},
    mirror::{Affected, Mirror, RouteParts},
    names::{Known, Names},
};
use crate::upstream::Upstreams;
use arc_swap::{ArcSwap, Guard};
use archestra_core::{
    Error,
    catalog::{CatalogStore, Kind, Query, RecordKey},
    feed::{FeedEvent, MAX_PAGE, PageRequest, StoreRevision},
    id::InstallationId,
};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long the follower waits before it asks a store again that failed.
const RETRY: Duration = Duration::from_millis(500);
/// How often it says that it still failed.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// How many records are read together.
const TOGETHER_READ: usize = 500;
/// How many such reads are under way at once.
const READS: usize = 2;
/// Commits that wait together are taken in together, until they name so many records.
const TOGETHER: usize = 5000;

/// The present snapshot.
#[derive(Debug)]
pub(crate) struct Routes {
    snapshot: ArcSwap<Snapshot>,
    revision: watch::Sender<Option<StoreRevision>>,
    gaps: Gaps,
    /// Snapshots that were replaced while calls still looked at them. Whoever lets go of one last frees all of it, and that must
    /// not be a call.
    replaced: Mutex<Vec<Arc<Snapshot>>>,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            snapshot: ArcSwap::default(),
            revision: watch::Sender::new(None),
            gaps: Gaps::default(),
            replaced: Mutex::default(),
        }
    }
}

impl Routes {
    /// The snapshot that a call is routed by.
    pub(crate) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Routes calls by another snapshot from now on.
    fn show(&self, next: Snapshot) {
        let before = self.snapshot.swap(Arc::new(next));
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).push(before);
        self.free();
    }

    /// Frees what no call looks at any more.
    fn free(&self) {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let unused: Vec<_> = replaced.extract_if(.., |snapshot| Arc::strong_count(snapshot) == 1).collect();
        drop(replaced);
        drop(unused);
    }

    /// Waits until a commit is in the snapshot, or any when none is named.
    pub(crate) async fn reached(&self, revision: Option<StoreRevision>) {
        let mut seen = self.revision.subscribe();
        // The sender lives as long as `self`.
        drop(seen.wait_for(|at| at.is_some() && *at >= revision).await);
    }
}

/// The task that keeps [`Routes`] what the catalog says.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) catalog: Arc<dyn CatalogStore>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) names: Arc<Names>,
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) upstreams: Upstreams,
    pub(crate) parts: RouteParts,
}

impl Follower {
    /// Follows until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(self) {
        let mut mirror = Mirror::default();
        let mut since = None;
        let mut trouble = Trouble::default();
        loop {
            let mut feed = Feed::new(self.catalog.changes(since));
            while let Some((asked, event)) = feed.next().await {
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::warn!(%error, "the catalog's change feed is interrupted");
                        continue;
                    }
                };
                let revision = event.revision();
                let current = !matches!(event, FeedEvent::Changed { .. });
                self.routes.free();
                let outcome = match event {
                    FeedEvent::Confirmed { .. } => Ok(()),
                    FeedEvent::Changed { keys, .. } => self.change(&mut mirror, &keys).await,
                    FeedEvent::Resync { .. } => self.resync(&mut mirror).await,
                };
                match outcome {
                    Ok(()) => {
                        trouble = Trouble::default();
                        since = Some(revision);
                        if current {
                            self.freshness.confirm(Source::Catalog, asked);
                        }
                        self.routes.revision.send_if_modified(|at| std::mem::replace(at, since) != since);
                    }
                    Err(error) => {
                        trouble.tell(&error);
                        // Reading again from the last position that was taken in delivers it once more.
                        break;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn change(&self, mirror: &mut Mirror, keys: &[RecordKey]) -> Result<(), Error> {
        let records = read(&self.catalog, keys).await?;
        self.parts.meters.unreadable(self.routes.gaps.note(&records));
        let mut affected = Affected::default();
        for Read { key, record, .. } in records {
            self.names.apply(key, record.as_ref());
            mirror.apply(key, record, &mut affected);
        }
        self.publish(mirror, affected);
        Ok(())
    }

    async fn resync(&self, mirror: &mut Mirror) -> Result<(), Error> {
        let mut fresh = Mirror::default();
        fresh.keep_subscribers(mirror);
        let mut names = Known::default();
        let mut affected = Affected::default();
        let mut missing = Vec::new();
        for kind in KINDS {
            let mut page = PageRequest { limit: MAX_PAGE, cursor: None };
            loop {
                let found = self.catalog.list_each(&Query::all(kind), &page).await?;
                for item in found.items {
                    let read =
                        Read::of(item.as_ref().map_or_else(|gap| gap.key, |found| found.value.key()), Some(item))?;
                    if read.record.is_none() {
                        missing.push(read);
                    } else {
                        names.apply(read.key, read.record.as_ref());
                        fresh.apply(read.key, read.record, &mut affected);
                    }
                }
                match found.next {
                    Some(cursor) => page.cursor = Some(cursor),
                    None => break,
                }
            }
        }
        *mirror = fresh;
        self.parts.meters.unreadable(self.routes.gaps.replace(&missing));
        self.names.replace(names);
        self.forget(affected.gone);
        let mut whole = Snapshot::default();
        let consumers: Vec<_> = mirror.consumer_ids().collect();
        for id in consumers {
            whole.put(mirror.build(id, &self.parts));
            // All of them together take long enough that others would wait for this thread.
            tokio::task::yield_now().await;
        }
        self.routes.show(whole);
        Ok(())
    }

    fn publish(&self, mirror: &mut Mirror, mut affected: Affected) {
        self.forget(std::mem::take(&mut affected.gone));
        let next = self.routes.load().after(mirror, affected, &self.parts);
        if let Some(next) = next {
            self.routes.show(next);
        }
    }

    fn forget(&self, gone: Vec<InstallationId>) {
        for installation in gone {
            self.upstreams.forget(installation);
        }
    }
}

/// What keeps the catalog from being read, told once and then once a minute: it may last, and is met twice a second.
#[derive(Debug, Default)]
struct Trouble(Option<(String, Instant)>);

impl Trouble {
    fn tell(&mut self, error: &Error) {
        let text = error.to_string();
        let told = self.0.as_ref().is_some_and(|(told, at)| *told == text && at.elapsed() < TELL_AGAIN);
        if !told {
            tracing::error!(error = text, "the catalog could not be read; trying again");
            self.0 = Some((text, Instant::now()));
        }
    }
}

/// Reads records, all of them before the first is taken in: a commit is followed whole or not at all.
async fn read(catalog: &Arc<dyn CatalogStore>, keys: &[RecordKey]) -> Result<Vec<Read>, Error> {
    // Nothing is routed by revisions, of which there are many.
    let keys: Vec<RecordKey> = keys.iter().copied().filter(|key| key.kind() != Kind::Revision).collect();
    let batches: Vec<Vec<RecordKey>> = keys.chunks(TOGETHER_READ).map(<[_]>::to_vec).collect();
    let reads = batches.into_iter().map(|keys| {
        let catalog = Arc::clone(catalog);
        async move {
            let found = catalog.get_each(&keys).await?;
            keys.into_iter().zip(found).map(|(key, found)| Read::of(key, found)).collect::<Result<Vec<_>, Error>>()
        }
    });
    stream::iter(reads).buffered(READS).try_concat().await
}

/// A change feed on which commits that wait together are one.
struct Feed {
    events: BoxStream<'static, Result<FeedEvent<RecordKey>, Error>>,
    /// What came right behind commits and is none.
    behind: Option<(Instant, Result<FeedEvent<RecordKey>, Error>)>,
    told: Told,
    ended: bool,
}

impl Feed {
    fn new(events: BoxStream<'static, Result<FeedEvent<RecordKey>, Error>>) -> Self {
        Self { events, behind: None, told: Told::default(), ended: false }
    }

    /// The next event, and since when it holds. A confirmation holds since it was asked for, and not only since its answer has
    /// been worked off.
    async fn next(&mut self) -> Option<(Instant, Result<FeedEvent<RecordKey>, Error>)> {
        let (asked, event) = self.take().await?;
        let since = match &event {
            Ok(event) => self.told.since(event, asked),
            Err(_) => asked,
        };
        Some((since, event))
    }

    async fn take(&mut self) -> Option<(Instant, Result<FeedEvent<RecordKey>, Error>)> {
        if let Some(behind) = self.behind.take() {
            return Some(behind);
        }
        if self.ended {
            return None;
        }
        let asked = Instant::now();
        let Some(event) = self.events.next().await else {
            self.ended = true;
            return None;
        };
        match event {
            Ok(FeedEvent::Changed { revision, keys }) => Some((asked, Ok(self.together(revision, keys)))),
            event => Some((asked, event)),
        }
    }

    /// Takes what waits behind a commit to it, each record once: values are read afterwards, and are those of the latest commit.
    fn together(&mut self, mut revision: StoreRevision, mut keys: Vec<RecordKey>) -> FeedEvent<RecordKey> {
        let mut known: HashSet<RecordKey> = keys.iter().copied().collect();
        while keys.len() < TOGETHER {
            let asked = Instant::now();
            match self.events.next().now_or_never() {
                Some(Some(Ok(FeedEvent::Changed { revision: later, keys: more }))) => {
                    revision = later;
                    keys.extend(more.into_iter().filter(|key| known.insert(*key)));
                }
                Some(Some(event)) => {
                    self.behind = Some((asked, event));
                    break;
                }
                Some(None) => {
                    self.ended = true;
                    break;
                }
                None => break,
            }
        }
        FeedEvent::Changed { revision, keys }
    }
}

#[cfg(test)]
mod tests;
