//! What a set of changes comes to: which records are written at which version, and which are removed.

use super::{IDS, by_table};
use crate::sql::{
    database::{column, count, rows},
    family::{Cascade, Family, Key},
};
use archestra_core::{
    Error, Result,
    feed::{ChangeSet, Expect, Operation, StoreKey as _, StoreRecord as _, Version},
    secret::Expect as GenericExpect,
};
use sea_orm::{
    DatabaseTransaction,
    sea_query::{Expr, ExprTrait as _, Query},
};
use std::collections::{BTreeMap, BTreeSet};

/// A set whose expectations hold.
#[derive(Debug)]
pub(super) struct Plan<F: Family> {
    /// What is written, each with its new version.
    pub(super) puts: Vec<(F::Record, u64)>,
    /// What is removed and was there.
    pub(super) removed: BTreeSet<Key<F>>,
    /// Everything of the above that was there before, with its version.
    pub(super) present: BTreeMap<Key<F>, u64>,
    /// Everything that was named or is changed along with it.
    pub(super) touched: BTreeSet<Key<F>>,
}

impl<F: Family> Plan<F> {
    /// Checks what the writer expects, and adds what the removals entail.
    pub(super) async fn make(tx: &DatabaseTransaction, changes: ChangeSet<F::Record, Key<F>>) -> Result<Self> {
        let named: BTreeSet<_> = changes.operations().iter().map(Operation::key).collect();
        let mut plan = Self {
            puts: Vec::new(),
            removed: BTreeSet::new(),
            present: versions::<F>(tx, &named).await?,
            touched: named,
        };
        for operation in changes.operations() {
            plan.check(operation)?;
        }
        for operation in changes.into_operations() {
            match operation {
                Operation::Put { record, .. } => plan.put(record),
                Operation::Delete { key, .. } => plan.remove(key),
                Operation::Require { key, .. } => plan.leave(key),
            }
        }
        if !plan.removed.is_empty() {
            plan.cascade(tx).await?;
        }
        Ok(plan)
    }

    fn check(&self, operation: &Operation<F::Record, Key<F>>) -> Result<()> {
        let key = operation.key();
        let removal = matches!(operation, Operation::Delete { .. });
        let reason = match (operation.expect(), self.present.get(&key).copied().map(Version)) {
            (GenericExpect::Any, _) => return Ok(()),
            (Expect::Absent, None) if !removal => return Ok(()),
            (Expect::Version(expected), Some(version)) if expected == version => return Ok(()),
            (Expect::Version(expected), Some(version)) => {
                format!("it was at version {expected} and is at version {version} now; read it again")
            }
            (Expect::Absent, Some(_)) => "it is there already".to_owned(),
            (_, None) => "it is not there any more".to_owned(),
        };
        Err(Error::conflict(key.label(), key.uuid(), reason))
    }

    fn put(&mut self, record: F::Record) {
        let version = self.present.get(&record.key()).map_or(1, |version| version + 1);
        self.puts.push((record, version));
    }

    fn remove(&mut self, key: Key<F>) {
        if self.present.contains_key(&key) {
            self.removed.insert(key);
        }
    }

    /// What is only required is not written.
    fn leave(&mut self, key: Key<F>) {
        self.present.remove(&key);
        self.touched.remove(&key);
    }

    async fn cascade(&mut self, tx: &DatabaseTransaction) -> Result<()> {
        let mut gone = self.removed.clone();
        // What goes with something may take more along.
        while !gone.is_empty() {
            let mut entailed = F::cascade(tx, &gone).await?;
            entailed.retain(|cascade| !self.touched.contains(&target(cascade)));
            let keys: BTreeSet<_> = entailed.iter().map(target).collect();
            self.present.extend(versions::<F>(tx, &keys).await?);
            gone.clear();
            for cascade in entailed {
                match cascade {
                    Cascade::Change(record) => self.put(record),
                    Cascade::Remove(key) => {
                        self.remove(key);
                        gone.insert(key);
                    }
                }
            }
            self.touched.extend(keys);
        }
        Ok(())
    }
}

fn target<F: Family>(cascade: &Cascade<F>) -> Key<F> {
    match cascade {
        Cascade::Change(record) => record.key(),
        Cascade::Remove(key) => *key,
    }
}

async fn versions<F: Family>(tx: &DatabaseTransaction, keys: &BTreeSet<Key<F>>) -> Result<BTreeMap<Key<F>, u64>> {
    let mut versions = BTreeMap::new();
    for (table, ids) in by_table::<F>(keys) {
        let table = F::table(&table);
        for ids in ids.chunks(IDS) {
            let present = Query::select()
                .columns(["id", "version"])
                .from(table.name)
                .and_where(Expr::col("id").is_in(ids.iter().copied()))
                .take();
            for row in rows(tx, &present).await? {
                if let Some(key) = F::key(table.label, column(&row, "id")?) {
                    versions.insert(key, count(&row, "version")?);
                }
            }
        }
    }
    Ok(versions)
}
