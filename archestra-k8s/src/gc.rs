//! Clears away what was left behind: failed and evicted pods, and objects whose Deployment is gone.
//!
//! Which workloads are wanted is not decided here; whoever owns the desired state removes those that are not.

use crate::{
    areas::{Area, Areas},
    cluster::{Cluster, Kind},
    names,
    turns::Turns,
};
use archestra_core::Result;
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{Pod, Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::{
    ResourceExt as _,
    api::{ListParams, ObjectMeta},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// The shortest time from one look to the next.
const SHORTEST: Duration = Duration::from_millis(10);

/// Collects at the start and from time to time, until told to stop.
pub(crate) async fn run(cluster: Cluster, areas: Arc<Areas>, turns: Arc<Turns>, stop: CancellationToken) {
    // An interval of nothing would be a panic, and the end of collecting.
    let mut tick = interval(cluster.config.gc_interval.max(SHORTEST));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        for area in areas.all() {
            tokio::select! {
                () = stop.cancelled() => return,
                collected = collect(&cluster, &area, &turns) => match collected {
                    Ok(0) => {}
                    Ok(count) => tracing::info!(namespace = area.namespace, count, "left-over objects were removed"),
                    Err(error) => tracing::warn!(
                        namespace = area.namespace, %error, "left-over objects could not be looked for; it is tried again later"
                    ),
                },
            }
        }
    }
}

/// Collects once, and says how much it was.
pub(crate) async fn collect(cluster: &Cluster, area: &Area, turns: &Turns) -> Result<usize> {
    area.observer.synced().await?;
    Ok(failed_pods(cluster, area).await?
        + orphans::<Service>(cluster, area, turns).await?
        + orphans::<NetworkPolicy>(cluster, area, turns).await?
        + orphans::<Secret>(cluster, area, turns).await?
        + orphans::<Lease>(cluster, area, turns).await?)
}

/// An evicted or failed pod has been replaced by its ReplicaSet, and stays until somebody deletes it.
async fn failed_pods(cluster: &Cluster, area: &Area) -> Result<usize> {
    const OPERATION: &str = "removing failed pods";
    let failed = ListParams::default()
        .labels(&names::select_ours(cluster.config.instance.as_deref()))
        .fields("status.phase=Failed");
    let mut count = 0;
    for pod in cluster.list::<Pod>(OPERATION, &area.namespace, &failed).await? {
        if pod.metadata.deletion_timestamp.is_none() && old_enough(cluster, &pod.metadata) {
            cluster.delete(OPERATION, &area.namespace, &pod).await?;
            count += 1;
        }
    }
    Ok(count)
}

async fn orphans<K: Kind>(cluster: &Cluster, area: &Area, turns: &Turns) -> Result<usize> {
    const OPERATION: &str = "removing objects of removed workloads";
    let ours = ListParams::default().labels(&names::select_ours(cluster.config.instance.as_deref()));
    let mut count = 0;
    for found in cluster.list::<K>(OPERATION, &area.namespace, &ours).await? {
        let Some(id) = names::workload_of(&found.metadata) else { continue };
        // What locks a pod in goes after it.
        let lives = area.observer.place(&id).is_some() || !area.observer.pods(&id).is_empty();
        if lives || !old_enough(cluster, &found.metadata) {
            continue;
        }
        // Nobody here applies it meanwhile, and what a watch has not told yet is asked for.
        let _turn = turns.take(&id).await;
        if cluster.find::<Deployment>(OPERATION, &area.namespace, &names::object(&id)).await?.is_none() {
            tracing::debug!(workload = %id, object = found.name_any(), "an object without a Deployment is removed");
            cluster.delete(OPERATION, &area.namespace, &found).await?;
            count += 1;
        }
    }
    Ok(count)
}

fn old_enough(cluster: &Cluster, meta: &ObjectMeta) -> bool {
    let age = meta.creation_timestamp.as_ref().map(|made| jiff::Timestamp::now().duration_since(made.0));
    age.is_some_and(|age| age.unsigned_abs() >= cluster.config.gc_age && age.is_positive())
}
