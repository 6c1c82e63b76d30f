//! The observed state of workloads.

use super::{RevisionNumber, WorkloadId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// How a workload is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Its server answers.
    Running,
    /// It is being started.
    Pending,
    /// It cannot run until somebody changes something, or keeps failing.
    Error,
    /// It ran, ended, and is being started again.
    Restarting,
    /// It is not meant to run.
    Stopped,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 5] = [Self::Running, Self::Pending, Self::Error, Self::Restarting, Self::Stopped];

    /// The word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Pending => "pending",
            Self::Error => "error",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
        }
    }
}

/// How a workload is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// In one word.
    pub phase: Phase,
    /// What happened, for anything but `running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How often it was started again without anybody asking.
    pub restarts: u32,
    /// Since when it is in this phase.
    pub since: DateTime<Utc>,
    /// When what runs now was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// The revision that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionNumber>,
}

impl WorkloadStatus {
    /// In this phase since now, and nothing else known.
    #[must_use]
    pub fn new(phase: Phase) -> Self {
        Self { phase, reason: None, hint: None, restarts: 0, since: Utc::now(), started_at: None, revision: None }
    }

    /// With what happened and what to do about it.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>, hint: Option<String>) -> Self {
        self.reason = Some(reason.into());
        self.hint = hint;
        self
    }
}

/// One workload that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadSummary {
    /// Which.
    pub id: WorkloadId,
    /// Where, if the runtime has namespaces.
    pub namespace: Option<String>,
    /// How it is.
    pub status: WorkloadStatus,
    /// What somebody else has changed or removed of that which was applied. Applying again puts it back.
    pub drift: Option<String>,
}

/// What a watch sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkloadEvent {
    /// Everything there is; whatever is not named is gone.
    Snapshot(Vec<WorkloadSummary>),
    /// A new or changed workload.
    Changed(WorkloadSummary),
    /// The tools of its server may have changed: it said so.
    ToolsChanged(WorkloadId),
    /// A workload is gone.
    Removed(WorkloadId),
}
