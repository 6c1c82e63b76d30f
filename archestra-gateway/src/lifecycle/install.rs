//! Installing an entry: everything checked first, then whole or not at all.

use super::{
    ATTEMPTS, Lifecycle,
    apply::{Renew, RevisionDraft, secret_refs},
    jobs::Claim,
    now, raced,
    secrets::INSTALLATIONS,
    tools::Listed,
    verdict::{Verdict, verdict},
    workload::{WorkloadValues, build_workload_spec},
    workload_id,
};
use archestra_core::{
    Error, Finding, Result,
    catalog::{CatalogChanges, CatalogStoreExt, CredentialModel, Entry, FixedSecrets, Lookup},
    feed::{Version, Versioned},
    id::{EntryId, InstallationId, UserId},
    installation::{InstallValues, Installation, InstallationState, Owner, check_values},
    runtime::{RevisionNumber, WorkloadId},
    secret::{SecretRef, SecretValue},
};
use std::collections::{BTreeMap, BTreeSet};

/// What a person asks for.
#[derive(Debug, Clone)]
pub struct InstallRequest {
    /// The entry.
    pub entry: EntryId,
    /// Whose installation it is to be.
    pub owner: Owner,
    /// Values for the fields that the entry asks for, by name.
    pub values: BTreeMap<String, SecretValue>,
    /// Who asks.
    pub author: Option<UserId>,
    /// The `apply` set it belongs to, if any.
    pub apply_set: Option<String>,
}

/// What came of installing one version of an entry.
#[expect(clippy::large_enum_variant, reason = "the large variant is the common one")]
enum Attempted {
    Installed(Versioned<Installation>),
    /// It has become another one meanwhile, so that nothing was kept.
    EntryChanged(Error),
}

/// What a server listed, and for which version of its entry.
#[derive(Debug)]
struct Heard {
    entry: Entry,
    listed: Vec<Listed>,
}

impl Heard {
    /// Whether the server would be asked in the same way. The values are those of one request.
    fn holds_for(&self, entry: &Entry) -> bool {
        let (before, after) = (&self.entry.spec, &entry.spec);
        self.entry.secrets == entry.secrets
            && self.entry.saved_by_admin == entry.saved_by_admin
            && before.remote == after.remote
            && before.self_hosted == after.self_hosted
            && before.credential == after.credential
            && before.additional_headers == after.additional_headers
            && before.tool_concurrency == after.tool_concurrency
            && before.shared_deployment == after.shared_deployment
    }
}

impl Lifecycle {
    /// Installs an entry.
    ///
    /// A remote server is connected to and its tools are listed before anything is kept. A self-hosted one is accepted by the
    /// runtime; its installation is `pending`, and becomes `ready` or `error` in the background.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the entry; [`Invalid`](Error::Invalid) with what is missing or wrong, with what
    /// the runtime cannot honour, or when the server refuses the credential; [`AlreadyExists`](Error::AlreadyExists) when this
    /// owner has it installed; [`Conflict`](Error::Conflict) for a self-hosted server without a runtime;
    /// [`Unsupported`](Error::Unsupported) for credential models that need a flow of their own; and whatever the server, the
    /// runtime or a store answered. After an error nothing is left.
    pub async fn install(&self, request: InstallRequest) -> Result<Versioned<Installation>> {
        self.owned(|this| async move { this.install_owned(request).await }).await
    }

    async fn prepare_install(&self, entry: &Entry, request: &InstallRequest) -> Result<InstallValues> {
        supported(entry)?;
        self.check_runnable(entry)?;
        if self.taken(entry, request.owner).await? {
            return Err(duplicate(entry, request.owner));
        }
        let values = check_values(&entry.spec, request.values.clone(), &BTreeSet::new()).map_err(Error::Invalid)?;
        self.check_secrets(request.owner, &values.secret)?;
        Ok(values)
    }

    async fn install_owned(&self, request: InstallRequest) -> Result<Versioned<Installation>> {
        let mut last = None;
        let mut heard = None;
        for _ in 0..ATTEMPTS {
            // What was checked and made of the entry holds for no other version of it.
            match self.install_as_it_is(request.clone(), &mut heard).await? {
                Attempted::Installed(installed) => return Ok(installed),
                Attempted::EntryChanged(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| changing(request.entry)))
    }

    async fn install_as_it_is(&self, request: InstallRequest, heard: &mut Option<Heard>) -> Result<Attempted> {
        let entry = self.entry(request.entry).await?;
        let values = self.prepare_install(&entry.value, &request).await?;
        let id = InstallationId::new();
        // Nobody else touches the installation until its runtime has accepted it.
        let mut claim = self
            .inner
            .jobs
            .claim(id)
            .ok_or_else(|| Error::conflict("installation", id, "it is being worked on; try again"))?;
        let secrets = self.keep(INSTALLATIONS, id, &values.secret).await?;
        let installation = draft(&entry.value, id, request, values, secrets.clone());
        let outcome = match &installation.workload {
            None => self.install_remote(&entry, installation, heard).await,
            Some(workload) => self.install_hosted(&entry, workload, &installation, &mut claim).await,
        };
        match &outcome {
            Err(_) | Ok(Attempted::EntryChanged(_)) => self.abandon(secrets.as_ref(), id.into()).await,
            Ok(Attempted::Installed(installed)) => self.after_install(&entry, &installed.value, claim).await,
        }
        outcome
    }

    async fn install_remote(
        &self,
        stored: &Versioned<Entry>,
        installation: Installation,
        heard: &mut Option<Heard>,
    ) -> Result<Attempted> {
        let entry = &stored.value;
        let listed = self.hear(entry, &installation, heard).await?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let unwritten = Versioned { version: Version(0), value: installation.clone() };
            let planned = self.plan_listing(entry, unwritten, None, listed).await?;
            match self.commit(planned.changes.require(entry.id, stored.expect())).await {
                Ok(_) => return Ok(Attempted::Installed(planned.installation)),
                Err(error) if is_about_entry(&error) => return Ok(Attempted::EntryChanged(error)),
                Err(error) if raced(&error) => {
                    last = Some(self.explain_race(entry.id, installation.owner, error).await?)
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| changing(entry.id)))
    }

    /// What the server lists. It is asked once, unless an edit of the entry changes what it is asked, or where.
    async fn hear<'a>(
        &self,
        entry: &Entry,
        installation: &Installation,
        heard: &'a mut Option<Heard>,
    ) -> Result<&'a [Listed]> {
        let known = heard.take().filter(|heard| heard.holds_for(entry));
        let fresh = match known {
            Some(known) => known,
            None => {
                let deadline = self.options().discover_timeout;
                let definitions =
                    self.list_once(entry, installation).await.map_err(|error| error.into_error(entry, deadline))?;
                Heard { entry: entry.clone(), listed: Self::usable(entry, definitions) }
            }
        };
        Ok(&heard.insert(fresh).listed)
    }

    async fn install_hosted(
        &self,
        stored: &Versioned<Entry>,
        workload: &WorkloadId,
        installation: &Installation,
        claim: &mut Claim,
    ) -> Result<Attempted> {
        let entry = &stored.value;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let mut changes = CatalogChanges::new().create(installation.clone()).require(entry.id, stored.expect());
            self.push_revision(&mut changes, entry, installation, "install", Renew::IfChanged).await?;
            match self.commit(changes).await {
                Ok(_) => {
                    let accepted = self.accept(entry, workload, installation, claim).await;
                    return accepted.map(Attempted::Installed);
                }
                Err(error) if is_about_entry(&error) => return Ok(Attempted::EntryChanged(error)),
                Err(error) if raced(&error) => {
                    last = Some(self.explain_race(entry.id, installation.owner, error).await?)
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| changing(entry.id)))
    }

    /// Has the runtime accept what was just committed, or takes it all back.
    async fn accept(
        &self,
        entry: &Entry,
        workload: &WorkloadId,
        installation: &Installation,
        claim: &mut Claim,
    ) -> Result<Versioned<Installation>> {
        let installed = Versioned { version: Version(1), value: installation.clone() };
        match self.apply_newest(workload).await {
            Ok(applied) => {
                if let Some(number) = applied {
                    claim.note_applied(number);
                }
                Ok(installed)
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(entry = %entry.spec.name, %workload, %error, "the runtime does not answer; the workload is applied later");
                Ok(installed)
            }
            Err(error) => {
                self.remove_owned(installation.id).await?;
                Err(error)
            }
        }
    }

    /// Adds the revision that an installation's workload needs now, if it has one; with its number when there is a new one.
    pub(super) async fn push_revision(
        &self,
        changes: &mut CatalogChanges,
        entry: &Entry,
        installation: &Installation,
        cause: &'static str,
        renew: Renew,
    ) -> Result<Option<RevisionNumber>> {
        let Some(workload) = workload_id(&entry.spec, entry.id, installation.id) else { return Ok(None) };
        let values = WorkloadValues::of(&entry.spec, installation);
        let history = self.history(&workload).await?;
        let platform = self.platform(history.last().map(|newest| &newest.value));
        let Some(spec) = build_workload_spec(&entry.spec, &values, &platform) else { return Ok(None) };
        let secrets = secret_refs(entry, installation);
        let draft = RevisionDraft { workload, entry: entry.id, spec, secrets, cause, author: installation.author };
        Ok(draft.push(changes, &history, renew, self.options().revision_history))
    }

    /// What goes on once an installation is there: its start, and whatever its entry became meanwhile.
    async fn after_install(&self, entry: &Versioned<Entry>, installation: &Installation, claim: Claim) {
        let changed = self.entry(entry.value.id).await.is_ok_and(|now| now.version != entry.version);
        if changed {
            // An edit that was under way before this installation was there did not see it, and asked nothing of it: catch up.
            self.follow_entry(&entry.value, installation.id).await;
        }
        if changed || installation.workload.is_some() {
            self.bring_up_claimed(installation.id, claim);
        }
    }

    async fn follow_entry(&self, before: &Entry, id: InstallationId) {
        let follow = async {
            let mut tries = 1;
            loop {
                match self.try_follow_entry(before, id).await {
                    Err(error) if raced(&error) && tries < ATTEMPTS => tries += 1,
                    outcome => return outcome,
                }
            }
        };
        if let Err(error) = follow.await {
            tracing::warn!(installation = %id, %error, "an installation could not follow a change of its entry");
        }
    }

    async fn try_follow_entry(&self, before: &Entry, id: InstallationId) -> Result<()> {
        let stored = self.installation(id).await?;
        let as_read = self.entry(stored.value.entry).await?;
        let entry = &as_read.value;
        let secrets = if before.secrets == entry.secrets { FixedSecrets::Unchanged } else { FixedSecrets::Changed };
        let mut changes = CatalogChanges::new();
        if let Verdict::Ask(reason) = verdict(&before.spec, &entry.spec, &stored.value, secrets) {
            let expect = stored.expect();
            let asked = Installation { reinstall_required: Some(reason), updated_at: now(), ..stored.value };
            changes.push_put(asked, expect);
        } else {
            self.push_revision(&mut changes, entry, &stored.value, "install", Renew::IfChanged).await?;
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.commit(changes.require(entry.id, as_read.expect())).await.map(drop)
    }

    /// Refuses what the runtime cannot run.
    pub(super) fn check_runnable(&self, entry: &Entry) -> Result<()> {
        if entry.spec.self_hosted.is_none() {
            return Ok(());
        }
        self.runtime_for(entry)?;
        let findings = self.runtime_findings(&entry.spec);
        if findings.is_empty() { Ok(()) } else { Err(Error::Invalid(findings)) }
    }

    /// What the runtime, if there is one, cannot honour of a specification.
    pub(super) fn runtime_findings(&self, spec: &archestra_core::catalog::EntrySpec) -> Vec<Finding> {
        let sample = build_workload_spec(spec, &WorkloadValues::sample(spec), &self.platform(None));
        let (Some(runtime), Some(sample)) = (self.runtime(), sample) else { return Vec::new() };
        let place = |finding: Finding| {
            if finding.field.starts_with("selfHosted") { finding } else { finding.under("selfHosted") }
        };
        runtime.validate(&sample).into_iter().map(place).collect()
    }

    async fn taken(&self, entry: &Entry, owner: Owner) -> Result<bool> {
        Ok(self.catalog().find_one::<Installation>(Lookup::InstallationOf(entry.id, owner)).await?.is_some())
    }

    /// The error to report at once when a commit can never succeed, or the one to keep while trying again.
    async fn explain_race(&self, entry: EntryId, owner: Owner, error: Error) -> Result<Error> {
        let entry = self.entry(entry).await?.value;
        if self.taken(&entry, owner).await? { Err(duplicate(&entry, owner)) } else { Ok(error) }
    }
}

/// Refuses credential models that no request with values alone can install.
pub(super) fn supported(entry: &Entry) -> Result<()> {
    match entry.spec.credential {
        CredentialModel::None | CredentialModel::Static(_) => Ok(()),
        _ => Err(Error::Unsupported {
            backend: "gateway",
            operation: "install entries with OAuth, client credentials, enterprise or JWT passthrough credentials",
        }),
    }
}

/// Whether a commit failed because the entry is no longer as it was.
pub(super) fn is_about_entry(error: &Error) -> bool {
    matches!(error, Error::Conflict { kind: "entry", .. })
}

fn changing(entry: EntryId) -> Error {
    Error::conflict("entry", entry, "it is being changed all the time; try again")
}

fn duplicate(entry: &Entry, owner: Owner) -> Error {
    Error::already_exists(
        "installation",
        format!("of {:?} for {owner} (reinstall it to change it, or remove it first)", entry.spec.name),
    )
}

fn draft(
    entry: &Entry,
    id: InstallationId,
    request: InstallRequest,
    values: InstallValues,
    secrets: Option<SecretRef>,
) -> Installation {
    let now = now();
    Installation {
        id,
        entry: entry.id,
        owner: request.owner,
        secret_fields: values.secret.keys().map(str::to_owned).collect(),
        values: values.plain,
        secrets,
        state: InstallationState::Pending,
        reinstall_required: None,
        credential: None,
        workload: workload_id(&entry.spec, entry.id, id),
        tools: BTreeMap::new(),
        author: request.author,
        apply_set: request.apply_set,
        created_at: now,
        updated_at: now,
    }
}
