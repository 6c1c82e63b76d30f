//! Opening a database: its schema is brought up to date under a lock, and one that cannot be used is refused.

use super::{
    SqlConfig,
    config::Access,
    database::{Database, column, rows},
    dialect::{Dialect, refused},
    error::is_busy,
};
use crate::migrations::Migrator;
use archestra_core::{Error, Result};
use sea_orm::{
    DatabaseTransaction,
    sea_query::{Expr, ExprTrait as _, Query},
};
use sea_orm_migration::{MigratorTrait, SchemaManager};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Where `sea-orm-migration` keeps what it has applied.
const APPLIED: &str = "seaql_migrations";
/// The pause after the database was found locked.
const AGAIN: Duration = Duration::from_millis(100);

/// Opens the database that `config` names.
pub(super) async fn connect(config: &SqlConfig) -> Result<Database> {
    let db = Dialect::open(config).await?;
    let limit = config.deadline.max(config.upgrade_timeout);
    let ready = async {
        match config.access {
            Access::ReadWrite => prepare(&db, Instant::now() + config.upgrade_timeout).await,
            Access::ReadOnly => inspect(&db).await,
        }
    };
    // Whoever waits for a lock gives up by itself, and says what for.
    let limit = limit + config.lock_timeout;
    let prepared = timeout(limit, ready).await;
    match prepared.unwrap_or(Err(Error::Timeout { operation: "opening the database", after: limit })) {
        Ok(()) => Ok(db),
        Err(error) => {
            db.close().await;
            Err(error)
        }
    }
}

async fn prepare(db: &Database, give_up: Instant) -> Result<()> {
    // One transaction that has a lock from its beginning: of several processes one migrates, the others find it done.
    let tx = turn(db, give_up).await?;
    db.dialect.lock_schema(&tx).await.map_err(refused)?;
    if !missing(&tx, db).await?.is_empty() {
        Migrator::up(&tx, None).await.map_err(refused)?;
    }
    tx.commit().await.map_err(refused)?;
    // A database that can only be read is noticed by nothing but a write.
    let tx = turn(db, give_up).await?;
    let touch = Query::update()
        .table("feed_head")
        .value("floor", Expr::col("floor"))
        .and_where(Expr::col("id").eq(1))
        .to_owned();
    sea_orm::ConnectionTrait::execute(&tx, &touch).await.map_err(refused)?;
    tx.rollback().await.map_err(refused)
}

/// Begins to write. Where the whole file is locked for that, another process may be bringing the schema up to date, which may take
/// longer than any other write.
async fn turn(db: &Database, give_up: Instant) -> Result<DatabaseTransaction> {
    loop {
        match db.begin().await {
            Err(error) if is_busy(&error) && Instant::now() < give_up => {
                tracing::warn!(%error, "another process writes to the database, perhaps to bring its schema up to date; waiting");
                sleep(AGAIN).await;
            }
            begun => return begun,
        }
    }
}

/// Refuses a database whose schema is not ours, or not that of this version.
async fn inspect(db: &Database) -> Result<()> {
    let tx = db.begin_snapshot().await?;
    let missing = missing(&tx, db).await?;
    tx.rollback().await.map_err(refused)?;
    let Some(first) = missing.first() else { return Ok(()) };
    let reason = if missing.len() == Migrator::migrations().len() {
        "there is nothing of ours in it; name the database that the server uses".to_owned()
    } else {
        format!(
            "its schema is that of an older version, without the step {first}, and it is only read here; use that version for this, or start this one on it once, which brings it up to date"
        )
    };
    Err(Error::conflict("database", &db.name, reason))
}

/// Which steps are missing, oldest first. One that we do not know is refused.
async fn missing(tx: &DatabaseTransaction, db: &Database) -> Result<Vec<String>> {
    let mut steps: Vec<String> = Migrator::migrations().iter().map(|step| step.name().to_owned()).collect();
    if !SchemaManager::new(tx).has_table(APPLIED).await.map_err(refused)? {
        return Ok(steps);
    }
    let known = steps.clone();
    for row in rows(tx, &Query::select().column("version").from(APPLIED).to_owned()).await? {
        let version: String = column(&row, "version")?;
        if !known.contains(&version) {
            let reason = format!(
                "its schema has the step {version}, which this version does not know; start the newer version that made it, or restore a backup"
            );
            return Err(Error::conflict("database", &db.name, reason));
        }
        steps.retain(|step| *step != version);
    }
    Ok(steps)
}

#[cfg(test)]
mod tests;
