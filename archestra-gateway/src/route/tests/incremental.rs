//! A snapshot that followed changes is the one that would be built of what is there then, and nothing in it was made for nothing.

use super::{Affected, Mirror, parts};
use crate::{mcp::version::Era, route::Snapshot};
use archestra_core::{
    catalog::{Record, RecordKey},
    consumer::{Consumer, CredentialChoice},
    installation::{InstallationState, Owner},
    policy::{Condition, Operator, Policy},
    testing::fixtures,
    tool::DefinitionHash,
};
use proptest::prelude::*;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Records that refer to each other, each of which comes in several forms.
struct Universe {
    records: Vec<Record>,
    /// Two consumers that can only be there in turns.
    rivals: [Consumer; 2],
}

impl Universe {
    fn new() -> Self {
        let mut records = Vec::new();
        let mut consumers: Vec<Consumer> = ["one", "two", "shared", "shared"].map(fixtures::gateway).into();
        consumers[1] = fixtures::agent("two");
        for n in 0..3 {
            let entry = fixtures::remote_entry(&format!("entry-{n}"));
            for owner in [Owner::Organization, Owner::Team(archestra_core::id::TeamId::new())] {
                records.push(Record::Installation(fixtures::installation(&entry, owner)));
            }
            for name in ["read", "write"] {
                let tool = fixtures::tool(&entry, name);
                for consumer in &consumers {
                    records.push(Record::Assignment(fixtures::assignment(consumer, &entry, &tool)));
                }
                records.push(Record::Tool(tool));
            }
            records.push(Record::Entry(entry));
        }
        let rivals = [consumers[2].clone(), consumers[3].clone()];
        records.extend(consumers.into_iter().map(Record::Consumer));
        records.extend((0..4).map(|n| Record::Policy(fixtures::policy(&format!("policy-{n}")))));
        Self { records, rivals }
    }

    /// One of the forms of a record.
    fn form(&self, of: &Record, form: u8) -> Record {
        let mut record = of.clone();
        match &mut record {
            Record::Entry(entry) => entry.spec.description = Some(form.to_string()),
            Record::Installation(installation) => {
                installation.state =
                    if form.is_multiple_of(3) { InstallationState::Pending } else { InstallationState::Ready };
                let tools = if form.is_multiple_of(2) { &["read", "write"][..] } else { &["read"] };
                let hash = DefinitionHash::of(&json!(1));
                installation.tools = tools.iter().map(|name| ((*name).to_owned(), hash)).collect();
            }
            Record::Tool(tool) => {
                let definition = json!({"name": tool.name, "description": form, "inputSchema": {"type": "object"}});
                tool.hash = DefinitionHash::of(&definition);
                tool.definition = definition.to_string();
            }
            Record::Consumer(consumer) => consumer.spec.call_timeout = Some(u32::from(form)),
            Record::Assignment(assignment) => {
                let pinned = self.records.iter().find_map(|record| match record {
                    Record::Installation(found) if found.entry == assignment.entry => Some(found.id),
                    _ => None,
                });
                assignment.credential = match pinned {
                    Some(id) if form.is_multiple_of(2) => CredentialChoice::Pinned(id),
                    _ => CredentialChoice::ResolveAtCallTime,
                };
            }
            Record::Policy(policy) => self.rule(policy, form),
            Record::Revision(_) | Record::Limit(_) => {}
        }
        record
    }

    fn rule(&self, policy: &mut Policy, form: u8) {
        let spec = &mut policy.spec;
        let nth = |found: Vec<RecordKey>| found[usize::from(form) % found.len()];
        let keys = |like: fn(&Record) -> bool| {
            self.records.iter().filter(|record| like(record)).map(Record::key).collect::<Vec<_>>()
        };
        if form & 1 != 0
            && let RecordKey::Entry(id) = nth(keys(|record| matches!(record, Record::Entry(_))))
        {
            spec.entry = Some(id);
        }
        if form & 2 != 0
            && let RecordKey::Consumer(id) = nth(keys(|record| matches!(record, Record::Consumer(_))))
        {
            spec.consumer = Some(id);
        }
        spec.tool = ["read", "w*", "none"].get(usize::from((form >> 2) & 3)).map(|tool| (*tool).to_owned());
        if form & 16 != 0 {
            spec.conditions = vec![Condition { path: "/path".to_owned(), operator: Operator::Exists, value: None }];
        }
        spec.priority = i32::from(form);
    }
}

/// Everything of a snapshot that routes calls.
fn told(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    assert_eq!(snapshot.by_slug.len(), snapshot.by_id.len());
    for (slug, route) in &snapshot.by_slug {
        assert!(Arc::ptr_eq(route, &snapshot.by_id[&route.consumer.id]), "{slug}");
        assert_eq!(*route.changed.borrow(), route.list.version(), "{slug}");
        let pages = [Era::Modern, Era::Legacy].map(|era| route.list.page(None, era));
        told.insert(slug.to_string(), format!("{:?} {pages:?} {}", route.consumer, route.list.version()));
        for (name, tool) in &route.tools {
            let targets: BTreeMap<_, _> =
                tool.targets.iter().map(|(id, target)| (id, (target.entry(), target.installation()))).collect();
            let judged = (&tool.rules, tool.judges_arguments);
            let way = (&tool.choice, &tool.candidates, targets, &tool.header_params, tool.timeout);
            told.insert(format!("{slug} {name}"), format!("{:?} {:?} {judged:?} {way:?}", tool.tool, tool.entry));
        }
    }
    told
}

fn whole(records: &BTreeMap<RecordKey, Record>) -> Snapshot {
    let (mut mirror, mut affected) = (Mirror::default(), Affected::default());
    for (key, record) in records {
        mirror.apply(*key, Some(record.clone()), &mut affected);
    }
    Snapshot::whole(&mut mirror, &parts())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_followed_is_what_would_be_built(
        commits in prop::collection::vec(prop::collection::vec((any::<prop::sample::Index>(), 0_u8..32), 1..8), 1..24)
    ) {
        let universe = Universe::new();
        let mut records: BTreeMap<RecordKey, Record> =
            universe.records.iter().map(|record| (record.key(), universe.form(record, 1))).collect();
        records.remove(&universe.rivals[1].id.into());
        let mut mirror = Mirror::default();
        for (key, record) in &records {
            mirror.apply(*key, Some(record.clone()), &mut Affected::default());
        }
        let mut snapshot = Snapshot::whole(&mut mirror, &parts());
        for commit in commits {
            let mut keys = BTreeSet::new();
            for (index, form) in commit {
                let record = index.get(&universe.records);
                keys.insert(record.key());
                if form == 0 {
                    records.remove(&record.key());
                    continue;
                }
                records.insert(record.key(), universe.form(record, form));
                if let Some(n) = universe.rivals.iter().position(|rival| RecordKey::from(rival.id) == record.key()) {
                    let other = universe.rivals[1 - n].id.into();
                    records.remove(&other);
                    keys.insert(other);
                }
            }
            let mut affected = Affected::default();
            for key in keys {
                mirror.apply(key, records.get(&key).cloned(), &mut affected);
            }
            if let Some(next) = snapshot.after(&mut mirror, affected, &parts()) {
                snapshot = next;
            }
            prop_assert_eq!(told(&snapshot), told(&whole(&records)));
        }
    }
}

/// A consumer with two tools, another one with one of them, and a third that has none.
fn followed() -> (Mirror, Snapshot, Vec<Record>) {
    let entry = fixtures::remote_entry("tracker");
    let tools = ["read", "write"].map(|name| fixtures::tool(&entry, name));
    let consumers = ["both", "reads", "none"].map(fixtures::gateway);
    let mut records: Vec<Record> = vec![
        fixtures::assignment(&consumers[0], &entry, &tools[0]).into(),
        fixtures::assignment(&consumers[0], &entry, &tools[1]).into(),
        fixtures::assignment(&consumers[1], &entry, &tools[0]).into(),
        entry.into(),
    ];
    records.extend(tools.map(Record::from));
    records.extend(consumers.map(Record::from));
    let mut mirror = Mirror::default();
    for record in &records {
        mirror.apply(record.key(), Some(record.clone()), &mut Affected::default());
    }
    let snapshot = Snapshot::whole(&mut mirror, &parts());
    (mirror, snapshot, records)
}

#[test]
fn a_rule_makes_only_the_tools_anew_that_it_is_about() {
    let (mut mirror, before, _) = followed();
    let mut rule = fixtures::policy("writes");
    rule.spec.tool = Some("write".to_owned());
    let follow = |mirror: &mut Mirror, present: &Snapshot, rule: Option<&Policy>, key: RecordKey| {
        let mut affected = Affected::default();
        mirror.apply(key, rule.cloned().map(Record::Policy), &mut affected);
        assert!(affected.consumers.is_empty());
        present.after(mirror, affected, &parts())
    };
    let key = RecordKey::from(rule.id);
    let after = follow(&mut mirror, &before, Some(&rule), key).unwrap();
    for slug in ["reads", "none"] {
        assert!(Arc::ptr_eq(before.consumer(slug).unwrap(), after.consumer(slug).unwrap()), "{slug}");
    }
    let (was, is) = (before.consumer("both").unwrap(), after.consumer("both").unwrap());
    for (name, tool) in &is.tools {
        let about = tool.tool.name == "write";
        assert_eq!((tool.rules.len(), Arc::ptr_eq(tool, &was.tools[name])), (usize::from(about), !about), "{name}");
    }
    assert!(follow(&mut mirror, &after, Some(&rule), key).is_none(), "it is told twice");

    rule.spec.tool = Some("read".to_owned());
    let moved = follow(&mut mirror, &after, Some(&rule), key).unwrap();
    let rules = |snapshot: &Snapshot, slug| {
        let route = snapshot.consumer(slug).unwrap();
        let about = route.tools.values().filter(|tool| !tool.rules.is_empty());
        about.map(|tool| tool.tool.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!((rules(&moved, "both"), rules(&moved, "reads")), (vec!["read".to_owned()], vec!["read".to_owned()]));
    assert!(Arc::ptr_eq(before.consumer("none").unwrap(), moved.consumer("none").unwrap()));
    let gone = follow(&mut mirror, &moved, None, key).unwrap();
    assert_eq!((rules(&gone, "both"), rules(&gone, "reads")), (Vec::new(), Vec::new()));
    let nobody = fixtures::policy("nobody's");
    let mut elsewhere = nobody.clone();
    elsewhere.spec.consumer = Some(archestra_core::id::ConsumerId::new());
    assert!(follow(&mut mirror, &gone, Some(&elsewhere), nobody.id.into()).is_none());
}
