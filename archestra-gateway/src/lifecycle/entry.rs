//! Saving entries: checked, with their secrets, and together with everything that follows from the change.

mod follow;
mod overrides;

use self::{
    follow::{Following, Shed},
    overrides::Overrides,
};
use super::{ATTEMPTS, Lifecycle, check_expect, now, raced, secrets::ENTRIES};
use archestra_core::{
    Error, Finding, Result, Validate,
    catalog::{CatalogChanges, CatalogStoreExt, Entry, EntrySpec, FixedSecrets, FixedValue, Lookup, Scope},
    feed::{Expect as FeedExpect, Version, Versioned},
    id::{EntryId, UserId},
    secret::{Expect, SecretBundle},
};
use std::collections::BTreeSet;

/// What a person wants an entry to be.
#[derive(Debug, Clone)]
pub struct EntryDraft {
    /// What they filled in. Secret values may be in it; [`FixedValue::Stored`] keeps what is stored.
    pub spec: EntrySpec,
    /// Who is to see it.
    pub scope: Scope,
    /// Who makes it; an entry that exists keeps its author.
    pub author: Option<UserId>,
    /// The `apply` set it belongs to; `None` keeps what an entry has.
    pub apply_set: Option<String>,
    /// Whether a registry admin asks: only then may the URL name a private host that the operator lists. An entry that is
    /// saved as it is already keeps that an admin saved it.
    pub saved_by_admin: bool,
}

/// What saving would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preview {
    /// Make it.
    Create,
    /// Change it.
    Update,
    /// Nothing: it is like this.
    Unchanged,
}

#[derive(Debug)]
struct Prepared {
    present: Option<Versioned<Entry>>,
    entry: Entry,
    stored: SecretBundle,
    bundle: SecretBundle,
}

impl Prepared {
    fn preview(&self) -> Preview {
        match &self.present {
            None => Preview::Create,
            Some(present) if self.bundle == self.stored && same(&present.value, &self.entry) => Preview::Unchanged,
            Some(_) => Preview::Update,
        }
    }
}

fn same(present: &Entry, next: &Entry) -> bool {
    // An admin who saves what somebody else wrote vouches for it; nobody takes that back by changing nothing.
    let vouched = present.saved_by_admin || !next.saved_by_admin;
    vouched && present.spec == next.spec && present.scope == next.scope && present.apply_set == next.apply_set
}

impl Lifecycle {
    /// Makes an entry, or changes the one with this id. What is saved as it is already is not written.
    ///
    /// Installations follow by themselves where the values they have suffice: with a new revision and a new listing, in the
    /// background. Others are marked with what is missing and go on as they are. Consumers in automatic mode follow changed
    /// labels in the same commit.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) with everything that is wrong, what the runtime cannot honour included;
    /// [`AlreadyExists`](Error::AlreadyExists) when the name is taken; [`NotFound`](Error::NotFound) for an id that does not
    /// exist, unless `expect` says so; [`Conflict`](Error::Conflict) when `expect` does not hold; and what a store answered.
    pub async fn save_entry(
        &self,
        id: Option<EntryId>,
        draft: EntryDraft,
        expect: FeedExpect,
    ) -> Result<Versioned<Entry>> {
        self.owned(move |this| async move {
            let (id, expect) = match id {
                Some(id) => (id, expect),
                None => (EntryId::new(), Expect::Absent),
            };
            this.save_entry_owned(id, draft, Overrides::InStep, expect).await
        })
        .await
    }

    /// Makes an entry be again what it was before a change that is undone: what the draft says of it, to the letter.
    ///
    /// # Errors
    /// As [`save_entry`](Self::save_entry).
    pub(crate) async fn restore_entry(
        &self,
        id: EntryId,
        draft: EntryDraft,
        given_yaml: Option<String>,
        expect: FeedExpect,
    ) -> Result<Versioned<Entry>> {
        let yaml = Overrides::AsTheyWere(given_yaml);
        self.owned(move |this| async move { this.save_entry_owned(id, draft, yaml, expect).await }).await
    }

    /// Checks a draft as [`save_entry`](Self::save_entry) does, and says what saving it would do.
    ///
    /// # Errors
    /// As [`save_entry`](Self::save_entry).
    pub async fn preview_entry(&self, id: Option<EntryId>, draft: EntryDraft) -> Result<Preview> {
        let (id, expect) = id.map_or((EntryId::new(), Expect::Absent), |id| (id, Expect::Any));
        Ok(self.prepare_entry(id, draft, Overrides::InStep, expect).await?.preview())
    }

    async fn save_entry_owned(
        &self,
        id: EntryId,
        draft: EntryDraft,
        yaml: Overrides,
        expect: FeedExpect,
    ) -> Result<Versioned<Entry>> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let prepared = self.prepare_entry(id, draft.clone(), yaml.clone(), expect).await?;
            match self.save_prepared(prepared).await {
                Err(error) if raced(&error) => {
                    let named = self.catalog().find_one::<Entry>(Lookup::EntryNamed(draft.spec.name.clone())).await?;
                    if named.is_some_and(|other| other.value.id != id) {
                        return Err(Error::already_exists("entry", &draft.spec.name));
                    }
                    last = Some(error);
                }
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| Error::conflict("entry", id, "it is being changed all the time; try again")))
    }

    async fn prepare_entry(
        &self,
        id: EntryId,
        draft: EntryDraft,
        yaml: Overrides,
        expect: FeedExpect,
    ) -> Result<Prepared> {
        let present = match self.entry(id).await {
            Ok(present) => Some(present),
            Err(Error::NotFound { .. }) if expect == Expect::Absent => None,
            Err(error) => return Err(error),
        };
        check_expect(id, present.as_ref(), expect)?;
        let before = present.as_ref().map(|present| &present.value);
        let stored = self.written(before.and_then(|before| before.secrets.as_ref())).await?;

        let EntryDraft { mut spec, scope, author, apply_set, saved_by_admin } = draft;
        let kept = spec.stored_secret_keys();
        let mut findings = spec.findings();
        findings.extend(missing_secrets(&spec, &kept, &stored));
        if matches!(&scope, Scope::Teams(teams) if teams.is_empty()) {
            findings.push(Finding::new(
                "scope.teams",
                "no team is named, so nobody would see it",
                "name a team, or use another scope",
            ));
        }
        let mut bundle = spec.take_secrets();
        if !saved_by_admin && bundle.iter().any(|(_, value)| value.external().is_some()) {
            // Whoever may name any path could read by a server of their own what others keep there.
            findings.push(Finding::new(
                "value.vault",
                "only registry admins may say where a fixed secret of an entry is kept",
                "ask somebody with `entry:admin`, or let installations be asked for it",
            ));
        }
        let undone = matches!(yaml, Overrides::AsTheyWere(_));
        let given_yaml = match self.sync_yaml(before, &mut spec, yaml) {
            Ok(given) => given,
            Err(Error::Invalid(more)) => {
                findings.extend(more);
                None
            }
            Err(error) => return Err(error),
        };
        if findings.is_empty() {
            // A runtime judges only what is right in itself; otherwise it would repeat what was said already.
            findings.extend(self.runtime_findings(&spec));
        }
        let runs_as_before = before.is_some_and(|before| before.spec.self_hosted == spec.self_hosted);
        if findings.is_empty() && !undone && !runs_as_before {
            match self.refused_findings(&spec).await {
                Ok(refused) => findings.extend(refused),
                // It may be over when it is applied, and installing tells.
                Err(Error::Invalid(hindrances)) => {
                    let error = Error::Invalid(hindrances);
                    tracing::warn!(%error, "deployment YAML is saved that would be refused at the moment");
                }
                // Installing tells; until then nothing speaks against it.
                Err(error) => tracing::warn!(%error, "deployment YAML is saved without having been tried"),
            }
        }
        if !findings.is_empty() {
            return Err(Error::Invalid(findings));
        }
        for key in kept {
            if let Some(value) = stored.get(&key) {
                bundle.insert(key, value.clone());
            }
        }
        let now = now();
        let entry = Entry {
            id,
            spec,
            scope,
            author: before.map_or(author, |before| before.author),
            secrets: before.and_then(|before| before.secrets.clone()),
            apply_set: apply_set.or_else(|| before.and_then(|before| before.apply_set.clone())),
            given_yaml,
            saved_by_admin,
            created_at: before.map_or(now, |before| before.created_at),
            updated_at: now,
        };
        Ok(Prepared { present, entry, stored, bundle })
    }

    async fn save_prepared(&self, prepared: Prepared) -> Result<Versioned<Entry>> {
        if prepared.preview() == Preview::Unchanged
            && let Some(present) = prepared.present
        {
            return Ok(present);
        }
        let Prepared { present, mut entry, stored, bundle } = prepared;
        let rotated = bundle != stored;
        let (old, mut new) = (entry.secrets.clone(), None);
        if rotated {
            new = self.keep(ENTRIES, entry.id, &bundle).await?;
            entry.secrets.clone_from(&new);
        }
        let mut shed = Vec::new();
        match self.commit_entry(present.as_ref(), &entry, (&stored, &bundle), &mut shed).await {
            Err(error) => {
                self.abandon(new.as_ref(), entry.id.into()).await;
                for Shed { installation, new, .. } in shed {
                    self.abandon(new.as_ref(), installation.into()).await;
                }
                Err(error)
            }
            Ok(following) => {
                if rotated && !following.keeps_secrets {
                    self.retire(old.as_ref());
                }
                for Shed { old, .. } in shed {
                    self.retire(Some(&old));
                }
                for workload in &following.ended {
                    self.end_workload(workload).await;
                }
                for id in following.installations {
                    self.bring_up(id);
                }
                let version = Version(present.map_or(0, |present| present.version.0) + 1);
                Ok(Versioned { version, value: entry })
            }
        }
    }

    async fn commit_entry(
        &self,
        present: Option<&Versioned<Entry>>,
        entry: &Entry,
        (stored, bundle): (&SecretBundle, &SecretBundle),
        shed: &mut Vec<Shed>,
    ) -> Result<Following> {
        let Some(present) = present else {
            self.commit(CatalogChanges::new().create(entry.clone())).await?;
            return Ok(Following::default());
        };
        let secrets = if stored == bundle { FixedSecrets::Unchanged } else { FixedSecrets::Changed };
        let mut following = self.follow(&present.value, entry, secrets, changes_workload(stored, bundle), shed).await?;
        let mut changes = CatalogChanges::new().put(entry.clone(), present.expect());
        changes.extend(std::mem::take(&mut following.changes));
        self.commit(changes).await?;
        Ok(following)
    }
}

/// Whether secrets that a workload is given differ, and not only those that go with requests.
fn changes_workload(stored: &SecretBundle, bundle: &SecretBundle) -> bool {
    let given = |bundle: &SecretBundle| -> SecretBundle {
        bundle
            .iter()
            .filter(|(key, _)| key.starts_with("env.") || key.starts_with("pull."))
            .map(|(key, value)| (key, value.clone()))
            .collect()
    };
    given(stored) != given(bundle)
}

/// A finding for each secret that is said to be stored and is not.
fn missing_secrets(spec: &EntrySpec, kept: &BTreeSet<String>, stored: &SecretBundle) -> Vec<Finding> {
    let missing = |key: &String| stored.get(key).is_none();
    kept.iter()
        .filter(|key| missing(key))
        .map(|key| Finding::new(place(spec, key), "no value is stored for it", "enter the value"))
        .collect()
}

/// The field that a key of the entry's bundle belongs to.
fn place(spec: &EntrySpec, key: &str) -> String {
    use archestra_core::catalog::CredentialModel;
    if let Some(name) = key.strip_prefix("env.")
        && let Some(n) = spec
            .self_hosted
            .as_ref()
            .and_then(|hosted| hosted.env.iter().position(|var| var.name == name && stored(var.value.as_ref())))
    {
        return format!("selfHosted.env[{n}].value");
    }
    if let Some(name) = key.strip_prefix("field.")
        && let CredentialModel::Static(fields) = &spec.credential
        && let Some(n) = fields.iter().position(|field| field.name == name)
    {
        return format!("credential.static[{n}].value");
    }
    if let Some(hosted) = &spec.self_hosted
        && let Some(n) = hosted.image_pull_secrets.iter().position(|pull| pull.password_key().as_deref() == Some(key))
    {
        return format!("selfHosted.imagePullSecrets[{n}].password");
    }
    format!("credential.{key}")
}

fn stored(value: Option<&FixedValue>) -> bool {
    matches!(value, Some(FixedValue::Stored))
}
