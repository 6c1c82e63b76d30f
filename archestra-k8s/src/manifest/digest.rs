//! Digests that tell whether anything changed: over canonical JSON, and over secret values without giving them away.

use archestra_core::{
    runtime::WorkloadId,
    secret::{Derived, KeyId, SecretValue},
};
use aws_lc_rs::digest;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt::Write};

/// What digests over secret values are made with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key<'a> {
    /// One of the platform's own keys: without it nobody can try out what a value may be.
    Own(&'a Derived, &'a KeyId),
    /// None. Whoever sees such a digest can try out whether a value is the one they think of.
    None,
}

impl<'a> Key<'a> {
    /// All that digests may have been made with, the one for new ones first.
    pub(crate) fn all(keys: Option<&'a Derived>) -> impl Iterator<Item = Self> {
        keys.into_iter().flat_map(|keys| keys.keys().map(move |id| Self::Own(keys, id))).chain([Self::None])
    }

    fn digest(self, message: &[u8]) -> String {
        let keyed = match self {
            Self::Own(keys, id) => keys.sign_under(id, message),
            Self::None => None,
        };
        keyed.map_or_else(|| hex(digest::digest(&digest::SHA256, message).as_ref()), |tag| hex(&tag))
    }
}

/// The digest of a value that holds secrets, the same for every order of keys.
pub(crate) fn of_secret_json(key: Key<'_>, value: &Value) -> String {
    key.digest(&bytes_of(value))
}

/// The digest of a value, the same for every order of keys.
pub(crate) fn of_json(value: &Value) -> String {
    Key::None.digest(&bytes_of(value))
}

fn bytes_of(value: &Value) -> Vec<u8> {
    serde_json::to_vec(&canonical(value)).expect("a value is always JSON")
}

/// The digest of secret values: another one for every workload, so that equal values do not show.
pub(crate) fn of_secrets<'a>(
    key: Key<'_>,
    id: &WorkloadId,
    values: impl IntoIterator<Item = (&'a str, &'a SecretValue)>,
) -> String {
    let mut message = Vec::new();
    let mut add = |bytes: &[u8]| {
        message.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        message.extend_from_slice(bytes);
    };
    add(id.as_str().as_bytes());
    for (key, value) in values {
        add(key.as_bytes());
        add(value.expose().as_bytes());
    }
    let mut digest = key.digest(&message);
    digest.truncate(32);
    digest
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
    use archestra_core::secret::{KeyRing, Purpose};
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
        let of = |id, key, value| of_secrets(Key::None, id, [(key, value)]);
        assert_eq!(of(&a, "K", &value), of(&a, "K", &value));
        assert_ne!(of(&a, "K", &value), of(&b, "K", &value));
        assert_ne!(of(&a, "K", &value), of(&a, "K", &other));
        assert_ne!(of(&a, "K", &value), of(&a, "L", &value));
    }

    #[test]
    fn a_digest_with_a_key_tells_nothing_without_it() {
        let id: WorkloadId = "mcp-a".parse().unwrap();
        let value = SecretValue::from("hunter2");
        let (old, new) = (KeyRing::generate().unwrap(), KeyRing::generate().unwrap());
        let both = KeyRing::parse(&format!("{}{}", *new.to_text(), *old.to_text())).unwrap().derive(Purpose::Digests);
        let old = old.derive(Purpose::Digests);
        let digests = |keys| Key::all(keys).map(|key| of_secrets(key, &id, [("K", &value)])).collect::<Vec<_>>();
        let (before, after, without) = (digests(Some(&old)), digests(Some(&both)), digests(None));
        assert_eq!((before.len(), after.len(), without.len()), (2, 3, 1));
        assert_eq!(after[1..], before, "what an older key made is recognised, and what none made");
        assert_eq!(before[1..], without);
        assert!(after[0] != after[1] && after[0].len() == 32);
    }
}
