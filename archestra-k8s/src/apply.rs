//! Makes a workload be as its revision says: secrets first, the Deployment last and only when there is something to change.

use crate::{
    cluster::{Cluster, Write},
    error::{BACKEND, is_refusal, within},
    manifest::{self, Desired},
    names::{self, Wiring},
    remove, replace,
};
use archestra_core::{
    Error, Result,
    runtime::{Applied, Workload, WorkloadId},
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
}

/// Applies a workload in a namespace.
pub(crate) async fn apply(cluster: &Cluster, namespace: &str, workload: &Workload) -> Result<Outcome> {
    let desired = manifest::desired(workload, &cluster.config, namespace)?;
    let mut tries = 1;
    loop {
        let error = match Box::pin(attempt(cluster, namespace, workload, &desired)).await {
            Err(error @ (Error::Conflict { .. } | Error::AlreadyExists { .. })) if tries < TRIES => error,
            outcome => return outcome,
        };
        tracing::debug!(workload = %workload.id, %error, "applying met another change; it is tried again");
        sleep(Duration::from_millis(50) * tries).await;
        tries += 1;
    }
}

async fn attempt(cluster: &Cluster, namespace: &str, workload: &Workload, desired: &Desired) -> Result<Outcome> {
    let id = &workload.id;
    let observed = observed(cluster, namespace, id).await?;
    let kept = observed.as_ref().filter(|observed| fits(observed, &desired.deployment));
    let replaced = match &observed {
        _ if kept.is_some() => None,
        Some(observed) => check_change(cluster, namespace, observed, &desired.deployment).await?,
        None => {
            cluster.put("checking a Deployment", namespace, &desired.deployment, Write::DryRun).await?;
            None
        }
    };
    let sent = send(cluster, namespace, workload, desired, kept, replaced).await;
    if observed.is_none() && sent.as_ref().is_err_and(is_refusal) {
        // Nothing half-made stays; what went wrong first is what the caller must know.
        if let Err(error) = remove::half_made(cluster, namespace, id).await {
            tracing::warn!(workload = %id, %error, "what a refused apply had made could not be removed");
        }
    }
    let deployment = sent?;
    if observed.is_some() {
        prune(cluster, namespace, id, desired).await?;
    }
    let rolled = observed.is_none_or(|observed| !same(&observed, &desired.deployment, names::OBJECTS_HASH));
    let applied = Applied { revision: workload.revision, changed: rolled, namespace: Some(namespace.to_owned()) };
    Ok(Outcome { applied, deployment })
}

/// Asks whether the change will be accepted, and returns what has to be replaced first because it cannot be applied.
async fn check_change<'a>(
    cluster: &Cluster,
    namespace: &str,
    observed: &'a Deployment,
    desired: &Deployment,
) -> Result<Option<&'a Deployment>> {
    match cluster.put("checking a Deployment", namespace, desired, Write::DryRun).await {
        Ok(_) => Ok(None),
        Err(error) if is_refusal(&error) => {
            replace::template(cluster, namespace, observed, desired, Write::DryRun).await?;
            Ok(Some(observed))
        }
        Err(error) => Err(error),
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

/// Whether what is there needs no change: the same template, and everything we say about it.
fn fits(observed: &Deployment, desired: &Deployment) -> bool {
    let said = |there: &Deployment, wanted: &Deployment| {
        wanted.annotations().iter().all(|(key, value)| there.annotations().get(key) == Some(value))
            && wanted.labels().iter().all(|(key, value)| there.labels().get(key) == Some(value))
    };
    // An annotation of ours that is wanted no more is a change too.
    let more = observed
        .annotations()
        .keys()
        .any(|key| key.starts_with(names::OWN_PREFIX) && !desired.annotations().contains_key(key));
    said(observed, desired) && !more
}

fn same(observed: &Deployment, desired: &Deployment, annotation: &str) -> bool {
    observed.annotations().get(annotation) == desired.annotations().get(annotation)
}

async fn send(
    cluster: &Cluster,
    namespace: &str,
    workload: &Workload,
    desired: &Desired,
    kept: Option<&Deployment>,
    replaced: Option<&Deployment>,
) -> Result<Deployment> {
    for secret in desired.secret.iter().chain(&desired.pull_secrets) {
        cluster.put("applying a Secret", namespace, secret, Write::ForGood).await?;
    }
    if Wiring::of(&desired.deployment.metadata) == Some(Wiring::Bridge) {
        make_token(cluster, namespace, workload).await?;
    }
    cluster.put("applying a NetworkPolicy", namespace, &desired.network_policy, Write::ForGood).await?;
    if let Some(service) = &desired.service {
        cluster.put("applying a Service", namespace, service, Write::ForGood).await?;
    }
    if let Some(kept) = kept {
        return Ok(kept.clone());
    }
    if let Some(replaced) = replaced {
        replace::template(cluster, namespace, replaced, &desired.deployment, Write::ForGood).await?;
    }
    let applied = cluster.put("applying a Deployment", namespace, &desired.deployment, Write::ForGood).await?;
    replace::give_back(cluster, namespace, applied).await
}

/// The Secret with the bridge's token is made once and then kept, so that applying again rolls nothing.
async fn make_token(cluster: &Cluster, namespace: &str, workload: &Workload) -> Result<()> {
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Backend {
        backend: BACKEND,
        reason: "the system gives no random numbers for the bridge's token".to_owned(),
        source: None,
    })?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(names::bridge_secret(&workload.id)),
            namespace: Some(namespace.to_owned()),
            labels: Some(names::labels(&workload.id, workload.spec.team.as_ref(), cluster.config.instance.as_deref())),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some([(names::TOKEN_KEY.to_owned(), ByteString(URL_SAFE_NO_PAD.encode(bytes).into_bytes()))].into()),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let secrets = cluster.api::<Secret>(namespace);
    let made = within(cluster.config.call_timeout, "making a bridge's token", secrets.create(&params, &secret)).await;
    match made {
        Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
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
