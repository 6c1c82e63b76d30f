//! Properties of merged scheduling.

use super::{Scheduling, Toleration, merge};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

fn scheduling() -> impl Strategy<Value = Scheduling> {
    let selector = prop::option::of(prop::collection::btree_map("[a-c]", "[x-z]", 0..4));
    let toleration = "[a-c]".prop_map(|key| Toleration {
        key: Some(key),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    });
    let tolerations = prop::option::of(prop::collection::vec(toleration, 0..3));
    (selector, tolerations).prop_map(|(node_selector, tolerations)| Scheduling { node_selector, tolerations })
}

fn wants_none(scheduling: &Scheduling) -> bool {
    scheduling.node_selector.as_ref().is_some_and(BTreeMap::is_empty)
}

proptest! {
    #[test]
    fn the_workload_wins_for_each_key(platform in scheduling(), workload in scheduling()) {
        let merged = merge(&platform, &workload);
        let get = |of: &Scheduling, key: &str| of.node_selector.as_ref().and_then(|selector| selector.get(key).cloned());
        for key in ["a", "b", "c"] {
            let expected = if wants_none(&workload) { None } else { get(&workload, key).or_else(|| get(&platform, key)) };
            prop_assert_eq!(get(&merged, key), expected);
        }
        prop_assert_eq!(merged.tolerations, workload.tolerations.or(platform.tolerations));
    }

    #[test]
    fn merging_again_changes_nothing(platform in scheduling(), workload in scheduling()) {
        let merged = merge(&platform, &workload);
        prop_assert_eq!(&merge(&platform, &merged), &merged);
        prop_assert_eq!(&merge(&merged, &workload), &merged);
    }

    #[test]
    fn nothing_said_is_neutral(scheduling in scheduling()) {
        prop_assert_eq!(&merge(&scheduling, &Scheduling::default()), &scheduling);
        prop_assert_eq!(&merge(&Scheduling::default(), &scheduling), &scheduling);
    }

    // `{}` takes away what stands before it, so that it makes a difference what that is.
    #[test]
    fn layers_merge_in_any_grouping(a in scheduling(), b in scheduling(), c in scheduling()) {
        prop_assume!(!wants_none(&b));
        prop_assert_eq!(merge(&a, &merge(&b, &c)), merge(&merge(&a, &b), &c));
    }
}

#[test]
fn an_empty_word_clears_and_silence_does_not() {
    let parse = |value: serde_json::Value| -> Scheduling { serde_json::from_value(value).unwrap() };
    let platform =
        parse(json!({"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}));
    assert_eq!(merge(&platform, &parse(json!({}))), platform);
    let cleared = parse(json!({"nodeSelector": {}, "tolerations": []}));
    assert_eq!(merge(&platform, &cleared), cleared);
    assert_eq!(merge(&platform, &parse(json!({"nodeSelector": {}}))).tolerations, platform.tolerations);
}
