//! Assignments that two commits missed because they crossed each other: looked for around what changed.

use super::super::{
    Lifecycle,
    assign::{Assigner, concerns},
};
use archestra_core::{
    Result,
    catalog::{CatalogStoreExt as _, Entry, Labels, Query, Record, RecordKey},
    consumer::{Assignment, Consumer, ToolAssignment},
    id::EntryId,
};
use std::collections::{BTreeMap, BTreeSet};

/// Around more entries than these it costs less to look at everything.
const FEW: usize = 50;

impl Lifecycle {
    /// Makes the assignments what they should be of the consumers that these entries, tools and consumers have to do with.
    pub(super) async fn reassign_around(&self, changed: &BTreeSet<RecordKey>) -> Result<()> {
        let entries = self.entries_around(changed).await?;
        if entries.len() > FEW {
            return self.reassign_all().await;
        }
        let mut having = BTreeSet::new();
        for entry in entries.keys() {
            let query = Query::Assignments { consumer: None, entry: Some(*entry), installation: None };
            let assignments = self.catalog().list_all::<Assignment>(query).await?;
            having.extend(assignments.into_iter().map(|assignment| assignment.value.consumer));
        }
        let concerned = |consumer: &Consumer| {
            let id = consumer.id;
            changed.contains(&id.into())
                || having.contains(&id)
                || entries.values().any(|entry| concerns(consumer, entry))
        };
        let consumers: Vec<Consumer> = if entries.is_empty() {
            self.changed_consumers(changed).await?
        } else {
            self.consumers().await?.into_iter().map(|consumer| consumer.value).filter(concerned).collect()
        };
        let mut assigner = Assigner::among(self, self.entries_for(&consumers).await?);
        for consumer in consumers {
            self.reassign(&mut assigner, &consumer).await?;
        }
        Ok(())
    }

    /// The entries among what changed, and those whose tools are. What is gone is assigned to nobody: the store sees to that.
    async fn entries_around(&self, changed: &BTreeSet<RecordKey>) -> Result<BTreeMap<EntryId, Entry>> {
        let read: Vec<RecordKey> =
            changed.iter().filter(|key| matches!(key, RecordKey::Entry(_) | RecordKey::Tool(_))).copied().collect();
        let (mut entries, mut of_tools) = (BTreeMap::new(), BTreeSet::new());
        for found in self.catalog().get_many(&read).await?.into_iter().flatten() {
            match found.value {
                Record::Entry(entry) => drop(entries.insert(entry.id, entry)),
                Record::Tool(tool) => drop(of_tools.insert(tool.entry)),
                _ => {}
            }
        }
        of_tools.retain(|id| !entries.contains_key(id));
        self.read_entries(of_tools, &mut entries).await?;
        Ok(entries)
    }

    async fn changed_consumers(&self, changed: &BTreeSet<RecordKey>) -> Result<Vec<Consumer>> {
        let keys: Vec<RecordKey> =
            changed.iter().filter(|key| matches!(key, RecordKey::Consumer(_))).copied().collect();
        let found = self.catalog().get_many(&keys).await?.into_iter().flatten();
        let consumers = found.filter_map(|found| match found.value {
            Record::Consumer(consumer) => Some(consumer),
            _ => None,
        });
        Ok(consumers.collect())
    }

    /// All entries that concern any of these consumers.
    async fn entries_for(&self, consumers: &[Consumer]) -> Result<Vec<Entry>> {
        let (mut labels, mut named) = (Labels::new(), BTreeSet::new());
        for consumer in consumers {
            match consumer.spec.tool_assignment {
                ToolAssignment::Automatic => {
                    consumer.spec.labels.iter().for_each(|(key, value)| labels.insert(key, value))
                }
                ToolAssignment::Manual => named.extend(consumer.tools.iter().map(|selector| selector.entry)),
            }
        }
        let mut entries = BTreeMap::new();
        if !labels.is_empty() {
            let query = Query::Entries { search: None, labels: Some(labels) };
            let found = self.catalog().list_all::<Entry>(query).await?;
            entries.extend(found.into_iter().map(|entry| (entry.value.id, entry.value)));
        }
        named.retain(|id| !entries.contains_key(id));
        self.read_entries(named, &mut entries).await?;
        Ok(entries.into_values().collect())
    }

    async fn read_entries(&self, ids: BTreeSet<EntryId>, into: &mut BTreeMap<EntryId, Entry>) -> Result<()> {
        let keys: Vec<RecordKey> = ids.into_iter().map(RecordKey::from).collect();
        for found in self.catalog().get_many(&keys).await?.into_iter().flatten() {
            if let Record::Entry(entry) = found.value {
                into.insert(entry.id, entry);
            }
        }
        Ok(())
    }
}
