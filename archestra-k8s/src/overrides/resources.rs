//! Requests and limits of the containers that a document adds: none goes without those of the platform.

use super::{
    POD,
    document::{Kind, Node},
};
use crate::{names::CONTAINER, platform::Platform};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Completes all containers but the server's own, which has been generated with them. What a document deletes stays deleted.
pub(super) fn complete(deployment: &mut Value, document: &Node, platform: &Platform) {
    for list in ["initContainers", "containers"] {
        let given = document.at(&POD).and_then(|pod| pod.get(list)).map(Node::items).unwrap_or_default();
        let containers = deployment.pointer_mut(&format!("/spec/template/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|container| container["name"] != CONTAINER) {
            let own = given.iter().find(|one| one.get("name").and_then(Node::text) == container["name"].as_str());
            let own = own.and_then(|own| own.get("resources"));
            fill(container, own, platform);
        }
    }
}

fn fill(container: &mut Value, own: Option<&Node>, platform: &Platform) {
    let deleted = |node: Option<&Node>| node.is_some_and(|node| node.kind == Kind::Null);
    if !container.is_object() || deleted(own) {
        return;
    }
    let has = |container: &Value, kind: &str| {
        container["resources"][kind].as_object().is_some_and(|amounts| !amounts.is_empty())
    };
    // Kubernetes requests what there is a limit of.
    if !has(container, "requests") && !has(container, "limits") {
        put(container, own, "requests", &platform.requests);
    }
    put(container, own, "limits", &platform.limits);
}

fn put(container: &mut Value, own: Option<&Node>, kind: &str, amounts: &BTreeMap<String, String>) {
    let own = own.and_then(|own| own.get(kind));
    if amounts.is_empty() || own.is_some_and(|own| own.kind == Kind::Null) {
        return;
    }
    let resources = &mut container["resources"];
    if !resources.is_object() {
        *resources = json!({});
    }
    let there = &mut resources[kind];
    if !there.is_object() {
        *there = json!({});
    }
    for (name, amount) in amounts {
        let deleted = own.and_then(|own| own.get(name)).is_some_and(|node| node.kind == Kind::Null);
        if !deleted && there[name].is_null() {
            there[name] = amount.as_str().into();
        }
    }
}
