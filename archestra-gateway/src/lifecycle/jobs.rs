//! Which installations are being worked on in this process, so that no two tasks do the same and no request is lost.

use archestra_core::{
    id::InstallationId,
    runtime::{RevisionNumber, WorkloadId},
};
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

/// The installations that have an owner task, what the runtime refused last, and what it is removing.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    running: Mutex<HashMap<InstallationId, Asked>>,
    refused: Mutex<HashMap<WorkloadId, String>>,
    ending: Mutex<HashMap<WorkloadId, usize>>,
}

/// A removal that is under way.
#[derive(Debug)]
pub(super) struct Ending {
    jobs: Arc<Jobs>,
    workload: WorkloadId,
}

/// The right to work on one installation; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    jobs: Arc<Jobs>,
    id: InstallationId,
    held: bool,
    applied: Option<RevisionNumber>,
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
        Some(Claim { jobs: Arc::clone(self), id, held: true, applied: None })
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

    /// Notes that a workload is being removed, until what is returned is dropped.
    pub(super) fn begin_ending(self: &Arc<Self>, workload: &WorkloadId) -> Ending {
        *self.ending().entry(workload.clone()).or_default() += 1;
        Ending { jobs: Arc::clone(self), workload: workload.clone() }
    }

    /// Whether a workload is being removed.
    pub(super) fn is_ending(&self, workload: &WorkloadId) -> bool {
        self.ending().contains_key(workload)
    }

    fn ending(&self) -> MutexGuard<'_, HashMap<WorkloadId, usize>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstallationId, Asked>> {
        // Nothing that runs under this lock can panic halfway through a change.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Notes that the runtime has this revision already, so that the work need not begin with applying it.
    pub(super) fn note_applied(&mut self, number: RevisionNumber) {
        self.applied = Some(number);
    }

    /// The revision that the runtime has already; said once, since what comes later may find it changed.
    pub(super) fn take_applied(&mut self) -> Option<RevisionNumber> {
        self.applied.take()
    }

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

impl Ending {
    /// What is being removed.
    pub(super) const fn workload(&self) -> &WorkloadId {
        &self.workload
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut ending = self.jobs.ending();
        if let Some(count) = ending.get_mut(&self.workload) {
            *count -= 1;
            if *count == 0 {
                ending.remove(&self.workload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_twice_is_ending_until_both_are_done() {
        let (jobs, workload) = (Arc::new(Jobs::default()), WorkloadId::of_installation(InstallationId::new()));
        let (first, second) = (jobs.begin_ending(&workload), jobs.begin_ending(&workload));
        drop(first);
        assert!(jobs.is_ending(&workload));
        drop(second);
        assert!(!jobs.is_ending(&workload));
    }

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
