//! What the API server says, and the way to it, as errors of the traits: the one place.

use archestra_core::{Error, Finding, Result};
use kube::core::{Status, response::StatusCause};
use std::{error::Error as StdError, future::Future, time::Duration};

/// What we call ourselves in errors.
pub(crate) const BACKEND: &str = "kubernetes";

/// The field of findings about where a workload is put, and not about what it says.
pub(crate) const NAMESPACE: &str = "namespace";

/// Awaits a call of the API server, but not longer than `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    operation: &'static str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|error| from_kube(operation, error)),
        Err(_) => Err(Error::Timeout { operation, after: limit }),
    }
}

/// Like [`within`], and what does not exist is `None`.
pub(crate) async fn within_opt<T>(
    limit: Duration,
    operation: &'static str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(found)) => Ok(Some(found)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 && !names_namespace(&status) => Ok(None),
        Ok(Err(error)) => Err(from_kube(operation, error)),
        Err(_) => Err(Error::Timeout { operation, after: limit }),
    }
}

/// A failed call. `operation` is a verb phrase: `applying a Deployment`.
pub(crate) fn from_kube(operation: &'static str, error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => from_status(operation, &status),
        // What a parser says of an answer may quote it, and answers hold secrets.
        kube::Error::SerdeError(error) => Error::Backend {
            backend: BACKEND,
            reason: format!(
                "{operation}: the API server's answer could not be read at line {} column {}",
                error.line(),
                error.column()
            ),
            source: None,
        },
        error => unreachable(operation, error),
    }
}

/// What an answer that is a `Status` means.
pub(crate) fn from_status(operation: &'static str, status: &Status) -> Error {
    let said = said(status);
    if is_denied(&status.message) {
        // Whoever denies may choose any status.
        return Error::Invalid(findings(
            status,
            &said,
            "change the workload, or the rule of the cluster that refuses it",
        ));
    }
    if takes_no_dry_run(status) {
        let operation = "try a change before it is made: an admission webhook of the cluster does not support dry runs";
        return Error::Unsupported { backend: BACKEND, operation };
    }
    match (status.code, status.reason.as_str()) {
        (404, _) if names_namespace(status) => Error::invalid(
            NAMESPACE,
            said,
            "create the namespace, or give the platform another one (ARCHESTRA_ORCHESTRATOR_K8S_NAMESPACE)",
        ),
        (404, _) => {
            let (kind, name) = subject(status);
            Error::NotFound { kind, id: name }
        }
        (409, "AlreadyExists") => {
            let (kind, name) = subject(status);
            Error::AlreadyExists { kind, id: name }
        }
        (409, _) => {
            let (kind, name) = subject(status);
            Error::Conflict { kind, id: name, reason: said }
        }
        (401, _) => Error::PermissionDenied { backend: BACKEND, reason: format!("{operation}: {said}") },
        (403, _) if is_rbac(&status.message) => Error::PermissionDenied {
            backend: BACKEND,
            reason: format!(
                "{operation}: {said}; bind the Role that the crate ships (deploy/rbac) to this platform's account"
            ),
        },
        (403, _) if said.contains("exceeded quota") => Error::invalid(
            NAMESPACE,
            said,
            "raise the quota, remove what uses it up, or lower what the workload requests",
        ),
        (403, _) if said.contains("because it is being terminated") => Error::invalid(
            NAMESPACE,
            said,
            "make the namespace again once it is gone, or give the platform another one",
        ),
        (403, _) => Error::invalid(
            "workload",
            said,
            "change the workload, or the policy or admission rule of the cluster that refuses it",
        ),
        (400 | 422, _) => Error::Invalid(findings(status, &said, "change what Kubernetes refuses")),
        (408 | 429 | 500..=599, _) => {
            Error::Unavailable { backend: BACKEND, reason: format!("{operation}: {said}"), source: None }
        }
        _ => Error::Backend { backend: BACKEND, reason: format!("{operation}: {said}"), source: None },
    }
}

/// Whether the API server has thought about it and says no: sending the same again will not help.
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Invalid(_))
}

/// Whether it is a field of the object that is refused, and not, say, the one who sends it.
pub(crate) fn refuses_a_field(error: &Error) -> bool {
    matches!(error, Error::Invalid(findings) if findings.iter().any(|finding| finding.field.starts_with("spec.")))
}

/// That the API server could not ask one of its webhooks, and which, and so refused what the webhook is to judge. Where the webhook
/// is in the cluster is not for whoever asked.
pub(crate) fn unjudged(error: &Error) -> Option<String> {
    let Error::Unavailable { reason, source: None, .. } = error else { return None };
    let (_, rest) = reason.split_once("failed calling")?;
    let (_, rest) = rest.split_once("webhook")?;
    let name = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
    Some(
        name.map_or_else(
            || "failed calling a webhook".to_owned(),
            |(name, _)| format!("failed calling webhook {name:?}"),
        ),
    )
}

/// The whole chain of causes, without repeating what a cause's text already holds.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn unreachable(operation: &'static str, error: kube::Error) -> Error {
    let reason = format!("{operation}: {}", chain(&error));
    match error {
        kube::Error::HyperError(_)
        | kube::Error::Service(_)
        | kube::Error::ReadEvents(_)
        | kube::Error::UpgradeConnection(_) => {
            Error::Unavailable { backend: BACKEND, reason, source: Some(Box::new(error)) }
        }
        kube::Error::Auth(_) => Error::PermissionDenied { backend: BACKEND, reason },
        error => Error::Backend { backend: BACKEND, reason, source: Some(Box::new(error)) },
    }
}

fn said(status: &Status) -> String {
    if status.message.is_empty() {
        format!("the API server answered {} {}", status.code, status.reason).trim_end().to_owned()
    } else {
        status.message.clone()
    }
}

/// An authorizer's refusal names a verb on a resource; admission plugins and quotas share its status and do not.
fn is_rbac(message: &str) -> bool {
    message.contains(" cannot ") && message.contains(" resource ")
}

/// A webhook or a policy of the cluster has judged and says no.
fn is_denied(message: &str) -> bool {
    let says = |who: &str, what: &str| message.contains(who) && message.contains(what);
    says("admission webhook ", " denied the request") || says("ValidatingAdmissionPolicy ", " denied request")
}

/// The API server's own words for a webhook that it does not call for a dry run. Whoever writes what is applied is quoted in other
/// answers, and must not pass for it.
fn takes_no_dry_run(status: &Status) -> bool {
    let said = &status.message;
    status.code == 400 && said.starts_with("admission webhook ") && said.ends_with(" does not support dry run")
}

fn names_namespace(status: &Status) -> bool {
    status.details.as_ref().is_some_and(|details| details.kind == "namespaces")
}

fn subject(status: &Status) -> (&'static str, String) {
    let Some(details) = &status.details else { return ("object", said(status)) };
    let kind = match details.kind.as_str() {
        "deployments" => "Deployment",
        "services" => "Service",
        "secrets" => "Secret",
        "networkpolicies" => "NetworkPolicy",
        "pods" => "Pod",
        "leases" => "Lease",
        _ => "object",
    };
    (kind, details.name.clone())
}

/// One finding for each cause where one names a field, or one for all of it.
fn findings(status: &Status, said: &str, remedy: &str) -> Vec<Finding> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<_> = causes.filter(|cause| !cause.message.is_empty()).collect();
    if causes.iter().all(|cause| cause.field.is_empty()) {
        return vec![Finding::new("workload", said, remedy)];
    }
    let finding = |cause: &StatusCause| {
        let field = match cause.field.as_str() {
            // A webhook chooses its causes' fields, and does not say by one where a workload is put.
            "" | NAMESPACE => "workload",
            field => field,
        };
        Finding::new(field, cause.message.clone(), remedy)
    };
    causes.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests;
