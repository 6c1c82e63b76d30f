//! What the runtime would make: of an entry that is being written, and of an installation that is there.

use super::{
    Lifecycle,
    reinstall::remote,
    workload::{WorkloadValues, build_workload_spec, secret_keys},
};
use archestra_core::{
    Error, Result, Validate as _,
    catalog::{EntrySpec, Scope},
    id::{EntryId, InstallationId},
    runtime::{Manifest, PullSecret, RevisionNumber, Runtime, Workload, WorkloadId},
    secret::SecretValue,
};

impl Lifecycle {
    /// What the runtime would make of an entry, with made-up values for what an installation gives.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) with every reason why it could not be saved or run; [`Unsupported`](Error::Unsupported)
    /// without a runtime; and what the runtime answered.
    pub async fn preview_workload(&self, spec: &EntrySpec) -> Result<Manifest> {
        let mut findings = spec.findings();
        findings.extend(self.runtime_findings(spec));
        if !findings.is_empty() {
            return Err(Error::Invalid(findings));
        }
        let runtime = self.renderer()?;
        let values = WorkloadValues::sample(spec);
        let Some(sample) = build_workload_spec(spec, &values, &self.options().platform) else {
            return Ok(Manifest { documents: Vec::new() });
        };
        let secrets = secret_keys(&sample).into_iter().map(|key| (key.to_owned(), SecretValue::new("value"))).collect();
        let id = WorkloadId::of_entry(EntryId::new());
        let workload = Workload { id, revision: RevisionNumber(1), spec: sample, secrets };
        self.within("rendering a workload", runtime.render(&workload)).await
    }

    /// What the runtime is asked to run for an installation.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the installation or before its first revision; [`Conflict`](Error::Conflict) when
    /// its server is remote or a secret is missing; and what a store or the runtime answered.
    pub async fn manifest(&self, id: InstallationId) -> Result<Manifest> {
        let installation = self.installation(id).await?.value;
        let id = installation.workload.ok_or_else(|| remote(id))?;
        let newest = self.history(&id).await?.pop().ok_or_else(|| Error::not_found("revision", &id))?;
        let workload = self.workload_of(&newest.value).await?;
        self.within("rendering a workload", self.renderer()?.render(&workload)).await
    }

    /// The pull secrets that somebody with this scope may name; none where the runtime pulls no images.
    ///
    /// # Errors
    /// What the runtime answered.
    pub async fn pull_secrets(&self, who: &Scope) -> Result<Vec<PullSecret>> {
        match self.runtime() {
            Some(runtime) if runtime.capabilities().pull_secrets => {
                self.within("listing pull secrets", runtime.pull_secrets(who)).await
            }
            _ => Ok(Vec::new()),
        }
    }

    fn renderer(&self) -> Result<&dyn Runtime> {
        self.runtime().ok_or(Error::Unsupported { backend: "this platform", operation: "run servers" })
    }
}
