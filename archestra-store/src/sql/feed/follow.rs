//! A follower of the feed: reads the change log from its own position, so that a slow one costs nothing.

use super::{LOOK, MAX_PAUSE, Pulse, change, head};
use crate::sql::database::{Database, rows, stored};
use archestra_core::{
    Error, Result,
    feed::{FeedEvent, StoreRevision},
};
use sea_orm::sea_query::{Expr, ExprTrait as _, Order, Query};
use std::{collections::VecDeque, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// How many changes are read at once.
const BATCH: u64 = 2000;
/// A position is confirmed again after so long.
const CONFIRM: Duration = Duration::from_millis(300);
/// The first pause after a failed read.
const PAUSE: Duration = Duration::from_millis(200);

/// Whoever reads one store's changes.
pub(super) struct Follower<K> {
    db: Database,
    pulse: watch::Receiver<Pulse>,
    store: &'static str,
    key: fn(&str, Uuid) -> Option<K>,
    since: Option<StoreRevision>,
    position: Option<u64>,
    ready: VecDeque<FeedEvent<K>>,
    /// The look that was reported last, as a confirmation or as an error.
    reported: u64,
    confirmed: Option<Instant>,
    /// The look that seemed to be older than the position.
    doubted: u64,
    pause: Option<Duration>,
    ended: bool,
}

impl<K: Send + Sync> Follower<K> {
    pub(super) fn new(
        db: Database,
        pulse: watch::Receiver<Pulse>,
        store: &'static str,
        key: fn(&str, Uuid) -> Option<K>,
        since: Option<StoreRevision>,
    ) -> Self {
        Self {
            db,
            pulse,
            store,
            key,
            since,
            position: None,
            ready: VecDeque::new(),
            reported: 0,
            confirmed: None,
            doubted: 0,
            pause: None,
            ended: false,
        }
    }

    /// The next event; `None` once the store is closed.
    pub(super) async fn next(&mut self) -> Option<Result<FeedEvent<K>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            if let Some(pause) = self.pause {
                sleep(pause).await;
            }
            let pulse = self.pulse.borrow_and_update().clone();
            let read = match self.position {
                None => self.begin().await,
                Some(position) if pulse.head > position => self.advance(position, pulse.head).await,
                // The pulse may only be older than what was read. It may also be of a standby that took over without the last
                // commits, or of a backup that was put back.
                Some(position) if pulse.head < position && pulse.looks > self.doubted => {
                    self.doubted = pulse.looks;
                    self.rewind(position).await
                }
                Some(position) => {
                    if let Some(event) = self.report(position, &pulse) {
                        return Some(event);
                    }
                    if self.pulse.changed().await.is_err() {
                        self.ended = true;
                        return Some(Err(Error::Unavailable {
                            backend: "database",
                            reason: "the store is closed".to_owned(),
                            source: None,
                        }));
                    }
                    continue;
                }
            };
            match read {
                Ok(()) => self.pause = None,
                Err(error) => {
                    self.pause = Some(self.pause.map_or(PAUSE, |pause| (pause * 2).min(MAX_PAUSE)));
                    return Some(Err(error));
                }
            }
        }
    }

    /// What there is to say when nothing has changed.
    fn report(&mut self, position: u64, pulse: &Pulse) -> Option<Result<FeedEvent<K>>> {
        if pulse.looks <= self.reported {
            return None;
        }
        if let Some(trouble) = &pulse.trouble {
            self.reported = pulse.looks;
            return Some(Err(Error::Unavailable { backend: "database", reason: trouble.to_string(), source: None }));
        }
        if self.confirmed.is_some_and(|at| at.elapsed() < CONFIRM) {
            return None;
        }
        self.reported = pulse.looks;
        self.confirmed = Some(Instant::now());
        Some(Ok(FeedEvent::Confirmed { revision: StoreRevision(position) }))
    }

    async fn begin(&mut self) -> Result<()> {
        let head = within(head(&self.db.reader)).await?;
        match self.since {
            Some(StoreRevision(since)) if (head.floor..=head.revision).contains(&since) => self.position = Some(since),
            _ => self.resync(head.revision),
        }
        Ok(())
    }

    /// Begins anew when the database has gone back behind `position`.
    async fn rewind(&mut self, position: u64) -> Result<()> {
        let head = within(head(&self.db.reader)).await?;
        if head.revision < position {
            self.resync(head.revision);
        }
        Ok(())
    }

    fn resync(&mut self, revision: u64) {
        self.position = Some(revision);
        self.confirmed = None;
        self.ready.push_back(FeedEvent::Resync { revision: StoreRevision(revision) });
    }

    /// Reads what was committed after `position`, up to `newest` or as much as fits.
    async fn advance(&mut self, position: u64, newest: u64) -> Result<()> {
        let (mut changes, whole) = within(self.read(position, newest)).await?;
        // What was pruned before the read may be missing from it.
        let head = within(head(&self.db.reader)).await?;
        if head.floor > position {
            self.resync(head.revision);
            return Ok(());
        }
        // The last commit of a full batch may go on in the next one.
        let reached = match changes.back() {
            Some(last) if !whole && changes.len() > 1 => {
                let reached = last.revision().0 - 1;
                changes.pop_back();
                reached
            }
            Some(last) if !whole => {
                let revision = last.revision().0;
                changes = within(self.read_all(revision)).await?;
                revision
            }
            _ => newest,
        };
        self.ready.extend(changes);
        self.position = Some(reached);
        self.confirmed = None;
        Ok(())
    }

    async fn read(&self, position: u64, newest: u64) -> Result<(VecDeque<FeedEvent<K>>, bool)> {
        let later = Expr::col("revision").gt(stored(position)).and(Expr::col("revision").lte(stored(newest)));
        let (changes, count) = self.select(later, Some(BATCH)).await?;
        Ok((changes, (count as u64) < BATCH))
    }

    async fn read_all(&self, revision: u64) -> Result<VecDeque<FeedEvent<K>>> {
        Ok(self.select(Expr::col("revision").eq(stored(revision)), None).await?.0)
    }

    async fn select(&self, filter: Expr, limit: Option<u64>) -> Result<(VecDeque<FeedEvent<K>>, usize)> {
        let mut statement = Query::select()
            .columns(["revision", "kind", "id"])
            .from("changes")
            .and_where(filter)
            .and_where(Expr::col("store").eq(self.store))
            .take();
        statement.order_by("revision", Order::Asc).order_by("position", Order::Asc);
        if let Some(limit) = limit {
            statement.limit(limit);
        }
        let found = rows(&self.db.reader, &statement).await?;
        let mut changes: VecDeque<FeedEvent<K>> = VecDeque::new();
        for row in &found {
            let (revision, key) = change(row, self.key)?;
            // A kind that a newer version brought is nothing that this one could follow.
            let Some(key) = key else { continue };
            match changes.back_mut() {
                Some(FeedEvent::Changed { revision: last, keys }) if last.0 == revision => keys.push(key),
                _ => changes.push_back(FeedEvent::Changed { revision: StoreRevision(revision), keys: vec![key] }),
            }
        }
        Ok((changes, found.len()))
    }
}

async fn within<T>(read: impl Future<Output = Result<T>> + Send) -> Result<T> {
    timeout(LOOK, read).await.unwrap_or(Err(Error::Timeout { operation: "reading changes", after: LOOK }))
}
