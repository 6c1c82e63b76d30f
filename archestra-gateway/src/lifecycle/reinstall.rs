//! New values for an installation: checked, tried, and kept whole or not at all.

use super::{
    ATTEMPTS, Lifecycle,
    apply::{Renew, RevisionDraft, push_delete_history, secret_refs},
    install::supported,
    now, raced,
    secrets::INSTALLATIONS,
    workload_id,
};
use archestra_core::{
    Error, Result,
    catalog::{CatalogChanges, Entry},
    feed::{Version, Versioned},
    id::{InstallationId, UserId},
    installation::{Installation, InstallationState, check_values, install_fields},
    runtime::{Revision, RevisionNumber, WorkloadId},
    secret::{SecretBundle, SecretRef, SecretValue},
};
use std::collections::{BTreeMap, BTreeSet};

impl Lifecycle {
    /// Gives an installation new values and starts it anew. Values that are not given again stay as they are.
    ///
    /// A remote server is connected to and listed with the new values before they are kept. A self-hosted one gets a new
    /// revision; when the runtime refuses it, everything stays as it was. Tools are recognized by their raw names, so that
    /// assignments survive.
    ///
    /// # Errors
    /// As [`install`](Self::install), and [`NotFound`](Error::NotFound) without the installation.
    pub async fn reinstall(
        &self,
        id: InstallationId,
        values: BTreeMap<String, SecretValue>,
        author: Option<UserId>,
    ) -> Result<Versioned<Installation>> {
        self.owned(move |this| async move {
            let mut last = None;
            for _ in 0..ATTEMPTS {
                match this.reinstall_owned(id, values.clone(), author).await {
                    Err(
                        error @ Error::Conflict {
                            kind: "installation" | "tool" | "assignment" | "revision" | "entry",
                            ..
                        },
                    ) => last = Some(error),
                    Err(error @ Error::AlreadyExists { .. }) => last = Some(error),
                    outcome => return outcome,
                }
            }
            Err(last
                .unwrap_or_else(|| Error::conflict("installation", id, "it is being changed all the time; try again")))
        })
        .await
    }

    async fn reinstall_owned(
        &self,
        id: InstallationId,
        values: BTreeMap<String, SecretValue>,
        author: Option<UserId>,
    ) -> Result<Versioned<Installation>> {
        let stored = self.installation(id).await?;
        let as_read = self.entry(stored.value.entry).await?;
        let entry = &as_read.value;
        supported(entry)?;
        self.check_runnable(entry)?;
        let kept = self.written(stored.value.secrets.as_ref()).await?;
        let given = merge(entry, &stored.value, &kept, values);
        let values = check_values(&entry.spec, given, &BTreeSet::new()).map_err(Error::Invalid)?;

        self.check_secrets(stored.value.owner, &values.secret)?;
        let rotated = values.secret != kept;
        let new =
            if rotated { self.keep(INSTALLATIONS, id, &values.secret).await? } else { stored.value.secrets.clone() };
        let workload = workload_id(&entry.spec, entry.id, id);
        let mut next = Installation {
            secret_fields: values.secret.keys().map(str::to_owned).collect(),
            values: values.plain,
            secrets: new.clone(),
            reinstall_required: None,
            updated_at: now(),
            ..stored.value.clone()
        };
        if stored.value.state != InstallationState::Ready || workload != stored.value.workload {
            next.state = InstallationState::Pending;
        }
        next.workload = workload;
        let outcome = if next.workload.is_none() {
            self.reinstall_remote(&as_read, &stored, next).await
        } else {
            self.reinstall_hosted(&as_read, &stored, next, author).await
        };
        match (&outcome, rotated) {
            (Ok(_), true) => self.retire(stored.value.secrets.as_ref()),
            (Err(_), true) => self.abandon(new.as_ref(), id.into()).await,
            (_, false) => {}
        }
        outcome
    }

    async fn reinstall_remote(
        &self,
        as_read: &Versioned<Entry>,
        stored: &Versioned<Installation>,
        next: Installation,
    ) -> Result<Versioned<Installation>> {
        let entry = &as_read.value;
        let deadline = self.options().discover_timeout;
        let definitions = self.list_once(entry, &next).await.map_err(|error| error.into_error(entry, deadline))?;
        let listed = Self::usable(entry, definitions);
        let next = Versioned { version: stored.version, value: next };
        let mut planned = self.plan_listing(entry, next, Some(&stored.value), &listed).await?;
        let ended = self.push_left(&mut planned.changes, &stored.value, &planned.installation.value).await?;
        self.commit(planned.changes.require(entry.id, as_read.expect())).await?;
        self.end_left(ended).await;
        Ok(planned.installation)
    }

    async fn reinstall_hosted(
        &self,
        as_read: &Versioned<Entry>,
        stored: &Versioned<Installation>,
        next: Installation,
        author: Option<UserId>,
    ) -> Result<Versioned<Installation>> {
        let entry = &as_read.value;
        let Some(workload) = next.workload.clone() else { return Err(remote(next.id)) };
        let before = self.history(&workload).await?;
        let mut changes = CatalogChanges::new().put(next.clone(), stored.expect()).require(entry.id, as_read.expect());
        let made_by = Installation { author, ..next.clone() };
        // What a shared deployment runs does not depend on its installations: their values go with requests.
        let renew = if entry.spec.shared_deployment { Renew::IfChanged } else { Renew::Always };
        let made = self.push_revision(&mut changes, entry, &made_by, "reinstall", renew).await?;
        let ended = self.push_left(&mut changes, &stored.value, &next).await?;
        self.commit(changes).await?;
        let applied = match self.apply_newest(&workload).await {
            Err(error) if !error.is_retryable() && ended.is_none() => {
                let former = before.last().map(|newest| &newest.value);
                self.take_back(stored, &next, &workload, Former { revision: former, made }).await;
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(%workload, %error, "a reinstalled workload is applied later");
                None
            }
            Ok(applied) => applied,
        };
        self.end_left(ended).await;
        match applied {
            Some(number) => self.bring_up_applied(next.id, number),
            None => self.bring_up(next.id),
        }
        self.discard_former(entry, &next, before.last()).await;
        Ok(Versioned { version: Version(stored.version.0 + 1), value: next })
    }

    /// Removes secrets that the revision before ran with and nothing names any more. What fails here the sweep does.
    async fn discard_former(&self, entry: &Entry, installation: &Installation, before: Option<&Versioned<Revision>>) {
        let present = secret_refs(entry, installation);
        let former = before
            .into_iter()
            .flat_map(|before| before.value.secrets.iter())
            .filter(|reference| !present.contains(reference));
        let former: BTreeSet<SecretRef> =
            former.filter(|reference| entry.secrets.as_ref() != Some(reference)).cloned().collect();
        for reference in self.unnamed(installation, former).await.unwrap_or_default() {
            self.retire(Some(&reference));
        }
    }

    /// Restores an installation whose new revision the runtime refused.
    async fn take_back(
        &self,
        stored: &Versioned<Installation>,
        refused: &Installation,
        workload: &WorkloadId,
        former: Former<'_>,
    ) {
        let id = stored.value.id;
        let restore = async {
            let mut last = None;
            for _ in 0..ATTEMPTS {
                match self.try_take_back(&stored.value, refused, workload, former).await {
                    Err(error) if raced(&error) => last = Some(error),
                    outcome => return outcome,
                }
            }
            last.map_or(Ok(()), Err)
        };
        if let Err(error) = restore.await {
            tracing::warn!(installation = %id, %error, "a refused reinstallation could not be taken back; the reconciler reports it");
        }
        self.bring_up(id);
    }

    /// Forwards, with a revision of its own that is as the former one: the refused one may have reached the runtime, which
    /// takes no older number from then on.
    async fn try_take_back(
        &self,
        stored: &Installation,
        refused: &Installation,
        workload: &WorkloadId,
        former: Former<'_>,
    ) -> Result<()> {
        let now = self.installation(stored.id).await?;
        let history = self.history(workload).await?;
        let others = now.value.values != refused.values
            || now.value.secrets != refused.secrets
            || now.value.workload != refused.workload
            || former.made.is_some_and(|made| history.last().is_none_or(|newest| newest.value.number != made));
        if others {
            tracing::warn!(installation = %stored.id, "a refused reinstallation stays, because somebody has built upon it since");
            return Ok(());
        }
        let mut changes = CatalogChanges::new().put(stored.clone(), now.expect());
        let ended = self.push_left(&mut changes, refused, stored).await?;
        if let (None, Some(_), Some(revision)) = (&ended, former.made, former.revision) {
            let draft = RevisionDraft {
                workload: workload.clone(),
                entry: revision.entry,
                spec: revision.spec.clone(),
                secrets: revision.secrets.clone(),
                cause: "rollback",
                author: None,
            };
            draft.push(&mut changes, &history, Renew::Always, self.options().revision_history);
        }
        self.commit(changes).await?;
        self.end_left(ended).await;
        Ok(())
    }

    /// Removes the revisions of the workload that an installation had before, if it has another one now.
    async fn push_left(
        &self,
        changes: &mut CatalogChanges,
        before: &Installation,
        next: &Installation,
    ) -> Result<Option<WorkloadId>> {
        let Some(left) = before.workload.as_ref().filter(|left| next.workload.as_ref() != Some(left)) else {
            return Ok(None);
        };
        let others = self.installations_of(before.entry).await?;
        if others.iter().any(|other| other.value.id != before.id && other.value.workload.as_ref() == Some(left)) {
            return Ok(None);
        }
        push_delete_history(changes, &self.history(left).await?);
        Ok(Some(left.clone()))
    }

    async fn end_left(&self, workload: Option<WorkloadId>) {
        if let Some(workload) = workload {
            self.end_workload(&workload).await;
        }
    }
}

/// The revisions of a workload around a reinstallation.
#[derive(Debug, Clone, Copy)]
struct Former<'a> {
    /// The newest one before it, if there was one.
    revision: Option<&'a Revision>,
    /// The one that it made, if what runs was to change.
    made: Option<RevisionNumber>,
}

/// What there is for each field that the entry asks for now: what is given, else what is stored. A secret does not become a
/// plain value, and a blank field in a form keeps the secret that is there.
fn merge(
    entry: &Entry,
    stored: &Installation,
    kept: &SecretBundle,
    mut given: BTreeMap<String, SecretValue>,
) -> BTreeMap<String, SecretValue> {
    for field in install_fields(&entry.spec) {
        let own = given.get(&field.name);
        if own.is_some_and(|own| !(field.secret && own.is_blank())) {
            continue;
        }
        let plain = stored.values.get(&field.name).map(|text| SecretValue::new(text.clone()));
        let secret = if field.secret { kept.get(&field.name).cloned() } else { None };
        if let Some(value) = secret.or(plain) {
            given.insert(field.name, value);
        }
    }
    given
}

/// There is nothing to run for a remote server.
pub(super) fn remote(id: InstallationId) -> Error {
    Error::conflict("installation", id, "its server is remote, so the platform runs nothing for it")
}
