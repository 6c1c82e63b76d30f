//! The first schema: records, their feed, shared state, audit records, secrets and key rings.

use async_trait::async_trait;
use sea_orm::{
    DbErr,
    sea_query::{ColumnDef, Expr, Index, IndexCreateStatement, Query, Table, TableCreateStatement},
};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

/// See the module.
#[derive(Debug)]
pub(super) struct Initial;

impl MigrationName for Initial {
    fn name(&self) -> &str {
        "m20261120_000001_initial"
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "the trait is declared so, and another form of it does not match")]
impl MigrationTrait for Initial {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        let head = Query::insert()
            .into_table("feed_head")
            .columns(["id", "revision", "floor"])
            .values_panic([Expr::val(1), Expr::val(0), Expr::val(0)])
            .to_owned();
        manager.execute(head).await
    }
}

fn tables() -> Vec<TableCreateStatement> {
    let mut tables = vec![
        record("entries", [text("name"), text("search")]),
        record("installations", [reference("entry", "entries"), text("owner_kind"), text("owner_id")]),
        record("tools", [reference("entry", "entries"), text("name")]),
        record("consumers", [text("slug"), text("kind")]),
        record(
            "assignments",
            [
                reference("consumer", "consumers"),
                reference("entry", "entries"),
                reference("tool", "tools"),
                reference("installation", "installations").null().take(),
                text("exposed_name"),
            ],
        ),
        record("revisions", [text("workload"), number("number")]),
        record("policies", []),
        record("limits", []),
        record("users", [text("email"), text("search")]),
        record("teams", [text("name")]),
        record("roles", [text("name")]),
        record("tokens", [text("hash"), text("owner_kind"), text("owner_id")]),
        record("clients", [text("client_id")]),
        record("identity_providers", [text("name"), text("issuer")]),
    ];
    tables.extend([
        table("entry_labels", [reference("entry", "entries"), text("label_key"), text("label_value")]),
        table("team_members", [reference("team", "teams"), reference("member", "users")]),
        table(
            "feed_head",
            [ColumnDef::new("id").integer().not_null().primary_key().take(), number("revision"), number("floor")],
        ),
        table(
            "changes",
            [
                number("revision"),
                ColumnDef::new("position").integer().not_null().take(),
                text("store"),
                text("kind"),
                id("id"),
            ],
        ),
        table("state", [text("space"), text("name"), bytes("value"), number("expires_at")]),
        table("counters", [text("space"), text("name"), number("counter"), number("expires_at")]),
        table(
            "audit",
            [
                id("id").primary_key().take(),
                number("at"),
                text("action"),
                text("actor_id").null().take(),
                text("consumer").null().take(),
                text("outcome"),
                text("doc"),
            ],
        ),
        table(
            "secrets",
            [text("ref").primary_key().take(), number("version"), text("key_id"), bytes("bytes"), number("updated_at")],
        ),
        table("key_ring", [text("instance").primary_key().take(), text("fingerprint"), number("seen_at")]),
    ]);
    tables
}

fn indexes() -> Vec<IndexCreateStatement> {
    vec![
        unique("entries", &["name"]),
        unique("installations", &["entry", "owner_kind", "owner_id"]),
        index("installations", &["owner_kind", "owner_id"]),
        unique("tools", &["entry", "name"]),
        unique("consumers", &["slug"]),
        unique("assignments", &["consumer", "exposed_name"]),
        unique("assignments", &["consumer", "tool"]),
        index("assignments", &["entry"]),
        index("assignments", &["tool"]),
        index("assignments", &["installation"]),
        unique("revisions", &["workload", "number"]),
        unique("users", &["email"]),
        unique("teams", &["name"]),
        unique("roles", &["name"]),
        unique("tokens", &["hash"]),
        index("tokens", &["owner_kind", "owner_id"]),
        unique("clients", &["client_id"]),
        unique("identity_providers", &["name"]),
        unique("identity_providers", &["issuer"]),
        unique("entry_labels", &["entry", "label_key", "label_value"]),
        index("entry_labels", &["label_key", "label_value"]),
        unique("team_members", &["team", "member"]),
        index("team_members", &["member"]),
        unique("changes", &["revision", "position"]),
        unique("state", &["space", "name"]),
        index("state", &["expires_at"]),
        unique("counters", &["space", "name"]),
        index("counters", &["expires_at"]),
        index("audit", &["at", "id"]),
        index("audit", &["action", "at"]),
        index("audit", &["actor_id", "at"]),
        index("audit", &["consumer", "at"]),
        index("secrets", &["key_id"]),
    ]
}

fn record<const N: usize>(name: &'static str, columns: [ColumnDef; N]) -> TableCreateStatement {
    let all = [id("id").primary_key().take(), number("version")].into_iter().chain(columns).chain([text("doc")]);
    create(name, all)
}

fn table<const N: usize>(name: &'static str, columns: [ColumnDef; N]) -> TableCreateStatement {
    create(name, columns)
}

fn create(name: &'static str, columns: impl IntoIterator<Item = ColumnDef>) -> TableCreateStatement {
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

fn number(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().take()
}

fn bytes(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).blob().not_null().take()
}

/// A foreign key that is checked when the transaction commits: within one, records are removed and written again in any order.
fn reference(name: &'static str, to: &'static str) -> ColumnDef {
    id(name).extra(format!("REFERENCES {to} (id) DEFERRABLE INITIALLY DEFERRED")).take()
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
