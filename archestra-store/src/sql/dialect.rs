//! What differs from database to database: how one is opened, how a write begins, the clock, and what its errors mean.

mod postgres;
mod sqlite;

use super::{SqlConfig, database::Database, pool::Purpose};
use archestra_core::{Error, Result};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr, TransactionTrait as _,
    sea_query::{BinOper, Expr, ExprTrait as _},
    sqlx,
};
use std::{borrow::Cow, future::pending};
use tokio::sync::Notify;

/// The field that findings about the database's URL name.
const FIELD: &str = "databaseUrl";
/// What to write there.
const REMEDY: &str = "use `sqlite://PATH`, `sqlite::memory:` or `postgres://USER@HOST/DATABASE`";

/// The databases there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// SQLite, in a file or in memory.
    Sqlite,
    /// PostgreSQL, directly or behind a pooler.
    Postgres(postgres::Session),
}

/// What kind of thing an error of the driver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// Somebody else holds a lock, or all connections.
    Busy,
    /// Others did the same at the same moment, and the database chose them. Nothing was done.
    Race,
    /// The connection is gone, and with it the answer.
    Lost,
    /// It cannot be written.
    ReadOnly,
    /// There is no room.
    Full,
    /// It cannot be opened.
    CannotOpen,
    /// It is no database, or a damaged one.
    Damaged,
    /// It does not let us in, or not do what we must.
    Denied,
    /// A value that it cannot hold.
    Unfit,
}

/// An error of the driver that people can do something about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: TroubleKind,
    /// What happened.
    pub(crate) reason: Cow<'static, str>,
    /// What to do.
    pub(crate) remedy: &'static str,
}

impl Trouble {
    const fn new(kind: TroubleKind, reason: &'static str, remedy: &'static str) -> Self {
        Self { kind, reason: Cow::Borrowed(reason), remedy }
    }

    /// What an error means, if it is one that people can do something about.
    pub(crate) fn of(error: &DbErr) -> Option<Self> {
        let (DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause))) = error
        else {
            return None;
        };
        let cause: &sqlx::Error = cause;
        sqlite::trouble(cause).or_else(|| postgres::trouble(cause))
    }

    /// Both, for people.
    pub(crate) fn advice(&self) -> String {
        format!("{}; {}", self.reason, self.remedy)
    }
}

impl Dialect {
    /// Opens the database that `config` names, without looking at what is in it.
    pub(crate) async fn open(config: &SqlConfig) -> Result<Database> {
        let url = config.url();
        match url.split_once(':').map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest)) {
            Some((scheme, rest)) if scheme == "sqlite" => sqlite::open(config, rest).await,
            Some((scheme, _)) if matches!(scheme.as_str(), "postgres" | "postgresql") => postgres::open(config).await,
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') => {
                Err(Error::invalid(FIELD, format!("databases of the kind {scheme:?} are not supported"), REMEDY))
            }
            _ => Err(Error::invalid(FIELD, "this is not the URL of a database", REMEDY)),
        }
    }

    /// Begins a transaction: one that will write waits for its turn where only one may write at a time.
    pub(crate) async fn begin(
        self,
        connections: &DatabaseConnection,
        purpose: Purpose,
    ) -> Result<DatabaseTransaction, DbErr> {
        match (self, purpose) {
            (Self::Sqlite, Purpose::Read) => connections.begin().await,
            (Self::Sqlite, Purpose::Write) => connections.begin_with_options(sqlite::immediate()).await,
            (Self::Postgres(session), _) => session.begin(connections, purpose).await,
        }
    }

    /// Whether others use what lies behind our connections, so that nothing of ours stays with one beyond a transaction.
    pub(crate) const fn shares_connections(self) -> bool {
        match self {
            Self::Sqlite => false,
            Self::Postgres(session) => session.is_pooled(),
        }
    }

    /// Begins a transaction that only reads, and sees everything as of one moment.
    pub(crate) async fn begin_snapshot(self, reader: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
        match self {
            Self::Sqlite => reader.begin().await,
            Self::Postgres(session) => session.begin_snapshot(reader).await,
        }
    }

    /// Lets one process at a time look at the schema and change it, until the transaction ends.
    pub(crate) async fn lock_schema(self, tx: &DatabaseTransaction) -> Result<(), DbErr> {
        match self {
            // The transaction has the lock of the whole file since it began.
            Self::Sqlite => Ok(()),
            Self::Postgres(_) => tx.execute_unprepared(postgres::LOCK_SCHEMA).await.map(|_| ()),
        }
    }

    /// A condition that a column of text is from `begin` on and before `end`, in the order of bytes, as an index has it.
    pub(crate) fn within_bytes(self, column: &'static str, begin: &str, end: &str) -> Expr {
        match self {
            Self::Sqlite => Expr::col(column).gte(begin).and(Expr::col(column).lt(end)),
            // Its usual comparison may be by the rules of a language.
            Self::Postgres(_) => {
                let from = Expr::col(column).binary(BinOper::Custom("~>=~"), Expr::val(begin));
                from.and(Expr::col(column).binary(BinOper::Custom("~<~"), Expr::val(end)))
            }
        }
    }

    /// The database's clock, in milliseconds since 1970.
    pub(crate) fn now_ms(self) -> Expr {
        match self {
            Self::Sqlite => Expr::cust(sqlite::NOW_MS),
            Self::Postgres(_) => Expr::cust(postgres::NOW_MS),
        }
    }

    /// A number that changes with every commit that another connection made; `None` if there is no such thing.
    pub(crate) async fn change_counter(self, db: &Database) -> Result<Option<i64>, DbErr> {
        match self {
            Self::Sqlite if !db.is_single() => sqlite::change_counter(&db.watcher.bare()).await,
            Self::Sqlite | Self::Postgres(_) => Ok(None),
        }
    }

    /// Where a commit takes its number: what tells other processes of it once it is there.
    pub(crate) fn announcement(self) -> Option<Expr> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(_) => Some(Expr::cust(postgres::NOTIFY)),
        }
    }

    /// Whether a commit may have happened although its answer never came.
    pub(crate) const fn loses_answers(self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Hears of commits of other processes, for as long as it is polled. They may come unheard: this only saves time.
    pub(crate) async fn listen(self, db: &Database, wake: &Notify) {
        let Some(listener) = &db.listener else { return pending().await };
        loop {
            let connections = listener.bare();
            tokio::select! {
                () = postgres::listen(&connections, wake) => {}
                // Nothing would be heard on a connection that leads nowhere any more, and no error either.
                () = db.renewed.notified() => {}
            }
        }
    }
}

/// The error of a database that cannot be used at all.
pub(crate) fn refused(error: DbErr) -> Error {
    use TroubleKind::{CannotOpen, Damaged, Denied, Full, ReadOnly};
    match Trouble::of(&error) {
        Some(trouble) if matches!(trouble.kind, ReadOnly | Full | CannotOpen | Damaged | Denied) => {
            Error::invalid(FIELD, trouble.reason, trouble.remedy)
        }
        _ => super::error::db_error(error),
    }
}
