//! What workloads inherit from the pod that the platform runs in: its node selector and tolerations.

use crate::{config::KubernetesConfig, error::within_opt};
use archestra_core::{
    Error, Result,
    runtime::scheduling::{Scheduling, Toleration},
};
use k8s_openapi::api::core::v1::{Pod, Toleration as PodToleration};
use kube::{Api, Client};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What Kubernetes adds to every pod by itself, which says nothing about where the platform was put.
const ADDED: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The pause before the own pod is read again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The scheduling of our own pod; nothing where there is no such pod.
///
/// # Errors
/// It is not known.
pub(crate) async fn inherited(client: &Client, config: &KubernetesConfig) -> Result<Scheduling> {
    let Some(own) = &config.own_pod else { return Ok(Scheduling::default()) };
    let namespace = own.namespace.as_deref().unwrap_or(client.default_namespace());
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let found = within_opt(config.call_timeout, "reading the own pod", pods.get(&own.name)).await?;
    Ok(found.as_ref().map(of_pod).unwrap_or_default())
}

/// Tries again until it is known, after a first time that failed. What is inherited then must not depend on whether the API
/// server was there when we started.
pub(crate) async fn find_out(
    client: Client,
    config: Arc<KubernetesConfig>,
    mut failed: Error,
    known: Arc<OnceLock<Scheduling>>,
    stop: CancellationToken,
) {
    let mut pause = PAUSE.0;
    say(&failed);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE.1);
        match inherited(&client, &config).await {
            // Nobody else sets it.
            Ok(scheduling) => return drop(known.set(scheduling)),
            Err(error) if error.kind() != failed.kind() => {
                say(&error);
                failed = error;
            }
            Err(_) => {}
        }
    }
}

/// Only a missing permission is worth a word.
fn say(error: &Error) {
    if let Error::PermissionDenied { reason, .. } = error {
        tracing::warn!(
            reason,
            "the scheduling of the own pod cannot be read and is not inherited; bind the Role in deploy/rbac/own-pod.yaml"
        );
    } else {
        tracing::debug!(%error, "the own pod cannot be read yet");
    }
}

fn of_pod(pod: &Pod) -> Scheduling {
    let Some(spec) = &pod.spec else { return Scheduling::default() };
    let tolerations: Vec<_> = spec.tolerations.iter().flatten().filter(|one| !is_added(one)).map(toleration).collect();
    Scheduling {
        node_selector: spec.node_selector.clone().filter(|selector| !selector.is_empty()),
        tolerations: Some(tolerations).filter(|tolerations| !tolerations.is_empty()),
    }
}

fn is_added(toleration: &PodToleration) -> bool {
    toleration.toleration_seconds == Some(300)
        && toleration.key.as_deref().is_some_and(|key| ADDED.contains(&key))
        && toleration.value.is_none()
}

fn toleration(toleration: &PodToleration) -> Toleration {
    Toleration {
        key: toleration.key.clone(),
        operator: toleration.operator.clone(),
        value: toleration.value.clone(),
        effect: toleration.effect.clone(),
        toleration_seconds: toleration.toleration_seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_kubernetes_adds_is_not_inherited() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [], "nodeSelector": {"pool": "mcp"},
            "tolerations": [
                {"key": "dedicated", "operator": "Equal", "value": "mcp", "effect": "NoSchedule"},
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10},
            ]}}))
        .unwrap();
        let scheduling = of_pod(&pod);
        assert_eq!(scheduling.node_selector.unwrap()["pool"], "mcp");
        let kept: Vec<_> = scheduling.tolerations.unwrap().into_iter().map(|one| one.key.unwrap()).collect();
        assert_eq!(kept, ["dedicated", "node.kubernetes.io/unreachable"]);
        assert_eq!(of_pod(&Pod::default()), Scheduling::default());
    }
}
