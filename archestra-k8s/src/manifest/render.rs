//! Objects as YAML for people to read, with nothing secret in them.

use super::digest::canonical;
use crate::names::{APPLIED, OBJECTS_HASH, SECRETS_HASH, TEMPLATE_HASH};
use serde_json::Value;

/// What stands for a secret value.
const REDACTED: &str = "<redacted>";

/// An object that holds no secret, but perhaps a digest over some.
pub(super) fn document(mut object: Value) -> String {
    without_digests(&mut object);
    yaml(&object)
}

fn without_digests(object: &mut Value) {
    for path in ["/metadata", "/spec/template/metadata"] {
        let Some(metadata) = object.pointer_mut(path).and_then(Value::as_object_mut) else { continue };
        let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { continue };
        for digest in [OBJECTS_HASH, TEMPLATE_HASH, SECRETS_HASH, APPLIED] {
            annotations.remove(digest);
        }
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

/// A Secret: its keys, and no value.
pub(super) fn secret(mut object: Value) -> String {
    without_digests(&mut object);
    let Some(members) = object.as_object_mut() else { return String::new() };
    if let Some(Value::Object(data)) = members.remove("data") {
        let redacted = data.into_iter().map(|(key, _)| (key, Value::from(REDACTED))).collect();
        members.insert("stringData".to_owned(), Value::Object(redacted));
    }
    yaml(&object)
}

fn yaml(object: &Value) -> String {
    serde_saphyr::to_string(&canonical(object)).expect("an object of Kubernetes is always YAML")
}
