//! Removes everything that was made for a workload.

use crate::{areas::Area, cluster::Cluster, names, turns::Turns};
use archestra_core::{Error, Result, runtime::WorkloadId};
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{Pod, Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::api::ListParams;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// How long what a watch tells of pods is relied on before the API server is asked.
const LOOK: Duration = Duration::from_secs(5);
/// How long a watch that is behind the API server is given to tell of the pods that there are.
const BEHIND: Duration = Duration::from_secs(1);

/// Ends the workload in this namespace and deletes all that was made for it. What is gone already is fine.
///
/// Whatever still runs stays locked in: the NetworkPolicy goes after the pods, with [`last_pod`] where those take their time.
pub(crate) async fn everything(cluster: &Cluster, area: &Area, id: &WorkloadId) -> Result<Pods> {
    objects(cluster, &area.namespace, id).await?;
    area.observer.note_removed(id);
    area.reach.forget(id);
    let pods = pods_gone(cluster, area, id).await?;
    if pods == Pods::Gone {
        network_policy(cluster, &area.namespace, id).await?;
    }
    Ok(pods)
}

/// Removes the NetworkPolicy of a removed workload when its last pod is gone. What fails is collected later.
///
/// The watch tells when to look, and the API server whether they are gone: a watch may be behind.
pub(crate) async fn last_pod(cluster: Cluster, area: Arc<Area>, turns: Arc<Turns>, id: WorkloadId) {
    let mut changed = area.observer.changed();
    loop {
        while !area.observer.pods(&id).is_empty() {
            // Applied again, it has pods for good.
            if area.observer.has(&id) || changed.changed().await.is_err() {
                return;
            }
        }
        match with_the_last_pod(&cluster, &area, &turns, &id).await {
            Ok(Pods::Ending) => sleep(BEHIND).await,
            Ok(Pods::Gone) => return,
            Err(error) => {
                tracing::debug!(workload = %id, %error, "the NetworkPolicy of a removed workload is collected later");
                return;
            }
        }
    }
}

/// Removes the NetworkPolicy, unless a pod is left that it locks in.
async fn with_the_last_pod(cluster: &Cluster, area: &Area, turns: &Turns, id: &WorkloadId) -> Result<Pods> {
    let _turn = turns.take(id).await;
    let found = cluster.find::<Deployment>("looking for a Deployment", &area.namespace, &names::object(id)).await?;
    if found.is_some() {
        // It was applied again, with the same NetworkPolicy.
        return Ok(Pods::Gone);
    }
    let ours = ListParams::default().labels(&names::select_workload(id, cluster.config.instance.as_deref()));
    if !cluster.list::<Pod>("looking for pods", &area.namespace, &ours).await?.is_empty() {
        return Ok(Pods::Ending);
    }
    network_policy(cluster, &area.namespace, id).await?;
    Ok(Pods::Gone)
}

/// Deletes what a refused apply had made, of which nothing has run.
pub(crate) async fn half_made(cluster: &Cluster, namespace: &str, id: &WorkloadId) -> Result<()> {
    objects(cluster, namespace, id).await?;
    network_policy(cluster, namespace, id).await
}

async fn network_policy(cluster: &Cluster, namespace: &str, id: &WorkloadId) -> Result<()> {
    let ours = ListParams::default().labels(&names::select_workload(id, cluster.config.instance.as_deref()));
    cluster.delete_all::<NetworkPolicy>("removing a NetworkPolicy", namespace, &ours, |_| true).await
}

/// What became of the pods of a removed workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pods {
    Gone,
    /// They were told to end, and take their time.
    Ending,
}

/// Deletes all objects of the workload but its NetworkPolicy, by its label.
async fn objects(cluster: &Cluster, namespace: &str, id: &WorkloadId) -> Result<()> {
    let ours = ListParams::default().labels(&names::select_workload(id, cluster.config.instance.as_deref()));
    cluster.delete_all::<Deployment>("removing a Deployment", namespace, &ours, |_| true).await?;
    futures::try_join!(
        cluster.delete_all::<Service>("removing a Service", namespace, &ours, |_| true),
        cluster.delete_all::<Secret>("removing Secrets", namespace, &ours, |_| true),
        cluster.delete_all::<Lease>("removing a Lease", namespace, &ours, |_| true),
    )?;
    Ok(())
}

/// Waits until the workload's pods are gone. Those that were told to end and take their time are left to it.
///
/// The watch tells when to look, and the API server whether they are gone: a watch may be behind.
async fn pods_gone(cluster: &Cluster, area: &Area, id: &WorkloadId) -> Result<Pods> {
    const OPERATION: &str = "ending the pods of a removed workload";
    let selected = ListParams::default().labels(&names::select_workload(id, cluster.config.instance.as_deref()));
    let end = Instant::now() + cluster.config.removal_wait;
    let mut pause = Duration::from_millis(100);
    loop {
        let look = (Instant::now() + LOOK).min(end);
        let mut changed = area.observer.changed();
        while !area.observer.pods(id).is_empty() {
            if !matches!(timeout_at(look, changed.changed()).await, Ok(Ok(()))) {
                break;
            }
        }
        let pods = cluster.list::<Pod>(OPERATION, &area.namespace, &selected).await?;
        if pods.is_empty() {
            return Ok(Pods::Gone);
        }
        if Instant::now() >= end {
            let told = pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some());
            return if told {
                Ok(Pods::Ending)
            } else {
                Err(Error::Timeout { operation: OPERATION, after: cluster.config.removal_wait })
            };
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests;
