//! Which lists are merged by a key, which are sets, and which maps are one value: what patches must know of the types.

use serde_json::Value;

/// How the value of a field is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As one value.
    Atomic,
    /// A map or a scalar: field by field.
    Granular,
    /// A list whose items are known by these fields; the default is for those that an item lacks.
    Keyed(&'static [(&'static str, Option<&'static str>)]),
    /// A list of values without order.
    Set,
}

/// How the field of this name is merged, within `parent` of an object of this kind.
pub(super) fn shape(kind: &str, parent: &str, field: &str) -> Shape {
    const NAME: Shape = Shape::Keyed(&[("name", None)]);
    match field {
        "spec" if kind == "NetworkPolicy" => Shape::Granular,
        "ingress" | "egress" | "podSelector" | "policyTypes" if kind == "NetworkPolicy" => Shape::Atomic,
        "selector" if parent == "spec" => Shape::Atomic,
        "nodeSelector" | "secretKeyRef" | "configMapKeyRef" | "fieldRef" | "resourceFieldRef" | "labelSelector"
        | "matchLabelKeys" => Shape::Atomic,
        "containers" | "initContainers" | "ephemeralContainers" | "env" | "volumes" | "imagePullSecrets" => NAME,
        "secrets" if kind == "ServiceAccount" => NAME,
        "volumeMounts" => Shape::Keyed(&[("mountPath", None)]),
        "volumeDevices" => Shape::Keyed(&[("devicePath", None)]),
        "ports" if kind == "Service" => Shape::Keyed(&[("port", None), ("protocol", Some("TCP"))]),
        "ports" => Shape::Keyed(&[("containerPort", None), ("protocol", Some("TCP"))]),
        "conditions" => Shape::Keyed(&[("type", None)]),
        "ownerReferences" => Shape::Keyed(&[("uid", None)]),
        "hostAliases" => Shape::Keyed(&[("ip", None)]),
        "topologySpreadConstraints" => Shape::Keyed(&[("topologyKey", None), ("whenUnsatisfiable", None)]),
        "finalizers" => Shape::Set,
        _ => Shape::Granular,
    }
}

/// How a strategic merge patch treats the field: as [`shape`], but some lists have one key only, and maps are never one value.
pub(super) fn strategic(kind: &str, parent: &str, field: &str) -> Shape {
    match (field, shape(kind, parent, field)) {
        ("ports", Shape::Keyed(keys)) => Shape::Keyed(&keys[..1]),
        ("topologySpreadConstraints", Shape::Keyed(keys)) => Shape::Keyed(&keys[..1]),
        (_, Shape::Atomic) => Shape::Granular,
        (_, shape) => shape,
    }
}

/// The key of an item, as JSON that two equal keys have in common. `None`: the item has no such fields.
pub(super) fn key_of(item: &Value, keys: &[(&str, Option<&str>)]) -> Option<String> {
    let mut key = serde_json::Map::new();
    for (name, default) in keys {
        let value = match (item.get(*name), default) {
            (Some(Value::Null) | None, Some(default)) => (*default).into(),
            (Some(Value::Null) | None, None) => return None,
            (Some(value), _) => value.clone(),
        };
        key.insert((*name).to_owned(), value);
    }
    Some(Value::Object(key).to_string())
}
