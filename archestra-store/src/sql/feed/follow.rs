//! A follower of the feed: reads the change log from its own position, so that a slow one costs nothing.

use super::{Head, LOOK, MAX_PAUSE, Pulse, change, head, mark_of};
use crate::sql::{
    database::{Database, rows, stored},
    error::db_error,
};
use archestra_core::{
    Error, Result,
    feed::{FeedEvent, StoreRevision},
};
use sea_orm::{
    ConnectionTrait,
    sea_query::{Expr, ExprTrait as _, Order, Query},
};
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
    /// The mark of the commit at the position, where commits have marks.
    mark: Option<Uuid>,
    ready: VecDeque<FeedEvent<K>>,
    /// Whether the latest read came up to the newest commit that there was.
    caught_up: bool,
    /// When a confirmation came last.
    told: Option<Instant>,
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
            mark: None,
            ready: VecDeque::new(),
            caught_up: false,
            told: None,
            reported: 0,
            confirmed: None,
            doubted: 0,
            pause: None,
            ended: false,
        }
    }

    /// The next event; `None` once the store is closed.
    pub(super) async fn next(&mut self) -> Option<Result<FeedEvent<K>>> {
        let asked = Instant::now();
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
            if let Some(event) = self.overtaken() {
                return Some(Ok(event));
            }
            let pulse = self.pulse.borrow_and_update().clone();
            let read = match self.position {
                None => self.begin().await,
                Some(position) if pulse.head > position => self.advance(position).await,
                // The pulse may only be older than what was read. It may also be of a standby that took over without the last
                // commits, or of a backup that was put back. With as many others made since, only the mark tells.
                Some(position)
                    if pulse.looks > self.doubted
                        && (pulse.head < position || (pulse.trouble.is_none() && pulse.mark != self.mark)) =>
                {
                    self.doubted = pulse.looks;
                    self.verify(position).await
                }
                Some(position) => {
                    if let Some(event) = self.report(position, &pulse, asked) {
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

    /// What is confirmed to somebody who has everything up to the newest commit that was there when it was read, while others
    /// go on committing: the next look finds more, and a feed that only confirmed when nothing is left would never do it.
    fn overtaken(&mut self) -> Option<FeedEvent<K>> {
        let position = self.position.filter(|_| std::mem::take(&mut self.caught_up))?;
        if self.told.is_some_and(|at| at.elapsed() < CONFIRM) {
            return None;
        }
        self.told = Some(Instant::now());
        Some(FeedEvent::Confirmed { revision: StoreRevision(position) })
    }

    /// What there is to say when nothing has changed to somebody who waits since `asked`.
    fn report(&mut self, position: u64, pulse: &Pulse, asked: Instant) -> Option<Result<FeedEvent<K>>> {
        if pulse.looks <= self.reported {
            return None;
        }
        if let Some(trouble) = &pulse.trouble {
            self.reported = pulse.looks;
            return Some(Err(Error::Unavailable { backend: "database", reason: trouble.to_string(), source: None }));
        }
        // Whoever waits takes it for as old as its waiting, so that a look may take as long as it does, but not begin before.
        if pulse.begun < asked || self.confirmed.is_some_and(|at| at.elapsed() < CONFIRM) {
            return None;
        }
        self.reported = pulse.looks;
        self.confirmed = Some(Instant::now());
        self.told = self.confirmed;
        Some(Ok(FeedEvent::Confirmed { revision: StoreRevision(position) }))
    }

    async fn begin(&mut self) -> Result<()> {
        let since = self.since.map(|StoreRevision(since)| since);
        let (head, mark) = within(self.at(since)).await?;
        match since {
            Some(since) if (head.floor..=head.revision).contains(&since) => {
                self.position = Some(since);
                self.mark = mark;
            }
            _ => self.resync().await?,
        }
        Ok(())
    }

    /// Begins anew when the database has gone back behind `position`, or has another commit there than it had.
    async fn verify(&mut self, position: u64) -> Result<()> {
        let (head, mark) = within(self.at(Some(position))).await?;
        if head.revision < position || (head.floor < position && mark != self.mark) {
            self.resync().await?;
        }
        Ok(())
    }

    async fn resync(&mut self) -> Result<()> {
        let (head, mark) = within(self.at(None)).await?;
        self.position = Some(head.revision);
        self.mark = mark;
        self.confirmed = None;
        self.ready.push_back(FeedEvent::Resync { revision: StoreRevision(head.revision) });
        Ok(())
    }

    /// The head, and the mark of the commit at `position`, or else of the newest one, both as of one moment.
    async fn at(&self, position: Option<u64>) -> Result<(Head, Option<Uuid>)> {
        let tx = self.db.begin_snapshot().await?;
        let head = head(&tx).await?;
        let mark = mark_of(&tx, self.db.dialect, position.unwrap_or(head.revision)).await?;
        tx.rollback().await.map_err(db_error)?;
        Ok((head, mark))
    }

    /// Reads what was committed after `position`, or as much of it as fits.
    async fn advance(&mut self, position: u64) -> Result<()> {
        let Some(Batch { changes, reached, mark, whole }) = within(self.read(position)).await? else {
            return self.resync().await;
        };
        self.ready.extend(changes);
        self.position = Some(reached);
        self.mark = mark;
        self.confirmed = None;
        self.caught_up = whole;
        Ok(())
    }

    /// Reads all as of one moment; nothing when what is there does not go on from `position`.
    async fn read(&self, position: u64) -> Result<Option<Batch<K>>> {
        let tx = self.db.begin_snapshot().await?;
        let head = head(&tx).await?;
        let goes_on = head.floor <= position && position <= head.revision;
        if !goes_on || (head.floor < position && mark_of(&tx, self.db.dialect, position).await? != self.mark) {
            return Ok(None);
        }
        let later = Expr::col("revision").gt(stored(position)).and(Expr::col("revision").lte(stored(head.revision)));
        let mut found = self.select(&tx, later, Some(BATCH)).await?;
        let whole = found.rows < BATCH;
        // The last commit of a full batch may go on in the next one.
        let reached = match found.span {
            Some((first, last)) if !whole && first < last => {
                if found.changes.back().is_some_and(|change| change.revision().0 == last) {
                    found.changes.pop_back();
                }
                last - 1
            }
            Some((_, last)) if !whole => {
                found = self.select(&tx, Expr::col("revision").eq(stored(last)), None).await?;
                last
            }
            _ => head.revision,
        };
        let mark = mark_of(&tx, self.db.dialect, reached).await?;
        tx.rollback().await.map_err(db_error)?;
        Ok(Some(Batch { changes: found.changes, reached, mark, whole }))
    }

    async fn select<C: ConnectionTrait>(&self, db: &C, filter: Expr, limit: Option<u64>) -> Result<Found<K>> {
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
        let rows = rows(db, &statement).await?;
        let mut found = Found { changes: VecDeque::new(), span: None, rows: rows.len() as u64 };
        for row in &rows {
            let (revision, key) = change(row, self.key)?;
            found.span = Some((found.span.map_or(revision, |(first, _)| first), revision));
            // A kind that a newer version brought is nothing that this one could follow.
            let Some(key) = key else { continue };
            match found.changes.back_mut() {
                Some(FeedEvent::Changed { revision: last, keys }) if last.0 == revision => keys.push(key),
                _ => found.changes.push_back(FeedEvent::Changed { revision: StoreRevision(revision), keys: vec![key] }),
            }
        }
        Ok(found)
    }
}

/// What was committed after a position.
struct Batch<K> {
    changes: VecDeque<FeedEvent<K>>,
    /// Up to where it goes, and the mark there.
    reached: u64,
    mark: Option<Uuid>,
    /// Whether that is all there was.
    whole: bool,
}

/// What a query found, of kinds that are known; the first and the last revision of all of it.
struct Found<K> {
    changes: VecDeque<FeedEvent<K>>,
    span: Option<(u64, u64)>,
    rows: u64,
}

async fn within<T>(read: impl Future<Output = Result<T>> + Send) -> Result<T> {
    timeout(LOOK, read).await.unwrap_or(Err(Error::Timeout { operation: "reading changes", after: LOOK }))
}

#[cfg(test)]
mod tests;
