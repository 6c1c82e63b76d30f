//! How the catalog's records are laid out in tables.

use crate::sql::{
    document,
    family::{Family, Referrer, Satellite, Table},
};
use archestra_core::{
    catalog::{Kind, Record, RecordKey},
    consumer::{ConsumerKind, CredentialChoice},
    installation::Owner,
};
use sea_orm::Value;
use uuid::Uuid;

/// The records of the catalog.
#[derive(Debug)]
pub(super) struct Catalog;

static ENTRIES: Table = Table {
    name: "entries",
    label: Kind::Entry.label(),
    columns: &["name", "search"],
    uniques: &[&[0]],
    satellite: Some(Satellite { name: "entry_labels", columns: &["entry", "label_key", "label_value"] }),
    referrers: &[
        Referrer { table: "installations", column: "entry", label: Kind::Installation.label() },
        Referrer { table: "tools", column: "entry", label: Kind::Tool.label() },
        Referrer { table: "assignments", column: "entry", label: Kind::Assignment.label() },
    ],
};
static INSTALLATIONS: Table = Table {
    name: "installations",
    label: Kind::Installation.label(),
    columns: &["entry", "owner_kind", "owner_id"],
    uniques: &[&[0, 1, 2]],
    satellite: None,
    referrers: &[Referrer { table: "assignments", column: "installation", label: Kind::Assignment.label() }],
};
static TOOLS: Table = Table {
    name: "tools",
    label: Kind::Tool.label(),
    columns: &["entry", "name"],
    uniques: &[&[0, 1]],
    satellite: None,
    referrers: &[Referrer { table: "assignments", column: "tool", label: Kind::Assignment.label() }],
};
static CONSUMERS: Table = Table {
    name: "consumers",
    label: Kind::Consumer.label(),
    columns: &["slug", "kind"],
    uniques: &[&[0]],
    satellite: None,
    referrers: &[Referrer { table: "assignments", column: "consumer", label: Kind::Assignment.label() }],
};
static ASSIGNMENTS: Table = Table {
    name: "assignments",
    label: Kind::Assignment.label(),
    columns: &["consumer", "entry", "tool", "installation", "exposed_name"],
    uniques: &[&[0, 4], &[0, 2]],
    satellite: None,
    referrers: &[],
};
static REVISIONS: Table = Table {
    name: "revisions",
    label: Kind::Revision.label(),
    columns: &["workload", "number"],
    uniques: &[&[0, 1]],
    satellite: None,
    referrers: &[],
};
static POLICIES: Table = Table {
    name: "policies",
    label: Kind::Policy.label(),
    columns: &[],
    uniques: &[],
    satellite: None,
    referrers: &[],
};
static LIMITS: Table =
    Table { name: "limits", label: Kind::Limit.label(), columns: &[], uniques: &[], satellite: None, referrers: &[] };

/// The table of a kind.
pub(super) const fn table(kind: Kind) -> &'static Table {
    match kind {
        Kind::Entry => &ENTRIES,
        Kind::Installation => &INSTALLATIONS,
        Kind::Tool => &TOOLS,
        Kind::Consumer => &CONSUMERS,
        Kind::Assignment => &ASSIGNMENTS,
        Kind::Revision => &REVISIONS,
        Kind::Policy => &POLICIES,
        Kind::Limit => &LIMITS,
    }
}

/// How an owner is stored: its kind, and its id or nothing.
pub(super) fn owner(owner: &Owner) -> (&'static str, String) {
    match owner {
        Owner::User(id) => ("user", id.to_string()),
        Owner::Team(id) => ("team", id.to_string()),
        Owner::Organization => ("organization", String::new()),
    }
}

/// How a kind of consumer is stored.
pub(super) const fn consumer_kind(kind: ConsumerKind) -> &'static str {
    match kind {
        ConsumerKind::Gateway => "gateway",
        ConsumerKind::Agent => "agent",
    }
}

impl Family for Catalog {
    type Record = Record;

    const STORE: &'static str = "catalog";

    fn key(label: &str, id: Uuid) -> Option<RecordKey> {
        Kind::from_label(label).map(|kind| kind.key(id))
    }

    fn table(key: &RecordKey) -> &'static Table {
        table(key.kind())
    }

    fn columns(record: &Record) -> Vec<Value> {
        match record {
            Record::Entry(entry) => {
                let search = format!("{}\n{}", entry.spec.name, entry.spec.description.as_deref().unwrap_or_default())
                    .to_lowercase();
                vec![entry.spec.name.as_str().into(), search.into()]
            }
            Record::Installation(installation) => {
                let (kind, owner) = owner(&installation.owner);
                vec![Uuid::from(installation.entry).into(), kind.into(), owner.into()]
            }
            Record::Tool(tool) => vec![Uuid::from(tool.entry).into(), tool.name.as_str().into()],
            Record::Consumer(consumer) => vec![consumer.spec.slug.as_str().into(), consumer_kind(consumer.kind).into()],
            Record::Assignment(assignment) => {
                let pinned = match assignment.credential {
                    CredentialChoice::Pinned(installation) => Some(Uuid::from(installation)),
                    CredentialChoice::ResolveAtCallTime => None,
                };
                vec![
                    Uuid::from(assignment.consumer).into(),
                    Uuid::from(assignment.entry).into(),
                    Uuid::from(assignment.tool).into(),
                    pinned.into(),
                    assignment.exposed_name.as_str().into(),
                ]
            }
            Record::Revision(revision) => vec![revision.workload.as_str().into(), i64::from(revision.number.0).into()],
            Record::Policy(_) | Record::Limit(_) => Vec::new(),
        }
    }

    fn satellites(record: &Record) -> Vec<Vec<Value>> {
        match record {
            Record::Entry(entry) => {
                entry.spec.labels.iter().map(|(key, value)| vec![key.into(), value.into()]).collect()
            }
            _ => Vec::new(),
        }
    }

    fn references(record: &Record) -> Vec<RecordKey> {
        match record {
            Record::Installation(installation) => vec![installation.entry.into()],
            Record::Tool(tool) => vec![tool.entry.into()],
            Record::Assignment(assignment) => {
                let mut keys = vec![assignment.entry.into(), assignment.consumer.into(), assignment.tool.into()];
                if let CredentialChoice::Pinned(installation) = assignment.credential {
                    keys.push(installation.into());
                }
                keys
            }
            Record::Entry(_) | Record::Consumer(_) | Record::Revision(_) | Record::Policy(_) | Record::Limit(_) => {
                Vec::new()
            }
        }
    }

    fn unique_value(record: &Record, n: usize) -> String {
        match (record, n) {
            (Record::Entry(entry), _) => entry.spec.name.clone(),
            (Record::Installation(installation), _) => format!("{} of {}", installation.entry, installation.owner),
            (Record::Tool(tool), _) => format!("{} of {}", tool.name, tool.entry),
            (Record::Consumer(consumer), _) => consumer.spec.slug.clone(),
            (Record::Assignment(assignment), 0) => format!("{} in {}", assignment.exposed_name, assignment.consumer),
            (Record::Assignment(assignment), _) => format!("{} in {}", assignment.tool, assignment.consumer),
            (Record::Revision(revision), _) => format!("{} of {}", revision.number, revision.workload),
            (Record::Policy(policy), _) => policy.id.to_string(),
            (Record::Limit(limit), _) => limit.id.to_string(),
        }
    }

    fn write(record: &Record) -> serde_json::Result<String> {
        match record {
            Record::Entry(value) => serde_json::to_string(value),
            Record::Installation(value) => serde_json::to_string(value),
            Record::Tool(value) => serde_json::to_string(value),
            Record::Consumer(value) => serde_json::to_string(value),
            Record::Assignment(value) => serde_json::to_string(value),
            Record::Revision(value) => serde_json::to_string(value),
            Record::Policy(value) => serde_json::to_string(value),
            Record::Limit(value) => serde_json::to_string(value),
        }
    }

    fn read(key: &RecordKey, doc: &str) -> serde_json::Result<Record> {
        Ok(match key.kind() {
            Kind::Entry => Record::Entry(document::read(doc)?),
            Kind::Installation => Record::Installation(document::read(doc)?),
            Kind::Tool => Record::Tool(document::read(doc)?),
            Kind::Consumer => Record::Consumer(document::read(doc)?),
            Kind::Assignment => Record::Assignment(document::read(doc)?),
            Kind::Revision => Record::Revision(document::read(doc)?),
            Kind::Policy => Record::Policy(document::read(doc)?),
            Kind::Limit => Record::Limit(document::read(doc)?),
        })
    }
}
