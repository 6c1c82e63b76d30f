//! Taking away: installations, and entries with all that hangs on them.

use super::{ATTEMPTS, Lifecycle, apply::push_delete_history, check_expect, now, raced};
use archestra_core::{
    Error, Result,
    catalog::{CatalogChanges, CatalogStoreExt, Query},
    consumer::{Assignment, Consumer, CredentialChoice},
    feed::{Expect as FeedExpect, Versioned},
    id::{EntryId, InstallationId},
    installation::Installation,
    runtime::WorkloadId,
    secret::{Expect, SecretRef},
    tool::Tool,
};
use std::collections::BTreeSet;

/// What happens to the installations of an entry that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cascade {
    /// There must be none.
    Refuse,
    /// They are removed too.
    Installations,
}

/// What goes once the rows are gone.
#[derive(Debug, Default)]
struct Leftovers {
    workloads: BTreeSet<WorkloadId>,
    secrets: BTreeSet<SecretRef>,
}

impl Lifecycle {
    /// Removes an installation with its workload, revisions and secrets.
    ///
    /// The tools of its entry stay, and so do their assignments: what was pinned to it resolves at call time from then on,
    /// in selectors and assignments alike, so that nothing is lost when it is made again.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the installation, and what the store answered. A runtime or secret store that
    /// does not answer is no error: what it keeps is removed later.
    pub async fn remove(&self, id: InstallationId) -> Result<()> {
        self.owned(move |this| async move { this.remove_owned(id).await }).await
    }

    /// Deletes an entry with its tools, their assignments and the selectors that name it; with its installations only when
    /// `cascade` says so.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the entry; [`Conflict`](Error::Conflict) when `expect` does not hold or there
    /// are installations; and what the store answered.
    pub async fn delete_entry(&self, id: EntryId, expect: FeedExpect, cascade: Cascade) -> Result<()> {
        self.owned(move |this| async move { this.delete_entry_owned(id, expect, cascade).await }).await
    }

    pub(super) async fn remove_owned(&self, id: InstallationId) -> Result<()> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let stored = self.installation(id).await?;
            let (changes, leftovers) = self.plan_remove(&stored).await?;
            match self.commit(changes).await {
                Ok(_) => {
                    self.clear(leftovers).await;
                    return Ok(());
                }
                Err(error) if raced(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::conflict("installation", id, "it is being changed all the time; try again")))
    }

    async fn plan_remove(&self, stored: &Versioned<Installation>) -> Result<(CatalogChanges, Leftovers)> {
        let id = stored.value.id;
        let mut changes = CatalogChanges::new();
        let mut leftovers = Leftovers::default();
        for consumer in self.consumers().await? {
            if let Some(unpinned) = unpinned(&consumer.value, id) {
                changes.push_put(unpinned, consumer.expect());
            }
        }
        let query = Query::Assignments { consumer: None, entry: None, installation: Some(id) };
        for assignment in self.catalog().list_all::<Assignment>(query).await? {
            let expect = assignment.expect();
            changes
                .push_put(Assignment { credential: CredentialChoice::ResolveAtCallTime, ..assignment.value }, expect);
        }
        if let Some(workload) = &stored.value.workload
            && !self.shared_with_others(&stored.value, workload).await?
        {
            let history = self.history(workload).await?;
            push_delete_history(&mut changes, &history);
            leftovers.workloads.insert(workload.clone());
            // It may still have run with secrets that its entry has replaced since.
            let entry = self.entry(stored.value.entry).await?.value;
            let named = history.last().into_iter().flat_map(|newest| newest.value.secrets.iter());
            let former = named.filter(|reference| entry.secrets.as_ref() != Some(reference)).cloned().collect();
            leftovers.secrets.extend(self.unnamed(&stored.value, former).await?);
        }
        leftovers.secrets.extend(stored.value.secrets.clone());
        changes.push_delete(id, stored.expect());
        Ok((changes, leftovers))
    }

    async fn shared_with_others(&self, installation: &Installation, workload: &WorkloadId) -> Result<bool> {
        let all = self.installations_of(installation.entry).await?;
        Ok(all.iter().any(|other| other.value.id != installation.id && other.value.workload.as_ref() == Some(workload)))
    }

    /// Those of the references that the newest revision of no other installation of the entry names.
    pub(super) async fn unnamed(
        &self,
        installation: &Installation,
        references: BTreeSet<SecretRef>,
    ) -> Result<BTreeSet<SecretRef>> {
        let mut unnamed = references;
        if unnamed.is_empty() {
            return Ok(unnamed);
        }
        for other in self.installations_of(installation.entry).await? {
            let Some(workload) = other.value.workload.as_ref().filter(|_| other.value.id != installation.id) else {
                continue;
            };
            if let Some(newest) = self.history(workload).await?.last() {
                unnamed.retain(|reference| !newest.value.secrets.contains(reference));
            }
        }
        Ok(unnamed)
    }

    async fn delete_entry_owned(&self, id: EntryId, expect: FeedExpect, cascade: Cascade) -> Result<()> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (changes, leftovers) = self.plan_delete(id, expect, cascade).await?;
            match self.commit(changes).await {
                Ok(_) => {
                    self.clear(leftovers).await;
                    return Ok(());
                }
                Err(error) if raced(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::conflict("entry", id, "it is being changed all the time; try again")))
    }

    async fn plan_delete(
        &self,
        id: EntryId,
        expect: FeedExpect,
        cascade: Cascade,
    ) -> Result<(CatalogChanges, Leftovers)> {
        let entry = self.entry(id).await?;
        check_expect(id, Some(&entry), expect)?;
        let installations = self.installations_of(id).await?;
        if cascade == Cascade::Refuse && !installations.is_empty() {
            let reason = format!(
                "it has {} installations; remove them first, or delete it together with them",
                installations.len()
            );
            return Err(Error::conflict("entry", &entry.value.spec.name, reason));
        }
        let mut changes = CatalogChanges::new();
        let mut leftovers = Leftovers::default();
        leftovers.secrets.extend(entry.value.secrets.clone());
        for consumer in self.consumers().await? {
            if consumer.value.tools.iter().any(|selector| selector.entry == id) {
                let expect = consumer.expect();
                let mut consumer = consumer.value;
                consumer.tools.retain(|selector| selector.entry != id);
                consumer.updated_at = now();
                changes.push_put(consumer, expect);
            }
        }
        let query = Query::Assignments { consumer: None, entry: Some(id), installation: None };
        for assignment in self.catalog().list_all::<Assignment>(query).await? {
            changes.push_delete(assignment.value.id, Expect::Any);
        }
        for tool in self.catalog().list_all::<Tool>(Query::Tools { entry: Some(id) }).await? {
            changes.push_delete(tool.value.id, Expect::Any);
        }
        leftovers.workloads.extend(installations.iter().filter_map(|one| one.value.workload.clone()));
        for workload in &leftovers.workloads {
            let history = self.history(workload).await?;
            push_delete_history(&mut changes, &history);
            leftovers.secrets.extend(history.last().into_iter().flat_map(|newest| newest.value.secrets.clone()));
        }
        for installation in installations {
            leftovers.secrets.extend(installation.value.secrets.clone());
            changes.push_delete(installation.value.id, installation.expect());
        }
        changes.push_delete(id, entry.expect());
        Ok((changes, leftovers))
    }

    async fn clear(&self, leftovers: Leftovers) {
        for workload in &leftovers.workloads {
            self.end_workload(workload).await;
        }
        for reference in &leftovers.secrets {
            self.discard(Some(reference)).await;
        }
    }
}

/// The consumer without pins to an installation, if it has any.
fn unpinned(consumer: &Consumer, id: InstallationId) -> Option<Consumer> {
    let pinned = CredentialChoice::Pinned(id);
    if !consumer.tools.iter().any(|selector| selector.credential == pinned) {
        return None;
    }
    let mut consumer = consumer.clone();
    for selector in &mut consumer.tools {
        if selector.credential == pinned {
            selector.credential = CredentialChoice::ResolveAtCallTime;
        }
    }
    consumer.updated_at = now();
    Some(consumer)
}
