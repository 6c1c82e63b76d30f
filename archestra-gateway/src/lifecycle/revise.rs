//! New revisions without new values: with what the platform adds today, or equal to an older one.

use super::{
    ATTEMPTS, Lifecycle,
    apply::{Renew, RevisionDraft, secret_refs},
    now, raced,
    reinstall::remote,
    workload::secret_keys,
};
use archestra_core::{
    Error, Result,
    catalog::{CatalogChanges, Entry},
    feed::{Version, Versioned},
    id::{InstallationId, UserId},
    installation::{Installation, InstallationState},
    runtime::{RevisionNumber, WorkloadId},
};

/// What a new revision is made of.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The entry and the values as they are, and the platform of today.
    Today,
    /// A stored revision.
    Stored(RevisionNumber),
}

impl Lifecycle {
    /// Makes a new revision with what the platform adds today, and rolls it out. What is up to date is left alone.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the installation; [`Conflict`](Error::Conflict) when its server is remote or it
    /// needs to be reinstalled; and what the store answered.
    pub async fn update(&self, id: InstallationId, author: Option<UserId>) -> Result<Versioned<Installation>> {
        self.owned(move |this| async move { this.revise(id, Source::Today, author).await }).await
    }

    /// Makes a new revision equal to an older one, with the secret values that are stored now, and rolls it out.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the installation or the revision; [`Conflict`](Error::Conflict) when its server
    /// is remote, or a secret that the revision needs is no longer stored; and what a store answered.
    pub async fn rollback(
        &self,
        id: InstallationId,
        number: RevisionNumber,
        author: Option<UserId>,
    ) -> Result<Versioned<Installation>> {
        self.owned(move |this| async move { this.revise(id, Source::Stored(number), author).await }).await
    }

    /// Commits a new revision together with a touch of the installation's row, so that two of them cannot cross, and brings
    /// it up.
    async fn revise(
        &self,
        id: InstallationId,
        source: Source,
        author: Option<UserId>,
    ) -> Result<Versioned<Installation>> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let stored = self.installation(id).await?;
            let as_read = self.entry(stored.value.entry).await?;
            let entry = &as_read.value;
            let workload = stored.value.workload.clone().ok_or_else(|| remote(id))?;
            self.runtime_for(entry)?;
            let mut changes = match source {
                Source::Today => self.renewed(entry, &stored.value, author).await?,
                Source::Stored(number) => self.restored(entry, &stored.value, &workload, number, author).await?,
            };
            if changes.is_empty() {
                return Ok(stored);
            }
            let expect = stored.expect();
            let mut installation = stored.value;
            if matches!(installation.state, InstallationState::Error { .. }) {
                installation.state = InstallationState::Pending;
            }
            installation.updated_at = now();
            changes.push_put(installation.clone(), expect);
            match self.commit(changes.require(entry.id, as_read.expect())).await {
                Ok(_) => {
                    self.bring_up(id);
                    return Ok(Versioned { version: Version(stored.version.0 + 1), value: installation });
                }
                Err(error) if raced(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::conflict("installation", id, "it is being changed all the time; try again")))
    }

    async fn renewed(
        &self,
        entry: &Entry,
        installation: &Installation,
        author: Option<UserId>,
    ) -> Result<CatalogChanges> {
        if installation.reinstall_required.is_some() {
            return Err(Error::conflict("installation", installation.id, "its entry asks for new input; reinstall it"));
        }
        let mut changes = CatalogChanges::new();
        let made_by = Installation { author, ..installation.clone() };
        self.push_revision(&mut changes, entry, &made_by, "update", Renew::IfOutdated).await?;
        Ok(changes)
    }

    async fn restored(
        &self,
        entry: &Entry,
        installation: &Installation,
        workload: &WorkloadId,
        number: RevisionNumber,
        author: Option<UserId>,
    ) -> Result<CatalogChanges> {
        let history = self.history(workload).await?;
        let old = history.iter().find(|revision| revision.value.number == number);
        let spec = old.ok_or_else(|| Error::not_found("revision", number))?.value.spec.clone();
        let secrets = secret_refs(entry, installation);
        let mut bundles = Vec::with_capacity(secrets.len());
        for reference in &secrets {
            bundles.push(self.bundle(Some(reference)).await?);
        }
        let absent = |key: &&str| bundles.iter().all(|bundle| bundle.get(key).is_none());
        let missing: Vec<_> = secret_keys(&spec).into_iter().filter(absent).collect();
        if !missing.is_empty() {
            let reason = format!("no value is stored any more for {}; reinstall instead", missing.join(", "));
            return Err(Error::conflict("revision", number, reason));
        }
        let draft =
            RevisionDraft { workload: workload.clone(), entry: entry.id, spec, secrets, cause: "rollback", author };
        let mut changes = CatalogChanges::new();
        draft.push(&mut changes, &history, Renew::Always, self.options().revision_history);
        Ok(changes)
    }
}
