//! Names of what we make in a cluster: label and annotation keys, object names, ports and mount paths.

use archestra_core::{id::TeamId, runtime::WorkloadId};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Who we are to server-side apply.
pub(crate) const FIELD_MANAGER: &str = "archestra";

/// The label that says an object is ours, with the value [`MANAGED_BY`].
pub(crate) const MANAGED_BY_KEY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_KEY`].
pub(crate) const MANAGED_BY: &str = "archestra";
/// The label that names the workload.
pub(crate) const WORKLOAD: &str = "archestra.dev/workload";
/// The label that names the platform, for those that have a name.
pub(crate) const INSTANCE: &str = "archestra.dev/instance";
/// The label that names the team.
pub(crate) const TEAM: &str = "archestra.dev/team";
/// The label, with the value [`YES`], of image pull secrets that may be chosen for workloads.
pub(crate) const PULL_SECRET: &str = "archestra.dev/pull-secret";
/// The label, with the value [`YES`], of Secrets and ConfigMaps that variables of workloads may come from.
pub(crate) const ENV_FROM: &str = "archestra.dev/env-from";
/// The value of labels and annotations that are there or not.
pub(crate) const YES: &str = "true";

/// The annotation of a Deployment with the number of its revision.
pub(crate) const REVISION: &str = "archestra.dev/revision";
/// The annotation of a Deployment with the digest of what decides whether there is anything to roll.
pub(crate) const TEMPLATE_HASH: &str = "archestra.dev/template-hash";
/// The annotation of a Deployment with how its server is talked to, a [`Wiring`].
pub(crate) const TRANSPORT: &str = "archestra.dev/transport";
/// The annotation of a Deployment with the path of a streamable-http endpoint.
pub(crate) const PATH: &str = "archestra.dev/path";
/// The annotation of a Deployment whose process one session at a time has.
pub(crate) const EXCLUSIVE: &str = "archestra.dev/exclusive";
/// The annotation of a Deployment with the readable name of its workload.
pub(crate) const NAME: &str = "archestra.dev/name";
/// The annotation of a Deployment with the digest of everything that is applied with it.
pub(crate) const OBJECTS_HASH: &str = "archestra.dev/objects-hash";
/// The annotation of everything that is applied with what tells whether it still is as it was applied.
pub(crate) const APPLIED: &str = "archestra.dev/applied";
/// The annotation of a pod template with the digest of the secret values that its containers read.
pub(crate) const SECRETS_HASH: &str = "archestra.dev/secrets-hash";
/// The annotation of a pod template with when somebody asked for a restart.
pub(crate) const RESTARTED_AT: &str = "archestra.dev/restarted-at";

/// The annotation of a Lease with the address where its holder listens for other replicas.
pub(crate) const PEER: &str = "archestra.dev/peer";

/// What all our label and annotation keys begin with.
pub(crate) const OWN_PREFIX: &str = "archestra.dev/";

/// The container that runs the server.
pub(crate) const CONTAINER: &str = "mcp-server";
/// The init container that brings the bridge.
pub(crate) const BRIDGE_CONTAINER: &str = "archestra-bridge";

/// The name of the port where the server, or the bridge before it, is reached.
pub(crate) const MCP_PORT: &str = "mcp";
/// The name of the port where the bridge says whether its server answers.
pub(crate) const HEALTH_PORT: &str = "health";
/// Where the bridge listens.
pub(crate) const BRIDGE_PORT: u16 = 7420;
/// Where the bridge says whether its server answers.
pub(crate) const BRIDGE_HEALTH_PORT: u16 = 7421;
/// Where a streamable-http server listens that does not say.
pub(crate) const HTTP_PORT: u16 = 8080;

/// The key of the bridge's token in its Secret, and the name of its file.
pub(crate) const TOKEN_KEY: &str = "token";
/// Where the directory with the bridge is mounted.
pub(crate) const BRIDGE_DIRECTORY: &str = "/archestra";
/// Where the directory with the bridge's token is mounted.
pub(crate) const TOKEN_DIRECTORY: &str = "/archestra-token";
/// The bridge, in its image and in [`BRIDGE_DIRECTORY`].
pub(crate) const BRIDGE_FILE: &str = "archestra-bridge";
/// Where mounted secrets are.
pub(crate) const SECRETS_DIRECTORY: &str = "/secrets";
/// The home directory of the server.
pub(crate) const HOME_DIRECTORY: &str = "/home/mcp";

/// The volume of [`BRIDGE_DIRECTORY`].
pub(crate) const BRIDGE_VOLUME: &str = "archestra-bridge";
/// The volume of [`TOKEN_DIRECTORY`].
pub(crate) const TOKEN_VOLUME: &str = "archestra-token";
/// The volume of [`SECRETS_DIRECTORY`].
pub(crate) const SECRETS_VOLUME: &str = "archestra-secrets";
/// The volume of [`HOME_DIRECTORY`].
pub(crate) const HOME_VOLUME: &str = "archestra-home";

/// All volumes of ours.
pub(crate) const VOLUMES: [&str; 4] = [BRIDGE_VOLUME, TOKEN_VOLUME, SECRETS_VOLUME, HOME_VOLUME];

/// How a workload's server is wired to us, the value of [`TRANSPORT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// It speaks stdio, and the bridge serves it on a port.
    Bridge,
    /// It speaks stdio, and is attached to.
    Attach,
    /// It speaks HTTP.
    Http,
}

impl Wiring {
    /// The word of the annotation.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Attach => "attach",
            Self::Http => "http",
        }
    }

    /// What the annotation of this object says.
    pub(crate) fn of(meta: &ObjectMeta) -> Option<Self> {
        let word = meta.annotations.as_ref()?.get(TRANSPORT)?;
        [Self::Bridge, Self::Attach, Self::Http].into_iter().find(|wiring| wiring.label() == word)
    }
}

/// The Deployment, the Service, the Secret with the values and the NetworkPolicy of a workload.
pub(crate) fn object(id: &WorkloadId) -> String {
    id.as_str().to_owned()
}

/// The Secret with the token of a workload's bridge.
pub(crate) fn bridge_secret(id: &WorkloadId) -> String {
    format!("{id}-bridge")
}

/// The pull secret made from the credentials at this place in the workload's list.
pub(crate) fn pull_secret(id: &WorkloadId, n: usize) -> String {
    format!("{id}-pull-{n}")
}

/// Whether an object of this name may belong to a workload.
pub(crate) fn is_of_workload(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("mcp-") else { return false };
    let id = rest.strip_prefix("shared-").unwrap_or(rest);
    id.get(..32).is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
}

/// The labels of everything that belongs to a workload of this platform.
pub(crate) fn labels(id: &WorkloadId, team: Option<&TeamId>, instance: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = selector(id);
    labels.insert(MANAGED_BY_KEY.to_owned(), MANAGED_BY.to_owned());
    if let Some(instance) = instance {
        labels.insert(INSTANCE.to_owned(), instance.to_owned());
    }
    if let Some(team) = team {
        labels.insert(TEAM.to_owned(), team.to_string());
    }
    labels
}

/// The label by which a Deployment, a Service and a NetworkPolicy find their pods. It never changes.
pub(crate) fn selector(id: &WorkloadId) -> BTreeMap<String, String> {
    BTreeMap::from([(WORKLOAD.to_owned(), id.to_string())])
}

/// The label selector that finds everything of one workload of this platform.
pub(crate) fn select_workload(id: &WorkloadId, instance: Option<&str>) -> String {
    select(&format!("{WORKLOAD}={id}"), instance)
}

/// The label selector that finds everything of all workloads of this platform.
pub(crate) fn select_ours(instance: Option<&str>) -> String {
    select(WORKLOAD, instance)
}

fn select(workload: &str, instance: Option<&str>) -> String {
    let instance = instance.map(|instance| format!(",{INSTANCE}={instance}"));
    format!("{MANAGED_BY_KEY}={MANAGED_BY},{workload}{}", instance.unwrap_or_default())
}

/// Whether an object that Archestra made was made by this platform. Without a name of its own a platform takes all for its own.
pub(crate) fn is_of_instance(meta: &ObjectMeta, instance: Option<&str>) -> bool {
    instance.is_none() || instance_of(meta) == instance
}

/// The platform that made an object, if it has a name.
pub(crate) fn instance_of(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(INSTANCE).map(String::as_str)
}

/// Whether the Deployment's process is for one session at a time.
pub(crate) fn is_exclusive(meta: &ObjectMeta) -> bool {
    let annotations = meta.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.get(EXCLUSIVE).is_some_and(|value| value == YES))
}

/// Which workload's object this is, of whichever platform; nothing for what Archestra did not make.
pub(crate) fn workload_of(meta: &ObjectMeta) -> Option<WorkloadId> {
    let labels = meta.labels.as_ref()?;
    if labels.get(MANAGED_BY_KEY).is_none_or(|value| value != MANAGED_BY) {
        return None;
    }
    labels.get(WORKLOAD)?.parse().ok()
}

#[cfg(test)]
mod tests;
