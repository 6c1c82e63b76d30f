//! Replacing a pod template as a whole, where server-side apply cannot.
//!
//! An API server may keep an empty remainder of what an apply leaves out, such as a probe without a handler, and then refuse
//! the result. What was replaced belongs to another field manager, and is given back to server-side apply at the end.

use crate::{
    cluster::{Cluster, Write},
    error::within,
};
use archestra_core::Result;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Map, Value, json};

/// Who replaces, until what was replaced is given back.
const FIELD_MANAGER: &str = "archestra-replace";

/// Makes the template and the strategy of what is there exactly those that are desired.
pub(crate) async fn template(
    cluster: &Cluster,
    namespace: &str,
    observed: &Deployment,
    desired: &Deployment,
    write: Write,
) -> Result<()> {
    let (observed, wanted) = (json!(observed), json!(desired));
    let parts = ["template", "strategy"];
    let spec: Map<String, Value> = parts
        .into_iter()
        .map(|part| (part.to_owned(), difference(&observed["spec"][part], &wanted["spec"][part])))
        .collect();
    let patch = Patch::Merge(json!({"spec": spec}));
    let params = PatchParams {
        dry_run: write == Write::DryRun,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let (deployments, name) = (cluster.api::<Deployment>(namespace), desired.name_any());
    let patched = deployments.patch(&name, &params, &patch);
    within(cluster.config.call_timeout, "replacing the template of a Deployment", patched).await.map(drop)
}

/// Whether a replacement was begun and has not been given back.
pub(crate) fn is_unfinished(deployment: &Deployment) -> bool {
    let managers = deployment.metadata.managed_fields.as_deref().unwrap_or_default();
    managers.iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

/// Leaves to server-side apply alone what it shares with a replacement. Without one there is nothing to do.
pub(crate) async fn give_back(cluster: &Cluster, namespace: &str, deployment: Deployment) -> Result<Deployment> {
    if !is_unfinished(&deployment) {
        return Ok(deployment);
    }
    let managers = deployment.metadata.managed_fields.as_deref().unwrap_or_default();
    let kept: Vec<_> = managers.iter().filter(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER)).collect();
    let version = deployment.resource_version();
    let patch = Patch::Merge(json!({"metadata": {"managedFields": kept, "resourceVersion": version}}));
    let (deployments, name) = (cluster.api::<Deployment>(namespace), deployment.name_any());
    let params = PatchParams::default();
    let patched = deployments.patch(&name, &params, &patch);
    within(cluster.config.call_timeout, "giving fields of a Deployment back", patched).await
}

/// The merge patch that makes one value of the other: what is there and not wanted is null, and lists are whole.
fn difference(there: &Value, wanted: &Value) -> Value {
    let (Value::Object(there), Value::Object(wanted)) = (there, wanted) else { return wanted.clone() };
    let gone = there.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let kept = wanted
        .iter()
        .map(|(key, value)| (key.clone(), there.get(key).map_or_else(|| value.clone(), |old| difference(old, value))));
    Value::Object(gone.chain(kept).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_wanted_is_null_and_lists_are_whole() {
        let there = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1, 2], "f": {"g": 1}});
        let wanted = json!({"b": {"c": 5}, "e": [3], "f": "text", "h": {"i": 1}});
        let expected = json!({"a": null, "b": {"c": 5, "d": null}, "e": [3], "f": "text", "h": {"i": 1}});
        assert_eq!(difference(&there, &wanted), expected);
    }
}
