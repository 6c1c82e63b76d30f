//! PostgreSQL: its connections, its limits, its clock, its wake-ups, and what its error codes mean.

mod session;
mod target;

pub(crate) use session::Session;

use super::{Dialect, FIELD, Trouble, TroubleKind, refused};
use crate::sql::{
    SqlConfig,
    database::{Connections, Database},
    pool::{Opener, Pool, Purpose},
};
use archestra_core::Result;
use sea_orm::{
    ConnectOptions, DatabaseConnection, DbErr, RuntimeErr,
    sqlx::{
        self, ConnectOptions as _, Connection as _, PgConnection,
        postgres::{PgConnectOptions, PgDatabaseError, PgListener},
    },
};
use std::{sync::Arc, time::Duration};
use target::Target;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

/// The clock, in milliseconds since 1970. It stands still within a statement, which lets indexes be used.
pub(super) const NOW_MS: &str = "CAST(FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000) AS BIGINT)";
/// Tells whoever listens that there is a commit, once there is one.
pub(super) const NOTIFY: &str = "pg_notify('archestra_feed', '')";
const CHANNEL: &str = "archestra_feed";
/// One process at a time, which may make indexes on large tables. The lock ends with the transaction, so that it also holds
/// behind a transaction pooler.
pub(super) const LOCK_SCHEMA: &str = "SET LOCAL statement_timeout = '10min'; SET LOCAL lock_timeout = '10min'; SELECT pg_advisory_xact_lock(4715006917428338292)";

/// The pause between two attempts on a server that is just starting.
const STARTING: Duration = Duration::from_millis(200);
/// The pauses before listening again.
const LISTEN_AGAIN: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// Opens the database at the URL of `config`.
pub(super) async fn open(config: &SqlConfig) -> Result<Database> {
    let target = Target::parse(config)?;
    let (session, options) = Session::find(&target, config).await?;
    let dialect = Dialect::Postgres(session);
    let pool = |purpose, connections| Pool::renewable(dialect, purpose, opener(config, &options, connections));
    let opened = async {
        Ok(Connections {
            reader: pool(Purpose::Read, config.readers).await?,
            writer: pool(Purpose::Write, config.writers).await?,
            watcher: pool(Purpose::Read, 1).await?,
            // Whoever listens must keep a connection to the server, which a pooler lends for a transaction.
            listener: if session.is_pooled() { None } else { Some(pool(Purpose::Read, 1).await?) },
        })
    };
    let connections = opened.await.map_err(refused)?;
    Ok(Database::pooled(dialect, target.name, connections, config.deadline))
}

/// Why there is no connection.
#[derive(Debug)]
enum Failure {
    Silent(Duration),
    Error(sqlx::Error),
}

impl Failure {
    fn code(&self) -> Option<&str> {
        match self {
            Self::Silent(_) => None,
            Self::Error(error) => code(error),
        }
    }

    /// Whether somebody between us and the server refused what only the server understands.
    fn is_of_a_pooler(&self) -> bool {
        let Self::Error(sqlx::Error::Database(error)) = self else { return false };
        error.message().contains("startup parameter")
    }
}

/// Connects once, since a pool would only say that there is no connection and not why.
async fn probe(options: &PgConnectOptions, limit: Duration) -> std::result::Result<PgConnection, Failure> {
    let give_up = Instant::now() + limit;
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        match timeout(left, PgConnection::connect_with(options)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) if code(&error) == Some("57P03") && left > STARTING => sleep(STARTING).await,
            Ok(Err(error)) => return Err(Failure::Error(error)),
            Err(_) => return Err(Failure::Silent(limit)),
        }
    }
}

/// Connections are made when they are needed, and made anew when the server was away.
fn opener(config: &SqlConfig, options: &PgConnectOptions, connections: u32) -> Opener {
    let (acquire, options) = (config.connect_timeout, options.clone().disable_statement_logging());
    Arc::new(move || {
        // What is written here never holds a secret: the driver prints it at its lowest log level.
        let mut pool = ConnectOptions::new("postgres://localhost");
        let options = options.clone();
        pool.min_connections(0)
            .max_connections(connections)
            .acquire_timeout(acquire)
            .connect_lazy(true)
            .sqlx_logging(false)
            .record_stmt_in_spans(false)
            .test_before_acquire(true)
            .map_sqlx_postgres_opts(move |_| options.clone());
        Box::pin(sea_orm::Database::connect(pool))
    })
}

/// Listens, and again when the connection was lost. Each time it wakes, too, for what came unheard.
pub(super) async fn listen(pool: &DatabaseConnection, wake: &Notify) {
    let mut failures = 0;
    loop {
        let heard = listen_once(pool, wake).await;
        wake.notify_one();
        failures = if heard > 0 { 0 } else { (failures + 1).min(LISTEN_AGAIN.len() - 1) };
        sleep(LISTEN_AGAIN[failures]).await;
    }
}

/// Listens until the connection is lost; says how often there was something to hear.
async fn listen_once(pool: &DatabaseConnection, wake: &Notify) -> u64 {
    let mut heard = 0;
    let listening = async {
        let mut listener = PgListener::connect_with(pool.get_postgres_connection_pool()).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        wake.notify_one();
        while listener.try_recv().await?.is_some() {
            heard += 1;
            wake.notify_one();
        }
        Ok::<_, sqlx::Error>(())
    };
    if let Err(error) = listening.await {
        tracing::debug!(%error, "notifications of the database are interrupted; looking for changes goes on");
    }
    heard
}

/// The SQLSTATE of an error of the server's.
fn code(error: &sqlx::Error) -> Option<&str> {
    match error {
        sqlx::Error::Database(error) => Some(error.try_downcast_ref::<PgDatabaseError>()?.code()),
        _ => None,
    }
}

/// What an error means, if it is one that people can do something about.
pub(super) fn trouble(error: &sqlx::Error) -> Option<Trouble> {
    use TroubleKind::{Busy, CannotOpen, Damaged, Denied, Full, Race, ReadOnly, Unfit};
    if matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)) {
        return Some(lost());
    }
    // https://www.postgresql.org/docs/current/errcodes-appendix.html
    Some(match code(error)? {
        "40001" | "40P01" => Trouble::new(Race, "others changed the same at the same moment", "try again"),
        "55P03" => Trouble::new(
            Busy,
            "another process kept a part of the database locked",
            "try again, and look for one that holds a transaction open",
        ),
        "57014" => Trouble::new(
            Busy,
            "the database gave up a statement that took too long",
            "try again, and look at the load of its server",
        ),
        "53300" => Trouble::new(
            Busy,
            "the database takes no more connections",
            "raise its max_connections, run fewer replicas, or put a pooler in front of it",
        ),
        "53100" => Trouble::new(Full, "there is no room left for the database", "free some on its disk"),
        "25006" => Trouble::new(
            ReadOnly,
            "the database cannot be written",
            "name the primary and not a standby, and turn default_transaction_read_only off",
        ),
        "28P01" | "28000" => Trouble::new(
            Denied,
            "the database does not let this user in",
            "check the user and the password of the URL, and pg_hba.conf",
        ),
        "42501" => Trouble::new(
            Denied,
            "the user lacks rights in the database",
            "make it the owner of the database, or grant it CREATE and USAGE on its schema and all rights on our tables",
        ),
        "3D000" => Trouble::new(
            CannotOpen,
            "the database does not exist",
            "create it with `CREATE DATABASE`, or correct the URL",
        ),
        "3F000" => Trouble::new(
            CannotOpen,
            "the database has no schema to make tables in",
            "create the schema that search_path names, or make one of its schemas visible to the user",
        ),
        "26000" | "42P05" => Trouble::new(
            CannotOpen,
            "a pooler in front of the database loses prepared statements",
            "set max_prepared_statements of PgBouncer (1.21 or newer) above 0, or let it pool by session",
        ),
        "22021" | "22P05" => {
            Trouble::new(Unfit, "the database holds no text with a NUL in it", "leave that character out")
        }
        "54000" => Trouble::new(Unfit, "a name or key is longer than an index of the database takes", "shorten it"),
        "XX001" | "XX002" => Trouble::new(Damaged, "the database is damaged", "restore a backup"),
        code if code.starts_with("08") || matches!(code, "57P01" | "57P02" | "57P03" | "57P05" | "25P03") => lost(),
        code if code.starts_with("53") => {
            Trouble::new(Busy, "the server of the database lacks memory or the like", "try again, and look at its load")
        }
        _ => return None,
    })
}

const fn lost() -> Trouble {
    Trouble::new(TroubleKind::Lost, "the connection to the database was lost", "try again")
}

/// An error of a connection that is being made, as that of any other.
fn conn(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}
