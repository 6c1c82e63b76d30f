//! `ScriptedRuntime`: a `Runtime` whose workloads live in this process and do what a script says.

mod control;

use super::{log::Log, server::ScriptedServer, session, session::Peer, workload::Running};
use crate::{
    Error, Finding, Result,
    catalog::{EnvFrom, Scope},
    runtime::{
        Applied, Connection, HttpEndpoint, LogLine, LogOptions, LogSource, Manifest, Phase, PullSecret, Runtime,
        RuntimeCapabilities, Workload, WorkloadEvent, WorkloadId, WorkloadSpec, WorkloadStatus, WorkloadSummary,
        watching::{self, Observed},
    },
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const NAME: &str = "scripted";
const CALLS_KEPT: usize = 10_000;

/// What becomes of a workload once it is applied.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Script {
    /// It runs this server, over stdio.
    Serve(Box<ScriptedServer>),
    /// It runs, and its server is at this URL, which is somebody else's to serve.
    Http(HttpEndpoint),
    /// Applying it fails as `Unavailable`.
    RefuseApply(String),
    /// It cannot run: its command does not exist, its image cannot be pulled.
    Break {
        /// What happened.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Its process ends whenever it has started.
    Exit(String),
    /// Its process runs and never answers `initialize`.
    Silent,
}

impl From<ScriptedServer> for Script {
    fn from(server: ScriptedServer) -> Self {
        Self::Serve(Box::new(server))
    }
}

/// A call that a scripted server was given.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedCall {
    /// By which workload.
    pub workload: WorkloadId,
    /// The tool's raw name.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
}

/// A runtime whose workloads live in this process. Clones are handles on the same runtime.
///
/// A workload runs the script that was given for its specification's name, or else the one for all others.
#[derive(Debug, Clone)]
pub struct ScriptedRuntime {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(in crate::testing::scripted) struct Inner {
    capabilities: RuntimeCapabilities,
    pull_secrets: Vec<PullSecret>,
    env_sources: Vec<EnvFrom>,
    start_delay: Duration,
    restart_delay: Duration,
    state: Mutex<State>,
    events: broadcast::Sender<WorkloadEvent>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

#[derive(Debug)]
struct State {
    scripts: BTreeMap<String, Script>,
    otherwise: Script,
    workloads: BTreeMap<WorkloadId, Running>,
    calls: VecDeque<RecordedCall>,
    generation: u64,
}

#[async_trait]
impl Runtime for ScriptedRuntime {
    fn capabilities(&self) -> RuntimeCapabilities {
        self.inner.capabilities
    }

    fn validate(&self, workload: &WorkloadSpec) -> Vec<Finding> {
        let can = self.inner.capabilities;
        let mut findings = Vec::new();
        let mut refuse = |refused: bool, field: &str, what: &str| {
            if refused {
                findings.push(Finding::new(
                    field,
                    format!("the {} runtime cannot {what}", can.name),
                    "remove it, or choose another runtime",
                ));
            }
        };
        refuse(workload.image.is_some() && !can.images, "selfHosted.image", "run images");
        refuse(workload.image.is_none() && !can.commands, "selfHosted.command", "run commands without an image");
        refuse(
            !workload.pull_secrets.is_empty() && !can.pull_secrets,
            "selfHosted.imagePullSecrets",
            "pull with secrets",
        );
        refuse(
            !workload.env_from.is_empty() && !can.env_from,
            "selfHosted.envFrom",
            "take variables from Secrets and ConfigMaps",
        );
        refuse(
            workload.deployment_yaml.is_some() && !can.overrides,
            "selfHosted.deploymentYaml",
            "take deployment YAML",
        );
        findings
    }

    async fn render(&self, workload: &Workload) -> Result<Manifest> {
        let secrets: BTreeMap<&str, &str> = workload.secrets.keys().map(|key| (key.as_str(), "(redacted)")).collect();
        let document =
            json!({"id": workload.id, "revision": workload.revision, "spec": workload.spec, "secrets": secrets});
        Ok(Manifest { documents: vec![format!("{document:#}")] })
    }

    async fn apply(&self, workload: &Workload) -> Result<Applied> {
        let findings = self.validate(&workload.spec);
        if !findings.is_empty() {
            return Err(Error::Invalid(findings));
        }
        if self.inner.shutdown.is_cancelled() {
            return Err(unavailable("the runtime is shut down"));
        }
        let mut state = self.inner.state();
        let script = state.scripts.get(&workload.spec.name).unwrap_or(&state.otherwise).clone();
        if let Script::RefuseApply(reason) = script {
            return Err(unavailable(reason));
        }
        if let Some(running) = state.workloads.get(&workload.id)
            && running.workload.revision > workload.revision
        {
            let reason = format!("revision {} is there, which is newer", running.workload.revision);
            return Err(Error::stale_revision(&workload.id, reason));
        }
        let applied = |changed| Applied { revision: workload.revision, changed, namespace: None };
        if let Some(running) = state.workloads.get_mut(&workload.id)
            && running.is_as(workload)
        {
            if running.workload.revision != workload.revision {
                running.workload.revision = workload.revision;
                running.status.revision = Some(workload.revision);
                self.inner.send(WorkloadEvent::Changed(running.summary()));
            }
            return Ok(applied(false));
        }
        let log = state.workloads.get(&workload.id).map_or_else(Log::new, |running| Arc::clone(&running.log));
        let mut status = WorkloadStatus::new(Phase::Pending);
        status.revision = Some(workload.revision);
        let running =
            Running { workload: workload.clone(), script, status, log, generation: 0, life: CancellationToken::new() };
        if let Some(before) = state.workloads.insert(workload.id.clone(), running) {
            before.life.cancel();
        }
        self.inner.start(&mut state, &workload.id, self.inner.start_delay);
        Ok(applied(true))
    }

    async fn status(&self, id: &WorkloadId) -> Result<WorkloadStatus> {
        self.inner.state().workloads.get(id).map(|running| running.status.clone()).ok_or_else(|| not_found(id))
    }

    fn watch(&self) -> BoxStream<'static, Result<WorkloadEvent>> {
        watching::watch(Arc::clone(&self.inner))
    }

    async fn logs(&self, id: &WorkloadId, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        let log = self.inner.state().workloads.get(id).map(|running| Arc::clone(&running.log));
        Ok(log.ok_or_else(|| not_found(id))?.read(options))
    }

    async fn restart(&self, id: &WorkloadId) -> Result<()> {
        let mut state = self.inner.state();
        let running = state.workloads.get(id).ok_or_else(|| not_found(id))?;
        running.log.write(LogSource::Platform, "ended: a restart was asked for");
        self.inner.start(&mut state, id, self.inner.start_delay);
        Ok(())
    }

    async fn remove(&self, id: &WorkloadId) -> Result<()> {
        let mut state = self.inner.state();
        if let Some(running) = state.workloads.remove(id) {
            running.life.cancel();
            running.log.close();
            self.inner.send(WorkloadEvent::Removed(id.clone()));
        }
        Ok(())
    }

    async fn connect(&self, id: &WorkloadId) -> Result<Connection> {
        let state = self.inner.state();
        let running = state.workloads.get(id).ok_or_else(|| not_found(id))?;
        let status = &running.status;
        if status.phase != Phase::Running {
            let reason = status.reason.as_deref().unwrap_or("its server has not answered yet");
            return Err(unavailable(format!("workload {id} is {}: {reason}", status.phase.label())));
        }
        match &running.script {
            Script::Serve(server) => {
                let peer = Peer { runtime: Arc::clone(&self.inner), workload: id.clone(), server: (**server).clone() };
                let (channel, serving) = session::open(peer, running.life.clone());
                self.inner.tasks.spawn(serving);
                Ok(Connection::Stdio(channel))
            }
            Script::Http(endpoint) => {
                Ok(Connection::Http(HttpEndpoint { generation: running.generation, ..endpoint.clone() }))
            }
            _ => Err(unavailable(format!("workload {id} serves nothing"))),
        }
    }

    async fn pull_secrets(&self, _who: &Scope) -> Result<Vec<PullSecret>> {
        Ok(self.inner.pull_secrets.clone())
    }

    async fn unknown_sources(&self, _who: &Scope, sources: &[EnvFrom]) -> Result<Vec<(usize, Finding)>> {
        let known = |source: &EnvFrom| {
            self.inner.env_sources.iter().any(|one| one.kind == source.kind && one.name == source.name)
        };
        let unknown = sources.iter().enumerate().filter(|(_, source)| !known(source));
        Ok(unknown
            .map(|(n, source)| {
                let reason = format!("there is no {} {:?} that you may use", source.kind.label(), source.name);
                (n, Finding::new("name", reason, "name one that may be used"))
            })
            .collect())
    }

    async fn list(&self) -> Result<Vec<WorkloadSummary>> {
        Ok(self.inner.state().workloads.values().map(Running::summary).collect())
    }

    async fn shutdown(&self) {
        self.inner.shutdown.cancel();
        let ended = std::mem::take(&mut self.inner.state().workloads);
        for (id, running) in ended {
            running.life.cancel();
            running.log.close();
            self.inner.send(WorkloadEvent::Removed(id));
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an event to whoever watches. Called with the state locked, so that events have the order of what they tell.
    fn send(&self, event: WorkloadEvent) {
        // Nobody may be watching, which is fine.
        drop(self.events.send(event));
    }
}

impl Observed for Inner {
    fn subscribe(&self) -> (Vec<WorkloadSummary>, broadcast::Receiver<WorkloadEvent>) {
        let state = self.state();
        (state.workloads.values().map(Running::summary).collect(), self.events.subscribe())
    }
}

fn not_found(id: &WorkloadId) -> Error {
    Error::not_found("workload", id)
}

fn unavailable(reason: impl Into<String>) -> Error {
    Error::Unavailable { backend: NAME, reason: reason.into(), source: None }
}
