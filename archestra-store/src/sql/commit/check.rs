//! What must hold when a set is committed: unique values are free, and references lead somewhere.

use super::{IDS, by_table, plan::Plan};
use crate::sql::{
    database::{column, row, rows},
    family::{Family, Key, Table},
    read,
};
use archestra_core::{
    Error, Result,
    feed::{StoreKey as _, StoreRecord as _},
};
use sea_orm::{
    DatabaseTransaction,
    sea_query::{Condition, Expr, ExprTrait as _, Query},
};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use uuid::Uuid;

/// How many unique values one statement asks for.
const VALUES: usize = 100;

/// Refuses a set that writes a unique value which stays with another record.
pub(super) async fn uniques<F: Family>(tx: &DatabaseTransaction, plan: &Plan<F>) -> Result<()> {
    let mut taken = HashSet::new();
    let mut wanted: BTreeMap<(&'static str, usize), (&'static Table, Vec<Condition>)> = BTreeMap::new();
    for (record, _) in &plan.puts {
        let table = F::table(&record.key());
        let values = F::columns(record);
        for (n, columns) in table.uniques.iter().enumerate() {
            let value = F::unique_value(record, n);
            if !taken.insert((table.name, n, value.clone())) {
                return Err(Error::already_exists(table.label, value));
            }
            let same = columns.iter().fold(Condition::all(), |all, &column| {
                all.add(Expr::col(table.columns[column]).eq(values[column].clone()))
            });
            wanted.entry((table.name, n)).or_insert_with(|| (table, Vec::new())).1.push(same);
        }
    }
    for ((_, n), (table, values)) in wanted {
        for values in values.chunks(VALUES) {
            let any = values.iter().cloned().fold(Condition::any(), Condition::add);
            let holders = rows(tx, &Query::select().column("id").from(table.name).cond_where(any).take()).await?;
            for holder in holders {
                let id: Uuid = column(&holder, "id")?;
                if F::key(table.label, id).is_some_and(|key| plan.present.contains_key(&key)) {
                    continue;
                }
                let holder = read::all_in::<F, _>(tx, table, Expr::col("id").eq(id).into()).await;
                // It is taken also by what cannot be read.
                let holder = holder.ok().and_then(|found| found.into_iter().next());
                let value = holder.map_or_else(|| id.to_string(), |holder| F::unique_value(&holder.value, n));
                return Err(Error::already_exists(table.label, value));
            }
        }
    }
    Ok(())
}

/// Refuses a set after which a record refers to one that is not there. Looks at what is written already.
pub(super) async fn references<F: Family>(tx: &DatabaseTransaction, plan: &Plan<F>) -> Result<()> {
    let targets: BTreeSet<Key<F>> = plan.puts.iter().flat_map(|(record, _)| F::references(record)).collect();
    let missing = missing::<F>(tx, &targets).await?;
    if !missing.is_empty() {
        for (record, _) in &plan.puts {
            if let Some(target) = F::references(record).into_iter().find(|target| missing.contains(target)) {
                let key = record.key();
                return Err(Error::conflict(
                    key.label(),
                    key.uuid(),
                    format!("it refers to {target}, which does not exist"),
                ));
            }
        }
    }
    for (table, ids) in by_table::<F>(&plan.removed) {
        let table = F::table(&table);
        for referrer in table.referrers {
            for ids in ids.chunks(IDS) {
                let referring = Query::select()
                    .column("id")
                    .expr_as(Expr::col(referrer.column), "target")
                    .from(referrer.table)
                    .and_where(Expr::col(referrer.column).is_in(ids.iter().copied()))
                    .limit(1)
                    .take();
                if let Some(found) = row(tx, &referring).await? {
                    let (by, target): (Uuid, Uuid) = (column(&found, "id")?, column(&found, "target")?);
                    return Err(Error::conflict(
                        table.label,
                        target,
                        format!("{} {by} refers to it; remove or change that first", referrer.label),
                    ));
                }
            }
        }
    }
    Ok(())
}

async fn missing<F: Family>(tx: &DatabaseTransaction, targets: &BTreeSet<Key<F>>) -> Result<BTreeSet<Key<F>>> {
    let mut missing = targets.clone();
    for (table, ids) in by_table::<F>(targets) {
        let table = F::table(&table);
        for ids in ids.chunks(IDS) {
            let there = Query::select()
                .column("id")
                .from(table.name)
                .and_where(Expr::col("id").is_in(ids.iter().copied()))
                .take();
            for row in rows(tx, &there).await? {
                if let Some(key) = F::key(table.label, column(&row, "id")?) {
                    missing.remove(&key);
                }
            }
        }
    }
    Ok(missing)
}
