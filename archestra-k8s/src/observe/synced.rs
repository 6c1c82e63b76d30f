//! Whether what is known is complete, and if not, what keeps it from being so.

use super::store::Tracked;
use crate::error::{self, BACKEND};
use archestra_core::{Error, Result};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::{core::PartialObjectMeta, runtime::watcher};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// What has to be listed before anything can be said. Warnings only make it say more.
const NEEDED: [&str; 3] =
    [<Deployment as Tracked>::KIND, <Pod as Tracked>::KIND, <PartialObjectMeta<ReplicaSet> as Tracked>::KIND];

/// How far the watches of one namespace have come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    listed: BTreeSet<&'static str>,
    problems: BTreeMap<&'static str, Problem>,
}

/// Why a watch does not come forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    reason: String,
    /// Whether only a person can change that.
    refused: bool,
}

impl Progress {
    /// Whether everything was listed once.
    pub(super) fn is_complete(&self) -> bool {
        NEEDED.iter().all(|kind| self.listed.contains(kind))
    }

    /// Whether this kind was listed.
    pub(super) fn has_listed(&self, kind: &str) -> bool {
        self.listed.contains(kind)
    }

    /// Whether this kind was listed, or will not be until a person changes something.
    pub(super) fn is_settled(&self, kind: &str) -> bool {
        self.has_listed(kind) || self.problems.get(kind).is_some_and(|problem| problem.refused)
    }

    /// This kind is listed now. Whether that is news.
    pub(super) fn note_listed(&mut self, kind: &'static str) -> bool {
        let well = self.problems.remove(kind).is_none();
        self.listed.insert(kind) || !well
    }

    /// This watch is well. Whether that is news.
    pub(super) fn note_well(&mut self, kind: &'static str) -> bool {
        self.problems.remove(kind).is_some()
    }

    /// This watch is not well. Whether that is news.
    pub(super) fn note_problem(&mut self, kind: &'static str, problem: Problem) -> bool {
        self.problems.insert(kind, problem.clone()) != Some(problem)
    }

    /// What keeps it from being complete.
    pub(super) fn problem(&self) -> Option<&Problem> {
        let missing =
            || NEEDED.iter().filter(|kind| !self.listed.contains(*kind)).filter_map(|kind| self.problems.get(kind));
        missing().find(|problem| problem.refused).or_else(|| missing().next())
    }

    fn missing(&self) -> Vec<&'static str> {
        NEEDED.into_iter().filter(|kind| !self.listed.contains(kind)).collect()
    }
}

impl Problem {
    /// What a failed watch means.
    pub(super) fn of(kind: &'static str, namespace: &str, error: watcher::Error) -> Self {
        let operation = match kind {
            "Deployments" => "watching Deployments",
            "Pods" => "watching Pods",
            "ReplicaSets" => "watching ReplicaSets",
            "Services" => "watching Services",
            "NetworkPolicies" => "watching NetworkPolicies",
            "Secrets" => "watching Secrets",
            _ => "watching Events",
        };
        let error = match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => error::from_kube(operation, error),
            watcher::Error::WatchError(status) => error::from_status(operation, &status),
            watcher::Error::NoResourceVersion => Error::Backend {
                backend: BACKEND,
                reason: format!("{operation}: the API server sends objects without a resource version"),
                source: None,
            },
        };
        let refused = matches!(error, Error::PermissionDenied { .. } | Error::Invalid(_));
        let reason = match error {
            Error::PermissionDenied { reason, .. }
            | Error::Unavailable { reason, .. }
            | Error::Backend { reason, .. } => reason,
            other => other.to_string(),
        };
        Self { reason: format!("namespace {namespace}: {reason}"), refused }
    }

    /// A list that does not come.
    pub(super) fn late(kind: &str, namespace: &str, after: Duration) -> Self {
        let reason = format!("namespace {namespace}: the list of {kind} has not come within {} s", after.as_secs());
        Self { reason, refused: false }
    }

    /// For those who cannot go on without it.
    pub(super) fn to_error(&self) -> Error {
        if self.refused {
            Error::PermissionDenied { backend: BACKEND, reason: self.reason.clone() }
        } else {
            Error::Unavailable { backend: BACKEND, reason: self.reason.clone(), source: None }
        }
    }

    /// For the log.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }
}

/// Waits until everything was listed once.
pub(super) async fn wait(mut progress: watch::Receiver<Progress>, namespace: &str, limit: Duration) -> Result<()> {
    let complete = async {
        loop {
            {
                let now = progress.borrow_and_update();
                if now.is_complete() {
                    return Ok(());
                }
                if let Some(problem) = now.problem().filter(|problem| problem.refused) {
                    return Err(problem.to_error());
                }
            }
            if progress.changed().await.is_err() {
                return Err(stopped());
            }
        }
    };
    if let Ok(done) = timeout(limit, complete).await {
        return done;
    }
    let now = progress.borrow();
    Err(match now.problem() {
        Some(problem) => problem.to_error(),
        None => Problem::late(&now.missing().join(" and "), namespace, limit).to_error(),
    })
}

/// Nothing is observed any more.
pub(super) fn stopped() -> Error {
    Error::Unavailable { backend: BACKEND, reason: "the runtime is shut down".to_owned(), source: None }
}
