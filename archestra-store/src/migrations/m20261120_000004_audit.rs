//! An index of audit records by their action without those of calls, of which there are by far the most.

use async_trait::async_trait;
use sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

/// See the module.
#[derive(Debug)]
pub(super) struct Audit;

impl MigrationName for Audit {
    fn name(&self) -> &str {
        "m20261120_000004_audit"
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "the trait is declared so, and another form of it does not match")]
impl MigrationTrait for Audit {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared("DROP INDEX audit_action_at_id").await?;
        // The list of all calls is read along the time: nearly every record is one.
        db.execute_unprepared("CREATE INDEX audit_actions ON audit (action, at, id) WHERE action <> 'tools/call'")
            .await?;
        Ok(())
    }
}
