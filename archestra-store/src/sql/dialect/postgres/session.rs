//! What holds on every connection and in every transaction, whoever stands between us and the server.

use super::{Failure, code, probe, target::Target};
use crate::sql::{SqlConfig, config::Access, pool::Purpose};
use archestra_core::Result;
use sea_orm::{
    AccessMode, ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbErr, IsolationLevel,
    TransactionTrait as _,
    sqlx::{self, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions},
};
use std::time::Duration;
use tokio::time::timeout;

/// The longest pause of a transaction between two statements. Whoever is cut off holds up all others for so long.
const IDLE: Duration = Duration::from_secs(10);
/// Under their own names, the driver's prepared statements are found in the server that holds them.
const OURS: &str = "SELECT COUNT(*) FROM pg_prepared_statements WHERE name LIKE 'sqlx%'";

/// What holds on every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    limits: Limits,
    access: Access,
    between: Between,
}

/// When the server gives up by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    statement: Duration,
    lock: Duration,
}

/// Who stands between us and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    /// Nobody, or somebody who hands everything on: a connection stays as it was set up.
    Nobody,
    /// A pooler: each transaction may be on another connection to the server, which it sets up for itself.
    Pooler(Statements),
}

/// What a pooler makes of prepared statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statements {
    /// They are there wherever they are used.
    Known,
    /// They stay on the connection to the server that they were made on, where they are in the way of those of others.
    Unknown,
}

impl Limits {
    fn settings(self) -> [(&'static str, String); 3] {
        let ms = |limit: Duration| limit.as_millis().max(1).to_string();
        [
            ("statement_timeout", ms(self.statement)),
            ("lock_timeout", ms(self.lock)),
            ("idle_in_transaction_session_timeout", ms(IDLE)),
        ]
    }

    /// Whether they are in force on a connection that was made with them: a pooler may be told to overlook them.
    async fn hold(self, connection: &mut PgConnection) -> std::result::Result<bool, sqlx::Error> {
        let asked = "SELECT setting FROM pg_settings WHERE name = 'lock_timeout'";
        let found: String = sqlx::raw_sql(asked).fetch_one(connection).await?.try_get(0)?;
        Ok(found == self.settings()[1].1)
    }
}

impl Session {
    /// Finds out what there is between us and the server; what it says, and with which options connections are made.
    pub(super) async fn find(target: &Target, config: &SqlConfig) -> Result<(Self, PgConnectOptions)> {
        let limits = Limits { statement: config.deadline, lock: config.lock_timeout };
        let mut session = Self { limits, access: config.access, between: Between::Nobody };
        let options = target.options.clone().options(session.settings());
        match ask(&options, config, async |connection| limits.hold(connection).await).await {
            Ok(true) => return Ok((session, options)),
            Ok(false) => {}
            Err(failure) if failure.is_of_a_pooler() => {}
            Err(failure) => return Err(target.refusal(failure)),
        }
        let statements = ask(&target.options, config, async |connection| statements(connection).await).await;
        let statements = statements.map_err(|failure| target.refusal(failure))?;
        session.between = Between::Pooler(statements);
        tracing::info!(
            database = %target.name,
            ?statements,
            "a pooler is in front of the database: each transaction brings its limits, and changes are looked for"
        );
        let options = target.options.clone();
        Ok(match statements {
            Statements::Known => (session, options),
            Statements::Unknown => (session, options.statement_cache_capacity(0)),
        })
    }

    /// Whether others use the connections to the server, too.
    pub(crate) const fn is_pooled(self) -> bool {
        matches!(self.between, Between::Pooler(_))
    }

    /// Begins a transaction.
    pub(crate) async fn begin(
        self,
        connections: &DatabaseConnection,
        purpose: Purpose,
    ) -> std::result::Result<DatabaseTransaction, DbErr> {
        let tx = connections.begin().await?;
        if let Between::Pooler(statements) = self.between {
            tx.execute_unprepared(&self.prelude("READ COMMITTED", purpose, statements)).await?;
        }
        Ok(tx)
    }

    /// Begins a transaction that reads everything as of one moment.
    pub(crate) async fn begin_snapshot(
        self,
        connections: &DatabaseConnection,
    ) -> std::result::Result<DatabaseTransaction, DbErr> {
        let Between::Pooler(statements) = self.between else {
            let (isolation, access) = (IsolationLevel::RepeatableRead, AccessMode::ReadOnly);
            return connections.begin_with_config(Some(isolation), Some(access)).await;
        };
        let tx = connections.begin().await?;
        tx.execute_unprepared(&self.prelude("REPEATABLE READ", Purpose::Read, statements)).await?;
        Ok(tx)
    }

    /// How a connection is set up that stays with us.
    fn settings(self) -> Vec<(&'static str, String)> {
        let mut settings = self.limits.settings().to_vec();
        // Each statement must see what was committed before it, as the checks of a commit do once it is their turn.
        settings.push(("default_transaction_isolation", "read committed".to_owned()));
        if self.access == Access::ReadOnly {
            settings.push(("default_transaction_read_only", "on".to_owned()));
        }
        settings
    }

    /// How a transaction sets up the connection that it is given.
    fn prelude(self, isolation: &str, purpose: Purpose, statements: Statements) -> String {
        let mut text = format!("SET TRANSACTION ISOLATION LEVEL {isolation}");
        if self.access == Access::ReadOnly || purpose == Purpose::Read {
            text.push_str(", READ ONLY");
        }
        for (name, value) in &self.limits.settings() {
            text.push_str(&format!("; SET LOCAL {name} = {value}"));
        }
        if statements == Statements::Unknown {
            text.push_str("; DEALLOCATE ALL");
        }
        text
    }
}

/// Asks something on a connection made for it.
async fn ask<T>(
    options: &PgConnectOptions,
    config: &SqlConfig,
    question: impl AsyncFnOnce(&mut PgConnection) -> std::result::Result<T, sqlx::Error>,
) -> std::result::Result<T, Failure> {
    let limit = config.connect_timeout;
    let mut connection = probe(options, limit).await?;
    let answer = timeout(limit, question(&mut connection)).await;
    drop(timeout(limit, connection.close()).await);
    answer.map_err(|_| Failure::Silent(limit))?.map_err(Failure::Error)
}

/// What a pooler makes of prepared statements: one that knows them gives them names of its own.
async fn statements(connection: &mut PgConnection) -> std::result::Result<Statements, sqlx::Error> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    let found = sqlx::query_scalar::<_, i64>(OURS).fetch_one(&mut *connection).await;
    let statements = match found {
        Ok(0) => Statements::Known,
        Ok(_) => Statements::Unknown,
        // One of that name is there already, or not any more.
        Err(error) if matches!(code(&error), Some("42P05" | "26000")) => Statements::Unknown,
        Err(error) => return Err(error),
    };
    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_transaction_brings_along_depends_on_who_is_between() {
        let limits = Limits { statement: Duration::from_secs(30), lock: Duration::from_secs(20) };
        let session = |access, statements| Session { limits, access, between: Between::Pooler(statements) };
        assert_eq!(
            session(Access::ReadWrite, Statements::Unknown).prelude(
                "READ COMMITTED",
                Purpose::Write,
                Statements::Unknown
            ),
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 30000; SET LOCAL lock_timeout = 20000; SET LOCAL idle_in_transaction_session_timeout = 10000; DEALLOCATE ALL"
        );
        let known = session(Access::ReadOnly, Statements::Known);
        let text = known.prelude("REPEATABLE READ", Purpose::Write, Statements::Known);
        assert!(text.starts_with("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; "), "{text}");
        assert!(!text.contains("DEALLOCATE"), "{text}");
        assert!(known.settings().iter().any(|(name, value)| *name == "default_transaction_read_only" && value == "on"));
    }
}
