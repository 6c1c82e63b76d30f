//! Asking the API server whether it would take a workload, without making one.

use crate::{
    cluster::{Cluster, Write},
    manifest, overrides, validate,
};
use archestra_core::{Error, Finding, Result, runtime::WorkloadSpec};
use serde_json::json;

/// What the API server refuses of the Deployment that a specification comes to. It is tried under a name that no workload has,
/// and only tried.
///
/// # Errors
/// The API server did not say.
pub(crate) async fn check(cluster: &Cluster, namespace: &str, spec: &WorkloadSpec) -> Result<Vec<Finding>> {
    let desired = match manifest::desired(&validate::sample(spec), &cluster.config, namespace) {
        Ok(desired) => desired,
        Err(Error::Invalid(findings)) => return Ok(findings),
        Err(error) => return Err(error),
    };
    match cluster.put("trying a Deployment", namespace, &desired.deployment, Write::DryRun).await {
        Ok(_) => Ok(Vec::new()),
        // That the namespace is missing is nobody's fault who writes an entry.
        Err(Error::Invalid(findings)) if findings.iter().any(|one| one.field == "namespace") => {
            Err(Error::Invalid(findings))
        }
        Err(Error::Invalid(findings)) => Ok(match &spec.deployment_yaml {
            Some(text) => overrides::placed(text, &json!(desired.deployment), findings),
            None => findings.into_iter().map(|one| one.under("selfHosted")).collect(),
        }),
        Err(error) => Err(error),
    }
}
