//! Properties of labels.

use super::Labels;
use crate::Validate;
use proptest::prelude::*;
use serde_json::json;

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::vec(("[a-c]", "[x-z]"), 0..6).prop_map(Labels::from_iter)
}

proptest! {
    #[test]
    fn one_pair_in_both_is_enough(a in labels(), b in labels()) {
        let slow = a.iter().any(|one| b.iter().any(|other| one == other));
        prop_assert_eq!(a.intersects(&b), slow);
        prop_assert_eq!(b.intersects(&a), slow);
        prop_assert_eq!(a.intersects(&a), !a.is_empty());
        prop_assert!(a.iter().all(|(key, value)| a.contains(key, value)));
    }

    #[test]
    fn labels_survive_json_and_yaml(labels in labels()) {
        let json = serde_json::to_string(&labels).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Labels>(&json).unwrap(), &labels);
        let yaml = serde_saphyr::to_string(&labels).unwrap();
        prop_assert_eq!(&serde_saphyr::from_str::<Labels>(&yaml).unwrap(), &labels);
    }

    #[test]
    fn labels_of_any_text_survive_json(pairs in prop::collection::vec((any::<String>(), any::<String>()), 0..4)) {
        let labels: Labels = pairs.into_iter().collect();
        let json = serde_json::to_value(&labels).unwrap();
        prop_assert_eq!(serde_json::from_value::<Labels>(json).unwrap(), labels);
    }
}

#[test]
fn a_value_is_a_text_or_a_list() {
    let labels: Labels = serde_json::from_value(json!({"a": "x", "b": ["y", "z", "y"], "c": ["x"]})).unwrap();
    assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "x"), ("b", "y"), ("b", "z"), ("c", "x")]);
    assert_eq!(serde_json::to_value(&labels).unwrap(), json!({"a": "x", "b": ["y", "z"], "c": "x"}));
}

#[test]
fn what_is_no_text_is_refused_with_the_remedy() {
    for bad in [
        json!({"a": 5}),
        json!({"a": true}),
        json!({"a": null}),
        json!({"a": {"b": "c"}}),
        json!({"a": [5]}),
        json!(["a"]),
    ] {
        serde_json::from_value::<Labels>(bad).unwrap_err();
    }
    let error = serde_json::from_value::<Labels>(json!({"year": 2026})).unwrap_err().to_string();
    assert!(error.contains("quotes"), "{error}");
}

#[test]
fn empty_values_are_refused() {
    let error = serde_json::from_value::<Labels>(json!({"department": []})).unwrap_err().to_string();
    assert!(error.contains("department"), "{error}");
    for pair in [("", "x"), ("k", ""), ("k", "  "), ("k", "a\u{0}")] {
        assert_eq!(Labels::from_iter([pair]).findings().len(), 1, "{pair:?}");
    }
}
