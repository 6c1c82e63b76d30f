//! The merge is that of Kubernetes, and has the properties of a merge.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn merged(base: Value, patch: Value) -> Value {
    merge(base, patch, "")
}

#[test]
fn maps_merge_and_null_deletes() {
    assert_eq!(
        merged(json!({"a": 1, "b": {"c": 2, "d": 3}}), json!({"a": null, "b": {"d": 4}, "e": 5})),
        json!({"b": {"c": 2, "d": 4}, "e": 5})
    );
    assert_eq!(merged(json!({"a": {"b": 1}}), json!({"a": {"$patch": "replace", "c": 2}})), json!({"a": {"c": 2}}));
    assert_eq!(merged(json!({"a": {"b": 1}}), json!({"a": {"$patch": "delete"}})), json!({}));
    assert_eq!(merged(json!({}), json!({"a": {"b": null, "c": {"$patch": "delete"}, "d": 1}})), json!({"a": {"d": 1}}));
}

#[test]
fn lists_merge_by_key_or_are_replaced() {
    let base = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}], "args": [1, 2]});
    let patch = json!({"containers": [{"name": "b", "image": "3"}, {"name": "c"}, {"name": "a", "$patch": "delete"}], "args": [3]});
    assert_eq!(
        merged(base.clone(), patch),
        json!({"containers": [{"name": "b", "image": "3"}, {"name": "c"}], "args": [3]})
    );
    let replaced = json!({"containers": [{"$patch": "replace"}, {"name": "z"}]});
    assert_eq!(merged(base, replaced)["containers"], json!([{"name": "z"}]));
}

#[test]
fn what_is_one_of_several_is_one() {
    let probe = json!({"readinessProbe": {"httpGet": {"port": 1}, "periodSeconds": 2}});
    assert_eq!(
        merged(probe.clone(), json!({"readinessProbe": {"exec": {}}})),
        json!({"readinessProbe": {"exec": {}, "periodSeconds": 2}})
    );
    assert_eq!(merged(probe, json!({"readinessProbe": {"periodSeconds": 5}}))["readinessProbe"]["httpGet"]["port"], 1);
    let strategy = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
    assert_eq!(merged(strategy, json!({"strategy": {"type": "Recreate"}})), json!({"strategy": {"type": "Recreate"}}));
    let volume = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    assert_eq!(
        merged(volume, json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]})),
        json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]})
    );
    let env = json!({"env": [{"name": "A", "value": "x"}]});
    assert_eq!(
        merged(env, json!({"env": [{"name": "A", "valueFrom": {}}]})),
        json!({"env": [{"name": "A", "valueFrom": {}}]})
    );
}

#[test]
fn a_whole_document_is_completed_where_it_is_silent() {
    let generated = json!({"labels": {"g": 1}, "containers": [{"name": "m", "command": ["c"], "args": ["a"], "env": [{"name": "X", "value": "1"}]}], "replicas": 1});
    let filled = |document: Value| fill(document, generated.clone(), "");
    assert_eq!(filled(json!({"labels": {"own": 2}}))["labels"], json!({"own": 2}));
    let own = filled(
        json!({"containers": [{"name": "m", "command": ["d"], "env": [{"name": "X", "value": "2"}, {"name": "Y"}]}]}),
    );
    assert_eq!(
        own["containers"],
        json!([{"name": "m", "command": ["d"], "env": [{"name": "X", "value": "2"}, {"name": "Y"}]}])
    );
    assert_eq!(filled(json!({"containers": [{"name": "m", "args": ["b"]}]}))["containers"][0]["command"], json!(["c"]));
    assert_eq!(filled(json!({"containers": [{"name": "other"}]}))["containers"], json!([{"name": "other"}]));
}

fn document() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![any::<bool>().prop_map(Value::from), (0..5).prop_map(Value::from), "[a-c]".prop_map(Value::from)];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let key = prop_oneof![Just("containers"), Just("env"), Just("ports"), Just("args"), Just("x"), Just("y")];
        let item =
            ("[a-c]", inner.clone()).prop_map(|(name, value)| json!({"name": name, "containerPort": name, "v": value}));
        let unique = proptest::collection::vec(item, 0..4).prop_map(|mut items| {
            let mut seen = Vec::new();
            items.retain(|item| {
                !seen.contains(&item["name"]) && {
                    seen.push(item["name"].clone());
                    true
                }
            });
            Value::Array(items)
        });
        let list = ("[a-c]", unique).prop_map(|(_, list)| list);
        prop_oneof![
            list,
            proptest::collection::btree_map(key.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn merging_again_changes_nothing(base in document(), patch in document()) {
        let once = merged(base, patch.clone());
        prop_assert_eq!(merged(once.clone(), patch), once);
    }

    #[test]
    fn an_empty_patch_changes_nothing(base in document()) {
        if base.is_object() {
            prop_assert_eq!(merged(base.clone(), json!({})), base);
        }
    }

    #[test]
    fn what_a_patch_says_holds(base in document(), patch in document()) {
        let out = merged(base, patch.clone());
        prop_assert!(holds(&patch, &out), "{} not in {}", patch, out);
    }
}

/// Whether everything that a patch without deletions says is so.
fn holds(patch: &Value, out: &Value) -> bool {
    match (patch, out) {
        (Value::Object(patch), Value::Object(out)) => {
            patch.iter().all(|(key, value)| out.get(key).is_some_and(|own| holds(value, own)))
        }
        (Value::Array(patch), Value::Array(out)) => patch.iter().all(|item| out.iter().any(|own| holds(item, own))),
        (patch, out) => patch == out,
    }
}
