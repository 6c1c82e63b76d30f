//! Tests of reading definitions and of comparing listings.

use super::*;
use archestra_core::feed::Version;
use chrono::Utc;
use serde_json::json;

fn listed(definitions: &[Value]) -> Vec<Listed> {
    let listing = read_definitions(definitions.to_vec());
    assert_eq!(listing.notes, Vec::<String>::new());
    listing.tools
}

fn stored(tools: Vec<Tool>) -> Vec<Versioned<Tool>> {
    tools.into_iter().map(|value| Versioned { version: Version(1), value }).collect()
}

#[test]
fn what_cannot_be_used_is_left_out_with_a_note() {
    let large = json!({"name": "large", "description": "x".repeat(MAX_DEFINITION)});
    let listing = read_definitions(vec![
        json!({"name": "echo", "future": {"b": 1, "a": [null]}}),
        json!({"name": ""}),
        json!({"title": "nameless"}),
        json!("text"),
        json!({"name": "line\nbreak"}),
        json!({"name": "echo", "description": "another"}),
        large,
        json!({"name": "add"}),
    ]);
    assert_eq!(listing.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["echo", "add"]);
    assert_eq!(listing.notes.len(), 6);
    assert!(listing.tools[0].definition.contains("future"), "unknown fields are kept");
}

#[test]
fn a_server_with_too_many_tools_gives_the_first() {
    let listing = read_definitions((0..MAX_TOOLS + 5).map(|n| json!({"name": format!("t{n}")})).collect());
    assert_eq!(listing.tools.len(), MAX_TOOLS);
    assert_eq!(listing.notes.len(), 1);
}

#[test]
fn new_changed_and_absent_tools_are_told_apart() {
    let entry = EntryId::new();
    let first =
        diff_tools(entry, &listed(&[json!({"name": "a"}), json!({"name": "b"})]), &[], &BTreeMap::new(), Utc::now());
    assert_eq!(first.create.len(), 2);
    assert_eq!(first.hashes.len(), 2);

    let rows = stored(first.create.clone());
    let now = listed(&[json!({"name": "a", "description": "new"}), json!({"name": "c"})]);
    let second = diff_tools(entry, &now, &rows, &first.hashes, Utc::now());
    assert_eq!(second.create.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["c"]);
    let (changed, expect) = &second.update[0];
    assert_eq!(second.update.len(), 1);
    assert_eq!((changed.id, *expect), (first.create[0].id, Expect::Version(Version(1))));
    assert_eq!(changed.changed.as_ref().unwrap().previous, first.create[0].hash);
    assert_eq!(
        second.hashes.keys().collect::<Vec<_>>(),
        ["a", "c"],
        "b is no longer listed, and its row is left alone"
    );
}

#[test]
fn installations_with_different_definitions_do_not_overwrite_each_other_for_ever() {
    let entry = EntryId::new();
    let (ours, theirs) = (listed(&[json!({"name": "a"})]), listed(&[json!({"name": "a", "description": "theirs"})]));
    let one = diff_tools(entry, &ours, &[], &BTreeMap::new(), Utc::now());
    let two = diff_tools(entry, &theirs, &stored(one.create.clone()), &BTreeMap::new(), Utc::now());
    assert_eq!(two.update.len(), 1, "the second installation's definition is new");
    let row = stored(vec![two.update[0].0.clone()]);
    assert!(diff_tools(entry, &ours, &row, &one.hashes, Utc::now()).update.is_empty(), "nothing changed for the first");
    assert!(diff_tools(entry, &theirs, &row, &two.hashes, Utc::now()).update.is_empty(), "nor for the second");
}
