//! Running self-hosted servers: workloads, revisions, status, logs, connections, and the `Runtime` trait.

mod connection;
mod logs;
pub mod scheduling;
mod status;
pub mod stdio;
#[cfg(any(feature = "process", feature = "testing"))]
pub(crate) mod watching;
mod workload;

#[cfg(feature = "process")]
pub mod process;

pub use connection::{Connection, HttpEndpoint};
pub use logs::{LogLine, LogOptions, LogSource};
pub use status::{Phase, WorkloadEvent, WorkloadStatus, WorkloadSummary};
pub use workload::{
    Applied, EnvValue, Manifest, Revision, RevisionNumber, Workload, WorkloadEnv, WorkloadId, WorkloadPullSecret,
    WorkloadSpec, WorkloadTransport,
};

use crate::{
    Finding, Result,
    catalog::{EnvFrom, Scope, SelfHosted},
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::{collections::BTreeMap, fmt};

/// What a runtime can do. What it cannot is refused on save and on install, with a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a table of independent capabilities")]
pub struct RuntimeCapabilities {
    /// What the runtime is called in texts: `process`, `kubernetes`.
    pub name: &'static str,
    /// Runs container images.
    pub images: bool,
    /// Has a base image that commands run on, or runs commands as they are.
    pub commands: bool,
    /// Pulls with secrets.
    pub pull_secrets: bool,
    /// Takes variables from Secrets and ConfigMaps of the cluster.
    pub env_from: bool,
    /// Takes deployment YAML.
    pub overrides: bool,
    /// Mounts secrets as files.
    pub mounts: bool,
    /// Isolates workloads from each other and from the platform.
    pub isolation: bool,
}

/// An image pull secret that a caller may choose.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PullSecret {
    /// Its name.
    pub name: String,
    /// The registries it is for.
    pub servers: Vec<String>,
}

/// How often a runtime has asked what it stands on for one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestCount {
    /// What was asked: `get`, `list`, `watch`, `patch`.
    pub verb: &'static str,
    /// For what: `deployments`, `pods/log`.
    pub resource: String,
    /// How often so far.
    pub count: u64,
}

/// Runs workloads: desired state in, observed state out.
///
/// # Contract
/// * [`apply`](Self::apply) makes the workload be as given: creates it or rolls it. Applying what is there changes nothing
///   and restarts nothing. It returns when the desired state is accepted, not when it is reached. Dropping the future leaves
///   it applied or not; applying again is always right. What it can tell at once that it will never run it may refuse as
///   [`Invalid`](crate::Error::Invalid), and then nothing is there; anything else that goes wrong is reported by the status.
///   A revision that is older than the one that was applied last is a conflict that
///   [`stale_revision`](crate::Error::stale_revision) makes, and changes nothing.
/// * What is applied survives a restart of the platform; a runtime whose workloads end with the platform, such as local
///   processes, starts with none, and whoever owns the desired state applies it again.
/// * [`status`](Self::status), [`logs`](Self::logs), [`restart`](Self::restart) and [`connect`](Self::connect) of an unknown
///   id are [`NotFound`](crate::Error::NotFound). [`remove`](Self::remove) of one succeeds, and removes everything that
///   `apply` made, secrets included; when it returns the workload's processes have been told to end, and none is left after
///   the grace period.
/// * [`watch`](Self::watch) sends [`WorkloadEvent::Snapshot`] first and after each interruption, then changes in order. An
///   observer may see a state late, never an older one after a newer one. What may have been announced meanwhile by
///   [`WorkloadEvent::ToolsChanged`] is announced again. It does not end.
/// * [`connect`](Self::connect) may be called any number of times and concurrently; connections are independent, and dropping
///   one ends what it had under way. It fails with [`Unavailable`](crate::Error::Unavailable) and the reason when the
///   workload is not ready; it does not wait longer than the workload's own negotiation takes.
/// * What somebody else has changed or removed of that which `apply` made is told in [`WorkloadSummary::drift`], by runtimes
///   that can see it, and is put back when whoever owns the desired state applies it again.
/// * Secret values appear in no log line that the platform writes, no status, no manifest and no argument vector.
#[async_trait]
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// What it can do.
    fn capabilities(&self) -> RuntimeCapabilities;

    /// What this runtime adds by itself to a workload whose revision is made now, to be stored in
    /// [`WorkloadSpec::platform`]: an upgrade of the platform then changes nothing that runs. What is not known yet is left out,
    /// and stays as the newest revision has it. No I/O.
    fn platform(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// What is wrong with a workload, when its entry is saved or installed. No I/O.
    fn validate(&self, workload: &WorkloadSpec) -> Vec<Finding>;

    /// What only that on which this runtime stands can tell of a workload that passed [`validate`](Self::validate): what it
    /// would refuse. Nothing is made of it, and nothing is left.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) when it would be refused for something that it does not say and that may be over when
    /// it is applied: a quota that is used up, a namespace that is missing, a judge that is away. Anything else: it could not be
    /// asked. Either way nothing speaks against the workload.
    async fn check(&self, workload: &WorkloadSpec) -> Result<Vec<Finding>> {
        _ = workload;
        Ok(Vec::new())
    }

    /// The deployment YAML of an entry that was `before` and is `after`, without what it says of variables, and of what variables
    /// come from, whose definition changed or went. No I/O.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) when that cannot be taken out of the document, with where it is.
    fn sync_overrides(&self, yaml: &str, before: &SelfHosted, after: &SelfHosted) -> Result<String> {
        _ = (before, after);
        Ok(yaml.to_owned())
    }

    /// What [`apply`](Self::apply) would do, with secret values redacted.
    async fn render(&self, workload: &Workload) -> Result<Manifest>;

    /// Makes it so.
    async fn apply(&self, workload: &Workload) -> Result<Applied>;

    /// How it is.
    async fn status(&self, id: &WorkloadId) -> Result<WorkloadStatus>;

    /// How all are, from now on.
    fn watch(&self) -> BoxStream<'static, Result<WorkloadEvent>>;

    /// What it wrote to its log.
    async fn logs(&self, id: &WorkloadId, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>>;

    /// Starts it anew, without a gap where the transport allows.
    async fn restart(&self, id: &WorkloadId) -> Result<()>;

    /// Ends it and removes all that was made for it.
    async fn remove(&self, id: &WorkloadId) -> Result<()>;

    /// A private connection to its MCP server.
    async fn connect(&self, id: &WorkloadId) -> Result<Connection>;

    /// The image pull secrets that exist and that this scope may use.
    async fn pull_secrets(&self, who: &Scope) -> Result<Vec<PullSecret>>;

    /// What of this variables may not come from, for this scope: its place in the list, and a finding about its `name`, which does
    /// not tell what is missing from what is somebody else's. [`apply`](Self::apply) refuses the same for the workload's own team.
    ///
    /// # Errors
    /// It could not be asked.
    async fn unknown_sources(&self, who: &Scope, sources: &[EnvFrom]) -> Result<Vec<(usize, Finding)>> {
        _ = (who, sources);
        Ok(Vec::new())
    }

    /// Everything that exists and is ours.
    async fn list(&self) -> Result<Vec<WorkloadSummary>>;

    /// How often it has asked what it stands on so far, for the metrics. The counts only grow. No I/O.
    fn requests(&self) -> Vec<RequestCount> {
        Vec::new()
    }

    /// Ends what must not outlive us, and waits for it.
    async fn shutdown(&self);
}
