//! SQLite: where a database is, its connections, its clock, and what its error codes mean.

use super::{Dialect, FIELD, REMEDY, Trouble, TroubleKind, refused};
use crate::sql::{
    SqlConfig,
    config::Access,
    database::{Connections, Database},
    pool::{Pool, Purpose},
};
use archestra_core::{Error, Result};
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, DatabaseConnection, DbErr, SqliteTransactionMode, Statement,
    TransactionOptions,
    sqlx::{
        self,
        sqlite::{SqliteConnectOptions, SqliteError, SqliteJournalMode, SqliteSynchronous},
    },
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// The clock, in milliseconds since 1970.
pub(super) const NOW_MS: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// A transaction that takes the lock only at its first write fails when another one wrote in between.
pub(super) fn immediate() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    }
}

/// A number that changes with every commit that another connection made.
pub(super) async fn change_counter(watcher: &DatabaseConnection) -> Result<Option<i64>, DbErr> {
    let statement = Statement::from_string(watcher.get_database_backend(), "PRAGMA data_version");
    match watcher.query_one_raw(statement).await? {
        Some(row) => Ok(Some(i64::from(row.try_get_by_index::<i32>(0)?))),
        None => Ok(None),
    }
}

/// What an error means, if it is one of SQLite's that people can do something about.
pub(super) fn trouble(error: &sqlx::Error) -> Option<Trouble> {
    let sqlx::Error::Database(cause) = error else { return None };
    cause.try_downcast_ref::<SqliteError>()?;
    // The low byte is the primary result code: https://www.sqlite.org/rescode.html
    Some(match cause.code()?.parse::<u32>().ok()? & 0xff {
        5 | 6 | 15 => Trouble::new(
            TroubleKind::Busy,
            "another process kept the database locked",
            "try again, and look for one that holds a transaction open",
        ),
        8 => Trouble::new(
            TroubleKind::ReadOnly,
            "the database cannot be written",
            "make the file and its folder writable for the user that runs this process",
        ),
        13 => Trouble::new(TroubleKind::Full, "there is no room left for the database", "free some on its disk"),
        14 => Trouble::new(
            TroubleKind::CannotOpen,
            "the database file cannot be opened",
            "check that its path is right and that this process may read and write it",
        ),
        11 | 26 => Trouble::new(
            TroubleKind::Damaged,
            "the file is not a database or is damaged",
            "choose another path, or restore a backup",
        ),
        _ => return None,
    })
}

/// Opens what follows `sqlite:`.
pub(super) async fn open(config: &SqlConfig, rest: &str) -> Result<Database> {
    let base =
        SqliteConnectOptions::new().foreign_keys(true).busy_timeout(config.lock_timeout).statement_cache_capacity(256);
    let path = match Location::parse(rest)? {
        Location::File(path) => path,
        Location::Memory => {
            let memory = connect(config, &base.in_memory(true).shared_cache(false), 1).await?;
            let memory = Pool::fixed(Dialect::Sqlite, Purpose::Write, memory);
            return Ok(Database::single(Dialect::Sqlite, config.shown_url(), memory, config.deadline));
        }
    };
    if config.access == Access::ReadOnly {
        return open_read_only(config, base.filename(&path), &path).await;
    }
    prepare_file(&path)?;
    let options = base
        .filename(&path)
        .journal_mode(SqliteJournalMode::Wal)
        // With less, what was acknowledged last would be gone after a loss of power.
        .synchronous(SqliteSynchronous::Full)
        // What a statement needs to be undone by itself is small, and a file for it costs as much as the rows.
        .pragma("temp_store", "MEMORY");
    // The first connection turns the write-ahead log on, the others then only find it so.
    let writer = connect(config, &options, 1).await?;
    let reader = connect(config, &options.clone().pragma("query_only", "ON"), config.readers).await?;
    let watcher = connect(config, &options.pragma("query_only", "ON"), 1).await?;
    Ok(pooled(config, reader, writer, watcher))
}

/// Opens a file that is there, and leaves it as it is.
async fn open_read_only(config: &SqlConfig, options: SqliteConnectOptions, path: &Path) -> Result<Database> {
    if !path.is_file() {
        let reason = format!("there is no file {}", path.display());
        return Err(Error::invalid(FIELD, reason, "name the file of a database"));
    }
    let options = options.read_only(true).pragma("query_only", "ON").pragma("temp_store", "MEMORY");
    let reader = connect(config, &options, config.readers).await?;
    let watcher = connect(config, &options, 1).await?;
    Ok(pooled(config, reader.clone(), reader, watcher))
}

fn pooled(
    config: &SqlConfig,
    reader: DatabaseConnection,
    writer: DatabaseConnection,
    watcher: DatabaseConnection,
) -> Database {
    let connections = Connections {
        reader: Pool::fixed(Dialect::Sqlite, Purpose::Read, reader),
        writer: Pool::fixed(Dialect::Sqlite, Purpose::Write, writer),
        watcher: Pool::fixed(Dialect::Sqlite, Purpose::Read, watcher),
        listener: None,
    };
    Database::pooled(Dialect::Sqlite, config.shown_url(), connections, config.deadline)
}

/// Where a database is.
#[derive(Debug, PartialEq, Eq)]
enum Location {
    Memory,
    File(PathBuf),
}

impl Location {
    /// Reads what follows `sqlite:`.
    fn parse(rest: &str) -> Result<Self> {
        let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
        match options {
            "" | "mode=rw" | "mode=rwc" => {}
            "mode=memory" => return Ok(Self::Memory),
            "mode=ro" => return Err(Error::invalid(FIELD, "the store must be able to write", "remove `mode=ro`")),
            _ => return Err(Error::invalid(FIELD, "options after `?` are not supported", "remove them")),
        }
        let path = path.strip_prefix("//").unwrap_or(path);
        match path {
            ":memory:" => Ok(Self::Memory),
            "" => Err(Error::invalid(FIELD, "the URL names no file", REMEDY)),
            path => Ok(Self::File(PathBuf::from(path))),
        }
    }
}

async fn connect(config: &SqlConfig, options: &SqliteConnectOptions, connections: u32) -> Result<DatabaseConnection> {
    let mut pool = ConnectOptions::new("sqlite::memory:");
    let options = options.clone();
    pool.min_connections(1)
        .max_connections(connections)
        .acquire_timeout(config.deadline)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .test_before_acquire(false)
        // A connection to memory takes the database with it, and one to a file has nothing to renew.
        .idle_timeout(None::<Duration>)
        .max_lifetime(None::<Duration>)
        .map_sqlx_sqlite_opts(move |_| options.clone());
    let give_up = Instant::now() + config.lock_timeout;
    loop {
        match sea_orm::Database::connect(pool.clone()).await {
            Ok(connection) => return Ok(connection),
            // Two processes that turn the log on at the same moment cannot wait for each other inside SQLite.
            Err(error) if is_busy(&error) && Instant::now() < give_up => sleep(Duration::from_millis(20)).await,
            Err(error) => return Err(refused(error)),
        }
    }
}

fn is_busy(error: &DbErr) -> bool {
    Trouble::of(error).is_some_and(|trouble| trouble.kind == TroubleKind::Busy)
}

/// Says what is wrong with the file before SQLite does so less clearly, and lets only its owner read what we make.
fn prepare_file(path: &Path) -> Result<()> {
    let shown = path.display();
    if path.is_dir() {
        return Err(Error::invalid(FIELD, format!("{shown} is a folder"), "add the name of a file"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Error::invalid(
            FIELD,
            format!("the folder {} does not exist", folder.display()),
            "create it, or choose another path",
        ));
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::invalid(
            FIELD,
            format!("{shown} cannot be created: {error}"),
            "make its folder writable for the user that runs this process, or choose another path",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_people_write_them() {
        assert_eq!(Location::parse(":memory:").unwrap(), Location::Memory);
        assert_eq!(Location::parse("//:memory:").unwrap(), Location::Memory);
        assert_eq!(Location::parse("//a/b.db").unwrap(), Location::File("a/b.db".into()));
        assert_eq!(Location::parse("///a/b c.db?mode=rwc").unwrap(), Location::File("/a/b c.db".into()));
        for bad in ["", "//", "//a?mode=ro", "//a?cache=shared"] {
            assert!(matches!(Location::parse(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }
}
