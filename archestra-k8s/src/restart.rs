//! Restarts a workload the way Kubernetes does: by a mark on the pod template, which its Deployment rolls out.

use crate::{cluster::Cluster, error::within, names};
use archestra_core::{Result, runtime::WorkloadId};
use chrono::{SecondsFormat, Utc};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// Another manager than that of server-side apply, which therefore leaves the mark alone.
const FIELD_MANAGER: &str = "archestra-restart";

/// Marks the pod template, and returns the Deployment as it is then.
pub(crate) async fn restart(cluster: &Cluster, namespace: &str, id: &WorkloadId) -> Result<Deployment> {
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let mark = Patch::Merge(json!({"spec": {"template": {"metadata": {"annotations": {names::RESTARTED_AT: now}}}}}));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let deployments = cluster.api::<Deployment>(namespace);
    let name = names::object(id);
    let marked = deployments.patch(&name, &params, &mark);
    within(cluster.config.call_timeout, "restarting a Deployment", marked).await
}
