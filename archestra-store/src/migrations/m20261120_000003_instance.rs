//! The one row that tells a database from all others, whatever its kind and wherever it moves.

use async_trait::async_trait;
use sea_orm::{
    DbErr,
    sea_query::{ColumnDef, Expr, Query, Table},
};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};
use uuid::Uuid;

/// See the module.
#[derive(Debug)]
pub(super) struct Instance;

impl MigrationName for Instance {
    fn name(&self) -> &str {
        "m20261120_000003_instance"
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "the trait is declared so, and another form of it does not match")]
impl MigrationTrait for Instance {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let id = ColumnDef::new("id").uuid().not_null().primary_key().take();
        manager.create_table(Table::create().table("instance").col(id).take()).await?;
        let row =
            Query::insert().into_table("instance").columns(["id"]).values_panic([Expr::val(Uuid::now_v7())]).to_owned();
        manager.execute(row).await
    }
}
