//! Properties of reconciled assignments.

#![expect(clippy::needless_pass_by_value, reason = "tables read best with their values in place")]

use super::{ReconcileInput, Reconciled, reconcile};
use crate::{
    catalog::{Entry, Scope},
    consumer::{Assignment, Consumer, ConsumerKind, CredentialChoice, ToolSelector},
    id::{ConsumerId, EntryId, InstallationId, TeamId, ToolId, UserId},
    tool::{DefinitionHash, Tool},
};
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const NAMES: [&str; 6] = ["Tracker", "tracker", "TRACKER!", "Wiki", "天気 a", "天気 A"];
const TOOLS: [&str; 6] =
    ["echo", "Echo", "e.cho", "天気", "時刻", "a_very_long_name_that_leaves_no_room_for_any_prefix_at_all_in_it"];
const RESOLVE: CredentialChoice = CredentialChoice::ResolveAtCallTime;

fn entry(n: usize, labels: Value) -> Entry {
    Entry {
        id: EntryId::from_uuid(Uuid::from_u128(n as u128)),
        spec: serde_json::from_value(
            json!({"name": NAMES[n], "remote": {"url": "https://a.example"}, "labels": labels}),
        )
        .unwrap(),
        scope: Scope::Organization,
        author: None,
        secrets: None,
        apply_set: None,
        given_yaml: None,
        saved_by_admin: false,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

fn tool(entry: usize, n: usize) -> Tool {
    Tool {
        id: ToolId::from_uuid(Uuid::from_u128((entry * 100 + n) as u128)),
        entry: EntryId::from_uuid(Uuid::from_u128(entry as u128)),
        name: TOOLS[n].to_owned(),
        definition: "{}".to_owned(),
        hash: DefinitionHash::of(&json!({})),
        changed: None,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

fn consumer(spec: Value, tools: Vec<ToolSelector>) -> Consumer {
    Consumer {
        id: ConsumerId::from_uuid(Uuid::from_u128(1)),
        kind: ConsumerKind::Gateway,
        spec: serde_json::from_value(spec).unwrap(),
        scope: Scope::Organization,
        tools,
        identity_provider: None,
        author: None,
        apply_set: None,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

fn automatic(labels: Value) -> Consumer {
    consumer(json!({"slug": "g", "toolAssignment": "automatic", "labels": labels}), Vec::new())
}

fn all_of(entries: &[Entry]) -> Vec<ToolSelector> {
    entries.iter().map(|entry| ToolSelector { entry: entry.id, tool: "*".to_owned(), credential: RESOLVE }).collect()
}

/// A catalog: entries, and some of their tools.
fn catalog() -> impl Strategy<Value = (Vec<Entry>, Vec<Tool>)> {
    let label = || {
        prop::sample::select(vec![
            json!({}),
            json!({"d": "finance"}),
            json!({"d": ["finance", "legal"]}),
            json!({"d": "legal"}),
        ])
    };
    let entries: Vec<_> = (0..NAMES.len()).map(|n| label().prop_map(move |labels| entry(n, labels))).collect();
    let tools: Vec<_> = (0..NAMES.len()).flat_map(|entry| (0..TOOLS.len()).map(move |n| tool(entry, n))).collect();
    (entries, prop::sample::subsequence(tools, 0..=36))
}

/// What a consumer's tools are called, after the change.
fn apply(present: &[Assignment], changes: &Reconciled) -> Vec<Assignment> {
    let updated: BTreeMap<_, _> = changes.update.iter().map(|one| (one.id, one)).collect();
    let kept = present.iter().filter(|one| !changes.remove.contains(&one.id));
    kept.map(|one| updated.get(&one.id).map_or(one, |updated| updated)).chain(&changes.create).cloned().collect()
}

fn names(assignments: &[Assignment]) -> BTreeMap<ToolId, String> {
    assignments.iter().map(|one| (one.tool, one.exposed_name.to_string())).collect()
}

fn run(consumer: &Consumer, entries: &[Entry], tools: &[Tool], present: &[Assignment]) -> Vec<Assignment> {
    let changes = reconcile(ReconcileInput { consumer, entries, tools, present });
    let after = apply(present, &changes);
    let again = reconcile(ReconcileInput { consumer, entries, tools, present: &after });
    assert!(again.is_empty(), "{again:?}");
    after
}

proptest! {
    #[test]
    fn the_order_of_what_is_there_means_nothing(
        (entries, tools, shuffled_entries, shuffled_tools) in catalog().prop_flat_map(|(entries, tools)| {
            (Just(entries.clone()), Just(tools.clone()), Just(entries).prop_shuffle(), Just(tools).prop_shuffle())
        }),
    ) {
        for consumer in [automatic(json!({"d": "finance"})), consumer(json!({"slug": "g"}), all_of(&entries)), consumer(json!({"slug": "g", "toolNames": "bare"}), all_of(&entries))] {
            let sorted = run(&consumer, &entries, &tools, &[]);
            let shuffled = run(&consumer, &shuffled_entries, &shuffled_tools, &[]);
            prop_assert_eq!(names(&sorted), names(&shuffled));
            let unique: BTreeSet<_> = sorted.iter().map(|one| &one.exposed_name).collect();
            prop_assert_eq!(unique.len(), sorted.len());
        }
    }

    #[test]
    fn a_name_that_was_given_never_changes(
        (entries, tools) in catalog(), more in prop::sample::subsequence((0..6).flat_map(|entry| (0..6).map(move |n| tool(entry, n))).collect::<Vec<_>>(), 0..=36),
        mut renamed in prop::sample::subsequence((0..6_usize).collect::<Vec<_>>(), 0..=6),
    ) {
        let consumer = consumer(json!({"slug": "g"}), all_of(&entries));
        let first = run(&consumer, &entries, &tools, &[]);
        let mut entries = entries;
        for n in renamed.drain(..) {
            entries[n].spec.name = format!("other {n}");
        }
        let mut all = tools;
        all.extend(more.into_iter().filter(|tool| !first.iter().any(|one| one.tool == tool.id)));
        let second = names(&run(&consumer, &entries, &all, &first));
        for (tool, name) in names(&first) {
            prop_assert_eq!(second.get(&tool), Some(&name));
        }
        prop_assert_eq!(second.values().collect::<BTreeSet<_>>().len(), second.len());
    }

    #[test]
    fn automatic_is_every_tool_of_every_entry_that_shares_a_label((entries, tools) in catalog(), labels in prop::sample::select(vec!["finance", "legal", "none"])) {
        let consumer = automatic(json!({"d": labels}));
        let given: BTreeSet<ToolId> = run(&consumer, &entries, &tools, &[]).iter().map(|one| one.tool).collect();
        let expected: BTreeSet<ToolId> = tools
            .iter()
            .filter(|tool| entries.iter().any(|entry| entry.id == tool.entry && entry.spec.labels.contains("d", labels)))
            .map(|tool| tool.id)
            .collect();
        prop_assert_eq!(given, expected);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_removed((entries, tools) in catalog(), fewer in prop::sample::subsequence((0..6_usize).collect::<Vec<_>>(), 0..=6)) {
        let first = run(&consumer(json!({"slug": "g"}), all_of(&entries)), &entries, &tools, &[]);
        let kept: Vec<_> = fewer.iter().map(|n| entries[*n].clone()).collect();
        let second = run(&consumer(json!({"slug": "g"}), all_of(&kept)), &entries, &tools, &first);
        let expected: BTreeMap<_, _> = first.iter().filter(|one| kept.iter().any(|entry| entry.id == one.entry)).map(|one| (one.tool, one.exposed_name.to_string())).collect();
        prop_assert_eq!(names(&second), expected);
        let none = run(&automatic(json!({"none": "such"})), &entries, &tools, &first);
        prop_assert_eq!(none, []);
    }
}

#[test]
fn a_named_tool_beats_the_star_and_the_first_of_those_alike_counts() {
    let entries = [entry(0, json!({}))];
    let tools = [tool(0, 0), tool(0, 1)];
    let [a, b, c] = [1, 2, 3].map(|n| CredentialChoice::Pinned(InstallationId::from_uuid(Uuid::from_u128(n))));
    let selector = |tool: &str, credential| ToolSelector { entry: entries[0].id, tool: tool.to_owned(), credential };
    let selectors = vec![selector("*", a), selector("echo", b), selector("echo", c), selector("*", c)];
    let given = run(&consumer(json!({"slug": "g"}), selectors), &entries, &tools, &[]);
    let credentials: BTreeMap<_, _> = given.iter().map(|one| (one.tool, one.credential)).collect();
    assert_eq!(credentials, BTreeMap::from([(tools[0].id, b), (tools[1].id, a)]));
}

#[test]
fn another_credential_keeps_id_and_name() {
    let entries = [entry(0, json!({}))];
    let tools = [tool(0, 0)];
    let first = run(&consumer(json!({"slug": "g"}), all_of(&entries)), &entries, &tools, &[]);
    let pin = CredentialChoice::Pinned(InstallationId::new());
    let pinned = consumer(
        json!({"slug": "g"}),
        vec![ToolSelector { entry: entries[0].id, tool: "echo".to_owned(), credential: pin }],
    );
    let second = run(&pinned, &entries, &tools, &first);
    assert_eq!(second, [Assignment { credential: pin, ..first[0].clone() }]);
}

#[test]
fn labels_select_only_what_everybody_who_may_use_the_consumer_sees() {
    let [a, b] = [1, 2].map(|n| TeamId::from_uuid(Uuid::from_u128(n)));
    let [alice, bob] = [3, 4].map(|n| UserId::from_uuid(Uuid::from_u128(n)));
    let scopes = [
        Scope::Organization,
        Scope::Teams([a].into()),
        Scope::Teams([b].into()),
        Scope::Teams([a, b].into()),
        Scope::User(alice),
        Scope::User(bob),
    ];
    let mut entries = [0, 1, 2, 3, 4, 5].map(|n| entry(n, json!({"d": "finance"})));
    let tools = [0, 1, 2, 3, 4, 5].map(|n| tool(n, 0));
    for (entry, scope) in entries.iter_mut().zip(&scopes) {
        entry.scope = scope.clone();
    }
    for (scope, seen) in scopes.iter().zip([&[0][..], &[0, 1, 3], &[0, 2, 3], &[0, 3], &[0, 4], &[0, 5]]) {
        let wide = Consumer { scope: Scope::Organization, ..automatic(json!({"d": "finance"})) };
        let consumer = Consumer { scope: scope.clone(), ..wide };
        let given = run(&consumer, &entries, &tools, &[]);
        let given_tools: BTreeSet<_> = given.iter().map(|one| one.tool).collect();
        assert_eq!(given_tools, seen.iter().map(|n| tools[*n].id).collect(), "{scope:?}");
        let mut narrowed = entries.clone();
        narrowed.iter_mut().for_each(|entry| entry.scope = Scope::User(UserId::new()));
        assert!(run(&consumer, &narrowed, &tools, &given).is_empty(), "what is seen no longer is taken away");
    }
    let named = Consumer { scope: Scope::User(alice), ..consumer(json!({"slug": "g"}), all_of(&entries[1..2])) };
    assert_eq!(run(&named, &entries, &tools, &[]).len(), 1, "people may name what labels may not select");
}

#[test]
fn a_selector_of_an_entry_that_is_gone_gives_nothing() {
    let entries = [entry(0, json!({}))];
    assert!(run(&consumer(json!({"slug": "g"}), all_of(&entries)), &[], &[tool(0, 0)], &[]).is_empty());
}
