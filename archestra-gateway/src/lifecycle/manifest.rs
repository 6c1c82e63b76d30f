//! What the runtime would make: of an entry that is being written, and of an installation that is there.

use super::{
    Lifecycle,
    reinstall::remote,
    workload::{WorkloadValues, build_workload_spec, secret_keys},
};
use archestra_core::{
    Error, Finding, Result, Validate as _,
    catalog::{EntrySpec, EnvFrom, Scope},
    id::{EntryId, InstallationId},
    runtime::{Manifest, PullSecret, RevisionNumber, Runtime, Workload, WorkloadId},
    secret::SecretValue,
};

/// What the runtime would make of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadPreview {
    /// For people to read.
    pub manifest: Manifest,
    /// What the deployment YAML would be refused for at the moment that it does not say itself, such as a quota that is used up.
    /// It does not hold up saving, and may be over when it is applied.
    pub hindrances: Vec<Finding>,
    /// Why what the runtime stands on did not say whether it would take the deployment YAML; `None` where it did, or where there
    /// is none.
    pub not_asked: Option<String>,
}

impl WorkloadPreview {
    const fn untried(manifest: Manifest) -> Self {
        Self { manifest, hindrances: Vec::new(), not_asked: None }
    }
}

/// Why nothing was said, in words for whoever asked: addresses and accounts of the platform are for its log.
fn silence(error: &Error) -> String {
    match error {
        Error::Timeout { .. } | Error::Unavailable { .. } => "it did not answer".to_owned(),
        Error::PermissionDenied { .. } => "it does not let this platform ask".to_owned(),
        Error::Unsupported { operation, .. } => format!("it cannot {operation}"),
        _ => "its answer was not understood; the log of this platform says more".to_owned(),
    }
}

impl Lifecycle {
    /// What the runtime would make of an entry, with made-up values for what an installation gives. Deployment YAML is tried
    /// where it would run.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) with every reason why it could not be saved or run; [`Unsupported`](Error::Unsupported)
    /// without a runtime; and what the runtime answered.
    pub async fn preview_workload(&self, spec: &EntrySpec) -> Result<WorkloadPreview> {
        let mut findings = spec.findings();
        findings.extend(self.runtime_findings(spec));
        if !findings.is_empty() {
            return Err(Error::Invalid(findings));
        }
        let runtime = self.renderer()?;
        let values = WorkloadValues::sample(spec);
        let Some(sample) = build_workload_spec(spec, &values, &self.platform(None)) else {
            return Ok(WorkloadPreview::untried(Manifest { documents: Vec::new() }));
        };
        let secrets = secret_keys(&sample).into_iter().map(|key| (key.to_owned(), SecretValue::new("value"))).collect();
        let id = WorkloadId::of_entry(EntryId::new());
        let workload = Workload { id, revision: RevisionNumber(1), spec: sample, secrets };
        let manifest = self.within("rendering a workload", runtime.render(&workload)).await?;
        let mut preview = WorkloadPreview::untried(manifest);
        match self.refused_findings(spec).await {
            Ok(refused) if refused.is_empty() => {}
            Ok(refused) => return Err(Error::Invalid(refused)),
            Err(Error::Invalid(hindrances)) => preview.hindrances = hindrances,
            Err(error) => {
                let name = runtime.capabilities().name;
                tracing::debug!(%error, "deployment YAML could not be tried");
                let why = silence(&error);
                preview.not_asked =
                    Some(format!("{name} could not be asked whether it would take the deployment YAML: {why}"));
            }
        }
        Ok(preview)
    }

    /// What is refused of the deployment YAML of an entry where it would run, as only that can tell.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) for what it does not say itself and would be refused for at the moment; anything else: it
    /// could not be asked.
    pub(super) async fn refused_findings(&self, spec: &EntrySpec) -> Result<Vec<Finding>> {
        let has_yaml = spec.self_hosted.as_ref().is_some_and(|hosted| hosted.deployment_yaml.is_some());
        let sample = build_workload_spec(spec, &WorkloadValues::sample(spec), &self.platform(None));
        let (Some(runtime), Some(sample), true) = (self.runtime(), sample, has_yaml) else { return Ok(Vec::new()) };
        self.within("trying deployment YAML", runtime.check(&sample)).await
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

    /// What of this variables may not come from, for somebody with this scope, by its place.
    ///
    /// # Errors
    /// What the runtime answered.
    pub async fn unknown_sources(&self, who: &Scope, sources: &[EnvFrom]) -> Result<Vec<(usize, Finding)>> {
        match self.runtime() {
            Some(runtime) if !sources.is_empty() => {
                self.within("asking whether variables may come from there", runtime.unknown_sources(who, sources)).await
            }
            _ => Ok(Vec::new()),
        }
    }

    fn renderer(&self) -> Result<&dyn Runtime> {
        self.runtime().ok_or(Error::Unsupported { backend: "this platform", operation: "run servers" })
    }
}
