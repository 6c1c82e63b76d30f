//! How a workload is, told from its Deployment and its pods. Pure: what is known goes in, a status comes out.

mod crash;
mod image;
mod pod;
mod refusal;

use super::view;
use crate::{compat, names};
use archestra_core::runtime::{Phase, RevisionNumber, WorkloadStatus};
use chrono::{DateTime, Utc};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

pub(super) use image::REMEMBERED;

/// Longer texts of Kubernetes and of registries are cut.
const MAX_TEXT: usize = 600;

/// All that is known about one workload.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    /// Its Deployment.
    pub(super) deployment: &'a Deployment,
    /// Its pods, in no order.
    pub(super) pods: Vec<PodEvidence<'a>>,
    /// What was told of it last.
    pub(super) before: Option<&'a WorkloadStatus>,
    /// What time it is.
    pub(super) now: DateTime<Utc>,
}

/// All that is known about one pod.
#[derive(Debug)]
pub(super) struct PodEvidence<'a> {
    /// The pod.
    pub(super) pod: &'a Pod,
    /// Whether it was made from the template that is desired now.
    pub(super) current: bool,
    /// The revision it was made from.
    pub(super) revision: Option<RevisionNumber>,
    /// What went wrong with it according to its events, the latest last.
    pub(super) troubles: &'a [Trouble],
    /// The last words of the container that ended.
    pub(super) words: Option<&'a str>,
}

/// A warning about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Kubernetes' word for it: `FailedMount`.
    pub(super) reason: String,
    /// The text.
    pub(super) message: String,
    /// When it was seen last.
    pub(super) at: DateTime<Utc>,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Derived {
    /// How it is.
    pub(super) status: WorkloadStatus,
    /// Whose last words would say more.
    pub(super) asks: Option<Ended>,
}

/// A container that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// The pod.
    pub(super) pod: String,
    /// The pod's uid.
    pub(super) uid: String,
    /// The container.
    pub(super) container: String,
    /// The id of the run that ended.
    pub(super) run: String,
    /// Whether another run has begun since.
    pub(super) previous: bool,
}

/// What is to be said about a workload that does not answer.
#[derive(Debug)]
struct Verdict {
    phase: Phase,
    reason: String,
    hint: Option<String>,
    since: Option<DateTime<Utc>>,
    asks: Option<Ended>,
    /// Whether somebody should know even while something else answers.
    is_news: bool,
}

impl Verdict {
    fn new(phase: Phase, reason: impl Into<String>) -> Self {
        let is_news = matches!(phase, Phase::Error | Phase::Restarting);
        Self { phase, reason: reason.into(), hint: None, since: None, asks: None, is_news }
    }

    fn pending(reason: impl Into<String>) -> Self {
        Self::new(Phase::Pending, reason)
    }

    fn error(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..Self::new(Phase::Error, reason) }
    }

    fn since(mut self, since: Option<DateTime<Utc>>) -> Self {
        self.since = since;
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// How the workload is.
pub(super) fn derive(evidence: &Evidence<'_>) -> Derived {
    let mut derived = told(evidence);
    if let Some(before) = evidence.before
        && before.phase == derived.status.phase
    {
        derived.status.since = before.since;
    }
    derived
}

/// The revision that a Deployment was last applied with.
pub(super) fn revision_of(meta: &ObjectMeta) -> Option<RevisionNumber> {
    meta.annotations.as_ref()?.get(names::REVISION)?.parse().ok().map(RevisionNumber)
}

/// Whether the Deployment's controller has seen what is desired now.
pub(super) fn is_observed(deployment: &Deployment) -> bool {
    let seen = deployment.status.as_ref().and_then(|status| status.observed_generation).unwrap_or_default();
    deployment.metadata.generation.is_none_or(|desired| seen >= desired)
}

fn told(evidence: &Evidence<'_>) -> Derived {
    let replicas = compat::deployment_spec(evidence.deployment).and_then(|spec| spec.replicas);
    if replicas == Some(0) {
        let status = WorkloadStatus::new(Phase::Stopped).because(
            "its Deployment is scaled to zero",
            Some("scale it to one, or apply the workload again".to_owned()),
        );
        return Derived { status: WorkloadStatus { since: evidence.now, ..status }, asks: None };
    }
    let answering = evidence
        .pods
        .iter()
        .filter(|found| view::is_ready(found.pod))
        .max_by_key(|found| (found.current, view::created(&found.pod.metadata)));
    match answering {
        Some(answering) => running(evidence, answering),
        None => not_running(evidence),
    }
}

fn running(evidence: &Evidence<'_>, answering: &PodEvidence<'_>) -> Derived {
    let server = view::server(answering.pod);
    let ready = view::condition(answering.pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
    let mut status = WorkloadStatus {
        phase: Phase::Running,
        reason: None,
        hint: None,
        restarts: server.map(view::restarts).unwrap_or_default(),
        since: ready.and_then(view::time).unwrap_or(evidence.now),
        started_at: server.and_then(view::started),
        revision: answering.revision,
    };
    let mut asks = None;
    // Progress is no news while something answers; that it will never end is.
    if !answering.current
        && let Some(verdict) = verdict(evidence)
        && verdict.is_news
    {
        let what = match desired(evidence) {
            Some(desired) if Some(desired) != answering.revision => format!("revision {desired} does not come to run"),
            _ => "its replacement does not come to run".to_owned(),
        };
        status.reason = Some(format!("{what}, and what ran before still answers: {}", verdict.reason));
        status.hint = verdict.hint;
        asks = verdict.asks;
    }
    Derived { status, asks }
}

fn not_running(evidence: &Evidence<'_>) -> Derived {
    let newest = newest(evidence);
    let verdict = verdict(evidence).unwrap_or_else(|| waiting(evidence));
    let revision = newest.and_then(|newest| newest.revision);
    let server = newest.and_then(|newest| view::server(newest.pod));
    let ran = evidence.before.is_some_and(|before| {
        matches!(before.phase, Phase::Running | Phase::Restarting) && before.revision == desired(evidence)
    });
    let phase = match verdict.phase {
        Phase::Pending if ran => Phase::Restarting,
        phase => phase,
    };
    let status = WorkloadStatus {
        phase,
        reason: Some(verdict.reason),
        hint: verdict.hint,
        restarts: server.map(view::restarts).unwrap_or_default(),
        since: verdict.since.unwrap_or(evidence.now),
        started_at: server.and_then(view::started),
        // What an error is about is known; what is on its way is not there yet, and only its absence lets it be waited for.
        revision: match phase {
            Phase::Restarting => revision.or_else(|| desired(evidence)),
            _ => revision,
        },
    };
    Derived { status, asks: verdict.asks }
}

fn desired(evidence: &Evidence<'_>) -> Option<RevisionNumber> {
    revision_of(&evidence.deployment.metadata)
}

/// The newest pod of what is desired.
fn newest<'a>(evidence: &'a Evidence<'a>) -> Option<&'a PodEvidence<'a>> {
    let current = evidence.pods.iter().filter(|found| found.current && view::is_live(found.pod));
    current.max_by_key(|found| view::created(&found.pod.metadata))
}

/// What keeps what is desired from answering, if that can be told.
fn verdict(evidence: &Evidence<'_>) -> Option<Verdict> {
    match newest(evidence) {
        Some(newest) => Some(refusal::overdue(evidence.deployment, pod::judge(newest))),
        None if is_observed(evidence.deployment) => {
            refusal::judge(evidence.deployment).or_else(|| refusal::paused(evidence.deployment))
        }
        None => None,
    }
}

/// Why there is no pod of what is desired.
fn waiting(evidence: &Evidence<'_>) -> Verdict {
    if !is_observed(evidence.deployment) {
        return Verdict::pending("it was applied, and Kubernetes has not acted on it yet");
    }
    let made = |found: &&PodEvidence<'_>| view::created(&found.pod.metadata);
    if let Some(ended) = evidence.pods.iter().filter(|found| view::is_finished(found.pod)).max_by_key(made) {
        return pod::finished(ended.pod);
    }
    if let Some(ending) =
        evidence.pods.iter().filter(|found| view::is_terminating(&found.pod.metadata)).max_by_key(made)
    {
        let name = view::name(&ending.pod.metadata);
        return Verdict::pending(format!("its pod {name} is ending, and another one is about to be started"));
    }
    if !evidence.pods.is_empty() {
        return Verdict::pending("the pod of what ran before is about to be replaced");
    }
    Verdict::pending("its pod is about to be made")
}

/// A text of somebody else, in one line that is not too long.
fn quote(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > MAX_TEXT {
        line.truncate(line.floor_char_boundary(MAX_TEXT));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests;
