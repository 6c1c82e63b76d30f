//! Where the types of Kubernetes 1.37 differ from those of the versions before it.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec};

k8s_openapi::k8s_if_le_1_36! {
    /// The specification of a Deployment; every one that a server sends has one.
    pub(crate) fn deployment_spec(deployment: &Deployment) -> Option<&DeploymentSpec> {
        deployment.spec.as_ref()
    }

    /// What the condition is about.
    pub(crate) fn condition_type(condition: &DeploymentCondition) -> &str {
        &condition.type_
    }

    /// `True`, `False` or `Unknown`.
    pub(crate) fn condition_status(condition: &DeploymentCondition) -> &str {
        &condition.status
    }
}

k8s_openapi::k8s_if_ge_1_37! {
    /// The specification of a Deployment; every one that a server sends has one.
    pub(crate) fn deployment_spec(deployment: &Deployment) -> Option<&DeploymentSpec> {
        Some(&deployment.spec)
    }

    /// What the condition is about.
    pub(crate) fn condition_type(condition: &DeploymentCondition) -> &str {
        condition.type_.as_deref().unwrap_or_default()
    }

    /// `True`, `False` or `Unknown`.
    pub(crate) fn condition_status(condition: &DeploymentCondition) -> &str {
        condition.status.as_deref().unwrap_or_default()
    }
}
