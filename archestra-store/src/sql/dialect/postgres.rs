//! PostgreSQL: its connections, its limits, its clock, its wake-ups, and what its error codes mean.

mod target;

use super::{Dialect, FIELD, Trouble, TroubleKind, refused};
use crate::sql::{
    SqlConfig,
    database::{Connections, Database},
};
use archestra_core::Result;
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr,
    TransactionTrait as _,
    sqlx::{
        self, ConnectOptions as _, Connection as _, PgConnection,
        postgres::{PgConnectOptions, PgDatabaseError, PgListener},
    },
};
use std::time::Duration;
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

/// The longest pause of a transaction between two statements. Whoever is cut off holds up all others for so long.
const IDLE: Duration = Duration::from_secs(10);
/// The pause between two attempts on a server that is just starting.
const STARTING: Duration = Duration::from_millis(200);
/// The pauses before listening again.
const LISTEN_AGAIN: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// What holds on every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    limits: Limits,
    /// Whether each transaction must say so, since a pooler in between keeps connections from saying so themselves.
    per_transaction: bool,
}

/// When the server gives up by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    statement: Duration,
    lock: Duration,
}

impl Limits {
    fn settings(self) -> [(&'static str, String); 4] {
        let ms = |limit: Duration| limit.as_millis().max(1).to_string();
        [
            ("statement_timeout", ms(self.statement)),
            ("lock_timeout", ms(self.lock)),
            ("idle_in_transaction_session_timeout", ms(IDLE)),
            // Each statement must see what was committed before it, as the checks of a commit do once it is their turn.
            ("default_transaction_isolation", "read committed".to_owned()),
        ]
    }

    fn local(self) -> String {
        let mut text = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned();
        for (name, value) in &self.settings()[..3] {
            text.push_str(&format!("; SET LOCAL {name} = {value}"));
        }
        text
    }
}

impl Session {
    /// Begins a transaction.
    pub(super) async fn begin(self, writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
        let tx = writer.begin().await?;
        if self.per_transaction {
            tx.execute_unprepared(&self.limits.local()).await?;
        }
        Ok(tx)
    }
}

/// Opens the database at the URL of `config`.
pub(super) async fn open(config: &SqlConfig) -> Result<Database> {
    let target = Target::parse(config)?;
    let limits = Limits { statement: config.deadline, lock: config.lock_timeout };
    let mut session = Session { limits, per_transaction: false };
    let mut options = target.options.clone().options(limits.settings());
    if let Err(failure) = probe(&options, config.connect_timeout).await {
        if !failure.is_of_a_pooler() {
            return Err(target.refusal(failure));
        }
        session.per_transaction = true;
        options = target.options.clone();
        probe(&options, config.connect_timeout).await.map_err(|failure| target.refusal(failure))?;
        tracing::info!(database = %target.name, "a pooler is in front of the database: limits are set by each transaction");
    }
    let connections = Connections {
        reader: pool(config, &options, config.readers).await?,
        writer: pool(config, &options, config.writers).await?,
        watcher: pool(config, &options, 1).await?,
        listener: Some(pool(config, &options, 1).await?),
    };
    Ok(Database::pooled(Dialect::Postgres(session), target.name, connections, config.deadline))
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
async fn probe(options: &PgConnectOptions, limit: Duration) -> std::result::Result<(), Failure> {
    let give_up = Instant::now() + limit;
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        match timeout(left, PgConnection::connect_with(options)).await {
            Ok(Ok(connection)) => {
                drop(timeout(left, connection.close()).await);
                return Ok(());
            }
            Ok(Err(error)) if code(&error) == Some("57P03") && left > STARTING => sleep(STARTING).await,
            Ok(Err(error)) => return Err(Failure::Error(error)),
            Err(_) => return Err(Failure::Silent(limit)),
        }
    }
}

/// Connections are made when they are needed, and made anew when the server was away.
async fn pool(config: &SqlConfig, options: &PgConnectOptions, connections: u32) -> Result<DatabaseConnection> {
    // What is written here never holds a secret: the driver prints it at its lowest log level.
    let mut pool = ConnectOptions::new("postgres://localhost");
    let options = options.clone().disable_statement_logging();
    pool.min_connections(0)
        .max_connections(connections)
        .acquire_timeout(config.connect_timeout)
        .connect_lazy(true)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .test_before_acquire(true)
        .map_sqlx_postgres_opts(move |_| options.clone());
    sea_orm::Database::connect(pool).await.map_err(refused)
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
