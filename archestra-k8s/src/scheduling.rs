//! What workloads inherit from the pod that the platform runs in: its node selector and tolerations.

use crate::{config::OwnPod, error::within_opt};
use archestra_core::{
    Error,
    runtime::scheduling::{Scheduling, Toleration},
};
use k8s_openapi::api::core::v1::{Pod, Toleration as PodToleration};
use kube::{Api, Client};
use std::time::Duration;

/// What Kubernetes adds to every pod by itself, which says nothing about where the platform was put.
const ADDED: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The scheduling of our own pod; nothing where there is no such pod. Only a missing permission is worth a word.
pub(crate) async fn inherited(client: &Client, own: Option<&OwnPod>, limit: Duration) -> Scheduling {
    let Some(own) = own else { return Scheduling::default() };
    let namespace = own.namespace.as_deref().unwrap_or(client.default_namespace());
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    match within_opt(limit, "reading the own pod", pods.get(&own.name)).await {
        Ok(Some(pod)) => of_pod(&pod),
        Ok(None) => Scheduling::default(),
        Err(Error::PermissionDenied { reason, .. }) => {
            tracing::warn!(
                pod = own.name,
                namespace,
                reason,
                "the scheduling of the own pod cannot be read and is not inherited; bind the Role in deploy/rbac/own-pod.yaml"
            );
            Scheduling::default()
        }
        Err(error) => {
            tracing::debug!(pod = own.name, namespace, %error, "the own pod cannot be read; no scheduling is inherited");
            Scheduling::default()
        }
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
