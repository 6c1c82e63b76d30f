//! One scripted workload: what was applied, which run it is in, and how it is.

use super::{log::Log, runtime::Script};
use crate::runtime::{Phase, Workload, WorkloadStatus, WorkloadSummary};
use chrono::Utc;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(super) struct Running {
    pub(super) workload: Workload,
    pub(super) script: Script,
    pub(super) status: WorkloadStatus,
    pub(super) log: Arc<Log>,
    /// Counts the runs of all workloads; a run that is over changes nothing any more.
    pub(super) generation: u64,
    /// Ends the run and its channels.
    pub(super) life: CancellationToken,
}

impl Running {
    pub(super) fn summary(&self) -> WorkloadSummary {
        WorkloadSummary { id: self.workload.id.clone(), namespace: None, status: self.status.clone(), drift: None }
    }

    /// Whether applying this would change anything but the revision's number.
    pub(super) fn is_as(&self, workload: &Workload) -> bool {
        self.workload.spec == workload.spec && self.workload.secrets == workload.secrets
    }

    /// Enters a phase, for a reason unless it is `Running`.
    pub(super) fn enter(&mut self, phase: Phase, reason: Option<&str>, hint: Option<&str>) {
        let now = Utc::now();
        if self.status.phase != phase {
            self.status.since = now;
        }
        self.status.phase = phase;
        self.status.reason = reason.map(str::to_owned);
        self.status.hint = hint.map(str::to_owned);
        if phase == Phase::Running {
            self.status.started_at = Some(now);
            self.status.revision = Some(self.workload.revision);
        }
    }
}
