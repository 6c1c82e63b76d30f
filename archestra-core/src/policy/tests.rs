//! Findings about policies and limits, and what their wire form refuses.

#![expect(clippy::needless_pass_by_value, reason = "tables read best with their values in place")]

use super::{Limit, LimitSpec, PolicySpec};
use crate::Validate;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const ENTRY: &str = "0190a000-0000-7000-8000-000000000001";

#[track_caller]
fn check<T: DeserializeOwned + Validate>(base: Value, fields: Value, expected: &[&str]) {
    let mut all = base;
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let findings = serde_json::from_value::<T>(all).unwrap().findings();
    assert!(findings.iter().all(|finding| !finding.reason.is_empty() && !finding.remedy.is_empty()), "{findings:?}");
    let paths: Vec<_> = findings.iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(paths, expected, "{findings:?}");
}

#[track_caller]
fn policy(fields: Value, expected: &[&str]) {
    check::<PolicySpec>(json!({"name": "no deletes", "action": "block"}), fields, expected);
}

#[track_caller]
fn limit(fields: Value, expected: &[&str]) {
    check::<LimitSpec>(json!({"name": "quota", "calls": 10, "window": 60}), fields, expected);
}

#[test]
fn rules_have_a_name() {
    policy(json!({}), &[]);
    limit(json!({}), &[]);
    for name in ["", "  ", "a\nb", &"n".repeat(257)] {
        policy(json!({"name": name}), &["name"]);
        limit(json!({"name": name}), &["name"]);
    }
}

#[test]
fn a_tool_has_its_entry_and_at_most_one_star_at_the_end() {
    for tool in ["delete", "delete*", "*"] {
        policy(json!({"entry": ENTRY, "tool": tool}), &[]);
    }
    for tool in ["", "*delete", "a*b", "a**", "**"] {
        policy(json!({"entry": ENTRY, "tool": tool}), &["tool"]);
    }
    policy(json!({"tool": "delete"}), &["entry"]);
    limit(json!({"entry": ENTRY, "tool": "delete"}), &[]);
    limit(json!({"entry": ENTRY, "tool": ""}), &["tool"]);
    limit(json!({"tool": "delete"}), &["entry"]);
}

#[test]
fn conditions_compare_something_that_can_be_found() {
    let one = |condition: Value| json!({"conditions": [{"path": "/a", "operator": "exists"}, condition]});
    policy(one(json!({"path": "/a~1b/0/~0", "operator": "equals", "value": 1})), &[]);
    policy(one(json!({"path": "", "operator": "absent"})), &[]);
    for path in ["a", "a/b", "/a~", "/a~2", "~0"] {
        policy(one(json!({"path": path, "operator": "exists"})), &["conditions[1].path"]);
    }
    for operator in
        ["equals", "notEquals", "contains", "notContains", "startsWith", "endsWith", "greaterThan", "lessThan"]
    {
        policy(one(json!({"path": "/a", "operator": operator})), &["conditions[1].value"]);
    }
    for operator in ["exists", "absent"] {
        policy(one(json!({"path": "/a", "operator": operator, "value": 1})), &["conditions[1].value"]);
    }
    for (operator, good, bad) in [
        ("startsWith", json!("a"), json!(1)),
        ("endsWith", json!("a"), json!(["a"])),
        ("greaterThan", json!(1), json!("1")),
        ("lessThan", json!(1.5), json!(true)),
    ] {
        policy(one(json!({"path": "/a", "operator": operator, "value": good})), &[]);
        policy(one(json!({"path": "/a", "operator": operator, "value": bad})), &["conditions[1].value"]);
    }
}

#[test]
fn a_window_is_neither_empty_nor_endless() {
    for window in [1, 60, 31 * 24 * 3600] {
        limit(json!({"window": window}), &[]);
    }
    for window in [0, 31 * 24 * 3600 + 1] {
        limit(json!({"window": window}), &["window"]);
    }
}

#[test]
fn unknown_fields_are_refused() {
    let policy = json!({"name": "a", "action": "block"});
    let condition = json!({"path": "/a", "operator": "exists"});
    let with = |base: &Value, field: &str, value: Value| {
        let mut base = base.clone();
        base[field] = value;
        base
    };
    serde_json::from_value::<PolicySpec>(with(&policy, "conditions", json!([condition]))).unwrap();
    for bad in [
        with(&policy, "tools", json!("x")),
        with(&policy, "conditions", json!([with(&condition, "valeu", json!(1))])),
        with(&policy, "action", json!("warn")),
        with(&policy, "callers", json!([{"robot": ENTRY}])),
    ] {
        serde_json::from_value::<PolicySpec>(bad).unwrap_err();
    }
    let error = serde_json::from_value::<LimitSpec>(json!({"name": "a", "calls": 1, "window": 1, "per-user": true}))
        .unwrap_err();
    assert!(error.to_string().contains("per-user"), "{error}");
}

#[test]
fn rules_survive_json() {
    let policy = json!({
        "name": "a", "priority": -1, "entry": ENTRY, "tool": "x*", "consumer": ENTRY, "action": "allow", "message": "m",
        "callers": [{"user": ENTRY}, {"team": ENTRY}, "organization", "clients"],
        "conditions": [{"path": "/a", "operator": "greaterThan", "value": 1}, {"path": "/b", "operator": "absent"}],
    });
    let spec: PolicySpec = serde_json::from_value(policy.clone()).unwrap();
    assert_eq!(serde_json::to_value(&spec).unwrap(), policy);
    let limit = json!({
        "name": "a", "entry": ENTRY, "tool": "x", "consumer": ENTRY, "callers": [{"user": ENTRY}, {"team": ENTRY}],
        "per": "caller", "calls": 0, "window": 1,
    });
    let spec: LimitSpec = serde_json::from_value(limit.clone()).unwrap();
    assert_eq!(serde_json::to_value(&spec).unwrap(), limit);
}

#[test]
fn a_limit_remembers_the_set_that_made_it() {
    let stored = json!({
        "id": ENTRY, "name": "a", "per": "team", "calls": 5, "window": 60, "applySet": "prod",
        "createdAt": "2026-11-20T00:00:00Z",
    });
    let limit: Limit = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(limit.apply_set.as_deref(), Some("prod"));
    assert_eq!(serde_json::to_value(&limit).unwrap(), stored);
}
