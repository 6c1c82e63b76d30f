//! The assignments of consumers, reconciled in the same commit as the change that moves them.

use super::Lifecycle;
use archestra_core::{
    Error, Result,
    catalog::{CatalogChanges, CatalogStoreExt, Entry, Kind, Labels, Query},
    consumer::{Assignment, Consumer, ReconcileInput, ToolAssignment, reconcile},
    feed::Versioned,
    id::{AssignmentId, EntryId, ToolId},
    tool::Tool,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The catalog as it will be once a commit has happened: what is stored, under what the commit changes.
#[derive(Debug)]
pub(super) struct Assigner<'a> {
    lifecycle: &'a Lifecycle,
    entry: Option<&'a Entry>,
    new_tools: &'a [Tool],
    gone: BTreeSet<ToolId>,
    entries: Option<Vec<Entry>>,
    tools: BTreeMap<EntryId, Vec<Tool>>,
}

impl<'a> Assigner<'a> {
    /// Over the catalog as it is.
    pub(super) fn new(lifecycle: &'a Lifecycle) -> Self {
        Self { lifecycle, entry: None, new_tools: &[], gone: BTreeSet::new(), entries: None, tools: BTreeMap::new() }
    }

    /// Over the catalog as it is, of which these entries are all that can matter.
    pub(super) fn among(lifecycle: &'a Lifecycle, entries: Vec<Entry>) -> Self {
        Self { entries: Some(entries), ..Self::new(lifecycle) }
    }

    /// Over the catalog with this entry as it is to be, and these tools of it added.
    pub(super) fn with_entry(lifecycle: &'a Lifecycle, entry: &'a Entry, new_tools: &'a [Tool]) -> Self {
        Self { entry: Some(entry), new_tools, ..Self::new(lifecycle) }
    }

    /// The same, with these tools taken away.
    pub(super) fn without(self, gone: BTreeSet<ToolId>) -> Self {
        Self { gone, ..self }
    }

    /// What has to change for a consumer that is, or is to be, like this.
    pub(super) async fn changes(&mut self, consumer: &Consumer) -> Result<CatalogChanges> {
        self.changes_about(consumer, None).await
    }

    /// The same, or only what is about one entry: what others have just installed is theirs to assign, and would be assigned
    /// twice by whoever read its tools after its assignments.
    async fn changes_about(&mut self, consumer: &Consumer, entry: Option<EntryId>) -> Result<CatalogChanges> {
        let catalog = self.lifecycle.catalog();
        let query = Query::Assignments { consumer: Some(consumer.id), entry: None, installation: None };
        let present = catalog.list_all::<Assignment>(query).await?;
        let concerned = |assignment: &Assignment| entry.is_none_or(|entry| assignment.entry == entry);
        let versions: HashMap<AssignmentId, _> =
            present.iter().filter(|one| concerned(&one.value)).map(|one| (one.value.id, one.expect())).collect();
        let present: Vec<Assignment> = present.into_iter().map(|one| one.value).collect();

        let entries: Vec<Entry> =
            self.entries().await?.iter().filter(|entry| concerns(consumer, entry)).cloned().collect();
        let mut tools = Vec::new();
        for entry in &entries {
            tools.extend_from_slice(self.tools(entry.id).await?);
        }

        let outcome = reconcile(ReconcileInput { consumer, entries: &entries, tools: &tools, present: &present });
        let mut changes = CatalogChanges::new();
        for id in outcome.remove {
            if let Some(expect) = versions.get(&id) {
                changes.push_delete(id, *expect);
            }
        }
        for assignment in outcome.update {
            if let Some(expect) = versions.get(&assignment.id) {
                changes.push_put(assignment, *expect);
            }
        }
        for assignment in outcome.create.into_iter().filter(concerned) {
            changes = changes.create(assignment);
        }
        Ok(changes)
    }

    /// What has to change for every stored consumer that the entry concerns, or concerned when it had these labels.
    pub(super) async fn changes_around(&mut self, entry: &Entry, before: &Labels) -> Result<CatalogChanges> {
        let mut changes = CatalogChanges::new();
        for consumer in self.lifecycle.consumers().await? {
            let consumer = consumer.value;
            let concerned = concerned_before(&consumer, before);
            if concerned || concerns(&consumer, entry) {
                changes.extend(self.changes_about(&consumer, Some(entry.id)).await?);
            }
        }
        Ok(changes)
    }

    async fn entries(&mut self) -> Result<&[Entry]> {
        if self.entries.is_none() {
            let stored = self.lifecycle.catalog().list_all::<Entry>(Query::all(Kind::Entry)).await?;
            let others = stored
                .into_iter()
                .map(|entry| entry.value)
                .filter(|entry| self.entry.is_none_or(|own| own.id != entry.id));
            self.entries = Some(others.chain(self.entry.cloned()).collect());
        }
        Ok(self.entries.as_deref().unwrap_or_default())
    }

    async fn tools(&mut self, entry: EntryId) -> Result<&[Tool]> {
        if !self.tools.contains_key(&entry) {
            let stored = self.lifecycle.catalog().list_all::<Tool>(Query::Tools { entry: Some(entry) }).await?;
            let new = self.new_tools.iter().filter(|tool| tool.entry == entry).cloned();
            let kept = stored.into_iter().map(|tool| tool.value).filter(|tool| !self.gone.contains(&tool.id));
            self.tools.insert(entry, kept.chain(new).collect());
        }
        Ok(self.tools.get(&entry).map(Vec::as_slice).unwrap_or_default())
    }
}

pub(super) fn concerns(consumer: &Consumer, entry: &Entry) -> bool {
    match consumer.spec.tool_assignment {
        ToolAssignment::Automatic => consumer.spec.labels.intersects(&entry.spec.labels),
        ToolAssignment::Manual => consumer.tools.iter().any(|selector| selector.entry == entry.id),
    }
}

fn concerned_before(consumer: &Consumer, before: &Labels) -> bool {
    consumer.spec.tool_assignment == ToolAssignment::Automatic && consumer.spec.labels.intersects(before)
}

impl Lifecycle {
    pub(super) async fn consumers(&self) -> Result<Vec<Versioned<Consumer>>> {
        self.catalog().list_all::<Consumer>(Query::all(Kind::Consumer)).await
    }

    /// Makes the assignments of all consumers what they should be. Two commits that crossed each other can leave one
    /// behind; everything else finds nothing to do here.
    pub(super) async fn reassign_all(&self) -> Result<()> {
        let mut assigner = Assigner::new(self);
        for consumer in self.consumers().await? {
            self.reassign(&mut assigner, &consumer.value).await?;
        }
        Ok(())
    }

    /// Makes the assignments of one consumer what they should be.
    pub(super) async fn reassign(&self, assigner: &mut Assigner<'_>, consumer: &Consumer) -> Result<()> {
        if assigner.changes(consumer).await?.is_empty() {
            return Ok(());
        }
        // What was read for several consumers may be older than the assignments of this one, which would then seem to be of
        // nothing: before anything is done, all that explains them is read after them.
        let consumer = match self.catalog().get_one::<Consumer>(consumer.id).await {
            Ok(consumer) => consumer,
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let changes = Assigner::new(self).changes(&consumer.value).await?;
        if changes.is_empty() {
            return Ok(());
        }
        let (expect, consumer) = (consumer.expect(), consumer.value);
        if let Err(error) = self.commit(changes.require(consumer.id, expect)).await {
            tracing::debug!(consumer = %consumer.id, %error, "the assignments of a consumer changed meanwhile");
        }
        Ok(())
    }
}
