//! Whether an object still is as it was applied: told from the object itself, by a mark that was applied with it.
//!
//! A Service and a NetworkPolicy bear the digest of what was said of them. Whoever changes a field that was applied becomes its
//! owner: a Deployment bears the digest of the fields that are ours, and a Secret, of which only the metadata is looked at, the
//! number of values. What others have added and we say nothing about is theirs.

use super::digest;
use crate::{
    compat,
    names::{APPLIED, FIELD_MANAGER},
};
use k8s_openapi::{
    Metadata,
    api::{
        apps::v1::Deployment,
        core::v1::{Secret, Service},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
};
use serde_json::{Value, json};

/// How server-side apply is called where fields have owners.
const APPLY: &str = "Apply";

/// What can tell whether it is as it was applied.
pub(crate) trait Marked: Metadata<Ty = ObjectMeta> {
    /// What is to be found in the mark; nothing where that cannot be told.
    fn found(&self) -> Option<String>;

    /// What is to be put into the mark before it is applied.
    fn wanted(&self) -> Option<String> {
        self.found()
    }
}

/// Puts the mark on an object that is to be applied.
pub(crate) fn mark(object: &mut impl Marked) {
    if let Some(mark) = object.wanted() {
        object.metadata_mut().annotations.get_or_insert_default().insert(APPLIED.to_owned(), mark);
    }
}

/// Whether an object is as it was applied. One without a mark, which an earlier version has made, is taken to be.
pub(crate) fn is_intact(object: &impl Marked) -> bool {
    fits(object.metadata(), object.found())
}

/// Whether the Secret with this metadata has the values that were applied.
pub(crate) fn is_intact_secret(meta: &ObjectMeta) -> bool {
    fits(meta, owned_values(meta).map(|count| count.to_string()))
}

/// The mark that it bears.
pub(crate) fn mark_of(meta: &ObjectMeta) -> Option<&String> {
    meta.annotations.as_ref()?.get(APPLIED)
}

fn fits(meta: &ObjectMeta, found: Option<String>) -> bool {
    mark_of(meta).is_none_or(|mark| found.is_none_or(|found| *mark == found))
}

/// Whether a Deployment bears a mark, and it is the right one.
pub(crate) fn is_surely_intact(deployment: &Deployment) -> bool {
    mark_of(&deployment.metadata).is_some_and(|mark| deployment.found().is_some_and(|found| *mark == found))
}

/// The Deployment without what is not asked of it: who else owns which of its fields.
pub(crate) fn without_others(deployment: &mut Deployment) {
    if let Some(managers) = &mut deployment.metadata.managed_fields {
        managers.retain(is_ours);
    }
}

impl Marked for Deployment {
    fn found(&self) -> Option<String> {
        let fields = &ours(&self.metadata)?.fields_v1.as_ref()?.0["f:spec"];
        // Older API servers do not tell who has scaled it.
        let replicas = fields.get("f:replicas").map(|_| compat::deployment_spec(self).and_then(|spec| spec.replicas));
        Some(digest::of_json(&json!([fields, replicas])))
    }
}

impl Marked for Service {
    fn found(&self) -> Option<String> {
        let spec = self.spec.as_ref()?;
        let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
            json!([port.name, port.port, port.protocol, port.target_port])
        };
        let ports: Vec<_> = spec.ports.iter().flatten().map(port).collect();
        Some(digest::of_json(&json!([spec.type_, spec.selector, ports])))
    }
}

impl Marked for NetworkPolicy {
    fn found(&self) -> Option<String> {
        let mut spec = serde_json::to_value(&self.spec).ok()?;
        without_empty(&mut spec);
        Some(digest::of_json(&spec))
    }
}

impl Marked for Secret {
    fn found(&self) -> Option<String> {
        owned_values(&self.metadata).map(|count| count.to_string())
    }

    fn wanted(&self) -> Option<String> {
        Some(self.data.as_ref().map_or(0, std::collections::BTreeMap::len).to_string())
    }
}

/// How many values of a Secret are ours by server-side apply; nothing where it is not told who owns what.
fn owned_values(meta: &ObjectMeta) -> Option<usize> {
    meta.managed_fields.as_ref()?;
    let fields = ours(meta).and_then(|ours| ours.fields_v1.as_ref());
    let data = fields.and_then(|fields| fields.0["f:data"].as_object());
    Some(data.map_or(0, |data| data.keys().filter(|key| key.starts_with("f:")).count()))
}

/// What is ours of an object by server-side apply.
fn ours(meta: &ObjectMeta) -> Option<&ManagedFieldsEntry> {
    meta.managed_fields.iter().flatten().find(|manager| is_ours(manager))
}

fn is_ours(manager: &ManagedFieldsEntry) -> bool {
    manager.manager.as_deref() == Some(FIELD_MANAGER) && manager.operation.as_deref() == Some(APPLY)
}

/// An API server may or may not send back what was empty.
fn without_empty(value: &mut Value) {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(without_empty);
            members.retain(|_, member| !is_empty(member));
        }
        Value::Array(items) => items.iter_mut().for_each(without_empty),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(ingress: &Value) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"], "ingress": ingress,
        }}))
        .unwrap()
    }

    #[test]
    fn a_changed_policy_is_seen_and_an_empty_list_is_none() {
        let mut there = policy(&json!([]));
        mark(&mut there);
        assert!(is_intact(&there));
        let mut answered = there.clone();
        answered.spec.as_mut().unwrap().ingress = None;
        assert!(is_intact(&answered));
        there.spec = policy(&json!([{}])).spec;
        assert!(!is_intact(&there), "everybody is let in");
        assert!(is_intact(&policy(&json!([{}]))), "what has no mark cannot be told");
    }

    #[test]
    fn a_service_that_leads_elsewhere_is_seen_and_what_others_add_is_not() {
        let mut service: Service = serde_json::from_value(json!({"spec": {
            "type": "ClusterIP", "selector": {"a": "b"},
            "ports": [{"name": "mcp", "port": 80, "targetPort": "mcp", "protocol": "TCP"}],
        }}))
        .unwrap();
        mark(&mut service);
        service.spec.as_mut().unwrap().session_affinity = Some("None".to_owned());
        service.spec.as_mut().unwrap().cluster_ip = Some("10.0.0.1".to_owned());
        assert!(is_intact(&service));
        service.spec.as_mut().unwrap().selector = Some([("a".to_owned(), "c".to_owned())].into());
        assert!(!is_intact(&service));
    }

    #[test]
    fn a_deployment_whose_fields_are_not_all_ours_is_seen() {
        let deployment = |ours: &Value, replicas: i32| -> Deployment {
            serde_json::from_value(json!({
                "metadata": {"managedFields": [
                    {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:metadata": {}, "f:spec": ours}},
                    {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}},
                ]},
                "spec": {"replicas": replicas, "selector": {}, "template": {}},
            }))
            .unwrap()
        };
        let (whole, less) = (json!({"f:replicas": {}, "f:template": {"f:spec": {}}}), json!({"f:replicas": {}}));
        let applied = {
            let mut applied = deployment(&whole, 1);
            mark(&mut applied);
            applied.metadata.annotations
        };
        let is = |fields: &Value, replicas| {
            let mut there = deployment(fields, replicas);
            there.metadata.annotations.clone_from(&applied);
            without_others(&mut there);
            assert_eq!(there.metadata.managed_fields.as_ref().unwrap().len(), 1);
            assert_eq!(is_intact(&there), is_surely_intact(&there));
            is_intact(&there)
        };
        assert!(is(&whole, 1));
        assert!(!is(&whole, 0), "it was scaled");
        assert!(!is(&less, 1), "somebody else's template");
        let unmarked = deployment(&whole, 1);
        assert!(is_intact(&unmarked) && !is_surely_intact(&unmarked));
        let mut scaled_by_others = [1, 5].map(|replicas| deployment(&json!({"f:template": {}}), replicas));
        scaled_by_others.iter_mut().for_each(mark);
        let marks = scaled_by_others.map(|one| one.metadata.annotations);
        assert_eq!(marks[0], marks[1], "who says nothing of replicas leaves them to others");
    }

    #[test]
    fn a_secret_whose_values_are_not_all_ours_is_seen() {
        let secret = |ours: &Value| -> Secret {
            serde_json::from_value(json!({
                "metadata": {"managedFields": [
                    {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:data": ours}},
                    {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:data": {".": {}, "f:A": {}}}},
                ]},
                "data": {"A": "", "B": ""},
            }))
            .unwrap()
        };
        let mut whole = secret(&json!({"f:A": {}, "f:B": {}}));
        mark(&mut whole);
        assert_eq!(whole.metadata.annotations.as_ref().unwrap()[APPLIED], "2");
        assert!(is_intact(&whole) && is_intact_secret(&whole.metadata));
        let mut changed = secret(&json!({"f:B": {}}));
        mark(&mut changed);
        assert!(!is_intact(&changed) && !is_intact_secret(&changed.metadata));
        changed.metadata.managed_fields = None;
        assert!(is_intact(&changed), "it is not told who owns what");
    }
}
