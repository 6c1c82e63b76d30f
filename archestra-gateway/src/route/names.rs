//! What the servers behind workloads are called, as the followed catalog says: for who has to know without asking a store.

use archestra_core::{
    catalog::{Record, RecordKey},
    id::EntryId,
    runtime::WorkloadId,
};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use tokio::sync::watch;

/// How often the names were added to, and how often one became another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) added: u64,
    pub(crate) renamed: u64,
}

/// The names of entries, by the workloads that may have been made from them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: RwLock<Known>,
    changes: watch::Sender<Changes>,
}

/// Names that were read, and not yet shown.
#[derive(Debug, Default)]
pub(super) struct Known {
    made_from: HashMap<WorkloadId, EntryId>,
    entries: HashMap<EntryId, Arc<str>>,
}

impl Known {
    /// Takes in the present state of one record.
    pub(super) fn apply(&mut self, key: RecordKey, record: Option<&Record>) -> Changes {
        let mut changes = Changes::default();
        match (key, record) {
            (RecordKey::Entry(id), Some(Record::Entry(entry))) => {
                let name = entry.spec.name.as_str();
                match self.entries.get(&id) {
                    Some(known) if **known == *name => return changes,
                    Some(_) => changes.renamed = 1,
                    None => changes.added = 1,
                }
                self.entries.insert(id, name.into());
                self.made_from.insert(WorkloadId::of_entry(id), id);
            }
            (RecordKey::Entry(id), _) => {
                self.entries.remove(&id);
                self.made_from.remove(&WorkloadId::of_entry(id));
            }
            (RecordKey::Installation(id), Some(Record::Installation(installation))) => {
                let before = self.made_from.insert(WorkloadId::of_installation(id), installation.entry);
                changes.added = u64::from(before.is_none());
            }
            (RecordKey::Installation(id), _) => drop(self.made_from.remove(&WorkloadId::of_installation(id))),
            _ => {}
        }
        changes
    }
}

impl Names {
    /// What the server is called that runs as this workload.
    pub(crate) fn of(&self, workload: &WorkloadId) -> Option<Arc<str>> {
        let known = self.read();
        known.entries.get(known.made_from.get(workload)?).map(Arc::clone)
    }

    /// Tells when there are names that were not there before, or others.
    pub(crate) fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// Takes in the present state of one record.
    pub(crate) fn apply(&self, key: RecordKey, record: Option<&Record>) {
        let Changes { added, renamed } = self.write().apply(key, record);
        if added + renamed > 0 {
            self.changes.send_modify(|all| {
                all.added += added;
                all.renamed += renamed;
            });
        }
    }

    /// Shows what was read from the beginning instead of all that there was.
    pub(super) fn replace(&self, known: Known) {
        *self.write() = known;
        self.changes.send_modify(|all| all.renamed += 1);
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use archestra_core::testing::fixtures;

    #[test]
    fn a_workload_is_called_as_the_entry_it_was_made_from() {
        let names = Names::default();
        let changes = names.changes();
        let mut entry = fixtures::self_hosted_entry("tracker", &["x"]);
        let installation = fixtures::installation(&entry, archestra_core::installation::Owner::Organization);
        let (own, shared) = (WorkloadId::of_installation(installation.id), WorkloadId::of_entry(entry.id));
        assert_eq!(names.of(&own), None);
        names.apply(installation.id.into(), Some(&Record::Installation(installation.clone())));
        names.apply(entry.id.into(), Some(&Record::Entry(entry.clone())));
        assert_eq!((names.of(&own).as_deref(), names.of(&shared).as_deref()), (Some("tracker"), Some("tracker")));
        assert_eq!(*changes.borrow(), Changes { added: 2, renamed: 0 });

        entry.spec.name = "renamed".to_owned();
        names.apply(entry.id.into(), Some(&Record::Entry(entry.clone())));
        names.apply(entry.id.into(), Some(&Record::Entry(entry)));
        assert_eq!(names.of(&own).as_deref(), Some("renamed"));
        assert_eq!(*changes.borrow(), Changes { added: 2, renamed: 1 });
        names.apply(installation.id.into(), None);
        assert_eq!(names.of(&own), None);
        names.replace(Known::default());
        assert_eq!(names.of(&shared), None);
    }
}
