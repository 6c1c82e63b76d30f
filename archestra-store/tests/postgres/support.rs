//! Databases for tests, each one of its own on the server that `ARCHESTRA_TEST_POSTGRES_URL` names, and removed afterwards.

use archestra_core::secret::KeyRing;
use archestra_store::{SqlConfig, SqlSecrets, SqlStore};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement};
use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// The databases of stores that nothing tells us the end of.
static LENT: Mutex<Vec<(Weak<dyn Any + Send + Sync>, Fresh)>> = Mutex::new(Vec::new());

/// The server, as a URL that ends in one of its databases.
#[expect(clippy::disallowed_methods, reason = "the environment says where the server is")]
pub(crate) fn server() -> String {
    std::env::var("ARCHESTRA_TEST_POSTGRES_URL")
        .expect("ARCHESTRA_TEST_POSTGRES_URL is not set: run `eval \"$(.ci/postgres)\"`")
}

/// A pooler by the transaction in front of that server, as a URL that ends in one of its databases.
#[expect(clippy::disallowed_methods, reason = "the environment says where the pooler is")]
fn pooler() -> String {
    std::env::var("ARCHESTRA_TEST_PGBOUNCER_URL")
        .expect("ARCHESTRA_TEST_PGBOUNCER_URL is not set: run `eval \"$(.ci/pgbouncer)\"`")
}

/// A new database, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Fresh {
    server: String,
    pub(crate) name: String,
}

impl Fresh {
    pub(crate) async fn new() -> Self {
        Self::on(server()).await
    }

    /// One on another server.
    pub(crate) async fn on(server: String) -> Self {
        let name = format!("archestra_test_{}", uuid::Uuid::now_v7().simple());
        let root = sea_orm::Database::connect(&server).await.unwrap();
        root.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        root.close().await.unwrap();
        Self { server, name }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        let (at, _) = self.server.rsplit_once('/').unwrap();
        format!("{at}/{}", self.name)
    }

    /// Its URL through the pooler.
    pub(crate) fn pooled_url(&self) -> String {
        let pooler = pooler();
        let (at, _) = pooler.rsplit_once('/').unwrap();
        format!("{at}/{}", self.name)
    }

    pub(crate) async fn open_pooled(&self) -> SqlStore {
        SqlStore::connect(SqlConfig::new(self.pooled_url())).await.unwrap()
    }

    /// Its URL with another user, password and database.
    pub(crate) fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        let (_, at) = self.server.rsplit_once('@').unwrap();
        let (host, _) = at.rsplit_once('/').unwrap();
        format!("postgres://{user}:{password}@{host}/{database}")
    }

    pub(crate) fn config(&self) -> SqlConfig {
        SqlConfig::new(self.url())
    }

    pub(crate) async fn open(&self) -> SqlStore {
        SqlStore::connect(self.config()).await.unwrap()
    }

    /// A connection past the store.
    pub(crate) async fn raw(&self) -> DatabaseConnection {
        sea_orm::Database::connect(self.url()).await.unwrap()
    }

    /// Ends all connections of stores to it but the one that says so, and says how many.
    pub(crate) async fn cut(&self, raw: &DatabaseConnection) -> i64 {
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        number(raw, cut).await
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                if let Ok(root) = sea_orm::Database::connect(&server).await {
                    root.execute_unprepared(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.ok();
                    root.close().await.ok();
                }
            });
        });
        removed.join().ok();
    }
}

/// The one number that a query returns.
pub(crate) async fn number(db: &DatabaseConnection, sql: &str) -> i64 {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    row.unwrap().try_get_by_index::<i64>(0).unwrap()
}

/// Removes the database some time after what is on it.
fn lend<T: Any + Send + Sync>(on: &Arc<T>, fresh: Fresh) {
    let mut lent = LENT.lock().unwrap_or_else(PoisonError::into_inner);
    lent.retain(|(on, _)| on.strong_count() > 0);
    lent.push((Arc::downgrade(on) as _, fresh));
}

/// A store on a new database, which is removed some time after the store.
pub(crate) async fn store() -> Arc<SqlStore> {
    let fresh = Fresh::new().await;
    let store = Arc::new(fresh.open().await);
    lend(&store, fresh);
    store
}

/// Two handles on a new database, as two processes have them.
pub(crate) async fn pair() -> (Arc<SqlStore>, Arc<SqlStore>) {
    let fresh = Fresh::new().await;
    let (first, second) = (Arc::new(fresh.open().await), Arc::new(fresh.open().await));
    lend(&first, fresh);
    (first, second)
}

/// A store on a new database behind the pooler.
pub(crate) async fn pooled_store() -> Arc<SqlStore> {
    let fresh = Fresh::new().await;
    let store = Arc::new(fresh.open_pooled().await);
    lend(&store, fresh);
    store
}

/// Two handles on a new database, as a process has it that is behind the pooler, and one that is not.
pub(crate) async fn mixed_pair() -> (Arc<SqlStore>, Arc<SqlStore>) {
    let fresh = Fresh::new().await;
    let (first, second) = (Arc::new(fresh.open_pooled().await), Arc::new(fresh.open().await));
    lend(&first, fresh);
    (first, second)
}

/// Secrets on a new database behind the pooler.
pub(crate) async fn pooled_secrets() -> Arc<SqlSecrets> {
    let fresh = Fresh::new().await;
    let secrets = Arc::new(SqlSecrets::new(&fresh.open_pooled().await, ring()));
    lend(&secrets, fresh);
    secrets
}

/// Secrets on a new database.
pub(crate) async fn secrets() -> Arc<SqlSecrets> {
    secrets_pair().await.0
}

/// Two handles on the secrets of a new database, as two processes have them.
pub(crate) async fn secrets_pair() -> (Arc<SqlSecrets>, Arc<SqlSecrets>) {
    let (fresh, ring) = (Fresh::new().await, ring());
    let first = Arc::new(SqlSecrets::new(&fresh.open().await, Arc::clone(&ring)));
    let second = Arc::new(SqlSecrets::new(&fresh.open().await, ring));
    lend(&first, fresh);
    (first, second)
}

/// A new key ring.
pub(crate) fn ring() -> Arc<KeyRing> {
    Arc::new(KeyRing::generate().unwrap())
}
