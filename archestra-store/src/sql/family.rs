//! What the generic reading and committing needs to know of a store's records: their tables, columns, references and documents.

use archestra_core::{
    Result,
    feed::{StoreKey, StoreRecord},
};
use sea_orm::{DatabaseTransaction, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
};
use uuid::Uuid;

/// How many ids one statement names.
pub(super) const IDS: usize = 500;

/// The key of a family's records.
pub(super) type Key<F> = <<F as Family>::Record as StoreRecord>::Key;

/// The table of one kind of record. Beside these columns each has `id`, `version` and `doc`.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// What a person would call a record.
    pub(super) label: &'static str,
    /// The columns that records are found by, in the order of [`Family::columns`].
    pub(super) columns: &'static [&'static str],
    /// Which of those are unique together.
    pub(super) uniques: &'static [&'static [usize]],
    /// A table with further rows of each record.
    pub(super) satellite: Option<Satellite>,
    /// Who may refer to a record and then keeps it from being removed.
    pub(super) referrers: &'static [Referrer],
}

/// A table with rows that belong to a record: its first column is the record's id.
#[derive(Debug)]
pub(super) struct Satellite {
    pub(super) name: &'static str,
    pub(super) columns: &'static [&'static str],
}

/// A column that holds the id of another record.
#[derive(Debug)]
pub(super) struct Referrer {
    pub(super) table: &'static str,
    pub(super) column: &'static str,
    /// What a person would call a record of that table.
    pub(super) label: &'static str,
}

/// What becomes of a record because others are removed.
#[derive(Debug)]
pub(super) enum Cascade<F: Family> {
    Change(F::Record),
    Remove(Key<F>),
}

/// The records of one store.
pub(super) trait Family: fmt::Debug + Sized + Send + Sync + 'static {
    type Record: StoreRecord;

    /// What the change log calls the store.
    const STORE: &'static str;

    /// The key of a record of the kind with this label.
    fn key(label: &str, id: Uuid) -> Option<Key<Self>>;

    /// Where records of this kind are.
    fn table(key: &Key<Self>) -> &'static Table;

    /// The values of the table's columns.
    fn columns(record: &Self::Record) -> Vec<Value>;

    /// The rows of the table's satellite, without the id.
    fn satellites(_record: &Self::Record) -> Vec<Vec<Value>> {
        Vec::new()
    }

    /// The records that must be there as long as this one is.
    fn references(record: &Self::Record) -> Vec<Key<Self>>;

    /// What the values of the nth unique look like to people. Different values look different.
    fn unique_value(record: &Self::Record, n: usize) -> String;

    /// The document of a record.
    fn write(record: &Self::Record) -> serde_json::Result<String>;

    /// The reverse of [`write`](Self::write), for a record of the kind of `key`.
    fn read(key: &Key<Self>, doc: &str) -> serde_json::Result<Self::Record>;

    /// What becomes of other records when these are removed.
    fn cascade(
        _tx: &DatabaseTransaction,
        _removed: &BTreeSet<Key<Self>>,
    ) -> impl Future<Output = Result<Vec<Cascade<Self>>>> + Send {
        async { Ok(Vec::new()) }
    }
}

/// The bare id, as a value.
pub(super) fn id<K: StoreKey>(key: &K) -> Value {
    Value::Uuid(Some(*key.uuid()))
}

/// Sorts keys by their table; the first key of each stands for it.
pub(super) fn by_table<'a, F: Family>(keys: impl IntoIterator<Item = &'a Key<F>>) -> Vec<(Key<F>, Vec<Uuid>)> {
    let mut sorted: BTreeMap<&'static str, (Key<F>, Vec<Uuid>)> = BTreeMap::new();
    for key in keys {
        sorted.entry(F::table(key).name).or_insert_with(|| (*key, Vec::new())).1.push(*key.uuid());
    }
    sorted.into_values().collect()
}
