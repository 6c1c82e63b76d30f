//! The Roles that the platform needs, as manifests.

/// What the platform needs in each namespace that it puts workloads into: a `Role` named `archestra-workloads`.
pub const WORKLOADS_ROLE: &str = include_str!("../deploy/rbac/workloads.yaml");

/// What the platform needs to read the scheduling of its own pod: a `Role` named `archestra-own-pod`.
pub const OWN_POD_ROLE: &str = include_str!("../deploy/rbac/own-pod.yaml");
