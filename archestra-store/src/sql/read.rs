//! Reading records: by key, by unique value, and in pages ordered by id.

use super::{
    database::{Database, column, count, row, rows},
    document,
    error::unreadable,
    family::{Family, IDS, Key, Table, by_table},
};
use archestra_core::{
    Error, Result,
    feed::{
        Cursor, MAX_PAGE, Page, PageRequest, Readable, StoreKey as _, StoreRecord as _, Unreadable, Version, Versioned,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{Condition, Expr, ExprTrait as _, Order, Query, SelectStatement},
};
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

/// A record, or that it cannot be read.
pub(super) type Found<F> = Readable<<F as Family>::Record, Key<F>>;

/// Reads one record.
pub(super) async fn get<F: Family>(db: &Database, key: Key<F>) -> Result<Versioned<F::Record>> {
    let table = F::table(&key);
    let found = find_in::<F, _>(&db.reader, table, Expr::col("id").eq(*key.uuid()).into()).await?;
    found.ok_or_else(|| Error::not_found(table.label, key.uuid()))
}

/// Reads many records, with few statements.
pub(super) async fn get_many<F: Family>(db: &Database, keys: &[Key<F>]) -> Result<Vec<Option<Versioned<F::Record>>>> {
    let found = get_each::<F>(db, keys).await?;
    found.into_iter().map(|found| found.transpose().map_err(refusal::<F>)).collect()
}

/// The same, with what cannot be read told apart.
pub(super) async fn get_each<F: Family>(db: &Database, keys: &[Key<F>]) -> Result<Vec<Option<Found<F>>>> {
    let mut found = HashMap::with_capacity(keys.len());
    for (of_table, ids) in by_table::<F>(&keys.iter().copied().collect::<BTreeSet<_>>()) {
        let table = F::table(&of_table);
        for ids in ids.chunks(IDS) {
            let filter = Expr::col("id").is_in(ids.iter().copied());
            for row in rows(&db.reader, &select(table, filter.into())).await? {
                let record = record::<F>(table, &row)?;
                let key = record.as_ref().map_or_else(|unreadable| unreadable.key, |record| record.value.key());
                found.insert(key, record);
            }
        }
    }
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}

/// Reads the one record of `table` that matches, if there is one.
pub(super) async fn find<F: Family>(
    db: &Database,
    table: &'static Table,
    filter: Condition,
) -> Result<Option<Versioned<F::Record>>> {
    find_in::<F, _>(&db.reader, table, filter).await
}

/// Reads all records of `table` that match, on a connection of the caller's.
pub(super) async fn all_in<F: Family, C: ConnectionTrait>(
    db: &C,
    table: &'static Table,
    filter: Condition,
) -> Result<Vec<Versioned<F::Record>>> {
    rows(db, &select(table, filter)).await?.iter().map(|row| whole::<F>(table, row)).collect()
}

/// Reads one page of the records of `table` that match.
pub(super) async fn list<F: Family>(
    db: &Database,
    table: &'static Table,
    filter: Condition,
    page: &PageRequest,
) -> Result<Page<Versioned<F::Record>>> {
    let Page { items, next } = list_each::<F>(db, table, filter, page).await?;
    Ok(Page { items: items.into_iter().collect::<Result<_, _>>().map_err(refusal::<F>)?, next })
}

/// The same, with what cannot be read in its place.
pub(super) async fn list_each<F: Family>(
    db: &Database,
    table: &'static Table,
    filter: Condition,
    page: &PageRequest,
) -> Result<Page<Found<F>>> {
    let limit = page.limit.clamp(1, MAX_PAGE);
    let after = page.cursor.as_ref().map(parse).transpose()?;
    let found = rows(&db.reader, &page_of(table, filter, after, limit)).await?;
    let more = found.len() > limit;
    let found = &found[..limit.min(found.len())];
    let next = match found.last() {
        Some(last) if more => Some(cursor(column(last, "id")?)),
        _ => None,
    };
    let items = found.iter().map(|row| record::<F>(table, row)).collect::<Result<_>>()?;
    Ok(Page { items, next })
}

/// One page, and one record more that says whether there is another page.
pub(super) fn page_of(table: &Table, filter: Condition, after: Option<Uuid>, limit: usize) -> SelectStatement {
    let after = after.map(|id| Expr::col("id").gt(id));
    let mut statement = select(table, filter.add_option(after));
    statement.order_by("id", Order::Asc).limit(limit as u64 + 1).take()
}

async fn find_in<F: Family, C: ConnectionTrait>(
    db: &C,
    table: &'static Table,
    filter: Condition,
) -> Result<Option<Versioned<F::Record>>> {
    row(db, &select(table, filter)).await?.map(|row| whole::<F>(table, &row)).transpose()
}

fn select(table: &Table, filter: Condition) -> SelectStatement {
    Query::select().columns(["id", "version", "doc"]).from(table.name).cond_where(filter).take()
}

fn whole<F: Family>(table: &Table, row: &QueryResult) -> Result<Versioned<F::Record>> {
    record::<F>(table, row)?.map_err(refusal::<F>)
}

fn record<F: Family>(table: &Table, row: &QueryResult) -> Result<Found<F>> {
    let id: Uuid = column(row, "id")?;
    let doc: String = column(row, "doc")?;
    let key = F::key(table.label, id).ok_or_else(|| unreadable(table.label, "no such kind of record"))?;
    let version = Version(count(row, "version")?);
    Ok(match F::read(&key, &doc) {
        // References and versions go by the row.
        Ok(value) if value.key() == key => Ok(Versioned { version, value }),
        Ok(_) => Err(Unreadable { key, reason: "its document is that of another record".to_owned() }),
        Err(error) => Err(Unreadable { key, reason: document::why(&error) }),
    })
}

fn refusal<F: Family>(unreadable: Unreadable<Key<F>>) -> Error {
    unreadable.into()
}

fn cursor(id: Uuid) -> Cursor {
    Cursor(URL_SAFE_NO_PAD.encode(id.as_bytes()))
}

fn parse(cursor: &Cursor) -> Result<Uuid> {
    let bytes = URL_SAFE_NO_PAD.decode(&cursor.0).ok();
    bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok()).ok_or_else(bad_cursor)
}

/// The error for what is not a cursor of ours.
pub(super) fn bad_cursor() -> Error {
    Error::invalid("cursor", "not a cursor of this list", "use the one that came with the page before")
}
