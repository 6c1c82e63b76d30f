//! What the Deployment's controller says: pods that may not even be made (quotas, service accounts, admission), and rollouts that
//! are paused or take too long.

use super::{Verdict, quote};
use crate::{compat, observe::view};
use archestra_core::runtime::Phase;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};

/// What the Deployment's controller says about pods that it could not make.
pub(super) fn judge(deployment: &Deployment) -> Option<Verdict> {
    let failure = condition(deployment, "ReplicaFailure", "True")?;
    let text = quote(failure.message.as_deref().unwrap_or("the API server refuses it"));
    let (what, hint) = meaning(&text);
    let since = failure.last_transition_time.as_ref().and_then(view::time);
    Some(Verdict::error(format!("{what}: {text}"), hint).since(since))
}

/// The same, and an error once the Deployment's deadline for progress has passed.
pub(super) fn overdue(deployment: &Deployment, verdict: Verdict) -> Verdict {
    let late = condition(deployment, "Progressing", "False")
        .is_some_and(|progress| progress.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    if !late || verdict.phase != Phase::Pending {
        return verdict;
    }
    let reason = format!("{} (and its Deployment's deadline for progress has passed)", verdict.reason);
    Verdict { phase: Phase::Error, reason, is_news: true, ..verdict }
}

/// That nothing new is rolled out at all.
pub(super) fn paused(deployment: &Deployment) -> Option<Verdict> {
    compat::deployment_spec(deployment)?.paused.filter(|paused| *paused)?;
    Some(Verdict::error(
        "its Deployment is paused, so that no pod of what is desired is made",
        "remove `paused` from deploymentYaml; where somebody paused it by hand, resume it",
    ))
}

fn condition<'a>(deployment: &'a Deployment, kind: &str, status: &str) -> Option<&'a DeploymentCondition> {
    let conditions = deployment.status.as_ref()?.conditions.as_deref()?;
    conditions
        .iter()
        .find(|condition| compat::condition_type(condition) == kind && compat::condition_status(condition) == status)
}

fn meaning(text: &str) -> (&'static str, &'static str) {
    let lower = text.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["exceeded quota", "failed quota"]) {
        (
            "the namespace's quota does not allow its pod",
            "raise the quota, remove other workloads, or lower its requests and limits in deploymentYaml",
        )
    } else if says(&["serviceaccount", "service account"]) && says(&["not found", "error looking up"]) {
        ("its service account does not exist", "create the service account, or correct serviceAccount of the entry")
    } else if says(&["violates podsecurity", "podsecuritypolicy", "pod security", "security context constraint"]) {
        (
            "the namespace's pod security does not allow its pod",
            "remove from deploymentYaml, or from runAsUser, what the policy names, or relax the policy of the namespace",
        )
    } else if says(&["admission webhook", "validatingadmissionpolicy", "denied the request"]) {
        (
            "an admission rule of the cluster refuses its pod",
            "change what the rule names in deploymentYaml, or the rule",
        )
    } else if says(&[
        "limitrange",
        "maximum cpu",
        "maximum memory",
        "minimum cpu",
        "minimum memory",
        "limit to request ratio",
    ]) {
        ("the namespace's limit range does not allow its pod", "change its requests and limits in deploymentYaml")
    } else if says(&["forbidden"]) {
        ("the API server does not allow its pod", "change what it names, or the policy of the cluster")
    } else {
        ("its pod cannot be made", "correct deploymentYaml")
    }
}
