//! Findings about consumers, and what their wire form refuses.

#![expect(clippy::needless_pass_by_value, reason = "tables read best with their values in place")]

use super::ConsumerSpec;
use crate::Validate;
use serde_json::{Value, json};

#[track_caller]
fn check(fields: Value, expected: &[&str]) {
    let mut all = json!({"slug": "finance"});
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let findings = serde_json::from_value::<ConsumerSpec>(all).unwrap().findings();
    assert!(findings.iter().all(|finding| !finding.reason.is_empty() && !finding.remedy.is_empty()), "{findings:?}");
    let paths: Vec<_> = findings.iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(paths, expected, "{findings:?}");
}

#[test]
fn a_slug_is_part_of_a_url_and_no_id() {
    for slug in ["a", "finance-2", "0", &"s".repeat(63)] {
        check(json!({"slug": slug}), &[]);
    }
    let ids = ["0190a000-0000-7000-8000-000000000001", "0190a0000000700080000000000000ff"];
    for slug in ["", "-a", "a-", "A", "a_b", "a/b", "a.b", "ä", &"s".repeat(64), ids[0], ids[1]] {
        check(json!({"slug": slug}), &["slug"]);
    }
}

#[test]
fn a_name_can_be_read() {
    check(json!({"name": "Finance & Tax"}), &[]);
    for name in ["", " ", "a\nb", &"n".repeat(257)] {
        check(json!({"name": name}), &["name"]);
    }
}

#[test]
fn a_call_takes_some_time() {
    check(json!({"callTimeout": 30}), &[]);
    check(json!({"callTimeout": 0}), &["callTimeout"]);
}

#[test]
fn automatic_assignment_goes_by_labels() {
    check(json!({"toolAssignment": "automatic", "labels": {"a": "b"}}), &[]);
    check(json!({"toolAssignment": "automatic"}), &["labels"]);
    check(json!({"labels": {"a": ["b", ""]}}), &["labels.a"]);
}

#[test]
fn no_header_passes_that_belongs_to_the_gateway() {
    check(json!({"passthroughHeaders": ["x-tenant", "Accept-Language", "cookie"]}), &[]);
    for header in
        ["", "a b", "ä", "Host", "connection", "te", "content-length", "Mcp-Session-Id", "mcp-method", "Authorization"]
    {
        check(json!({"passthroughHeaders": ["x-tenant", header]}), &["passthroughHeaders[1]"]);
    }
    check(json!({"passthroughHeaders": ["x-tenant", "X-Tenant"]}), &["passthroughHeaders[1]"]);
}

#[test]
fn unknown_fields_and_words_are_refused() {
    for bad in [
        json!({"slug": "a", "tols": []}),
        json!({"slug": "a", "toolNames": "short"}),
        json!({"slug": "a", "toolExposure": true}),
        json!({"name": "a"}),
    ] {
        serde_json::from_value::<ConsumerSpec>(bad).unwrap_err();
    }
}

#[test]
fn a_consumer_survives_json() {
    let full = json!({
        "slug": "a", "name": "A", "description": "d", "labels": {"a": ["b", "c"]}, "toolAssignment": "automatic", "toolNames": "bare",
        "toolExposure": "search", "callTimeout": 5, "passthroughHeaders": ["x-tenant"],
    });
    let spec: ConsumerSpec = serde_json::from_value(full.clone()).unwrap();
    assert_eq!(serde_json::to_value(&spec).unwrap(), full);
}
