//! Which tables are in a backup, and how their cells are written.

use crate::sql::database::column;
use archestra_core::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sea_orm::{QueryResult, sea_query::Expr};
use serde_json::Value as Json;
use uuid::Uuid;

/// What a column holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cell {
    Id,
    NoId,
    Number,
    NoNumber,
    Text,
    NoText,
    Bytes,
}

/// A table of a backup.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Cell)],
    /// What its rows are ordered by, each in its own place.
    pub(super) key: &'static [&'static str],
}

macro_rules! record {
    ($name:literal $(, $column:literal: $cell:ident)*) => {
        Table {
            name: $name,
            columns: &[("id", Cell::Id), ("version", Cell::Number) $(, ($column, Cell::$cell))*, ("doc", Cell::Text)],
            key: &["id"],
        }
    };
}

/// The table of the one row that every database has from the beginning, and that a restored one takes over.
pub(super) const INSTANCE: &str = "instance";

/// Every table but those of what is short-lived, of what has happened, and of the replicas that run.
pub(super) static TABLES: &[Table] = &[
    Table { name: INSTANCE, columns: &[("id", Cell::Id)], key: &["id"] },
    record!("entries", "name": Text, "search": Text),
    record!("installations", "entry": Id, "owner_kind": Text, "owner_id": Text),
    record!("tools", "entry": Id, "name": Text),
    record!("consumers", "slug": Text, "kind": Text),
    record!(
        "assignments",
        "consumer": Id,
        "entry": Id,
        "tool": Id,
        "installation": NoId,
        "exposed_name": Text
    ),
    record!("revisions", "workload": Text, "number": Number),
    record!("policies"),
    record!("limits"),
    record!("users", "email": Text, "search": Text),
    record!("teams", "name": Text),
    record!("roles", "name": Text),
    record!("tokens", "hash": Text, "owner_kind": Text, "owner_id": Text),
    record!("clients", "client_id": Text),
    record!("identity_providers", "name": Text, "issuer": Text),
    record!("grants", "family": NoText, "client": Id, "user_id": NoId, "consumer": Id, "expires_at": NoNumber),
    record!("consents", "user_id": Id, "client": Id, "consumer": Id),
    record!("linked_identities", "user_id": Id, "provider": Id, "subject": Text),
    Table {
        name: "entry_labels",
        columns: &[("entry", Cell::Id), ("label_key", Cell::Text), ("label_value", Cell::Text)],
        key: &["entry", "label_key", "label_value"],
    },
    Table {
        name: "access_tokens",
        columns: &[("token", Cell::Id), ("grant_id", Cell::Id), ("expires_at", Cell::NoNumber)],
        key: &["token"],
    },
    Table { name: "team_members", columns: &[("team", Cell::Id), ("member", Cell::Id)], key: &["team", "member"] },
    Table {
        name: "secrets",
        columns: &[
            ("ref", Cell::Text),
            ("version", Cell::Number),
            ("key_id", Cell::Text),
            ("bytes", Cell::Bytes),
            ("updated_at", Cell::Number),
        ],
        key: &["ref"],
    },
];

/// The tables that are in no backup.
#[cfg(test)]
static LEFT_OUT: &[&str] = &["feed_head", "changes", "state", "counters", "audit", "key_ring", "seaql_migrations"];

impl Table {
    /// The cells of a row.
    pub(super) fn read(&self, row: &QueryResult) -> Result<Vec<Json>> {
        let cell = |(name, cell): &(&'static str, Cell)| {
            Ok(match cell {
                Cell::Id => column::<Uuid>(row, name)?.to_string().into(),
                Cell::NoId => column::<Option<Uuid>>(row, name)?.map_or(Json::Null, |id| id.to_string().into()),
                Cell::Number => column::<i64>(row, name)?.into(),
                Cell::NoNumber => column::<Option<i64>>(row, name)?.into(),
                Cell::Text => column::<String>(row, name)?.into(),
                Cell::NoText => column::<Option<String>>(row, name)?.into(),
                Cell::Bytes => STANDARD.encode(column::<Vec<u8>>(row, name)?).into(),
            })
        };
        self.columns.iter().map(cell).collect()
    }

    /// The values of a row, if these are its cells.
    pub(super) fn values(&self, cells: &[Json]) -> Option<Vec<Expr>> {
        if cells.len() != self.columns.len() {
            return None;
        }
        let value = |((_, cell), json): (&(&'static str, Cell), &Json)| match (cell, json) {
            (Cell::Id | Cell::NoId, Json::String(text)) => text.parse::<Uuid>().ok().map(Expr::val),
            (Cell::NoId, Json::Null) => Some(Expr::val(None::<Uuid>)),
            (Cell::Number | Cell::NoNumber, Json::Number(number)) => number.as_i64().map(Expr::val),
            (Cell::NoNumber, Json::Null) => Some(Expr::val(None::<i64>)),
            (Cell::Text | Cell::NoText, Json::String(text)) => Some(Expr::val(text.as_str())),
            (Cell::NoText, Json::Null) => Some(Expr::val(None::<String>)),
            (Cell::Bytes, Json::String(text)) => STANDARD.decode(text).ok().map(Expr::val),
            _ => None,
        };
        self.columns.iter().zip(cells).map(value).collect()
    }

    /// What tells a row from all others of its table, if these are its cells.
    pub(super) fn key_of(&self, cells: &[Json]) -> Option<Vec<Expr>> {
        let values = self.values(cells)?;
        let named = self.columns.iter().zip(values).filter(|((name, _), _)| self.key.contains(name));
        Some(named.map(|(_, value)| value).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SqlConfig, SqlStore};
    use sea_orm::{ConnectionTrait as _, Statement};
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn every_table_of_the_schema_with_all_its_columns_is_in_it_or_left_out() {
        let store = SqlStore::connect(SqlConfig::new("sqlite::memory:")).await.unwrap();
        let reader = &store.db().reader;
        let query = |sql: String| Statement::from_string(reader.get_database_backend(), sql);
        let schema = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'".to_owned();
        for row in reader.query_all_raw(query(schema)).await.unwrap() {
            let name: String = column(&row, "name").unwrap();
            let Some(table) = TABLES.iter().find(|table| table.name == name) else {
                assert!(LEFT_OUT.contains(&name.as_str()), "{name} is in no backup");
                continue;
            };
            let there = reader.query_all_raw(query(format!("SELECT name FROM pragma_table_info('{name}')"))).await;
            let there: BTreeSet<String> = there.unwrap().iter().map(|row| column(row, "name").unwrap()).collect();
            let known: BTreeSet<String> = table.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(there, known, "the columns of {name}");
        }
    }
}
