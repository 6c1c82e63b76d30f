//! Scheduling defaults of the platform's own pod, and how they merge with what a workload says: the workload wins.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A Kubernetes toleration, by its own field names.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// The taint's key; absent with `Exists`: every taint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Exists` or `Equal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The taint's value, for `Equal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// How long `NoExecute` is borne.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// Where pods may be scheduled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scheduling {
    /// Labels that a node must have. `None`: nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that are borne. `None`: nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
}

/// What a workload is scheduled by: for each of the two fields its own word, also an empty one, else the platform's.
///
/// Within `nodeSelector` the keys of both are joined and the workload's value wins; a workload that says `{}` wants none.
#[must_use]
pub fn merge(platform: &Scheduling, workload: &Scheduling) -> Scheduling {
    let node_selector = match (&platform.node_selector, &workload.node_selector) {
        (_, Some(own)) if own.is_empty() => Some(BTreeMap::new()),
        (Some(inherited), Some(own)) => {
            let mut merged = inherited.clone();
            merged.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
            Some(merged)
        }
        (inherited, own) => own.clone().or_else(|| inherited.clone()),
    };
    let tolerations = workload.tolerations.clone().or_else(|| platform.tolerations.clone());
    Scheduling { node_selector, tolerations }
}

#[cfg(test)]
mod tests;
