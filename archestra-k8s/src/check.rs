//! Asking the API server whether it would take a workload, without making one.

use crate::{
    cluster::{Cluster, Write},
    error::{self, NAMESPACE},
    manifest, overrides, validate,
};
use archestra_core::{Error, Finding, Result, runtime::WorkloadSpec};
use serde_json::json;

/// What the API server refuses of the Deployment that a specification comes to. It is tried under a name that no workload has,
/// and only tried.
///
/// # Errors
/// `Invalid` with what the API server refuses it for that it does not say itself; anything else: the API server did not say.
pub(crate) async fn check(cluster: &Cluster, namespace: &str, spec: &WorkloadSpec) -> Result<Vec<Finding>> {
    let desired = match manifest::desired(&validate::sample(spec), &cluster.config, namespace) {
        Ok(desired) => desired,
        Err(Error::Invalid(findings)) => return Ok(findings),
        Err(error) => return Err(error),
    };
    match cluster.put("trying a Deployment", namespace, &desired.deployment, Write::DryRun).await {
        Ok(_) => Ok(Vec::new()),
        // That the namespace is missing or ends, that a quota is used up: that is not about what was written, and it may be over
        // when it is applied.
        Err(Error::Invalid(findings)) if findings.iter().any(|one| one.field == NAMESPACE) => {
            Err(Error::Invalid(findings))
        }
        Err(Error::Invalid(findings)) => Ok(match &spec.deployment_yaml {
            Some(text) => overrides::placed(text, &json!(desired.deployment), findings),
            None => findings.into_iter().map(|one| one.under("selfHosted")).collect(),
        }),
        Err(error) => Err(match error::unjudged(&error) {
            Some(said) => {
                tracing::warn!(%error, "a webhook that is to judge a workload could not be called");
                let remedy = "nothing is taken until the webhook answers; ask whoever runs the cluster";
                Error::invalid("cluster", said, remedy)
            }
            None => error,
        }),
    }
}
