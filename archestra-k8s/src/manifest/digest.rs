//! Digests that tell whether anything changed: over canonical JSON, and over secret values without giving them away.

use archestra_core::{runtime::WorkloadId, secret::SecretValue};
use aws_lc_rs::digest;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt::Write};

/// The digest of a value, the same for every order of keys.
pub(crate) fn of_json(value: &Value) -> String {
    let bytes = serde_json::to_vec(&canonical(value)).expect("a value is always JSON");
    hex(digest::digest(&digest::SHA256, &bytes).as_ref())
}

/// The digest of secret values: another one for every workload, so that equal values do not show.
pub(crate) fn of_secrets<'a>(id: &WorkloadId, values: impl IntoIterator<Item = (&'a str, &'a SecretValue)>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    add(id.as_str().as_bytes());
    for (key, value) in values {
        add(key.as_bytes());
        add(value.expose().as_bytes());
    }
    hex(&context.finish().as_ref()[..16])
}

/// The value with the keys of all objects in order.
pub(crate) fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            Value::Object(sorted.into_iter().map(|(key, value)| (key.clone(), canonical(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_does_not_matter_and_all_else_does() {
        let one: Value = serde_json::from_str(r#"{"a":1,"b":{"c":[1,2],"d":null}}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"b":{"d":null,"c":[1,2]},"a":1}"#).unwrap();
        assert_eq!(of_json(&one), of_json(&other));
        assert_ne!(of_json(&one), of_json(&json!({"a": 1, "b": {"c": [2, 1], "d": null}})));
    }

    #[test]
    fn secrets_of_different_workloads_cannot_be_compared() {
        let a: WorkloadId = "mcp-a".parse().unwrap();
        let b: WorkloadId = "mcp-b".parse().unwrap();
        let value = SecretValue::from("hunter2");
        let other = SecretValue::from("hunter3");
        let of = |id, key, value| of_secrets(id, [(key, value)]);
        assert_eq!(of(&a, "K", &value), of(&a, "K", &value));
        assert_ne!(of(&a, "K", &value), of(&b, "K", &value));
        assert_ne!(of(&a, "K", &value), of(&a, "K", &other));
        assert_ne!(of(&a, "K", &value), of(&a, "L", &value));
    }
}
