//! Keeping what a server listed: tools, the hashes of the installation, and the assignments that follow, in one commit.

use super::{
    ATTEMPTS, Lifecycle,
    assign::Assigner,
    now, raced,
    tools::{Listed, MAX_UNLISTED, diff_tools, read_definitions},
};
use archestra_core::{
    Error, Result,
    catalog::{CatalogChanges, CatalogStoreExt, Entry, Query},
    feed::{Expect, Version, Versioned},
    id::{EntryId, InstallationId},
    installation::{Installation, InstallationState},
    tool::{DefinitionHash, Tool},
};
use serde_json::Value;
use std::collections::BTreeMap;

impl Lifecycle {
    /// What can be used of a listing; the rest is logged.
    pub(super) fn usable(entry: &Entry, definitions: Vec<Value>) -> Vec<Listed> {
        let listing = read_definitions(definitions);
        for note in &listing.notes {
            tracing::warn!(entry = %entry.spec.name, note, "a listed tool is not used");
        }
        listing.tools
    }

    /// The commit that makes an installation ready with these tools.
    pub(super) async fn plan_listing(
        &self,
        entry: &Entry,
        stored: Versioned<Installation>,
        was: Option<&Installation>,
        listed: &[Listed],
    ) -> Result<PlannedListing> {
        let Versioned { version, value: mut installation } = stored;
        let rows = self.catalog().list_all::<Tool>(Query::Tools { entry: Some(entry.id) }).await?;
        let now = now();
        let diff = diff_tools(entry.id, listed, &rows, &installation.tools, now);
        let gone = self.forgettable(entry.id, &rows, (installation.id, &diff.hashes)).await?;
        let assignments = if diff.create.is_empty() && gone.is_empty() {
            CatalogChanges::new()
        } else {
            let left = gone.iter().map(|row| row.value.id).collect();
            let mut assigner = Assigner::with_entry(self, entry, &diff.create).without(left);
            assigner.changes_around(entry, &entry.spec.labels).await?
        };
        let mut changes = CatalogChanges::new();
        for row in gone {
            changes.push_delete(row.value.id, row.expect());
        }
        for tool in diff.create {
            changes = changes.create(tool);
        }
        for (tool, expect) in diff.update {
            changes.push_put(tool, expect);
        }
        installation.tools = diff.hashes;
        installation.state = InstallationState::Ready;
        let mut version = version;
        if was != Some(&installation) {
            installation.updated_at = now;
            changes.push_put(installation.clone(), was.map_or(Expect::Absent, |_| Expect::Version(version)));
            version = Version(version.0 + 1);
        }
        changes.extend(assignments);
        Ok(PlannedListing { installation: Versioned { version, value: installation }, changes })
    }

    /// The rows of an entry that go when there are too many that nobody lists: those that no selector names.
    async fn forgettable<'a>(
        &self,
        entry: EntryId,
        rows: &'a [Versioned<Tool>],
        (installation, listed): (InstallationId, &BTreeMap<String, DefinitionHash>),
    ) -> Result<Vec<&'a Versioned<Tool>>> {
        let mut unlisted: BTreeMap<&str, _> = rows.iter().map(|row| (row.value.name.as_str(), row)).collect();
        unlisted.retain(|name, _| !listed.contains_key(*name));
        if unlisted.len() <= MAX_UNLISTED {
            return Ok(Vec::new());
        }
        for other in self.installations_of(entry).await? {
            if other.value.id != installation {
                unlisted.retain(|name, _| !other.value.tools.contains_key(*name));
            }
        }
        if unlisted.len() <= MAX_UNLISTED {
            return Ok(Vec::new());
        }
        for consumer in self.consumers().await? {
            for selector in consumer.value.tools.iter().filter(|selector| selector.entry == entry) {
                unlisted.remove(selector.tool.as_str());
            }
        }
        tracing::info!(%entry, tools = unlisted.len(), "forgetting tools that no server lists any more");
        Ok(unlisted.into_values().collect())
    }

    /// Keeps what the server of a stored installation listed, and makes it ready; `None` when it was removed meanwhile.
    pub(super) async fn store_tools(
        &self,
        id: InstallationId,
        definitions: Vec<Value>,
    ) -> Result<Option<Versioned<Installation>>> {
        let mut definitions = Some(definitions);
        let mut listed = Vec::new();
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let stored = match self.installation(id).await {
                Ok(stored) => stored,
                Err(Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let entry = self.entry(stored.value.entry).await?.value;
            if let Some(definitions) = definitions.take() {
                listed = Self::usable(&entry, definitions);
            }
            let was = stored.value.clone();
            let planned = self.plan_listing(&entry, stored, Some(&was), &listed).await?;
            match self.commit(planned.changes).await {
                Ok(_) => return Ok(Some(planned.installation)),
                Err(error) if raced(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::conflict("installation", id, "it is being changed all the time; try again")))
    }

    /// Changes a stored installation in the background; `None` when it is gone or there is nothing to change.
    pub(super) async fn amend(
        &self,
        id: InstallationId,
        change: impl Fn(&mut Installation) -> Amended + Send + Sync,
    ) -> Result<Option<Installation>> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let stored = match self.installation(id).await {
                Ok(stored) => stored,
                Err(Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let expect = stored.expect();
            let mut installation = stored.value;
            if change(&mut installation) == Amended::No {
                return Ok(None);
            }
            installation.updated_at = now();
            match self.commit(CatalogChanges::new().put(installation.clone(), expect)).await {
                Ok(_) => return Ok(Some(installation)),
                Err(error) if raced(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::conflict("installation", id, "it is being changed all the time; try again")))
    }
}

/// Whether there is something to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amended {
    Yes,
    No,
}

/// A commit, and the installation as it is once it has happened.
#[derive(Debug)]
pub(super) struct PlannedListing {
    pub(super) installation: Versioned<Installation>,
    pub(super) changes: CatalogChanges,
}
