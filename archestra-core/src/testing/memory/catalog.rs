//! `MemoryCatalog`: the catalog in memory.

use super::HISTORY;
use crate::{
    Error, Result,
    catalog::{CatalogChanges, CatalogStore, Lookup, Query, Record, RecordKey},
    consumer::CredentialChoice,
    feed::{FeedEvent, Page, PageRequest, StoreRevision, Versioned},
    testing::table::{Rules, Table, Unique},
};
use async_trait::async_trait;
use futures::stream::BoxStream;

/// The catalog in memory. Clones are handles on the same catalog.
#[derive(Debug, Clone)]
pub struct MemoryCatalog {
    table: Table<CatalogRules>,
}

impl Default for MemoryCatalog {
    fn default() -> Self {
        Self::with_history(HISTORY)
    }
}

impl MemoryCatalog {
    /// An empty catalog.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty catalog whose feeds can look back so many commits; a position before them begins with `Resync`.
    #[must_use]
    pub fn with_history(commits: usize) -> Self {
        Self { table: Table::new(commits) }
    }
}

#[derive(Debug)]
struct CatalogRules;

const ENTRY_NAME: &str = "entry.name";
const INSTALLATION_OWNER: &str = "installation.owner";
const TOOL_NAME: &str = "tool.name";
const CONSUMER_SLUG: &str = "consumer.slug";

impl Rules for CatalogRules {
    type Record = Record;

    fn check(record: &Record) -> Result<()> {
        // Every other store serializes what it keeps, and that is where a secret value in an entry is refused.
        let Record::Entry(entry) = record else { return Ok(()) };
        serde_json::to_writer(std::io::sink(), entry).map_err(|error| {
            Error::invalid("entry", error.to_string(), "store the secret first, and keep its reference")
        })
    }

    fn uniques(record: &Record) -> Vec<Unique> {
        match record {
            Record::Entry(entry) => vec![Unique::new(ENTRY_NAME, &entry.spec.name)],
            Record::Installation(installation) => {
                vec![Unique::new(INSTALLATION_OWNER, format_args!("{} of {}", installation.entry, installation.owner))]
            }
            Record::Tool(tool) => vec![Unique::new(TOOL_NAME, format_args!("{} of {}", tool.name, tool.entry))],
            Record::Consumer(consumer) => vec![Unique::new(CONSUMER_SLUG, &consumer.spec.slug)],
            Record::Assignment(assignment) => vec![
                Unique::new("assignment.name", format_args!("{} in {}", assignment.exposed_name, assignment.consumer)),
                Unique::new("assignment.tool", format_args!("{} in {}", assignment.tool, assignment.consumer)),
            ],
            Record::Revision(revision) => {
                vec![Unique::new("revision.number", format_args!("{} of {}", revision.number, revision.workload))]
            }
            Record::Policy(_) | Record::Limit(_) => Vec::new(),
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
}

fn matches(query: &Query, record: &Record) -> bool {
    fn fits<T: PartialEq>(wanted: &Option<T>, value: &T) -> bool {
        wanted.as_ref().is_none_or(|wanted| wanted == value)
    }
    match (query, record) {
        (Query::Entries { search, labels }, Record::Entry(entry)) => {
            let found = search.as_ref().is_none_or(|search| {
                let search = search.to_lowercase();
                [Some(&entry.spec.name), entry.spec.description.as_ref()]
                    .into_iter()
                    .flatten()
                    .any(|text| text.to_lowercase().contains(&search))
            });
            found && labels.as_ref().is_none_or(|labels| labels.intersects(&entry.spec.labels))
        }
        (Query::Installations { entry, owner }, Record::Installation(installation)) => {
            fits(entry, &installation.entry) && fits(owner, &installation.owner)
        }
        (Query::Tools { entry }, Record::Tool(tool)) => fits(entry, &tool.entry),
        (Query::Consumers { kind }, Record::Consumer(consumer)) => fits(kind, &consumer.kind),
        (Query::Assignments { consumer, entry, installation }, Record::Assignment(assignment)) => {
            let pinned = installation.is_none_or(|id| assignment.credential == CredentialChoice::Pinned(id));
            fits(consumer, &assignment.consumer) && fits(entry, &assignment.entry) && pinned
        }
        (Query::Revisions { workload }, Record::Revision(revision)) => fits(workload, &revision.workload),
        (Query::Policies, Record::Policy(_)) | (Query::Limits, Record::Limit(_)) => true,
        _ => false,
    }
}

#[async_trait]
impl CatalogStore for MemoryCatalog {
    async fn get(&self, key: RecordKey) -> Result<Versioned<Record>> {
        self.table.get(key)
    }

    async fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<Versioned<Record>>>> {
        Ok(self.table.get_many(keys))
    }

    async fn find(&self, lookup: &Lookup) -> Result<Option<Versioned<Record>>> {
        Ok(self.table.find(&match lookup {
            Lookup::EntryNamed(name) => Unique::new(ENTRY_NAME, name),
            Lookup::InstallationOf(entry, owner) => Unique::new(INSTALLATION_OWNER, format_args!("{entry} of {owner}")),
            Lookup::ToolNamed(entry, name) => Unique::new(TOOL_NAME, format_args!("{name} of {entry}")),
            Lookup::ConsumerAt(slug) => Unique::new(CONSUMER_SLUG, slug),
        }))
    }

    async fn list(&self, query: &Query, page: &PageRequest) -> Result<Page<Versioned<Record>>> {
        let kind = query.kind();
        self.table.list(|id| kind.key(id), page, |record| matches(query, record))
    }

    async fn commit(&self, changes: CatalogChanges) -> Result<StoreRevision> {
        self.table.commit(changes)
    }

    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<RecordKey>>> {
        self.table.changes(since)
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}
