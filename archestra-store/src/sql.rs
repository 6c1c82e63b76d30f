//! `SqlStore`: the stores of records, state and audit records on one SQL database.

mod audit;
mod catalog;
mod commit;
mod config;
mod connect;
pub(crate) mod database;
mod dialect;
mod document;
pub(crate) mod error;
mod family;
mod feed;
mod identity;
#[cfg(test)]
mod plans;
mod pool;
mod read;
mod state;

pub use config::SqlConfig;

use archestra_core::Error;
use config::Access;
use database::{Database, column, row};
use feed::Feed;
use sea_orm::sea_query::Query;
use state::Purge;
use std::sync::Arc;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// One SQL database. Clones are handles on the same one.
///
/// It implements [`CatalogStore`](archestra_core::catalog::CatalogStore),
/// [`IdentityStore`](archestra_core::identity::IdentityStore), [`StateStore`](archestra_core::state::StateStore) and
/// [`AuditSink`](archestra_core::state::AuditSink). The task that watches for changes ends with the last handle; streams of
/// changes end then, too.
#[derive(Debug, Clone)]
pub struct SqlStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Database,
    feed: Feed,
    purge: Purge,
    /// Commits wait for each other in the database, each on a connection. Fewer of them than there are leaves one to all else.
    commits: Semaphore,
    kept_revisions: u64,
}

impl SqlStore {
    /// Opens a database and brings its schema up to date. Any number of processes may do so at once.
    ///
    /// # Errors
    /// [`Invalid`](archestra_core::Error::Invalid) when the URL does not lead to a database that can be written,
    /// [`Conflict`](archestra_core::Error::Conflict) when a newer version has changed its schema, and what else keeps it from
    /// being opened. Every text says what to do; none holds a password.
    pub async fn connect(config: SqlConfig) -> archestra_core::Result<Self> {
        Self::open(config).await
    }

    /// Opens a database to read it, as for a [`backup`](Self::backup): it is neither made nor changed, its schema included, and
    /// whatever would write fails.
    ///
    /// # Errors
    /// [`Conflict`](archestra_core::Error::Conflict) when its schema is not the one of this version, and else as
    /// [`connect`](Self::connect).
    pub async fn open_read_only(mut config: SqlConfig) -> archestra_core::Result<Self> {
        config.access = Access::ReadOnly;
        Self::open(config).await
    }

    async fn open(config: SqlConfig) -> archestra_core::Result<Self> {
        Ok(Self::over(connect::connect(&config).await?, &config))
    }

    /// A store on connections that are open.
    fn over(db: Database, config: &SqlConfig) -> Self {
        let feed = Feed::start(db.clone(), config.poll_interval);
        let commits = Semaphore::new(usize::try_from(config.writers - 1).unwrap_or(usize::MAX >> 3).max(1));
        let (purge, kept_revisions) = (Purge::default(), config.kept_revisions);
        Self { inner: Arc::new(Inner { db, feed, purge, commits, kept_revisions }) }
    }

    /// Stops watching and closes all connections once what runs on them is done. Afterwards every operation fails.
    pub async fn close(&self) {
        self.inner.feed.stop().await;
        self.inner.db.close().await;
    }

    /// What tells this database from all others: made with it, the same for all who open it, and taken over by
    /// [`restore`](Self::restore).
    ///
    /// # Errors
    /// Why the database does not answer.
    pub async fn instance(&self) -> archestra_core::Result<Uuid> {
        let db = self.db();
        let query = Query::select().column("id").from("instance").take();
        let found = db.within("reading which database this is", row(&db.reader, &query)).await?;
        let found = found.ok_or_else(|| Error::Backend {
            backend: "database",
            reason: "the row that says which database this is has been removed".to_owned(),
            source: None,
        })?;
        column(&found, "id")
    }

    pub(crate) fn db(&self) -> &Database {
        &self.inner.db
    }
}
