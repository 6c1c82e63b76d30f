//! Which installations are being worked on in this process, so that no two tasks do the same and no request is lost.

use archestra_core::{id::InstallationId, runtime::WorkloadId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Whether somebody asked again while the work was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    Again,
}

/// The installations that have an owner task, and what the runtime refused last.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    running: Mutex<HashMap<InstallationId, Asked>>,
    refused: Mutex<HashMap<WorkloadId, String>>,
}

/// The right to work on one installation; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    jobs: Arc<Jobs>,
    id: InstallationId,
    held: bool,
}

impl Jobs {
    /// The right to work on `id`. When another task has it, that task is told to start over once it is done.
    pub(super) fn claim(self: &Arc<Self>, id: InstallationId) -> Option<Claim> {
        let mut running = self.lock();
        if let Some(asked) = running.get_mut(&id) {
            *asked = Asked::Again;
            return None;
        }
        running.insert(id, Asked::Once);
        Some(Claim { jobs: Arc::clone(self), id, held: true })
    }

    /// Whether somebody works on `id`.
    pub(super) fn busy(&self, id: InstallationId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Notes why the runtime does not accept the desired revision of a workload, or that it does.
    pub(super) fn note_refusal(&self, workload: &WorkloadId, reason: Option<String>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => {
                refused.insert(workload.clone(), reason);
            }
            None => {
                refused.remove(workload);
            }
        }
    }

    /// Why the runtime does not accept the desired revision of a workload.
    pub(super) fn refusal(&self, workload: &WorkloadId) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get(workload).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstallationId, Asked>> {
        // Nothing that runs under this lock can panic halfway through a change.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Ends the work, unless somebody asked for it again meanwhile: then the claim comes back.
    pub(super) fn finish(mut self) -> Option<Self> {
        let mut running = self.jobs.lock();
        if running.get(&self.id) == Some(&Asked::Again) {
            running.insert(self.id, Asked::Once);
            drop(running);
            return Some(self);
        }
        running.remove(&self.id);
        drop(running);
        self.held = false;
        None
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.held {
            self.jobs.lock().remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_during_the_work_is_not_lost() {
        let jobs = Arc::new(Jobs::default());
        let id = InstallationId::new();
        let claim = jobs.claim(id).unwrap();
        assert!(jobs.claim(id).is_none());
        let claim = claim.finish().expect("somebody asked again");
        assert!(claim.finish().is_none());
        assert!(!jobs.busy(id));
    }

    #[test]
    fn a_dropped_claim_is_given_back() {
        let jobs = Arc::new(Jobs::default());
        let id = InstallationId::new();
        drop(jobs.claim(id).unwrap());
        assert!(jobs.claim(id).is_some());
    }
}
