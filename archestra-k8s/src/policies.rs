//! Network settings that changed while the platform was down: at its start they reach what runs, and no pod is touched.

use crate::{
    areas::Area,
    cluster::{Cluster, Write},
    manifest::{self, intact},
    names,
    turns::Turns,
};
use archestra_core::{Result, runtime::WorkloadId};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The pause before a pass that failed is tried again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Puts the NetworkPolicies of a namespace that differ from what they would be now, once.
pub(crate) async fn renew(cluster: Cluster, area: Arc<Area>, turns: Arc<Turns>, stop: CancellationToken) {
    let renewing = async {
        let (mut pause, mut renewed) = (PAUSE.0, BTreeSet::new());
        while let Err(error) = pass(&cluster, &area, &turns, &mut renewed).await {
            tracing::debug!(namespace = area.namespace, %error, "network policies cannot be renewed yet");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
        if !renewed.is_empty() {
            let count = renewed.len();
            tracing::info!(namespace = area.namespace, count, "network policies follow the settings of today");
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = renewing => {}
    }
}

/// Puts those that are left, and says what went wrong first: one that is refused must not keep the others as they were.
async fn pass(cluster: &Cluster, area: &Area, turns: &Turns, renewed: &mut BTreeSet<WorkloadId>) -> Result<()> {
    let wanted = |deployment: &_| {
        let policy = manifest::network_policy(deployment, &cluster.config)?;
        intact::mark_of(&policy.metadata).cloned()
    };
    let mut outcome = Ok(());
    for deployment in area.observer.with_other_policy(wanted).await? {
        let Some(id) = names::workload_of(&deployment.metadata).filter(|id| !renewed.contains(id)) else { continue };
        let _turn = turns.take(&id).await;
        // It may have been applied otherwise meanwhile, or removed, and what locked it in would be left.
        let Some(place) = area.observer.place(&id) else { continue };
        let Some(policy) = manifest::network_policy(&place.deployment, &cluster.config) else { continue };
        match cluster.put("renewing a NetworkPolicy", &area.namespace, &policy, Write::ForGood).await {
            Ok(_) => drop(renewed.insert(id)),
            Err(error) => {
                tracing::warn!(workload = %id, %error, "its NetworkPolicy does not follow the settings of today yet");
                outcome = outcome.and(Err(error));
            }
        }
    }
    outcome
}
