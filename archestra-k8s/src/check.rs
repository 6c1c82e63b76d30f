//! Asking the API server whether it would take a workload, without making one.

use crate::{
    cluster::{Cluster, Write},
    manifest, overrides, validate,
};
use archestra_core::{Error, Finding, Result, runtime::WorkloadSpec};
use serde_json::json;

/// Fields of findings that no field of the Deployment is behind.
const UNPLACED: [&str; 2] = ["namespace", "workload"];

/// What the API server refuses of the Deployment that a specification comes to. It is tried under a name that no workload has,
/// and only tried.
///
/// # Errors
/// The API server did not say, or said no to more than the Deployment itself.
pub(crate) async fn check(cluster: &Cluster, namespace: &str, spec: &WorkloadSpec) -> Result<Vec<Finding>> {
    let desired = match manifest::desired(&validate::sample(spec), &cluster.config, namespace) {
        Ok(desired) => desired,
        Err(Error::Invalid(findings)) => return Ok(findings),
        Err(error) => return Err(error),
    };
    match cluster.put("trying a Deployment", namespace, &desired.deployment, Write::DryRun).await {
        Ok(_) => Ok(Vec::new()),
        // That the namespace is missing or ends, that a quota is used up, or what a rule of the cluster refuses without naming a
        // field: nobody can tell whether that is about what was written, and it may be over when it is applied.
        Err(Error::Invalid(findings)) if findings.iter().any(|one| UNPLACED.contains(&one.field.as_str())) => {
            Err(Error::Invalid(findings))
        }
        Err(Error::Invalid(findings)) => Ok(match &spec.deployment_yaml {
            Some(text) => overrides::placed(text, &json!(desired.deployment), findings),
            None => findings.into_iter().map(|one| one.under("selfHosted")).collect(),
        }),
        Err(error) => Err(error),
    }
}
