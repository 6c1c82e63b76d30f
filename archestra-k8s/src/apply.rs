//! Makes a workload be as its revision says: secrets first, the Deployment last and only when there is something to change.

use crate::{
    cluster::{Cluster, Write},
    compat,
    error::{BACKEND, is_refusal, refuses_a_field, within},
    manifest::{
        self, Desired,
        intact::{self, Marked as _},
    },
    names::{self, Wiring},
    observe::Part,
    remove, replace, restart,
};
use archestra_core::{
    Error, Result,
    runtime::{Applied, RevisionNumber, Workload, WorkloadId},
    secret::SecretValue,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{Secret, Service},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    ResourceExt as _,
    api::{ListParams, PostParams},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::sleep;

/// How often an apply that met another one is tried again.
const TRIES: u32 = 5;

/// What an apply came to.
pub(crate) struct Outcome {
    pub(crate) applied: Applied,
    /// The Deployment as it is now.
    pub(crate) deployment: Deployment,
    /// What else was applied.
    pub(crate) parts: Vec<Part>,
}

/// Applies a workload in a namespace. A bridge's token that is missing is made anew as it is known to be.
pub(crate) async fn apply(
    cluster: &Cluster,
    namespace: &str,
    workload: &Workload,
    token: Option<&SecretValue>,
) -> Result<Outcome> {
    let desired = manifest::desired(workload, &cluster.config, namespace)?;
    let task = Task { cluster, namespace, workload, token };
    let (mut tries, mut before) = (1, None);
    loop {
        let error = match Box::pin(attempt(&task, &desired, &mut before)).await {
            Err(error @ (Error::Conflict { .. } | Error::AlreadyExists { .. }))
                if tries < TRIES && !error.is_stale_revision() =>
            {
                error
            }
            outcome => return outcome,
        };
        tracing::debug!(workload = %workload.id, %error, "applying met another change; it is tried again");
        sleep(Duration::from_millis(50) * tries).await;
        tries += 1;
    }
}

/// What is to be applied where.
#[derive(Debug, Clone, Copy)]
struct Task<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    workload: &'a Workload,
    /// The token that the workload's bridge was known to have.
    token: Option<&'a SecretValue>,
}

/// What is done about the Deployment.
#[derive(Debug)]
enum Step<'a> {
    /// Nothing.
    Keep(&'a Deployment),
    /// It is applied, and this is the mark by which a later change is seen.
    Apply(Option<String>),
    /// It is applied without having been tried, over this one.
    Untried(Option<&'a Deployment>),
    /// Its template cannot be applied over what is there, and is replaced first.
    Replace(&'a Deployment),
}

/// `before` is what the first try found, since a try that meets another change may have made its own already.
async fn attempt(task: &Task<'_>, desired: &Desired, before: &mut Option<Option<Deployment>>) -> Result<Outcome> {
    let Task { cluster, namespace, workload, .. } = *task;
    let id = &workload.id;
    let observed = observed(cluster, namespace, id).await?;
    let before = before.get_or_insert_with(|| observed.clone());
    if let Some(newer) = observed.as_ref().and_then(revision_of).filter(|there| *there > workload.revision) {
        let reason = format!(
            "revision {newer} is there, which is newer than revision {}; where the platform's records were restored from an \
             older backup, delete the Deployment",
            workload.revision
        );
        return Err(Error::stale_revision(id, reason));
    }
    let desired = match &observed {
        Some(observed) => &manifest::desired_beside(desired.clone(), observed, workload, &cluster.config, namespace)?,
        None => desired,
    };
    let step = match &observed {
        Some(observed) if fits(observed, &desired.deployment) => Step::Keep(observed),
        Some(observed) if replace::is_unfinished(observed) => again(task, observed, &desired.deployment).await?,
        observed => check(task, observed.as_ref(), &desired.deployment).await?,
    };
    let sent = send(task, desired, &step).await;
    if observed.is_none() && sent.as_ref().is_err_and(is_refusal) {
        // Nothing half-made stays; what went wrong first is what the caller must know.
        if let Err(error) = remove::half_made(cluster, namespace, id).await {
            tracing::warn!(workload = %id, %error, "what a refused apply had made could not be removed");
        }
    }
    let Sent { mut deployment, parts, token } = sent?;
    if observed.is_some() {
        prune(cluster, namespace, id, desired).await?;
    }
    let changed = before.as_ref().is_none_or(|before| {
        !same(before, &desired.deployment, names::OBJECTS_HASH)
            || compat::deployment_spec(before) != compat::deployment_spec(&deployment)
    });
    let bridged = observed.as_ref().is_some_and(|observed| Wiring::of(&observed.metadata) == Some(Wiring::Bridge));
    if token == Token::New && bridged {
        tracing::info!(workload = %id, "its bridge is started anew, because the token that it has was lost");
        deployment = restart::restart(cluster, namespace, id).await?;
    }
    let applied = Applied { revision: workload.revision, changed, namespace: Some(namespace.to_owned()) };
    Ok(Outcome { applied, deployment, parts })
}

fn revision_of(deployment: &Deployment) -> Option<RevisionNumber> {
    deployment.annotations().get(names::REVISION)?.parse().ok().map(RevisionNumber)
}

/// Replaces what a replacement that was cut short has left: of that an apply would leave what is not wanted any more, since it is
/// not ours alone.
async fn again<'a>(task: &Task<'_>, observed: &'a Deployment, desired: &Deployment) -> Result<Step<'a>> {
    match replace::template(task.cluster, task.namespace, observed, desired, Write::DryRun).await {
        Ok(()) | Err(Error::Unsupported { .. }) => Ok(Step::Replace(observed)),
        Err(error) => Err(error),
    }
}

/// Asks whether the change will be accepted, and what it takes.
async fn check<'a>(task: &Task<'_>, observed: Option<&'a Deployment>, desired: &Deployment) -> Result<Step<'a>> {
    let Task { cluster, namespace, .. } = *task;
    match (cluster.put("checking a Deployment", namespace, desired, Write::DryRun).await, observed) {
        (Ok(checked), _) => Ok(Step::Apply(checked.found())),
        // A webhook that takes no dry runs: it says what it thinks when it is made.
        (Err(Error::Unsupported { .. }), observed) => Ok(Step::Untried(observed)),
        (Err(error), Some(observed)) if is_refusal(&error) => {
            replace::template(cluster, namespace, observed, desired, Write::DryRun).await?;
            Ok(Step::Replace(observed))
        }
        (Err(error), _) => Err(error),
    }
}

/// The Deployment that is there, once one that is on its way out has gone.
async fn observed(cluster: &Cluster, namespace: &str, id: &WorkloadId) -> Result<Option<Deployment>> {
    const STEP: Duration = Duration::from_millis(200);
    let mut waited = Duration::ZERO;
    loop {
        let Some(found) = cluster.find::<Deployment>("reading a Deployment", namespace, &names::object(id)).await?
        else {
            return Ok(None);
        };
        if names::workload_of(&found.metadata).as_ref() != Some(id) {
            return Err(Error::conflict(
                "Deployment",
                names::object(id),
                format!(
                    "one of that name is in the namespace {namespace} and not ours; remove it or use another namespace"
                ),
            ));
        }
        if let Some(instance) = cluster.config.instance.as_deref()
            && !names::is_of_instance(&found.metadata, Some(instance))
        {
            return Err(another_platforms(&found, namespace, id, instance));
        }
        if found.metadata.deletion_timestamp.is_none() {
            return Ok(Some(found));
        }
        if waited >= cluster.config.removal_wait {
            return Err(Error::conflict("Deployment", names::object(id), "it is being deleted; something holds it up"));
        }
        sleep(STEP).await;
        waited += STEP;
    }
}

fn another_platforms(found: &Deployment, namespace: &str, id: &WorkloadId, instance: &str) -> Error {
    let key = names::INSTANCE;
    let theirs = names::instance_of(&found.metadata).map_or_else(|| "none".to_owned(), |theirs| format!("{theirs:?}"));
    Error::conflict(
        "Deployment",
        names::object(id),
        format!(
            "another platform owns it: its label {key} is {theirs} and ours {instance:?}; use another namespace, or label \
             everything with {workload}={id} in the namespace {namespace} {key}={instance} to take it over",
            workload = names::WORKLOAD,
        ),
    )
}

/// Whether what is there needs no change: nobody has changed it, and it bears everything we say about it.
fn fits(observed: &Deployment, desired: &Deployment) -> bool {
    let said = |there: &Deployment, wanted: &Deployment| {
        wanted.annotations().iter().all(|(key, value)| there.annotations().get(key) == Some(value))
            && wanted.labels().iter().all(|(key, value)| there.labels().get(key) == Some(value))
    };
    // An annotation of ours that is wanted no more is a change too.
    let more = observed.annotations().keys().any(|key| {
        key.starts_with(names::OWN_PREFIX) && key != names::APPLIED && !desired.annotations().contains_key(key)
    });
    said(observed, desired) && !more && intact::is_surely_intact(observed)
}

fn same(observed: &Deployment, desired: &Deployment, annotation: &str) -> bool {
    observed.annotations().get(annotation) == desired.annotations().get(annotation)
}

/// What was sent.
#[derive(Debug)]
struct Sent {
    deployment: Deployment,
    parts: Vec<Part>,
    token: Token,
}

/// What became of the token of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// It is the one that there was, or there is none.
    Kept,
    /// It is another one.
    New,
}

async fn send(task: &Task<'_>, desired: &Desired, step: &Step<'_>) -> Result<Sent> {
    let Task { cluster, namespace, .. } = *task;
    let mut parts = Vec::new();
    for secret in desired.secret.iter().chain(&desired.pull_secrets) {
        let secret = cluster.put("applying a Secret", namespace, secret, Write::ForGood).await?;
        parts.extend(Part::of_secret(&secret.metadata));
    }
    let mut token = Token::Kept;
    if Wiring::of(&desired.deployment.metadata) == Some(Wiring::Bridge)
        && let Some((made, secret)) = make_token(task).await?
    {
        parts.extend(Part::of_secret(&secret.metadata));
        token = made;
    }
    let policy = cluster.put("applying a NetworkPolicy", namespace, &desired.network_policy, Write::ForGood).await?;
    parts.extend(Part::of_network_policy(&policy));
    if let Some(service) = &desired.service {
        let service = cluster.put("applying a Service", namespace, service, Write::ForGood).await?;
        parts.extend(Part::of_service(&service));
    }
    let mark = match step {
        Step::Keep(kept) => {
            let deployment = replace::give_back(cluster, namespace, (*kept).clone()).await?;
            return Ok(Sent { deployment, parts, token });
        }
        Step::Apply(mark) => mark.clone(),
        Step::Untried(_) => None,
        Step::Replace(observed) => {
            replace::template(cluster, namespace, observed, &desired.deployment, Write::ForGood).await?;
            None
        }
    };
    let mut applied = match (put(cluster, namespace, &desired.deployment, mark).await, step) {
        (Err(error), Step::Untried(Some(observed))) if refuses_a_field(&error) => {
            replace::template(cluster, namespace, observed, &desired.deployment, Write::ForGood).await?;
            put(cluster, namespace, &desired.deployment, None).await?
        }
        (applied, _) => applied?,
    };
    if !intact::is_surely_intact(&applied) {
        // It could not be told before: once more, which changes nothing but the mark.
        applied = put(cluster, namespace, &desired.deployment, applied.found()).await?;
    }
    let deployment = replace::give_back(cluster, namespace, applied).await?;
    Ok(Sent { deployment, parts, token })
}

/// Applies the Deployment with its mark.
async fn put(cluster: &Cluster, namespace: &str, deployment: &Deployment, mark: Option<String>) -> Result<Deployment> {
    let mut deployment = deployment.clone();
    if let Some(mark) = mark {
        deployment.metadata.annotations.get_or_insert_default().insert(names::APPLIED.to_owned(), mark);
    }
    cluster.put("applying a Deployment", namespace, &deployment, Write::ForGood).await
}

/// The Secret with the bridge's token is made once and then kept, so that applying again rolls nothing.
async fn make_token(task: &Task<'_>) -> Result<Option<(Token, Secret)>> {
    let Task { cluster, namespace, workload, token } = *task;
    let (token, outcome) = match token {
        Some(token) => (token.expose().to_owned(), Token::Kept),
        None => (new_token()?, Token::New),
    };
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(names::bridge_secret(&workload.id)),
            namespace: Some(namespace.to_owned()),
            labels: Some(names::labels(&workload.id, workload.spec.team.as_ref(), cluster.config.instance.as_deref())),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some([(names::TOKEN_KEY.to_owned(), ByteString(token.into_bytes()))].into()),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let secrets = cluster.api::<Secret>(namespace);
    let made = within(cluster.config.call_timeout, "making a bridge's token", secrets.create(&params, &secret)).await;
    match made {
        Ok(made) => Ok(Some((outcome, made))),
        Err(Error::AlreadyExists { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn new_token() -> Result<String> {
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Backend {
        backend: BACKEND,
        reason: "the system gives no random numbers for the bridge's token".to_owned(),
        source: None,
    })?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Removes what an earlier revision had and this one has not.
async fn prune(cluster: &Cluster, namespace: &str, id: &WorkloadId, desired: &Desired) -> Result<()> {
    let mut wanted: BTreeSet<String> =
        desired.secret.iter().chain(&desired.pull_secrets).map(|secret| secret.name_any()).collect();
    if Wiring::of(&desired.deployment.metadata) == Some(Wiring::Bridge) {
        wanted.insert(names::bridge_secret(id));
    }
    let ours = ListParams::default().labels(&names::select_workload(id, cluster.config.instance.as_deref()));
    cluster
        .delete_all::<Secret>("removing unused Secrets", namespace, &ours, |found| !wanted.contains(&found.name_any()))
        .await?;
    if desired.service.is_none() {
        cluster.delete_all::<Service>("removing an unused Service", namespace, &ours, |_| true).await?;
    }
    Ok(())
}
