//! Committing a set of changes: all of it in one transaction, or none.

mod check;
mod plan;

use super::{
    SqlStore,
    database::{execute, stored},
    error::{db_error, is_lost, unwritable},
    family::{Family, IDS, Key, by_table, id},
    feed,
};
use archestra_core::{
    Result,
    feed::{ChangeSet, StoreRecord as _, StoreRevision},
};
use plan::Plan;
use sea_orm::{
    DatabaseTransaction, Value,
    sea_query::{Expr, ExprTrait as _, Query},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How many rows one statement inserts.
const ROWS: usize = 100;

/// Commits `changes` and says at which revision.
pub(super) async fn commit<F: Family>(
    store: &SqlStore,
    changes: ChangeSet<F::Record, Key<F>>,
) -> Result<StoreRevision> {
    changes.check()?;
    let db = store.db();
    if changes.is_empty() {
        return feed::head(&db.reader).await.map(|head| StoreRevision(head.revision));
    }
    db.racing(|| attempt::<F>(store, changes.clone())).await
}

async fn attempt<F: Family>(store: &SqlStore, changes: ChangeSet<F::Record, Key<F>>) -> Result<StoreRevision> {
    let db = store.db();
    // It is never closed.
    let turn = store.inner.commits.acquire().await;
    let tx = db.begin().await?;
    // First of all: the row of the head lets one commit through at a time, on a database with many writers, too.
    let head = feed::advance(&tx, db.dialect).await?;
    let plan = Plan::<F>::make(&tx, changes).await?;
    check::uniques(&tx, &plan).await?;
    write(&tx, &plan).await?;
    check::references(&tx, &plan).await?;
    let mark = db.dialect.loses_answers().then(Uuid::now_v7);
    feed::record(&tx, head.revision, F::STORE, &plan.touched, mark).await?;
    feed::prune(&tx, &head, store.inner.kept_revisions).await?;
    // Whether or not this future is dropped while it waits, the poller looks afterwards.
    let _wake = store.inner.feed.wake_on_drop();
    let done = tx.commit().await;
    // Its connection is free again, whatever is still to be found out.
    drop(turn);
    match (done, mark) {
        (Ok(()), _) => {}
        (Err(error), Some(mark)) if is_lost(&error) => feed::settle(db, head.revision, mark, error).await?,
        (Err(error), _) => return Err(db_error(error)),
    }
    Ok(StoreRevision(head.revision))
}

/// Replaces rows by removing and inserting them, so that values may change hands within a set in any order.
async fn write<F: Family>(tx: &DatabaseTransaction, plan: &Plan<F>) -> Result<()> {
    for (table, ids) in by_table::<F>(plan.present.keys()) {
        let table = F::table(&table);
        for ids in ids.chunks(IDS) {
            if let Some(satellite) = &table.satellite {
                let gone = Query::delete()
                    .from_table(satellite.name)
                    .and_where(Expr::col(satellite.columns[0]).is_in(ids.iter().copied()))
                    .take();
                execute(tx, &gone).await?;
            }
            let gone =
                Query::delete().from_table(table.name).and_where(Expr::col("id").is_in(ids.iter().copied())).take();
            execute(tx, &gone).await?;
        }
    }
    let mut inserts: BTreeMap<&'static str, Vec<Vec<Value>>> = BTreeMap::new();
    let mut columns: BTreeMap<&'static str, Vec<&'static str>> = BTreeMap::new();
    for (record, version) in &plan.puts {
        let key = record.key();
        let table = F::table(&key);
        let mut row = vec![id(&key), Value::from(stored(*version))];
        row.extend(F::columns(record));
        row.push(Value::from(F::write(record).map_err(|error| unwritable(key, error))?));
        inserts.entry(table.name).or_default().push(row);
        columns
            .entry(table.name)
            .or_insert_with(|| ["id", "version"].iter().chain(table.columns).chain(&["doc"]).copied().collect());
        if let Some(satellite) = &table.satellite {
            let rows = F::satellites(record).into_iter().map(|row| [id(&key)].into_iter().chain(row).collect());
            inserts.entry(satellite.name).or_default().extend(rows);
            columns.entry(satellite.name).or_insert_with(|| satellite.columns.to_vec());
        }
    }
    for (table, rows) in inserts {
        insert(tx, table, &columns[table], rows).await?;
    }
    Ok(())
}

/// Inserts many rows with few statements.
pub(super) async fn insert(
    tx: &DatabaseTransaction,
    table: &'static str,
    columns: &[&'static str],
    rows: Vec<Vec<Value>>,
) -> Result<()> {
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let mut statement = Query::insert().into_table(table).columns(columns.iter().copied()).take();
        for row in rows.by_ref().take(ROWS) {
            statement.values_panic(row.into_iter().map(Expr::val));
        }
        execute(tx, &statement).await?;
    }
    Ok(())
}
