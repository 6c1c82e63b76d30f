//! Databases of older versions: those that are read stay as they are, those that are used are brought up to date.

use crate::{SqlConfig, SqlStore, migrations::Migrator};
use archestra_core::{
    ErrorKind,
    catalog::CatalogStore as _,
    event::AuditRecord,
    feed::ChangeSet,
    state::{AuditQuery, AuditSink},
    testing::fixtures,
};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use sea_orm_migration::MigratorTrait as _;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

mod upgrade;

struct File(PathBuf);

impl File {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("archestra-{}.db", uuid::Uuid::now_v7())))
    }

    fn config(&self) -> SqlConfig {
        SqlConfig::new(format!("sqlite://{}", self.0.display()))
    }

    /// The database as it was after so many steps.
    async fn at(&self, steps: u32) {
        let url = format!("sqlite://{}?mode=rwc", self.0.display());
        let raw = sea_orm::Database::connect(url).await.unwrap();
        raw.execute_unprepared("PRAGMA journal_mode = WAL").await.unwrap();
        Migrator::up(&raw, Some(steps)).await.unwrap();
        raw.close().await.unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let path = format!("{}{suffix}", self.0.display());
            std::fs::remove_file(Path::new(&path)).ok();
        }
    }
}

#[tokio::test]
async fn an_older_schema_is_not_touched_by_whoever_only_reads() {
    for steps in 1..u32::try_from(Migrator::migrations().len()).unwrap() {
        let file = File::new();
        file.at(steps).await;
        let before = file.bytes();
        let error = SqlStore::open_read_only(file.config()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        let text = error.to_string();
        let first = Migrator::migrations()[usize::try_from(steps).unwrap()].name().to_owned();
        assert!(text.contains(&first) && text.contains("start this one on it once"), "{text}");
        assert_eq!(file.bytes(), before, "nothing was written");

        let store = SqlStore::connect(file.config()).await.unwrap();
        store.commit(ChangeSet::new().create(fixtures::remote_entry("entry"))).await.unwrap();
        store.close().await;
        let store = SqlStore::open_read_only(file.config()).await.unwrap();
        let mut made = Vec::new();
        assert_eq!(store.backup(&mut made).await.unwrap().0["entries"], 1);
        let error = store.commit(ChangeSet::new().create(fixtures::remote_entry("other"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend, "{error:?}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_database_is_read_while_it_is_used_and_after_its_user_was_killed() {
    let file = File::new();
    let used = SqlStore::connect(file.config()).await.unwrap();
    for n in 0..3 {
        used.commit(ChangeSet::new().create(fixtures::remote_entry(&format!("entry {n}")))).await.unwrap();
        let store = SqlStore::open_read_only(file.config()).await.unwrap();
        assert_eq!(store.backup(&mut Vec::new()).await.unwrap().0["entries"], n + 1);
        store.close().await;
    }
    // What a killed process leaves: the log that was not yet written back.
    let left = File::new();
    for suffix in ["", "-wal"] {
        std::fs::copy(format!("{}{suffix}", file.0.display()), format!("{}{suffix}", left.0.display())).unwrap();
    }
    used.close().await;
    let before = left.bytes();
    let store = SqlStore::open_read_only(left.config()).await.unwrap();
    assert_eq!(store.backup(&mut Vec::new()).await.unwrap().0["entries"], 3);
    store.close().await;
    assert_eq!(left.bytes(), before, "nothing was written");
}

#[tokio::test]
async fn whoever_opens_it_waits_for_another_process_that_changes_the_schema() {
    let file = File::new();
    file.at(1).await;
    let held = sea_orm::Database::connect(format!("sqlite://{}", file.0.display())).await.unwrap();
    let lock = || {
        let options = sea_orm::TransactionOptions {
            sqlite_transaction_mode: Some(sea_orm::SqliteTransactionMode::Immediate),
            ..sea_orm::TransactionOptions::default()
        };
        held.begin_with_options(options)
    };
    // It is there for many times as long as any other write waits.
    let config = file.config().lock_timeout(Duration::from_millis(10));
    let tx = lock().await.unwrap();
    let opening = tokio::spawn(SqlStore::connect(config.clone()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!opening.is_finished());
    tx.rollback().await.unwrap();
    opening.await.unwrap().unwrap().close().await;

    let tx = lock().await.unwrap();
    let error = SqlStore::connect(config.upgrade_timeout(Duration::from_millis(200))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("kept the database locked"), "{error}");
    tx.rollback().await.unwrap();
    held.close().await.unwrap();
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_not_read() {
    let file = File::new();
    let error = SqlStore::open_read_only(file.config()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("there is no file"), "{error:?}");
    assert!(!file.0.exists());
    let raw = sea_orm::Database::connect(format!("sqlite://{}?mode=rwc", file.0.display())).await.unwrap();
    raw.execute_unprepared("CREATE TABLE others (id INTEGER)").await.unwrap();
    raw.close().await.unwrap();
    let error = SqlStore::open_read_only(file.config()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("nothing of ours"), "{error:?}");
}

#[tokio::test]
async fn audit_records_are_found_by_their_action_whatever_it_is() {
    let store = SqlStore::connect(SqlConfig::new("sqlite::memory:")).await.unwrap();
    let now = fixtures::now();
    let records = [
        fixtures::call_record("finance", "echo", now),
        fixtures::audit_record("entry.create", now),
        fixtures::audit_record("entry.update", now),
    ];
    AuditSink::write(&store, &records).await.unwrap();
    for (action, count) in [(AuditRecord::CALL, 1), ("entry.create", 1), ("entry.remove", 0)] {
        let query = AuditQuery { action: Some(action.to_owned()), ..AuditQuery::default() };
        let found = AuditSink::list(&store, &query).await.unwrap().items;
        assert_eq!(found.len(), count, "{action}");
        assert!(found.iter().all(|record| record.action == action));
    }
}
