//! Removes everything that was made for a workload.

use crate::{cluster::Cluster, names};
use archestra_core::{Error, Result, runtime::WorkloadId};
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{Pod, Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::api::ListParams;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Deletes all objects of the workload in this namespace, by its label. What is gone already is fine.
pub(crate) async fn objects(cluster: &Cluster, namespace: &str, id: &WorkloadId) -> Result<()> {
    let ours = ListParams::default().labels(&names::select_workload(id));
    cluster.delete_all::<Deployment>("removing a Deployment", namespace, &ours, |_| true).await?;
    futures::try_join!(
        cluster.delete_all::<Service>("removing a Service", namespace, &ours, |_| true),
        cluster.delete_all::<NetworkPolicy>("removing a NetworkPolicy", namespace, &ours, |_| true),
        cluster.delete_all::<Secret>("removing Secrets", namespace, &ours, |_| true),
        cluster.delete_all::<Lease>("removing a Lease", namespace, &ours, |_| true),
    )?;
    Ok(())
}

/// Waits until the workload's pods are gone. Those that were told to end and take their time are left to it.
pub(crate) async fn pods_gone(cluster: &Cluster, namespace: &str, id: &WorkloadId) -> Result<()> {
    const OPERATION: &str = "ending the pods of a removed workload";
    let selected = ListParams::default().labels(&names::select_workload(id));
    let end = Instant::now() + cluster.config.removal_wait;
    let mut pause = Duration::from_millis(100);
    loop {
        let pods = cluster.list::<Pod>(OPERATION, namespace, &selected).await?;
        if pods.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            let told = pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some());
            return if told {
                Ok(())
            } else {
                Err(Error::Timeout { operation: OPERATION, after: cluster.config.removal_wait })
            };
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
