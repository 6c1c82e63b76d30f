//! The connections of one database, and what is done with them.

use super::{
    dialect::Dialect,
    error::{db_error, in_doubt, is_race},
    pool::Pool,
};
use archestra_core::{Error, Result};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, QueryResult, StatementBuilder, TryGetable,
    sea_query::{Expr, ExprTrait as _, Func},
};
use std::{fmt, future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

/// How often a write begins anew that lost a race to another one.
const RACES: u32 = 8;
/// How much longer it waits each time.
const STEP: Duration = Duration::from_millis(10);
/// How long connections may take to close.
const CLOSING: Duration = Duration::from_secs(5);

/// Connections to read, to write, and to watch for changes.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) dialect: Dialect,
    /// Which database it is, for people.
    pub(crate) name: Arc<str>,
    /// For queries. Never used while a transaction is open: on one connection that would wait for itself.
    pub(crate) reader: Pool,
    writer: Pool,
    pub(crate) watcher: Pool,
    /// For notifications, where there are any.
    pub(crate) listener: Option<Pool>,
    /// Told when connections were given up.
    pub(crate) renewed: Arc<Notify>,
    single: bool,
    deadline: Duration,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("dialect", &self.dialect)
            .field("name", &self.name)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// Pools of their own for each purpose.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) reader: Pool,
    pub(crate) writer: Pool,
    pub(crate) watcher: Pool,
    pub(crate) listener: Option<Pool>,
}

impl Database {
    /// A database with pools of their own for each purpose.
    pub(crate) fn pooled(
        dialect: Dialect,
        name: impl Into<Arc<str>>,
        connections: Connections,
        deadline: Duration,
    ) -> Self {
        let Connections { reader, writer, watcher, listener } = connections;
        let renewed = Arc::default();
        Self { dialect, name: name.into(), reader, writer, watcher, listener, renewed, single: false, deadline }
    }

    /// A database with one connection for everything.
    pub(crate) fn single(dialect: Dialect, name: impl Into<Arc<str>>, connection: Pool, deadline: Duration) -> Self {
        Self {
            dialect,
            name: name.into(),
            reader: connection.clone(),
            writer: connection.clone(),
            watcher: connection,
            listener: None,
            renewed: Arc::default(),
            single: true,
            deadline,
        }
    }

    /// Whether everything runs on one connection.
    pub(crate) const fn is_single(&self) -> bool {
        self.single
    }

    /// What writes, for steps of the schema by themselves.
    #[cfg(test)]
    pub(crate) fn writer_of_tests(&self) -> Arc<DatabaseConnection> {
        self.writer.bare()
    }

    /// Begins a transaction that writes, when it is its turn.
    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction> {
        self.writer.begin().await.map_err(db_error)
    }

    /// Begins a transaction that reads everything as of one moment.
    pub(crate) async fn begin_snapshot(&self) -> Result<DatabaseTransaction> {
        self.dialect.begin_snapshot(&self.reader.bare()).await.map_err(db_error)
    }

    /// Gives up the connections that are watched with.
    pub(crate) async fn renew_watcher(&self) -> Result<(), DbErr> {
        self.watcher.renew().await
    }

    /// Gives up all connections but those that are watched with.
    pub(crate) async fn renew_others(&self) -> Result<(), DbErr> {
        self.reader.renew().await?;
        self.writer.renew().await?;
        if let Some(listener) = &self.listener {
            listener.renew().await?;
        }
        self.renewed.notify_one();
        Ok(())
    }

    /// Ends a transaction with all that it did.
    pub(crate) async fn commit(&self, tx: DatabaseTransaction) -> Result<()> {
        tx.commit().await.map_err(in_doubt)
    }

    /// Runs one statement that writes, and says how many rows it changed.
    pub(crate) async fn write<S: StatementBuilder + Sync>(&self, statement: &S) -> Result<u64> {
        let changed = || async { self.writer.execute(statement).await.map_err(in_doubt) };
        Ok(self.racing(changed).await?.rows_affected())
    }

    /// Runs one statement that writes and returns at most one row.
    pub(crate) async fn write_row<S: StatementBuilder + Sync>(&self, statement: &S) -> Result<Option<QueryResult>> {
        // To its end: a statement that writes is not done before.
        let written = || async { self.writer.query_all(statement).await.map_err(in_doubt) };
        Ok(self.racing(written).await?.into_iter().next())
    }

    /// Begins a write anew that the database broke off because it met another one, a few times.
    pub(crate) async fn racing<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        for n in 1..RACES {
            match attempt().await {
                Err(error) if is_race(&error) => sleep(STEP * n).await,
                outcome => return outcome,
            }
        }
        attempt().await
    }

    /// Bounds how long an operation takes.
    pub(crate) async fn within<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match timeout(self.deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { operation, after: self.deadline }),
        }
    }

    /// Closes all connections once what runs on them is done.
    pub(crate) async fn close(&self) {
        let pools = [Some(&self.watcher), self.listener.as_ref(), Some(&self.reader), Some(&self.writer)];
        for pool in pools.into_iter().flatten() {
            let pool: Arc<DatabaseConnection> = pool.bare();
            match timeout(CLOSING, pool.close_by_ref()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "closing a database connection failed"),
                Err(_) => tracing::warn!("a database connection does not close; it is left to itself"),
            }
        }
    }
}

/// Runs a query.
pub(crate) async fn rows<C: ConnectionTrait, S: StatementBuilder + Sync>(
    db: &C,
    statement: &S,
) -> Result<Vec<QueryResult>> {
    db.query_all(statement).await.map_err(db_error)
}

/// Runs a query that returns at most one row, to its end: a statement that writes is not done before.
pub(crate) async fn row<C: ConnectionTrait, S: StatementBuilder + Sync>(
    db: &C,
    statement: &S,
) -> Result<Option<QueryResult>> {
    Ok(rows(db, statement).await?.into_iter().next())
}

/// Runs a statement and says how many rows it changed.
pub(crate) async fn execute<C: ConnectionTrait, S: StatementBuilder + Sync>(db: &C, statement: &S) -> Result<u64> {
    Ok(db.execute(statement).await.map_err(db_error)?.rows_affected())
}

/// A condition that a column of text begins with `prefix`, byte for byte.
pub(crate) fn begins(dialect: Dialect, column: &'static str, prefix: &str) -> Expr {
    let length = i32::try_from(prefix.chars().count()).unwrap_or(i32::MAX);
    let exactly =
        Expr::from(Func::cust("substr").args([Expr::col(column), Expr::val(1), Expr::val(length)])).eq(prefix);
    // By itself it is a question to each row; within a range of the column an index answers it.
    match successor(prefix) {
        Some(end) => dialect.within_bytes(column, prefix, &end).and(exactly),
        None => exactly,
    }
}

/// The least text that comes after all that begin with `prefix`, in the order of bytes.
fn successor(prefix: &str) -> Option<String> {
    let mut kept = prefix.to_owned();
    while let Some(last) = kept.pop() {
        // Between two letters there is only the gap of the surrogates.
        let next = char::from_u32(u32::from(last) + 1).or((last == '\u{d7ff}').then_some('\u{e000}'));
        if let Some(next) = next {
            kept.push(next);
            return Some(kept);
        }
    }
    None
}

/// Reads a column.
pub(crate) fn column<T: TryGetable>(row: &QueryResult, name: &str) -> Result<T> {
    row.try_get("", name).map_err(db_error)
}

/// Reads a column that counts something.
pub(crate) fn count(row: &QueryResult, name: &str) -> Result<u64> {
    Ok(column::<i64>(row, name)?.unsigned_abs())
}

/// A count as the database keeps it.
pub(crate) fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_text_is_before_its_successor_and_nothing_else_is_between() {
        for prefix in ["a", "call/", "a\u{7f}", "\u{d7ff}", "x\u{10ffff}", "\u{e4}"] {
            let end = successor(prefix).unwrap();
            assert!(prefix < &*end && *format!("{prefix}\u{10ffff}\u{10ffff}") < *end, "{prefix:?} {end:?}");
            assert!(!end.starts_with(prefix));
        }
        assert_eq!(successor("a/").as_deref(), Some("a0"));
        assert_eq!((successor(""), successor("\u{10ffff}")), (None, None));
    }
}
