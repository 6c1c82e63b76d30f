//! Indexes that lists are read from in their order, page by page, whatever they are filtered by.

use async_trait::async_trait;
use sea_orm::{DbErr, sea_query::Index};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

/// See the module.
#[derive(Debug)]
pub(super) struct Pages;

/// What leads to rows, but not in the order of lists.
const UNORDERED: [(&str, &[&str]); 7] = [
    ("installations", &["owner_kind", "owner_id"]),
    ("assignments", &["entry"]),
    ("assignments", &["installation"]),
    ("tokens", &["owner_kind", "owner_id"]),
    ("audit", &["action", "at"]),
    ("audit", &["actor_id", "at"]),
    ("audit", &["consumer", "at"]),
];

const ORDERED: [(&str, &[&str]); 12] = [
    ("installations", &["entry", "id"]),
    ("installations", &["owner_kind", "owner_id", "id"]),
    ("tools", &["entry", "id"]),
    ("consumers", &["kind", "id"]),
    ("assignments", &["consumer", "id"]),
    ("assignments", &["entry", "id"]),
    ("assignments", &["installation", "id"]),
    ("revisions", &["workload", "id"]),
    ("tokens", &["owner_kind", "owner_id", "id"]),
    ("audit", &["action", "at", "id"]),
    ("audit", &["actor_id", "at", "id"]),
    ("audit", &["consumer", "at", "id"]),
];

impl MigrationName for Pages {
    fn name(&self) -> &str {
        "m20261120_000002_pages"
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "the trait is declared so, and another form of it does not match")]
impl MigrationTrait for Pages {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, columns) in UNORDERED {
            manager.drop_index(Index::drop().name(name(table, columns)).table(table).to_owned()).await?;
        }
        for (table, columns) in ORDERED {
            let mut index = Index::create();
            index.name(name(table, columns)).table(table);
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index.take()).await?;
        }
        Ok(())
    }
}

fn name(table: &str, columns: &[&str]) -> String {
    format!("{table}_{}", columns.join("_"))
}
