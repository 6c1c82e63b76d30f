//! One workload as the runtime sees it: what is desired, what is observed, and its log.

use super::{logs::LogBuffer, plan::Plan, server::Reach};
use crate::runtime::{Phase, RevisionNumber, WorkloadId, WorkloadStatus};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What shall run.
#[derive(Debug, Clone)]
pub(super) struct Desired {
    pub(super) plan: Arc<Plan>,
    pub(super) revision: RevisionNumber,
    /// Counts the times somebody wanted it started anew. Another revision of the same plan is no reason.
    pub(super) roll: u64,
}

/// What is.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) status: WorkloadStatus,
    /// How the server is reached, while it can be.
    pub(super) reach: Option<Reach>,
}

/// One workload, shared by the runtime and the keeper that runs it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: WorkloadId,
    /// Absent for what an earlier runtime left and nobody has applied yet.
    pub(super) desired: Option<watch::Sender<Desired>>,
    pub(super) observed: watch::Sender<Observed>,
    pub(super) logs: Arc<LogBuffer>,
    /// Cancelled when the workload shall be removed.
    pub(super) remove: CancellationToken,
    /// Cancelled when its keeper has ended and left nothing that it should not.
    pub(super) gone: CancellationToken,
}

impl Slot {
    pub(super) fn new(id: WorkloadId, desired: Option<Desired>, status: WorkloadStatus, logs: Arc<LogBuffer>) -> Self {
        Self {
            id,
            desired: desired.map(watch::Sender::new),
            observed: watch::Sender::new(Observed { status, reach: None }),
            logs,
            remove: CancellationToken::new(),
            gone: CancellationToken::new(),
        }
    }

    /// The status of what an earlier runtime left.
    pub(super) fn left_over() -> WorkloadStatus {
        WorkloadStatus::new(Phase::Stopped).because("it has not been started since the platform was", None)
    }
}
