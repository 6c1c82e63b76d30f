//! Connections to one database for one purpose, and what each statement on them comes with.

use super::{dialect::Dialect, error::is_lost};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::future::BoxFuture;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement,
};
use std::{fmt, sync::Arc};

/// What connections are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Queries, which change nothing.
    Read,
    /// Everything else.
    Write,
}

/// Makes a pool's connections anew, without waiting for the database.
pub(crate) type Opener = Arc<dyn Fn() -> BoxFuture<'static, Result<DatabaseConnection, DbErr>> + Send + Sync>;

/// Connections for one purpose. Clones are handles on the same ones.
#[derive(Clone)]
pub(crate) struct Pool {
    dialect: Dialect,
    purpose: Purpose,
    current: Arc<ArcSwap<DatabaseConnection>>,
    opener: Option<Opener>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("dialect", &self.dialect).field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool that stays as it is.
    pub(crate) fn fixed(dialect: Dialect, purpose: Purpose, connections: DatabaseConnection) -> Self {
        Self { dialect, purpose, current: Arc::new(ArcSwap::from_pointee(connections)), opener: None }
    }

    /// A pool whose connections can be given up and made anew.
    pub(crate) async fn renewable(dialect: Dialect, purpose: Purpose, opener: Opener) -> Result<Self, DbErr> {
        let current = Arc::new(ArcSwap::from_pointee(opener().await?));
        Ok(Self { dialect, purpose, current, opener: Some(opener) })
    }

    /// The connections as the driver knows them.
    pub(crate) fn bare(&self) -> Arc<DatabaseConnection> {
        self.current.load_full()
    }

    /// Gives all connections up: what runs on them may end, and what comes next is done on new ones. A connection that leads
    /// nowhere any more would otherwise be waited for until the operating system gives it up, a quarter of an hour later.
    pub(crate) async fn renew(&self) -> Result<(), DbErr> {
        if let Some(opener) = &self.opener {
            self.current.store(Arc::new(opener().await?));
        }
        Ok(())
    }

    /// Begins a transaction.
    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let connections = self.bare();
        match self.dialect.begin(&connections, self.purpose).await {
            // A connection that the server closed meanwhile is found out by its next use; nothing was done with it.
            Err(error) if is_lost(&error) => self.dialect.begin(&connections, self.purpose).await,
            outcome => outcome,
        }
    }

    async fn end(&self, tx: DatabaseTransaction) -> Result<(), DbErr> {
        match self.purpose {
            Purpose::Read => tx.rollback().await,
            Purpose::Write => tx.commit().await,
        }
    }
}

/// Each statement is as it would be on a connection that is known to be set up, or brings along what it needs.
#[async_trait]
impl ConnectionTrait for Pool {
    fn get_database_backend(&self) -> DbBackend {
        self.current.load().get_database_backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        if !self.dialect.shares_connections() {
            return self.bare().execute_raw(stmt).await;
        }
        let tx = self.begin().await?;
        let done = tx.execute_raw(stmt).await?;
        self.end(tx).await?;
        Ok(done)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        if !self.dialect.shares_connections() {
            return self.bare().execute_unprepared(sql).await;
        }
        let tx = self.begin().await?;
        let done = tx.execute_unprepared(sql).await?;
        self.end(tx).await?;
        Ok(done)
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.query_all_raw(stmt).await?.into_iter().next())
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        if !self.dialect.shares_connections() {
            return self.bare().query_all_raw(stmt).await;
        }
        let tx = self.begin().await?;
        let found = tx.query_all_raw(stmt).await?;
        self.end(tx).await?;
        Ok(found)
    }
}
