//! `StateStore` on SQL: each operation is one statement, by the clock of the database.

use super::{
    SqlStore,
    catalog::is,
    database::{Database, begins, column, row, rows},
    feed,
};
use archestra_core::{
    Error, Result,
    state::{StateKey, StateStore},
};
use async_trait::async_trait;
use bytes::Bytes;
use sea_orm::sea_query::{
    Condition, Expr, ExprTrait as _, InsertStatement, LockBehavior, LockType, OnConflict, Query, SelectStatement,
};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// The longest value.
const MAX_VALUE: usize = 64 * 1024;
/// A time to live beyond a century is for ever.
const MAX_TTL: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
/// Writes between two removals of what has expired.
const PURGE_EVERY: u32 = 128;
/// The most rows that one write removes for others.
const PURGE_ROWS: u64 = 512;

const STATE: &str = "state";
const COUNTERS: &str = "counters";

/// Counts writes, to remove what has expired now and then.
#[derive(Debug, Default)]
pub(super) struct Purge(AtomicU32);

impl Purge {
    fn is_due(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) % PURGE_EVERY == PURGE_EVERY - 1
    }
}

impl SqlStore {
    async fn run<T>(&self, operation: &'static str, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.db().within(operation, work).await
    }

    /// Removes some of what has expired. What others wait for does not depend on it, so that a failure is only logged.
    async fn purge(&self) {
        if !self.inner.purge.is_due() {
            return;
        }
        for table in [STATE, COUNTERS] {
            let db = self.db();
            let expired = Query::select()
                .columns(["space", "name"])
                .from(table)
                .and_where(Expr::col("expires_at").lte(db.dialect.now_ms()))
                .limit(PURGE_ROWS)
                // Two that remove the same rows in another order would wait for each other.
                .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
                .take();
            let gone = Query::delete()
                .from_table(table)
                .and_where(Expr::tuple([Expr::col("space"), Expr::col("name")]).in_subquery(expired))
                .take();
            if let Err(error) = db.write(&gone).await {
                tracing::warn!(%error, "removing expired state failed");
            }
        }
    }
}

#[async_trait]
impl StateStore for SqlStore {
    async fn get(&self, key: &StateKey) -> Result<Option<Bytes>> {
        let db = self.db();
        let value = Query::select().column("value").from(STATE).cond_where(at(key).add(live(db, STATE))).take();
        self.run("reading state", async { row(&db.reader, &value).await?.map(|row| bytes(&row)).transpose() }).await
    }

    async fn put(&self, key: &StateKey, value: Bytes, ttl: Duration) -> Result<()> {
        let statement = insert(self.db(), key, &value, ttl)?.on_conflict(replace()).take();
        self.run("writing state", self.db().write(&statement)).await?;
        self.purge().await;
        Ok(())
    }

    async fn put_if_absent(&self, key: &StateKey, value: Bytes, ttl: Duration) -> Result<bool> {
        let db = self.db();
        let expired = Expr::col((STATE, "expires_at")).lte(db.dialect.now_ms());
        let statement =
            insert(db, key, &value, ttl)?.on_conflict(replace().action_and_where(expired).to_owned()).take();
        let written = self.run("writing state", db.write(&statement)).await?;
        self.purge().await;
        Ok(written > 0)
    }

    async fn compare_and_set(&self, key: &StateKey, expected: &[u8], value: Bytes, ttl: Duration) -> Result<bool> {
        check(&value)?;
        let db = self.db();
        let statement = Query::update()
            .table(STATE)
            .value("value", value.to_vec())
            .value("expires_at", expiry(db, ttl))
            .cond_where(at(key).add(is("value", expected.to_vec())).add(live(db, STATE)))
            .take();
        Ok(self.run("writing state", db.write(&statement)).await? > 0)
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Bytes>> {
        let db = self.db();
        let statement =
            Query::delete().from_table(STATE).cond_where(at(key).add(live(db, STATE))).returning_col("value").take();
        self.run("taking state", async { db.write_row(&statement).await?.map(|row| bytes(&row)).transpose() }).await
    }

    async fn remove(&self, key: &StateKey) -> Result<()> {
        self.run("removing state", async {
            for table in [STATE, COUNTERS] {
                self.db().write(&Query::delete().from_table(table).cond_where(at(key)).take()).await?;
            }
            Ok(())
        })
        .await
    }

    async fn add(&self, key: &StateKey, amount: i64, ttl: Duration) -> Result<i64> {
        let db = self.db();
        let counter = || Expr::col((COUNTERS, "counter"));
        // At its end the counter stays where it is: a sum that overflows is an error in one database and a float in another.
        let sum = if amount >= 0 {
            Expr::case(counter().gt(i64::MAX - amount), i64::MAX)
        } else {
            Expr::case(counter().lt(i64::MIN - amount), i64::MIN)
        }
        .finally(counter().add(amount));
        let update = OnConflict::columns(["space", "name"])
            .value("counter", Expr::case(live(db, COUNTERS), sum).finally(amount))
            .value(
                "expires_at",
                Expr::case(live(db, COUNTERS), Expr::col((COUNTERS, "expires_at"))).finally(expiry(db, ttl)),
            )
            .to_owned();
        let statement = Query::insert()
            .into_table(COUNTERS)
            .columns(["space", "name", "counter", "expires_at"])
            .values_panic([Expr::val(key.space), Expr::val(key.name.as_str()), Expr::val(amount), expiry(db, ttl)])
            .on_conflict(update)
            .returning_col("counter")
            .take();
        let sum = self
            .run("counting", async { db.write_row(&statement).await?.map(|row| column(&row, "counter")).transpose() })
            .await?;
        self.purge().await;
        sum.ok_or_else(|| Error::Backend {
            backend: "database",
            reason: "a counter returned no value".to_owned(),
            source: None,
        })
    }

    async fn scan(&self, space: &'static str, prefix: &str) -> Result<Vec<(String, Bytes)>> {
        let db = self.db();
        let statement = scan(db, space, prefix);
        self.run("listing state", async {
            let mut found = rows(&db.reader, &statement)
                .await?
                .iter()
                .map(|row| Ok((column(row, "name")?, bytes(row)?)))
                .collect::<Result<Vec<(String, Bytes)>>>()?;
            found.sort_unstable();
            Ok(found)
        })
        .await
    }

    async fn check(&self) -> Result<()> {
        self.run("checking the database", async { feed::head(&self.db().reader).await.map(|_| ()) }).await
    }
}

/// How all of a space whose names begin with `prefix` is read.
pub(super) fn scan(db: &Database, space: &'static str, prefix: &str) -> SelectStatement {
    let mut filter = is("space", space).add(live(db, STATE));
    if !prefix.is_empty() {
        filter = filter.add(begins(db.dialect, "name", prefix));
    }
    Query::select().columns(["name", "value"]).from(STATE).cond_where(filter).take()
}

fn at(key: &StateKey) -> Condition {
    is("space", key.space).add(Expr::col("name").eq(key.name.as_str()))
}

fn live(db: &Database, table: &'static str) -> Expr {
    Expr::col((table, "expires_at")).gt(db.dialect.now_ms())
}

fn expiry(db: &Database, ttl: Duration) -> Expr {
    let ttl = i64::try_from(ttl.min(MAX_TTL).as_millis()).unwrap_or(i64::MAX);
    db.dialect.now_ms().add(ttl)
}

fn insert(db: &Database, key: &StateKey, value: &Bytes, ttl: Duration) -> Result<InsertStatement> {
    check(value)?;
    Ok(Query::insert()
        .into_table(STATE)
        .columns(["space", "name", "value", "expires_at"])
        .values_panic([Expr::val(key.space), Expr::val(key.name.as_str()), Expr::val(value.to_vec()), expiry(db, ttl)])
        .take())
}

fn replace() -> OnConflict {
    OnConflict::columns(["space", "name"]).update_columns(["value", "expires_at"]).to_owned()
}

fn bytes(row: &sea_orm::QueryResult) -> Result<Bytes> {
    column::<Vec<u8>>(row, "value").map(Bytes::from)
}

fn check(value: &Bytes) -> Result<()> {
    if value.len() <= MAX_VALUE {
        return Ok(());
    }
    Err(Error::invalid(
        "value",
        format!("{} bytes are more than the state store takes", value.len()),
        format!("keep values to {MAX_VALUE} bytes"),
    ))
}
