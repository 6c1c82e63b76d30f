//! Opening a database: its schema is brought up to date under a lock, and one that cannot be used is refused.

use super::{
    SqlConfig,
    database::{Database, column, rows},
    dialect::{Dialect, refused},
};
use crate::migrations::Migrator;
use archestra_core::{Error, Result};
use sea_orm::{
    DatabaseTransaction,
    sea_query::{Expr, ExprTrait as _, Query},
};
use sea_orm_migration::{MigratorTrait, SchemaManager};
use std::time::Duration;
use tokio::time::timeout;

/// Where `sea-orm-migration` keeps what it has applied.
const APPLIED: &str = "seaql_migrations";
/// How long it may take to bring the schema up to date, be it by us or by the process that we wait for.
const UPGRADE: Duration = Duration::from_secs(600);

/// Opens the database that `config` names.
pub(super) async fn connect(config: &SqlConfig) -> Result<Database> {
    let db = Dialect::open(config).await?;
    let limit = config.deadline.max(UPGRADE);
    let prepared = timeout(limit, prepare(&db)).await;
    match prepared.unwrap_or(Err(Error::Timeout { operation: "opening the database", after: limit })) {
        Ok(()) => Ok(db),
        Err(error) => {
            db.close().await;
            Err(error)
        }
    }
}

async fn prepare(db: &Database) -> Result<()> {
    // One transaction that has a lock from its beginning: of several processes one migrates, the others find it done.
    let tx = db.begin().await?;
    db.dialect.lock_schema(&tx).await.map_err(refused)?;
    if is_outdated(&tx, db).await? {
        Migrator::up(&tx, None).await.map_err(refused)?;
    }
    tx.commit().await.map_err(refused)?;
    // A database that can only be read is noticed by nothing but a write.
    let tx = db.begin().await?;
    let touch = Query::update()
        .table("feed_head")
        .value("floor", Expr::col("floor"))
        .and_where(Expr::col("id").eq(1))
        .to_owned();
    sea_orm::ConnectionTrait::execute(&tx, &touch).await.map_err(refused)?;
    tx.rollback().await.map_err(refused)
}

/// Whether steps are missing. One that we do not know is refused.
async fn is_outdated(tx: &DatabaseTransaction, db: &Database) -> Result<bool> {
    if !SchemaManager::new(tx).has_table(APPLIED).await.map_err(refused)? {
        return Ok(true);
    }
    let known: Vec<String> = Migrator::migrations().iter().map(|step| step.name().to_owned()).collect();
    let applied = rows(tx, &Query::select().column("version").from(APPLIED).to_owned()).await?;
    for row in &applied {
        let version: String = column(row, "version")?;
        if !known.contains(&version) {
            let reason = format!(
                "its schema has the step {version}, which this version does not know; start the newer version that made it, or restore a backup"
            );
            return Err(Error::conflict("database", &db.name, reason));
        }
    }
    Ok(applied.len() < known.len())
}
