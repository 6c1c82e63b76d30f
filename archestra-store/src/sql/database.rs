//! The connections of one database, and what is done with them.

use super::{dialect::Dialect, error::db_error};
use archestra_core::{Error, Result};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, QueryResult, StatementBuilder, TryGetable,
    sea_query::{Expr, ExprTrait as _, Func},
};
use std::{fmt, future::Future, time::Duration};
use tokio::time::timeout;

/// Connections to read, to write, and to watch for changes.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) dialect: Dialect,
    /// For queries. Never used while a transaction is open: on one connection that would wait for itself.
    pub(crate) reader: DatabaseConnection,
    writer: DatabaseConnection,
    pub(crate) watcher: DatabaseConnection,
    single: bool,
    deadline: Duration,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("dialect", &self.dialect)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// A database with pools of their own to read, to write and to watch, in this order.
    pub(crate) fn pooled(
        dialect: Dialect,
        [reader, writer, watcher]: [DatabaseConnection; 3],
        deadline: Duration,
    ) -> Self {
        Self { dialect, reader, writer, watcher, single: false, deadline }
    }

    /// A database with one connection for everything.
    pub(crate) fn single(dialect: Dialect, connection: DatabaseConnection, deadline: Duration) -> Self {
        Self {
            dialect,
            reader: connection.clone(),
            writer: connection.clone(),
            watcher: connection,
            single: true,
            deadline,
        }
    }

    /// Whether everything runs on one connection.
    pub(crate) const fn is_single(&self) -> bool {
        self.single
    }

    /// Begins a transaction that writes, when it is its turn.
    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction> {
        self.dialect.begin_write(&self.writer).await.map_err(db_error)
    }

    /// For one statement that writes.
    pub(crate) const fn writer(&self) -> &DatabaseConnection {
        &self.writer
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
        for pool in [&self.watcher, &self.reader, &self.writer] {
            if let Err(error) = pool.close_by_ref().await {
                tracing::warn!(%error, "closing a database connection failed");
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
pub(crate) fn begins(column: &'static str, prefix: &str) -> Expr {
    let length = i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX);
    Expr::from(Func::cust("substr").args([Expr::col(column), Expr::val(1), Expr::val(length)])).eq(prefix)
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
