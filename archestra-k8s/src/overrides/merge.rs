//! Strategic merge patch on JSON, for a Deployment: `null` and `$patch` delete, lists merge by the keys that Kubernetes uses.

use super::document::{Kind, Node, finding};
use archestra_core::Finding;
use serde_json::{Map, Value};

/// What says that something is not merged.
pub(super) const DIRECTIVE: &str = "$patch";

/// What a probe or a hook can do; it does one.
const HANDLERS: [&str; 5] = ["exec", "grpc", "httpGet", "sleep", "tcpSocket"];

/// The key by which Kubernetes tells items of this list apart; without one the patch's list replaces the other.
pub(super) fn merge_key(list: &str) -> Option<&'static str> {
    Some(match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates" => "name",
        "ports" => "containerPort",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        _ => return None,
    })
}

/// The base with the patch applied.
pub(super) fn merge(base: Value, patch: Value, field: &str) -> Value {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => match directive(&patch) {
            Some("replace") => plain(Value::Object(patch)),
            Some("delete") => Value::Null,
            Some(_) | None => Value::Object(merge_objects(base, patch, field)),
        },
        (Value::Array(base), Value::Array(patch)) => match merge_key(field) {
            Some(key) => Value::Array(merge_lists(base, patch, key, field)),
            None => plain(Value::Array(patch)),
        },
        (_, patch) => plain(patch),
    }
}

fn merge_objects(mut base: Map<String, Value>, patch: Map<String, Value>, field: &str) -> Map<String, Value> {
    yield_to(&mut base, &patch, field);
    for (key, value) in patch {
        if key.starts_with('$') {
            continue;
        }
        let merged = match base.remove(&key) {
            Some(own) => merge(own, value, &key),
            None => plain(value),
        };
        if !merged.is_null() {
            base.insert(key, merged);
        }
    }
    base
}

/// Takes out of the base what cannot stand beside what the patch says: an object that does one of several things.
fn yield_to(base: &mut Map<String, Value>, patch: &Map<String, Value>, field: &str) {
    let says = |key: &str| patch.get(key).is_some_and(|value| !value.is_null());
    let alone: &[&str] = match field {
        "readinessProbe" | "livenessProbe" | "startupProbe" | "postStart" | "preStop" => &HANDLERS,
        "env" => &["value", "valueFrom"],
        "strategy" if patch.get("type").is_some_and(|kind| kind == "Recreate") => {
            if !says("rollingUpdate") {
                base.remove("rollingUpdate");
            }
            &[]
        }
        // A volume is of one kind, and what the patch does not say of it is not kept.
        "volumes" if patch.keys().any(|key| key != "name") => {
            base.retain(|key, _| key == "name" || says(key));
            &[]
        }
        _ => &[],
    };
    if alone.iter().any(|key| says(key)) {
        base.retain(|key, _| !alone.contains(&key.as_str()) || says(key));
    }
}

fn merge_lists(mut base: Vec<Value>, patch: Vec<Value>, key: &str, field: &str) -> Vec<Value> {
    let replaces = |item: &Value| item.as_object().and_then(directive) == Some("replace") && item.get(key).is_none();
    if patch.iter().any(replaces) {
        base.clear();
    }
    for item in patch.into_iter().filter(|item| !replaces(item)) {
        let at = item
            .get(key)
            .filter(|own| !own.is_null())
            .and_then(|own| base.iter().position(|other| other.get(key) == Some(own)));
        match (at, item.as_object().and_then(directive)) {
            (Some(at), Some("delete")) => drop(base.remove(at)),
            (None, Some("delete")) => {}
            (Some(at), _) => {
                let own = base[at].take();
                base[at] = merge(own, item, field);
            }
            (None, _) => base.push(plain(item)),
        }
    }
    base
}

fn directive(object: &Map<String, Value>) -> Option<&str> {
    object.get(DIRECTIVE).and_then(Value::as_str)
}

/// A value of the patch where the base has nothing: without nulls and directives.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(members) if directive(&members) == Some("delete") => Value::Null,
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter(|(key, _)| !key.starts_with('$'))
                .map(|(key, value)| (key, plain(value)))
                .filter(|(_, value)| !value.is_null())
                .collect(),
        ),
        Value::Array(items) => items
            .into_iter()
            .map(|item| (item.is_null(), plain(item)))
            .filter(|(was, item)| *was || !item.is_null())
            .map(|one| one.1)
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// Adds to a whole document what it leaves open.
pub(super) fn fill(document: Value, generated: Value, field: &str) -> Value {
    match (document, generated) {
        (Value::Object(mut document), Value::Object(mut generated)) => {
            let chosen = document.clone();
            yield_to(&mut generated, &chosen, field);
            // What an image runs is one thing: its arguments belong to its command.
            if document.contains_key("command") {
                generated.remove("args");
            }
            for (key, value) in generated {
                let filled = match document.remove(&key) {
                    Some(own) if WHOLE.contains(&key.as_str()) => own,
                    Some(own) => fill(own, value, &key),
                    None => value,
                };
                document.insert(key, filled);
            }
            Value::Object(document)
        }
        (Value::Array(document), Value::Array(generated)) => match merge_key(field) {
            Some(key) if field != "containers" => Value::Array(join(document, generated, key)),
            Some(key) => Value::Array(fill_containers(document, &generated, key)),
            None => Value::Array(document),
        },
        (document, _) => document,
    }
}

/// What is not completed when it is there.
const WHOLE: [&str; 5] = ["annotations", "labels", "nodeSelector", "tolerations", "capabilities"];

fn join(mut document: Vec<Value>, generated: Vec<Value>, key: &str) -> Vec<Value> {
    for item in generated {
        if !document.iter().any(|own| own.get(key) == item.get(key)) {
            document.push(item);
        }
    }
    document
}

fn fill_containers(document: Vec<Value>, generated: &[Value], key: &str) -> Vec<Value> {
    document
        .into_iter()
        .map(|own| match generated.iter().find(|item| item.get(key) == own.get(key)) {
            Some(item) => fill(own, item.clone(), "container"),
            None => own,
        })
        .collect()
}

/// What is wrong with the directives and the items of a patch.
pub(super) fn findings(node: &Node, field: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &node.kind {
        Kind::Null | Kind::Scalar(_) => {}
        Kind::List(items) => {
            for item in items {
                let Kind::Map(_) = &item.kind else { continue };
                let replaces = item.get(DIRECTIVE).and_then(Node::text) == Some("replace");
                if let Some(key) = merge_key(field).filter(|key| !replaces && item.get(key).is_none()) {
                    findings.push(finding(
                        Some(item.line),
                        format!("an item of `{field}` does not contain declared merge key: {key}"),
                        format!("add `{key}`, so that it is known which item is meant"),
                    ));
                }
                findings.extend(self::findings(item, field));
            }
        }
        Kind::Map(members) => {
            for member in members {
                let known = match (member.key.as_str(), member.node.text()) {
                    (DIRECTIVE, Some("delete" | "replace" | "merge")) => true,
                    (key, _) => !key.starts_with('$'),
                };
                if !known {
                    findings.push(finding(
                        Some(member.line),
                        format!("`{}` with this value is no directive of a patch that is known here", member.key),
                        "use `$patch: delete`, `$patch: replace` or `$patch: merge`, or `null` to delete a key",
                    ));
                }
                findings.extend(self::findings(&member.node, &member.key));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests;
