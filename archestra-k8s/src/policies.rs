//! Network settings that changed while the platform was down: at its start they reach what runs, and no pod is touched.

use crate::{
    areas::Area,
    cluster::{Cluster, Write},
    manifest::{self, intact},
    names,
    turns::Turns,
};
use archestra_core::Result;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The pause before a pass that failed is tried again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Puts the NetworkPolicies of a namespace that differ from what they would be now, once.
pub(crate) async fn renew(cluster: Cluster, area: Arc<Area>, turns: Arc<Turns>, stop: CancellationToken) {
    let renewing = async {
        let mut pause = PAUSE.0;
        loop {
            match pass(&cluster, &area, &turns).await {
                Ok(0) => return,
                Ok(count) => {
                    tracing::info!(namespace = area.namespace, count, "network policies follow the settings of today");
                    return;
                }
                Err(error) => {
                    tracing::debug!(namespace = area.namespace, %error, "network policies cannot be renewed yet");
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = renewing => {}
    }
}

async fn pass(cluster: &Cluster, area: &Area, turns: &Turns) -> Result<usize> {
    let wanted = |deployment: &_| {
        let policy = manifest::network_policy(deployment, &cluster.config)?;
        intact::mark_of(&policy.metadata).cloned()
    };
    let mut count = 0;
    for deployment in area.observer.with_other_policy(wanted).await? {
        let Some(id) = names::workload_of(&deployment.metadata) else { continue };
        let Some(policy) = manifest::network_policy(&deployment, &cluster.config) else { continue };
        let _turn = turns.take(&id).await;
        // It may have been removed, and what locked it in would be left.
        if area.observer.has(&id) {
            cluster.put("renewing a NetworkPolicy", &area.namespace, &policy, Write::ForGood).await?;
            count += 1;
        }
    }
    Ok(count)
}
