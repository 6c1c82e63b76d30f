//! The kinds that the cluster knows: where they are, and what their objects must look like.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event, Namespace, Node, Pod, ResourceQuota, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    rbac::v1::{Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::fmt;

/// One kind of the API.
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) name: &'static str,
    pub(super) namespaced: bool,
    /// Whether `status` is written through its own subresource.
    pub(super) has_status: bool,
    /// Whether changes of the specification are counted.
    pub(super) has_generation: bool,
    round_trip: fn(&Value) -> Result<Value, serde_json::Error>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.name).finish()
    }
}

fn round_trip<K: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(K::deserialize(value)?)
}

const fn kind<K: Serialize + DeserializeOwned>(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    name: &'static str,
) -> Kind {
    Kind {
        group,
        version,
        plural,
        name,
        namespaced: true,
        has_status: false,
        has_generation: false,
        round_trip: round_trip::<K>,
    }
}

impl Kind {
    const fn with_status(self) -> Self {
        Self { has_status: true, ..self }
    }

    const fn with_generation(self) -> Self {
        Self { has_generation: true, ..self }
    }

    const fn of_cluster(self) -> Self {
        Self { namespaced: false, ..self }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, as the API server names a resource in its messages.
    pub(super) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// What is wrong with the types in an object, if anything.
    pub(super) fn misfit(&self, object: &Value) -> Option<String> {
        (self.round_trip)(object).err().map(|error| error.to_string())
    }

    /// The fields of an object that its kind does not have.
    pub(super) fn unknown_fields(&self, object: &Value) -> Vec<String> {
        let Ok(known) = (self.round_trip)(object) else { return Vec::new() };
        let mut unknown = Vec::new();
        compare(object, &known, "", &mut unknown);
        unknown
    }
}

/// Notes what is in `given` and lost in `known`. Empty values and nulls are no loss.
fn compare(given: &Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(known) => compare(value, known, &path, unknown),
                    None if is_empty(value) => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (n, (given, known)) in given.iter().zip(known).enumerate() {
                compare(given, known, &format!("{path}[{n}]"), unknown);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Every kind.
pub(super) static KINDS: &[Kind] = &[
    kind::<Pod>("", "v1", "pods", "Pod").with_status(),
    kind::<Service>("", "v1", "services", "Service").with_status(),
    kind::<Secret>("", "v1", "secrets", "Secret"),
    kind::<ConfigMap>("", "v1", "configmaps", "ConfigMap"),
    kind::<Event>("", "v1", "events", "Event"),
    kind::<ServiceAccount>("", "v1", "serviceaccounts", "ServiceAccount"),
    kind::<ResourceQuota>("", "v1", "resourcequotas", "ResourceQuota").with_status(),
    kind::<Namespace>("", "v1", "namespaces", "Namespace").with_status().of_cluster(),
    kind::<Node>("", "v1", "nodes", "Node").with_status().of_cluster(),
    kind::<Deployment>("apps", "v1", "deployments", "Deployment").with_status().with_generation(),
    kind::<ReplicaSet>("apps", "v1", "replicasets", "ReplicaSet").with_status().with_generation(),
    kind::<NetworkPolicy>("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy").with_generation(),
    kind::<Lease>("coordination.k8s.io", "v1", "leases", "Lease"),
    kind::<Role>("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    kind::<RoleBinding>("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
];

/// The kind that is at this place of the API.
pub(super) fn at(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The kind of this name.
pub(super) fn named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}
