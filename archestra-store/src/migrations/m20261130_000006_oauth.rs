//! What clients are granted, what users have said yes to, who is who at a provider, and which tokens came of which grant.

use async_trait::async_trait;
use sea_orm::{
    DbErr,
    sea_query::{ColumnDef, Index, IndexCreateStatement, Table, TableCreateStatement},
};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

/// See the module.
#[derive(Debug)]
pub(super) struct OAuth;

impl MigrationName for OAuth {
    fn name(&self) -> &str {
        "m20261130_000006_oauth"
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "the trait is declared so, and another form of it does not match")]
impl MigrationTrait for OAuth {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

fn tables() -> [TableCreateStatement; 4] {
    [
        record(
            "grants",
            vec![
                ColumnDef::new("family").text().null().take(),
                reference("client", "clients").not_null().take(),
                reference("user_id", "users").null().take(),
                id("consumer"),
                ColumnDef::new("expires_at").big_integer().null().take(),
            ],
        ),
        record(
            "consents",
            vec![
                reference("user_id", "users").not_null().take(),
                reference("client", "clients").not_null().take(),
                id("consumer"),
            ],
        ),
        record(
            "linked_identities",
            vec![
                reference("user_id", "users").not_null().take(),
                reference("provider", "identity_providers").not_null().take(),
                text("subject"),
            ],
        ),
        table(
            "access_tokens",
            [
                reference("token", "tokens").not_null().take(),
                reference("grant_id", "grants").not_null().take(),
                ColumnDef::new("expires_at").big_integer().null().take(),
            ],
        ),
    ]
}

fn indexes() -> [IndexCreateStatement; 14] {
    [
        unique("grants", &["family"]),
        index("grants", &["client", "id"]),
        index("grants", &["user_id", "id"]),
        index("grants", &["consumer", "id"]),
        index("grants", &["expires_at", "id"]),
        unique("consents", &["user_id", "client", "consumer"]),
        index("consents", &["user_id", "id"]),
        index("consents", &["client", "id"]),
        unique("linked_identities", &["provider", "subject"]),
        index("linked_identities", &["provider", "id"]),
        index("linked_identities", &["user_id", "id"]),
        unique("access_tokens", &["token"]),
        index("access_tokens", &["grant_id", "token"]),
        index("access_tokens", &["expires_at", "token"]),
    ]
}

fn record(name: &'static str, columns: Vec<ColumnDef>) -> TableCreateStatement {
    let version = ColumnDef::new("version").big_integer().not_null().take();
    table(name, [id("id").primary_key().take(), version].into_iter().chain(columns).chain([text("doc")]))
}

fn table(name: &'static str, columns: impl IntoIterator<Item = ColumnDef>) -> TableCreateStatement {
    let mut table = Table::create();
    table.table(name);
    for column in columns {
        table.col(column);
    }
    table
}

fn id(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).uuid().not_null().take()
}

fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().not_null().take()
}

/// A foreign key that is checked when the transaction commits: within one, records are removed and written again in any order.
fn reference(name: &'static str, to: &'static str) -> ColumnDef {
    ColumnDef::new(name).uuid().extra(format!("REFERENCES {to} (id) DEFERRABLE INITIALLY DEFERRED")).take()
}

fn unique(table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    index(table, columns).unique().take()
}

fn index(table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(format!("{table}_{}", columns.join("_"))).table(table);
    for column in columns {
        index.col(*column);
    }
    index.take()
}
