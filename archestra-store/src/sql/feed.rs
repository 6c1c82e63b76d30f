//! The change feed: the head that orders all commits, the log of what they touched, and one poller for all followers.

mod follow;

use super::{
    commit::insert,
    database::{Database, column, count, execute, row, stored},
    dialect::Dialect,
    error::is_silence,
    family::id,
};
use archestra_core::{
    Error, Result,
    feed::{FeedEvent, StoreKey, StoreRevision},
};
use follow::Follower;
use futures::{StreamExt as _, stream, stream::BoxStream};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr,
    sea_query::{Expr, ExprTrait as _, LockType, Query},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// The longest pause between two looks at a database that does not answer.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(5);
/// After so many looks at the change counter the head is read in any case.
const TRUSTED: u32 = 5;
/// What the log calls a mark by which a commit is found again. No store follows it.
const MARKS: &str = "commit";
/// Where a mark is among the rows of its commit.
const MARK_POSITION: i32 = -1;
/// How long it may take to find out whether a commit happened.
const SETTLE: Duration = Duration::from_secs(15);
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

/// The head of the change log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// The newest commit.
    pub(super) revision: u64,
    /// Changes up to here are no longer kept.
    pub(super) floor: u64,
}

/// Reads the head.
pub(super) async fn head<C: ConnectionTrait>(db: &C) -> Result<Head> {
    parse(row(db, &Query::select().columns(["revision", "floor"]).from("feed_head").take()).await?.as_ref())
}

/// The mark of a commit, where commits have marks. Two that took the same revision in databases that went apart differ in it.
async fn mark_of<C: ConnectionTrait>(db: &C, dialect: Dialect, revision: u64) -> Result<Option<Uuid>> {
    if !dialect.loses_answers() {
        return Ok(None);
    }
    let mark = Query::select()
        .column("id")
        .from("changes")
        .and_where(Expr::col("revision").eq(stored(revision)))
        .and_where(Expr::col("position").eq(MARK_POSITION))
        .take();
    row(db, &mark).await?.map(|row| column(&row, "id")).transpose()
}

/// Takes the next revision. Until the transaction ends no other one gets further than this.
pub(super) async fn advance(tx: &DatabaseTransaction, dialect: Dialect) -> Result<Head> {
    let taken = ["revision", "floor"].map(Expr::col).into_iter().chain(dialect.announcement());
    let next = Query::update()
        .table("feed_head")
        .value("revision", Expr::col("revision").add(1))
        .and_where(Expr::col("id").eq(1))
        .returning(Query::returning().exprs(taken))
        .take();
    parse(row(tx, &next).await?.as_ref())
}

fn parse(row: Option<&sea_orm::QueryResult>) -> Result<Head> {
    let row = row.ok_or_else(|| Error::Backend {
        backend: "database",
        reason: "the head of the change log is missing; restore a backup".to_owned(),
        source: None,
    })?;
    Ok(Head { revision: count(row, "revision")?, floor: count(row, "floor")? })
}

/// Notes what a commit touched, and a mark of its own by which it is found again.
pub(super) async fn record<K: StoreKey>(
    tx: &DatabaseTransaction,
    revision: u64,
    store: &'static str,
    keys: &BTreeSet<K>,
    mark: Option<Uuid>,
) -> Result<()> {
    let rows =
        keys.iter()
            .zip(0_i32..)
            .map(|(key, position)| {
                vec![stored(revision).into(), position.into(), store.into(), key.label().into(), id(key)]
            })
            .chain(mark.map(|mark| {
                vec![stored(revision).into(), MARK_POSITION.into(), MARKS.into(), MARKS.into(), mark.into()]
            }))
            .collect();
    insert(tx, "changes", &["revision", "position", "store", "kind", "id"], rows).await
}

/// Finds out whether a commit happened whose answer was lost.
///
/// # Errors
/// That it did not happen, or that nobody can tell.
pub(super) async fn settle(db: &Database, revision: u64, mark: Uuid, lost: DbErr) -> Result<()> {
    let until = Instant::now() + SETTLE;
    let happened = loop {
        match happened(db, revision, mark).await {
            Ok(happened) => break happened,
            Err(error) if Instant::now() >= until || !error.is_retryable() => break None,
            Err(_) => sleep(SETTLE_PAUSE).await,
        }
    };
    match happened {
        Some(true) => Ok(()),
        Some(false) => Err(Error::Unavailable {
            backend: "database",
            reason: "the connection to it was lost before the change was committed; nothing was changed, try again"
                .to_owned(),
            source: Some(lost.into()),
        }),
        None => Err(super::error::in_doubt(lost)),
    }
}

/// Whether there is a commit of this revision and mark; `None` when too much came after it to tell.
async fn happened(db: &Database, revision: u64, mark: Uuid) -> Result<Option<bool>> {
    let tx = db.begin().await?;
    // Where the commit is still under way, it holds this row until it ends.
    let head = Query::select().columns(["revision", "floor"]).from("feed_head").lock(LockType::Update).take();
    let head = parse(row(&tx, &head).await?.as_ref())?;
    let ours = Query::select()
        .column("position")
        .from("changes")
        .and_where(Expr::col("revision").eq(stored(revision)))
        .and_where(Expr::col("id").eq(mark))
        .take();
    let found = row(&tx, &ours).await?.is_some();
    tx.rollback().await.map_err(super::error::db_error)?;
    Ok((found || head.floor < revision).then_some(found))
}

/// Forgets old changes, many at a time.
pub(super) async fn prune(tx: &DatabaseTransaction, head: &Head, kept: u64) -> Result<()> {
    if head.revision - head.floor <= kept + kept / 8 {
        return Ok(());
    }
    let floor = stored(head.revision - kept);
    execute(tx, &Query::delete().from_table("changes").and_where(Expr::col("revision").lte(floor)).take()).await?;
    execute(tx, &Query::update().table("feed_head").value("floor", floor).and_where(Expr::col("id").eq(1)).take())
        .await?;
    Ok(())
}

/// What the poller saw when it last looked.
#[derive(Debug, Clone)]
struct Pulse {
    /// Counts its looks.
    looks: u64,
    /// When the latest one began.
    begun: Instant,
    /// The newest commit it knows of, and its mark.
    head: u64,
    mark: Option<Uuid>,
    /// Why it could not look.
    trouble: Option<Arc<str>>,
}

/// The poller of one database, and what followers need.
#[derive(Debug)]
pub(super) struct Feed {
    db: Database,
    pulse: watch::Receiver<Pulse>,
    wake: Arc<Notify>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Feed {
    /// Begins to watch `db`.
    pub(super) fn start(db: Database, interval: Duration) -> Self {
        let (sender, pulse) =
            watch::channel(Pulse { looks: 0, begun: Instant::now(), head: 0, mark: None, trouble: None });
        let (wake, stop, tasks) = (Arc::new(Notify::new()), CancellationToken::new(), TaskTracker::new());
        let (heard, listening, unheard) = (Arc::clone(&wake), db.clone(), stop.clone().cancelled_owned());
        tasks.spawn(async move {
            tokio::select! {
                () = unheard => {}
                () = listening.dialect.listen(&listening, &heard) => {}
            }
        });
        let poller =
            Poller { db: db.clone(), interval, wake: Arc::clone(&wake), counter: None, trusted: 0, silent: false };
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            tokio::select! {
                () = stopped => {}
                () = poller.run(sender) => {}
            }
        });
        tasks.close();
        Self { db, pulse, wake, stop, tasks }
    }

    /// Ends the poller and, with it, all streams.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Makes the poller look when the returned value is dropped.
    pub(super) fn wake_on_drop(&self) -> Wake {
        Wake(Arc::clone(&self.wake))
    }

    /// The changes of one store from `since` on.
    pub(super) fn follow<K: StoreKey>(
        &self,
        store: &'static str,
        key: fn(&str, Uuid) -> Option<K>,
        since: Option<StoreRevision>,
    ) -> BoxStream<'static, Result<FeedEvent<K>>> {
        let follower = Follower::new(self.db.clone(), self.pulse.clone(), store, key, since);
        stream::unfold(follower, |mut follower| async move { follower.next().await.map(|event| (event, follower)) })
            .boxed()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Makes the poller look when dropped.
#[derive(Debug)]
pub(super) struct Wake(Arc<Notify>);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Looks for commits, whoever made them.
struct Poller {
    db: Database,
    interval: Duration,
    wake: Arc<Notify>,
    counter: Option<i64>,
    trusted: u32,
    /// Whether the latest look brought no answer at all.
    silent: bool,
}

impl Poller {
    async fn run(mut self, sender: watch::Sender<Pulse>) {
        let mut pause = self.interval;
        let mut known = None;
        loop {
            let begun = Instant::now();
            match self.look(known).await {
                Ok((head, mark)) => {
                    known = Some((head, mark));
                    pause = self.interval;
                    self.acquit().await;
                    sender.send_modify(|pulse| {
                        *pulse = Pulse { looks: pulse.looks + 1, begun, head, mark, trouble: None };
                    });
                }
                Err(error) => {
                    known = None;
                    pause = (pause * 2).min(MAX_PAUSE);
                    tracing::warn!(%error, "the change feed cannot be read");
                    self.suspect(&error).await;
                    let trouble = Some(error.to_string().into());
                    sender.send_modify(|pulse| {
                        *pulse = Pulse { looks: pulse.looks + 1, begun, trouble, ..pulse.clone() };
                    });
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                // A commit of our own is news whatever the counter says, which only counts those of others.
                () = self.wake.notified() => known = None,
            }
        }
    }

    /// A connection that does not answer may lead nowhere any more, as after a failover that nobody was told of.
    async fn suspect(&mut self, error: &Error) {
        if !is_silence(error) {
            return;
        }
        self.silent = true;
        if let Err(error) = self.db.renew_watcher().await {
            tracing::warn!(%error, "the connection that changes are looked for with cannot be made anew");
        }
    }

    /// Where a new connection answers after an old one did not, the others of the same age are no better than that one.
    async fn acquit(&mut self) {
        if !std::mem::take(&mut self.silent) {
            return;
        }
        match self.db.renew_others().await {
            Ok(()) => {
                tracing::warn!("the database answers again; connections that were made before are not used any more")
            }
            Err(error) => tracing::warn!(%error, "the connections to the database cannot be made anew"),
        }
    }

    async fn look(&mut self, known: Option<(u64, Option<Uuid>)>) -> Result<(u64, Option<Uuid>)> {
        let look = async {
            let counter = self.db.dialect.change_counter(&self.db).await.map_err(super::error::db_error)?;
            let unchanged = counter.is_some() && counter == self.counter && self.trusted < TRUSTED;
            match known {
                Some(known) if unchanged => {
                    self.trusted += 1;
                    Ok(known)
                }
                _ => {
                    let head = head(&self.db.watcher).await?;
                    let mark = mark_of(&self.db.watcher, self.db.dialect, head.revision).await?;
                    self.counter = counter;
                    self.trusted = 0;
                    Ok((head.revision, mark))
                }
            }
        };
        timeout(LOOK, look).await.unwrap_or(Err(Error::Timeout { operation: "looking for changes", after: LOOK }))
    }
}

/// Reads a logged change.
fn change<K>(row: &sea_orm::QueryResult, key: fn(&str, Uuid) -> Option<K>) -> Result<(u64, Option<K>)> {
    let kind: String = column(row, "kind")?;
    Ok((count(row, "revision")?, key(&kind, column(row, "id")?)))
}
