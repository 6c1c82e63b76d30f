//! What the tests of the fake cluster have in common.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A Deployment with one container of this image.
pub(crate) fn deployment(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    })
}

/// Applies it as `tester`.
pub(crate) async fn apply(client: &Client, object: &Value) -> kube::Result<Deployment> {
    apply_as(client, object, &PatchParams::apply("tester")).await
}

pub(crate) async fn apply_as(client: &Client, object: &Value, params: &PatchParams) -> kube::Result<Deployment> {
    let name = object["metadata"]["name"].as_str().unwrap();
    Api::default_namespaced(client.clone()).patch(name, params, &Patch::Apply(object)).await
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a pod has this condition.
pub(crate) fn has(pod: &Pod, condition: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == condition && one.status == "True"))
}

/// Why the only container of a pod waits.
pub(crate) fn waits_for(pod: &Pod) -> Option<(String, String)> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    Some((waiting.reason.clone()?, waiting.message.clone().unwrap_or_default()))
}

/// The HTTP status and the text of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        other => panic!("it should be refused: {other:?}"),
    }
}
