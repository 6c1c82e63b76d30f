//! How installations and consumers follow a changed entry, as operations of the same commit.

use super::super::{
    Lifecycle,
    apply::{Renew, RevisionDraft, push_delete_history, secret_refs},
    assign::Assigner,
    now,
    secrets::INSTALLATIONS,
    verdict::{Verdict, verdict},
    workload::{WorkloadValues, build_workload_spec},
    workload_id,
};
use archestra_core::{
    Result,
    catalog::{CatalogChanges, Entry, FixedSecrets},
    feed::Versioned,
    id::InstallationId,
    installation::{Installation, InstallationState, install_fields},
    runtime::WorkloadId,
    secret::{SecretBundle, SecretRef},
};
use std::collections::BTreeSet;

/// What follows from a change of an entry.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// What belongs into the same commit.
    pub(super) changes: CatalogChanges,
    /// Installations to apply and list again once it has happened.
    pub(super) installations: Vec<InstallationId>,
    /// Workloads that nobody wants any more.
    pub(super) ended: BTreeSet<WorkloadId>,
    /// Whether something still runs with the entry's former secrets.
    pub(super) keeps_secrets: bool,
}

/// Secrets of an installation that were stored anew, without what its entry no longer asks for.
#[derive(Debug)]
pub(super) struct Shed {
    pub(super) installation: InstallationId,
    /// Where they were, all together.
    pub(super) old: SecretRef,
    /// Where those are that are left, if any are.
    pub(super) new: Option<SecretRef>,
}

impl Lifecycle {
    /// What the change from `before` to `after` brings with it. `renewed` says whether secrets of workloads changed. What was
    /// stored anew for it is in `shed`, also when it fails.
    pub(super) async fn follow(
        &self,
        before: &Entry,
        after: &Entry,
        secrets: FixedSecrets,
        renewed: bool,
        shed: &mut Vec<Shed>,
    ) -> Result<Following> {
        let mut following = Following::default();
        let mut wanted = BTreeSet::new();
        let mut left = BTreeSet::new();
        for stored in self.installations_of(after.id).await? {
            let verdict = verdict(&before.spec, &after.spec, &stored.value, secrets);
            let mut installation = judged(&stored.value, after, &verdict);
            let follows = verdict == Verdict::Follow;
            if follows {
                shed.extend(self.shed(&mut installation, after).await?);
            }
            if let Some(workload) = &installation.workload {
                // A shared workload follows its entry whatever one of its installations is asked for.
                let renew = follows || after.spec.shared_deployment;
                if renew && !wanted.contains(workload) {
                    self.push_followed(&mut following.changes, after, &installation, workload, renewed).await?;
                }
                following.keeps_secrets |= !renew && secrets == FixedSecrets::Changed;
                wanted.insert(workload.clone());
            }
            if stored.value.workload != installation.workload {
                left.extend(stored.value.workload.clone());
            }
            if follows {
                following.installations.push(installation.id);
            }
            push_changed(&mut following.changes, &stored, installation);
        }
        for workload in left.difference(&wanted) {
            push_delete_history(&mut following.changes, &self.history(workload).await?);
            following.ended.insert(workload.clone());
        }
        if before.spec.labels != after.spec.labels || before.scope != after.scope {
            let assignments = Assigner::with_entry(self, after, &[]).changes_around(after, &before.spec.labels).await?;
            following.changes.extend(assignments);
        }
        Ok(following)
    }

    /// Takes the values away that the entry no longer asks for.
    async fn shed(&self, installation: &mut Installation, entry: &Entry) -> Result<Option<Shed>> {
        let asked: BTreeSet<String> = install_fields(&entry.spec).into_iter().map(|field| field.name).collect();
        installation.values.retain(|name, _| asked.contains(name));
        let dropped: BTreeSet<String> = installation.secret_fields.difference(&asked).cloned().collect();
        installation.secret_fields.retain(|name| asked.contains(name));
        let Some(old) = installation.secrets.clone().filter(|_| !dropped.is_empty()) else { return Ok(None) };
        let bundle = self.written(Some(&old)).await?;
        let left = bundle.iter().filter(|(name, _)| !dropped.contains(*name));
        let left: SecretBundle = left.map(|(name, value)| (name, value.clone())).collect();
        // What was taken before is not judged again: what others entered must not keep an entry from being saved.
        let new = self.keep_again(INSTALLATIONS, installation.id, &left).await?;
        installation.secrets.clone_from(&new);
        Ok(Some(Shed { installation: installation.id, old, new }))
    }

    async fn push_followed(
        &self,
        changes: &mut CatalogChanges,
        entry: &Entry,
        installation: &Installation,
        workload: &WorkloadId,
        renewed: bool,
    ) -> Result<()> {
        let values = WorkloadValues::of(&entry.spec, installation);
        let history = self.history(workload).await?;
        let platform = self.platform(history.last().map(|newest| &newest.value));
        let Some(spec) = build_workload_spec(&entry.spec, &values, &platform) else { return Ok(()) };
        let draft = RevisionDraft {
            workload: workload.clone(),
            entry: entry.id,
            spec,
            secrets: secret_refs(entry, installation),
            cause: "update",
            author: None,
        };
        let renew = if renewed { Renew::Always } else { Renew::IfChanged };
        draft.push(changes, &history, renew, self.options().revision_history);
        Ok(())
    }
}

/// The installation as the verdict makes it.
fn judged(installation: &Installation, entry: &Entry, verdict: &Verdict) -> Installation {
    let mut installation = installation.clone();
    match verdict {
        Verdict::Leave => {}
        Verdict::Ask(reason) => installation.reinstall_required = Some(reason.clone()),
        Verdict::Follow => {
            installation.reinstall_required = None;
            let workload = workload_id(&entry.spec, entry.id, installation.id);
            if workload != installation.workload || matches!(installation.state, InstallationState::Error { .. }) {
                installation.state = InstallationState::Pending;
            }
            installation.workload = workload;
        }
    }
    installation
}

fn push_changed(changes: &mut CatalogChanges, stored: &Versioned<Installation>, mut installation: Installation) {
    if stored.value != installation {
        installation.updated_at = now();
        changes.push_put(installation, stored.expect());
    }
}
