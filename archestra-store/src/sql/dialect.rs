//! What differs from database to database: how one is opened, how a write begins, the clock, and what its errors mean.

use super::{SqlConfig, database::Database};
use archestra_core::{Error, Result};
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr, SqliteTransactionMode,
    Statement, TransactionOptions, TransactionTrait,
    sea_query::Expr,
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

/// The field that findings about the database's URL name.
const FIELD: &str = "databaseUrl";

/// The databases there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// SQLite, in a file or in memory.
    Sqlite,
}

/// What an error of the driver comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Somebody else holds the lock.
    Busy,
    /// It cannot be written.
    ReadOnly,
    /// There is no room.
    Full,
    /// It cannot be opened.
    CannotOpen,
    /// It is no database, or a damaged one.
    Damaged,
}

impl Trouble {
    /// What happened and what to do, for people.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::Busy => {
                "another process kept the database locked; try again, and look for one that holds a transaction open"
            }
            Self::ReadOnly => {
                "the database cannot be written; make the file and its folder writable for the user that runs this process"
            }
            Self::Full => "there is no room left for the database; free some on its disk",
            Self::CannotOpen => {
                "the database file cannot be opened; check that its path is right and that this process may read and write it"
            }
            Self::Damaged => "the file is not a database or is damaged; choose another path, or restore a backup",
        }
    }
}

impl Dialect {
    /// Opens the database that `config` names, without looking at what is in it.
    pub(crate) async fn open(config: &SqlConfig) -> Result<Database> {
        let url = config.url();
        match url.split_once(':').map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest)) {
            Some((scheme, rest)) if scheme == "sqlite" => open_sqlite(config, Location::parse(rest)?).await,
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') => Err(Error::invalid(
                FIELD,
                format!("databases of the kind {scheme:?} are not supported"),
                "use `sqlite://PATH` or `sqlite::memory:`",
            )),
            _ => Err(Error::invalid(
                FIELD,
                "this is not the URL of a database",
                "use `sqlite://PATH` or `sqlite::memory:`",
            )),
        }
    }

    /// Begins a transaction that will write, waiting for its turn.
    pub(crate) async fn begin_write(self, writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
        match self {
            // A transaction that takes the lock only at its first write fails when another one wrote in between.
            Self::Sqlite => {
                let options = TransactionOptions {
                    sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                    ..TransactionOptions::default()
                };
                writer.begin_with_options(options).await
            }
        }
    }

    /// The database's clock, in milliseconds since 1970.
    pub(crate) fn now_ms(self) -> Expr {
        match self {
            Self::Sqlite => Expr::cust("CAST(unixepoch('subsec') * 1000 AS INTEGER)"),
        }
    }

    /// A number that changes with every commit that another connection made; `None` if there is no such thing.
    pub(crate) async fn change_counter(self, db: &Database) -> Result<Option<i64>, DbErr> {
        match self {
            Self::Sqlite if db.is_single() => Ok(None),
            Self::Sqlite => {
                let statement = Statement::from_string(db.watcher.get_database_backend(), "PRAGMA data_version");
                match db.watcher.query_one_raw(statement).await? {
                    Some(row) => Ok(Some(i64::from(row.try_get_by_index::<i32>(0)?))),
                    None => Ok(None),
                }
            }
        }
    }

    /// What an error means, if it is one that people can do something about.
    pub(crate) fn trouble(error: &DbErr) -> Option<Trouble> {
        let (DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause))) = error
        else {
            return None;
        };
        let sqlx::Error::Database(cause) = &**cause else { return None };
        cause.try_downcast_ref::<SqliteError>()?;
        // The low byte is the primary result code: https://www.sqlite.org/rescode.html
        match cause.code()?.parse::<u32>().ok()? & 0xff {
            5 | 6 | 15 => Some(Trouble::Busy),
            8 => Some(Trouble::ReadOnly),
            13 => Some(Trouble::Full),
            14 => Some(Trouble::CannotOpen),
            11 | 26 => Some(Trouble::Damaged),
            _ => None,
        }
    }
}

/// Where a SQLite database is.
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
            "" => Err(Error::invalid(FIELD, "the URL names no file", "use `sqlite://PATH` or `sqlite::memory:`")),
            path => Ok(Self::File(PathBuf::from(path))),
        }
    }
}

async fn open_sqlite(config: &SqlConfig, location: Location) -> Result<Database> {
    let base =
        SqliteConnectOptions::new().foreign_keys(true).busy_timeout(config.lock_timeout).statement_cache_capacity(256);
    let Location::File(path) = location else {
        let memory = connect(config, &base.in_memory(true).shared_cache(false), 1).await?;
        return Ok(Database::single(Dialect::Sqlite, memory, config.deadline));
    };
    prepare_file(&path)?;
    let options = base.filename(&path).journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Normal);
    // The first connection turns the write-ahead log on, the others then only find it so.
    let writer = connect(config, &options, 1).await?;
    let reader = connect(config, &options.clone().pragma("query_only", "ON"), config.readers).await?;
    let watcher = connect(config, &options.pragma("query_only", "ON"), 1).await?;
    Ok(Database::pooled(Dialect::Sqlite, [reader, writer, watcher], config.deadline))
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
            Err(error) if Dialect::trouble(&error) == Some(Trouble::Busy) && Instant::now() < give_up => {
                sleep(Duration::from_millis(20)).await
            }
            Err(error) => return Err(refused(error)),
        }
    }
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

/// The error of a database that cannot be used at all.
pub(crate) fn refused(error: DbErr) -> Error {
    match Dialect::trouble(&error) {
        Some(Trouble::Busy) | None => super::error::db_error(error),
        Some(trouble) => match trouble.advice().split_once("; ") {
            Some((reason, remedy)) => Error::invalid(FIELD, reason, remedy),
            None => super::error::db_error(error),
        },
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
