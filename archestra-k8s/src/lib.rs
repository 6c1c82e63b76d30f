//! The Kubernetes runtime of archestra: self-hosted MCP servers as Deployments.
//!
//! [`KubernetesRuntime`] implements [`Runtime`](archestra_core::runtime::Runtime): it turns a
//! [`Workload`](archestra_core::runtime::Workload) into a Deployment, a Service, Secrets and a NetworkPolicy, applies them with
//! server-side apply, observes them by watches, and reaches the servers in them.
//!
//! This crate enables no version of `k8s-openapi`; whoever links it does.

pub mod rbac;
#[cfg(feature = "testing")]
pub mod testing;

mod access;
mod apply;
mod areas;
mod check;
mod cluster;
mod compat;
mod config;
mod env_from;
mod error;
mod gc;
mod logs;
mod manifest;
mod names;
mod observe;
mod overrides;
mod peers;
mod platform;
mod policies;
mod pull_secrets;
mod reach;
mod remove;
mod replace;
mod requests;
mod restart;
mod runtime;
mod scheduling;
mod transport;
mod turns;
mod validate;

pub use access::{AccessError, Origin};
pub use config::{
    ClusterAccess, Egress, ImagePullPolicy, KubernetesConfig, NetworkConfig, OverridePolicy, OwnPod, ReachMode,
    Relaxation,
};
pub use manifest::preview;
pub use overrides::sync_overrides;
pub use peers::Peers;
pub use runtime::KubernetesRuntime;
pub use validate::findings;
