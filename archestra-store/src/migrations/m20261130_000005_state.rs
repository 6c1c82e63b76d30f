//! An index by which state is found by the beginning of its name, whatever language a database on PostgreSQL sorts by.

use async_trait::async_trait;
use sea_orm::{ConnectionTrait as _, DbBackend, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

/// See the module.
#[derive(Debug)]
pub(super) struct State;

impl MigrationName for State {
    fn name(&self) -> &str {
        "m20261130_000005_state"
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "the trait is declared so, and another form of it does not match")]
impl MigrationTrait for State {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite compares bytes anyway, and has an index of them.
        if manager.get_database_backend() == DbBackend::Postgres {
            let db = manager.get_connection();
            db.execute_unprepared("CREATE INDEX state_names ON state (space, name text_pattern_ops)").await?;
        }
        Ok(())
    }
}
