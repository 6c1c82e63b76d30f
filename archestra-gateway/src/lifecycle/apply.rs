//! Revisions of workloads: how a new one is made, which one is desired, and how it reaches the runtime.

use super::{
    ATTEMPTS, Lifecycle, now, raced,
    workload::{pick_secrets, same_workload},
};
use archestra_core::{
    Error, Result,
    catalog::{CatalogChanges, CatalogStoreExt, Entry, Query},
    feed::Versioned,
    id::{EntryId, RevisionId, UserId},
    installation::Installation,
    runtime::{Applied, Revision, RevisionNumber, Runtime, Workload, WorkloadId, WorkloadSpec},
    secret::{Expect, SecretRef},
};
use std::{collections::BTreeMap, future::Future, time::Duration};

/// What a revision is to be made of.
#[derive(Debug, Clone)]
pub(super) struct RevisionDraft {
    pub(super) workload: WorkloadId,
    pub(super) entry: EntryId,
    pub(super) spec: WorkloadSpec,
    pub(super) secrets: Vec<SecretRef>,
    pub(super) cause: &'static str,
    pub(super) author: Option<UserId>,
}

/// When a revision gets a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renew {
    /// When what runs would differ.
    IfChanged,
    /// When what runs would differ, what the platform adds included.
    IfOutdated,
    /// In any case: its secret values are others, or a person asked for it.
    Always,
}

impl RevisionDraft {
    /// Adds the revision to `changes`; with its number when there is a new one. Where only the place of unchanged secrets is
    /// new, the newest revision is corrected and keeps its number, so that nothing is rolled.
    pub(super) fn push(
        mut self,
        changes: &mut CatalogChanges,
        history: &[Versioned<Revision>],
        renew: Renew,
        keep: usize,
    ) -> Option<RevisionNumber> {
        let newest = history.last();
        if let Some(newest) = newest {
            self.spec.namespace.clone_from(&newest.value.spec.namespace);
            let same = match renew {
                Renew::IfChanged => same_workload(&self.spec, &newest.value.spec),
                Renew::IfOutdated => {
                    same_workload(&self.spec, &newest.value.spec) && self.spec.platform == newest.value.spec.platform
                }
                Renew::Always => false,
            };
            if same {
                if newest.value.secrets != self.secrets {
                    changes.push_put(Revision { secrets: self.secrets, ..newest.value.clone() }, newest.expect());
                }
                return None;
            }
        }
        let number = RevisionNumber(newest.map_or(1, |newest| newest.value.number.0.saturating_add(1)));
        for old in history.iter().take(history.len().saturating_sub(keep.saturating_sub(1))) {
            changes.push_delete(old.value.id, Expect::Any);
        }
        let revision = Revision {
            id: RevisionId::new(),
            workload: self.workload,
            number,
            entry: self.entry,
            spec: self.spec,
            secrets: self.secrets,
            cause: self.cause.to_owned(),
            author: self.author,
            created_at: now(),
        };
        changes.push_put(revision, Expect::Absent);
        Some(number)
    }
}

/// Where the secrets of an installation's workload are: the entry's, then its own.
pub(super) fn secret_refs(entry: &Entry, installation: &Installation) -> Vec<SecretRef> {
    let own = if entry.spec.shared_deployment { None } else { installation.secrets.clone() };
    entry.secrets.clone().into_iter().chain(own).collect()
}

/// Removes all revisions of a workload that is no longer wanted.
pub(super) fn push_delete_history(changes: &mut CatalogChanges, history: &[Versioned<Revision>]) {
    for revision in history {
        changes.push_delete(revision.value.id, Expect::Any);
    }
}

impl Lifecycle {
    /// The revisions of a workload, the desired one last.
    pub(super) async fn history(&self, workload: &WorkloadId) -> Result<Vec<Versioned<Revision>>> {
        let mut all =
            self.catalog().list_all::<Revision>(Query::Revisions { workload: Some(workload.clone()) }).await?;
        all.sort_by_key(|revision| (revision.value.number, *revision.value.id.as_uuid()));
        Ok(all)
    }

    /// What the platform adds to a revision that is made now, after this one. What the runtime does not know at the moment
    /// stays as it was.
    pub(super) fn platform(&self, newest: Option<&Revision>) -> BTreeMap<String, String> {
        let mut platform = self.options().platform.clone();
        let today = self.runtime().map(Runtime::platform).unwrap_or_default();
        let before = newest.map(|newest| newest.spec.platform.clone()).unwrap_or_default();
        for (name, value) in today.into_iter().chain(before) {
            platform.entry(name).or_insert(value);
        }
        platform
    }

    /// What a runtime is asked to run for a revision, with its secrets.
    pub(super) async fn workload_of(&self, revision: &Revision) -> Result<Workload> {
        let mut bundles = Vec::with_capacity(revision.secrets.len());
        for reference in &revision.secrets {
            bundles.push(self.bundle(Some(reference)).await?);
        }
        let secrets = pick_secrets(&revision.spec, &bundles).map_err(|missing| {
            Error::conflict(
                "workload",
                &revision.workload,
                format!("no value is stored for {}; reinstall with one", missing.join(", ")),
            )
        })?;
        Ok(Workload { id: revision.workload.clone(), revision: revision.number, spec: revision.spec.clone(), secrets })
    }

    /// Applies the newest stored revision of a workload; `None` when there is none any more. Where the runtime has got a newer
    /// one from somebody else meanwhile, that is no refusal: the newest is applied then, which it may be already.
    pub(super) async fn apply_newest(&self, workload: &WorkloadId) -> Result<Option<RevisionNumber>> {
        let runtime =
            self.runtime().ok_or(Error::Unsupported { backend: "this platform", operation: "run servers" })?;
        for _ in 0..ATTEMPTS {
            let Some((newest, desired)) = self.desired(workload).await? else { return Ok(None) };
            let number = newest.value.number;
            let outcome = match desired {
                Ok(desired) => self.within("applying a workload", runtime.apply(&desired)).await,
                Err(error) => Err(error),
            };
            if outcome.as_ref().is_err_and(Error::is_stale_revision) {
                match self.history(workload).await?.pop() {
                    None => return Ok(None),
                    Some(now) if now.value.number > number => continue,
                    // What the runtime has is stored nowhere any more: an older backup was restored, or the workload was to go and
                    // is wanted again.
                    Some(now) => {
                        if self.leap(runtime, now).await? {
                            continue;
                        }
                    }
                }
            }
            self.inner.jobs.note_refusal(workload, outcome.as_ref().err().map(ToString::to_string));
            self.note_namespace(newest, &outcome?).await;
            return Ok(Some(number));
        }
        Err(Error::Unavailable {
            backend: "runtime",
            reason: format!("newer revisions of workload {workload} keep coming; the newest is applied later"),
            source: None,
        })
    }

    /// Numbers the newest revision anew, after the one that runs; whether that was done.
    async fn leap(&self, runtime: &dyn Runtime, newest: Versioned<Revision>) -> Result<bool> {
        let status = self.within("reading a status", runtime.status(&newest.value.workload)).await?;
        let Some(there) = status.revision.filter(|there| *there > newest.value.number) else { return Ok(false) };
        let (expect, mut revision) = (newest.expect(), newest.value);
        tracing::warn!(
            workload = %revision.workload, stored = %revision.number, %there,
            "what runs is newer than what is stored, which is applied as the next revision"
        );
        revision.number = RevisionNumber(there.0.saturating_add(1));
        match self.commit(CatalogChanges::new().put(revision, expect)).await {
            Ok(_) => Ok(true),
            // Somebody else did it, or there is a newer one.
            Err(error) if raced(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The newest revision of a workload and what a runtime is asked for by it. Its secrets may take long to be read: if there
    /// is a newer revision by then, that one is the newest, and nothing is handed on that would take its place.
    async fn desired(&self, workload: &WorkloadId) -> Result<Option<(Versioned<Revision>, Result<Workload>)>> {
        let mut newest = self.history(workload).await?.pop();
        let mut tries = 1;
        loop {
            let Some(found) = newest else { return Ok(None) };
            let desired = self.workload_of(&found.value).await;
            newest = self.history(workload).await?.pop();
            let still = newest.as_ref().is_some_and(|newest| newest.value == found.value);
            if still || tries == ATTEMPTS {
                return Ok(Some((found, desired)));
            }
            tries += 1;
        }
    }

    /// As [`apply_newest`](Self::apply_newest), unless `applied` still is the newest one.
    pub(super) async fn apply_unless(
        &self,
        workload: &WorkloadId,
        applied: Option<RevisionNumber>,
    ) -> Result<Option<RevisionNumber>> {
        if applied.is_some() && self.history(workload).await?.pop().map(|newest| newest.value.number) == applied {
            return Ok(applied);
        }
        self.apply_newest(workload).await
    }

    /// Removes a workload from the runtime. What fails here the reconciler does later, for nobody wants it any more.
    pub(super) async fn end_workload(&self, workload: &WorkloadId) {
        let Some(runtime) = self.runtime() else { return };
        if let Err(error) = self.remove_workload(runtime, workload).await {
            tracing::warn!(%workload, %error, "a workload could not be removed; it is tried again");
        }
    }

    pub(super) async fn remove_workload(&self, runtime: &dyn Runtime, workload: &WorkloadId) -> Result<()> {
        self.inner.jobs.note_refusal(workload, None);
        let _ending = self.inner.jobs.begin_ending(workload);
        self.within("removing a workload", runtime.remove(workload)).await
    }

    /// Gives up after the deadline for runtimes.
    pub(super) async fn within<T: Send>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let after: Duration = self.options().runtime_timeout;
        tokio::time::timeout(after, work).await.unwrap_or(Err(Error::Timeout { operation, after }))
    }

    async fn note_namespace(&self, revision: Versioned<Revision>, applied: &Applied) {
        if applied.namespace.is_none() || applied.namespace == revision.value.spec.namespace {
            return;
        }
        let expect = revision.expect();
        let mut revision = revision.value;
        revision.spec.namespace.clone_from(&applied.namespace);
        let workload = revision.workload.clone();
        // Losing a race costs nothing: the next apply reports the namespace again.
        if let Err(error) = self.commit(CatalogChanges::new().put(revision, expect)).await {
            tracing::debug!(%workload, %error, "the namespace of a workload was not noted");
        }
    }
}
