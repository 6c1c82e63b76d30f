//! The hash of a definition: blind to the order of keys, and to nothing else.

use super::DefinitionHash;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write as _;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1_000_000..1_000_000_i32).prop_map(|n| Value::from(f64::from(n) / 8.0)),
        "[a-z\\\\\",:{}\\[\\]]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{0,2}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The text of a value with the keys of its objects in descending order.
fn reversed(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by(|(a, _), (b, _)| b.cmp(a));
            out.push('{');
            for (n, (key, value)) in pairs.into_iter().enumerate() {
                let comma = if n > 0 { "," } else { "" };
                write!(out, "{comma}{}:", Value::from(key.as_str())).unwrap();
                reversed(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                reversed(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

proptest! {
    #[test]
    fn the_order_of_keys_does_not_count(value in value()) {
        let mut text = String::new();
        reversed(&value, &mut text);
        let other: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(DefinitionHash::of(&value), DefinitionHash::of(&other));
    }

    #[test]
    fn everything_else_counts(a in value(), b in value()) {
        prop_assert_eq!(a == b, DefinitionHash::of(&a) == DefinitionHash::of(&b));
    }

    #[test]
    fn hashes_survive_as_text(value in value()) {
        let hash = DefinitionHash::of(&value);
        let text = serde_json::to_string(&hash).unwrap();
        prop_assert_eq!(&text, &format!("\"{hash}\""));
        prop_assert_eq!(serde_json::from_str::<DefinitionHash>(&text).unwrap(), hash);
    }
}

#[test]
fn neighbours_are_told_apart() {
    let values = [
        json!({"a": 1}),
        json!({"a": 1.0}),
        json!({"a": "1"}),
        json!({"a": [1]}),
        json!({"a": {"1": null}}),
        json!({"a": null}),
        json!({}),
        json!([]),
        json!([[]]),
        json!([{}]),
        json!(["a", "b"]),
        json!(["b", "a"]),
        json!(["a,b"]),
        json!({"a": 1, "b": 2}),
        json!({"ab": 12}),
        json!({"A": 1}),
        json!(""),
        json!(null),
        json!(false),
        json!(0),
    ];
    for (n, a) in values.iter().enumerate() {
        for b in &values[n + 1..] {
            assert_ne!(DefinitionHash::of(a), DefinitionHash::of(b), "{a} {b}");
        }
    }
}

#[test]
fn what_is_no_hash_is_refused() {
    for text in [String::new(), "ab".repeat(31), "ab".repeat(33), "zz".repeat(32), "+a".repeat(32), "é".repeat(32)] {
        serde_json::from_value::<DefinitionHash>(json!(text)).unwrap_err();
    }
}
