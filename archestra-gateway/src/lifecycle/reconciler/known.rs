//! What the reconciler knows of the catalog: read whole at times, and in between only where it changed.

use archestra_core::{
    Result,
    catalog::{CatalogStore, CatalogStoreExt as _, Kind, Query, Record, RecordKey},
    id::{InstallationId, RevisionId},
    installation::{Installation, InstallationState},
    runtime::{Revision, RevisionNumber, WorkloadId},
};
use std::collections::{BTreeSet, HashMap};

/// How many records are read together.
const TOGETHER: usize = 500;

/// Installations, who uses which workload, and the newest revision of each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    installations: HashMap<InstallationId, Seen>,
    users: HashMap<WorkloadId, BTreeSet<InstallationId>>,
    newest: HashMap<WorkloadId, Newest>,
    /// Whose the newest revisions are.
    newest_of: HashMap<RevisionId, WorkloadId>,
}

/// An installation as it was read last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) progress: Progress,
    pub(super) workload: Option<WorkloadId>,
}

/// How far an installation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Somebody is at it, or was.
    Unfinished,
    Failed,
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Newest {
    id: RevisionId,
    number: RevisionNumber,
}

impl Known {
    /// Reads everything.
    pub(super) async fn read(catalog: &dyn CatalogStore) -> Result<Self> {
        let mut known = Self::default();
        for installation in catalog.list_all::<Installation>(Query::all(Kind::Installation)).await? {
            known.see(installation.value);
        }
        for revision in catalog.list_all::<Revision>(Query::all(Kind::Revision)).await? {
            known.note(&revision.value);
        }
        Ok(known)
    }

    /// Reads these installations and revisions again, and what is not known to be finished: its turn may have ended meanwhile.
    ///
    /// After an error it may be called again with the same.
    pub(super) async fn follow(&mut self, catalog: &dyn CatalogStore, changed: &BTreeSet<RecordKey>) -> Result<()> {
        let unfinished = self.installations.iter().filter(|(_, seen)| seen.progress == Progress::Unfinished);
        let mut keys: BTreeSet<RecordKey> = unfinished.map(|(id, _)| (*id).into()).collect();
        keys.extend(changed.iter().filter(|key| matches!(key.kind(), Kind::Installation | Kind::Revision)));
        let keys: Vec<RecordKey> = keys.into_iter().collect();
        let mut deposed = BTreeSet::new();
        for keys in keys.chunks(TOGETHER) {
            let found = catalog.get_many(keys).await?;
            for (key, found) in keys.iter().zip(found) {
                match (key, found.map(|found| found.value)) {
                    (_, Some(Record::Installation(installation))) => self.see(installation),
                    (_, Some(Record::Revision(revision))) => self.note(&revision),
                    (RecordKey::Installation(id), _) => self.forget(*id),
                    (RecordKey::Revision(id), _) => deposed.extend(self.newest_of.get(id).cloned()),
                    _ => {}
                }
            }
        }
        // Which one was the newest before it is kept nowhere.
        for workload in deposed {
            let query = Query::Revisions { workload: Some(workload.clone()) };
            let history = catalog.list_all::<Revision>(query).await?;
            if let Some(before) = self.newest.remove(&workload) {
                self.newest_of.remove(&before.id);
            }
            history.iter().for_each(|revision| self.note(&revision.value));
        }
        Ok(())
    }

    /// The installations there are.
    pub(super) fn installations(&self) -> impl Iterator<Item = (InstallationId, &Seen)> {
        self.installations.iter().map(|(id, seen)| (*id, seen))
    }

    /// The workloads that somebody wants.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &WorkloadId> {
        self.users.keys()
    }

    /// The installations that a workload runs for.
    pub(super) fn users(&self, workload: &WorkloadId) -> impl Iterator<Item = InstallationId> {
        self.users.get(workload).into_iter().flatten().copied()
    }

    /// Whether somebody wants a workload.
    pub(super) fn wants(&self, workload: &WorkloadId) -> bool {
        self.users.contains_key(workload)
    }

    /// The revision that is to run.
    pub(super) fn newest(&self, workload: &WorkloadId) -> Option<RevisionNumber> {
        self.newest.get(workload).map(|newest| newest.number)
    }

    fn see(&mut self, installation: Installation) {
        let Installation { id, workload, state, .. } = installation;
        self.forget(id);
        if let Some(workload) = &workload {
            self.users.entry(workload.clone()).or_default().insert(id);
        }
        let progress = match state {
            InstallationState::Pending | InstallationState::Discovering => Progress::Unfinished,
            InstallationState::Error { .. } => Progress::Failed,
            InstallationState::Ready => Progress::Ready,
        };
        self.installations.insert(id, Seen { progress, workload });
    }

    fn forget(&mut self, id: InstallationId) {
        let Some(workload) = self.installations.remove(&id).and_then(|seen| seen.workload) else { return };
        if let Some(users) = self.users.get_mut(&workload) {
            users.remove(&id);
            if users.is_empty() {
                self.users.remove(&workload);
            }
        }
    }

    fn note(&mut self, revision: &Revision) {
        let Revision { id, workload, number, .. } = revision;
        let known = self.newest.get(workload).copied();
        if known.is_some_and(|known| known.number > *number && known.id != *id) {
            return;
        }
        if let Some(known) = known {
            self.newest_of.remove(&known.id);
        }
        self.newest.insert(workload.clone(), Newest { id: *id, number: *number });
        self.newest_of.insert(*id, workload.clone());
    }
}

#[cfg(test)]
mod tests;
