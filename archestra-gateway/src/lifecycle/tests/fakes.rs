//! A runtime and a discovery that do what a test tells them.

use super::super::{Discover, DiscoverError};
use archestra_core::{
    Error, Finding, Result,
    catalog::{Entry, Scope, SelfHosted},
    installation::Installation,
    runtime::{
        Applied, Connection, LogLine, LogOptions, Manifest, Phase, PullSecret, Runtime, RuntimeCapabilities, Workload,
        WorkloadEvent, WorkloadId, WorkloadSpec, WorkloadStatus, WorkloadSummary,
    },
};
use async_trait::async_trait;
use futures::{
    StreamExt as _,
    channel::mpsc::{UnboundedSender, unbounded},
    stream::{self, BoxStream},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::Notify;

/// A runtime whose workloads are in the phase that a test says.
#[derive(Debug, Clone, Default)]
pub(super) struct FakeRuntime {
    state: Arc<Mutex<RuntimeState>>,
}

#[derive(Debug, Default)]
struct RuntimeState {
    workloads: BTreeMap<WorkloadId, (Workload, WorkloadStatus)>,
    phase: Option<WorkloadStatus>,
    refusals: VecDeque<Error>,
    /// What it answers though it has accepted.
    failures: VecDeque<Error>,
    /// The next apply waits for it, where it is there.
    held: Option<Arc<Notify>>,
    watchers: Vec<UnboundedSender<Result<WorkloadEvent>>>,
    applies: usize,
    platform: BTreeMap<String, String>,
    drifted: BTreeMap<WorkloadId, String>,
    unlistable: bool,
    /// Removals wait for it, where it is there.
    removals: Option<Arc<Notify>>,
    removed: usize,
}

impl FakeRuntime {
    /// What is applied now.
    pub(super) fn applied(&self) -> Vec<Workload> {
        self.state.lock().unwrap().workloads.values().map(|(workload, _)| workload.clone()).collect()
    }

    pub(super) fn only(&self) -> Workload {
        let mut all = self.applied();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// How often something was rolled.
    pub(super) fn applies(&self) -> usize {
        self.state.lock().unwrap().applies
    }

    /// Whether what runs can be listed.
    pub(super) fn listable(&self, listable: bool) {
        self.state.lock().unwrap().unlistable = !listable;
    }

    /// Lets removals wait until each is told to go on.
    pub(super) fn hold_removals(&self) -> Arc<Notify> {
        Arc::clone(self.state.lock().unwrap().removals.insert(Arc::default()))
    }

    /// How many removals there were.
    pub(super) fn removed(&self) -> usize {
        self.state.lock().unwrap().removed
    }

    /// What is added by itself to revisions that are made from now on.
    pub(super) fn adds(&self, platform: &[(&str, &str)]) {
        let pairs = platform.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.state.lock().unwrap().platform = pairs.collect();
    }

    /// Refuses the next workload that differs from what is there.
    pub(super) fn refuse_next(&self, error: Error) {
        self.state.lock().unwrap().refusals.push_back(error);
    }

    /// Answers the next workload that differs from what is there like this, though it has accepted it.
    pub(super) fn fail_next(&self, error: Error) {
        self.state.lock().unwrap().failures.push_back(error);
    }

    /// Lets the next apply wait until it is told to go on.
    pub(super) fn hold_apply(&self) -> Arc<Notify> {
        Arc::clone(self.state.lock().unwrap().held.insert(Arc::default()))
    }

    /// What workloads are in from now on, until they are set otherwise.
    pub(super) fn start_in(&self, status: WorkloadStatus) {
        self.state.lock().unwrap().phase = Some(status);
    }

    /// Puts a workload into a phase, and tells.
    pub(super) fn set(&self, id: &WorkloadId, phase: Phase) {
        let mut state = self.state.lock().unwrap();
        let (workload, status) = state.workloads.get_mut(id).unwrap();
        *status = WorkloadStatus { revision: Some(workload.revision), ..WorkloadStatus::new(phase) };
        let summary = WorkloadSummary { id: id.clone(), namespace: None, status: status.clone(), drift: None };
        state.tell(&WorkloadEvent::Changed(summary));
    }

    /// Has somebody else change what was applied, and tells.
    pub(super) fn drift(&self, id: &WorkloadId, what: &str) {
        let mut state = self.state.lock().unwrap();
        state.drifted.insert(id.clone(), what.to_owned());
        let summary = state.summaries().into_iter().find(|summary| summary.id == *id).unwrap();
        state.tell(&WorkloadEvent::Changed(summary));
    }

    /// Whether what was applied is as it was.
    pub(super) fn is_intact(&self, id: &WorkloadId) -> bool {
        !self.state.lock().unwrap().drifted.contains_key(id)
    }

    /// Has a server say that its tools changed.
    pub(super) fn tools_changed(&self, id: &WorkloadId) {
        self.state.lock().unwrap().tell(&WorkloadEvent::ToolsChanged(id.clone()));
    }

    /// Something that nobody asked for.
    pub(super) fn plant(&self, workload: Workload) {
        let status = WorkloadStatus { revision: Some(workload.revision), ..WorkloadStatus::new(Phase::Running) };
        self.state.lock().unwrap().workloads.insert(workload.id.clone(), (workload, status));
    }
}

impl RuntimeState {
    fn tell(&mut self, event: &WorkloadEvent) {
        self.watchers.retain(|watcher| watcher.unbounded_send(Ok(event.clone())).is_ok());
    }

    fn summaries(&self) -> Vec<WorkloadSummary> {
        let summary = |(id, (_, status)): (&WorkloadId, &(Workload, WorkloadStatus))| WorkloadSummary {
            id: id.clone(),
            namespace: None,
            status: status.clone(),
            drift: self.drifted.get(id).cloned(),
        };
        self.workloads.iter().map(summary).collect()
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities {
            name: "fake",
            images: false,
            commands: true,
            pull_secrets: false,
            env_from: false,
            overrides: false,
            mounts: true,
            isolation: false,
        }
    }

    fn platform(&self) -> BTreeMap<String, String> {
        self.state.lock().unwrap().platform.clone()
    }

    fn validate(&self, workload: &WorkloadSpec) -> Vec<Finding> {
        workload.image.iter().map(|_| Finding::new("image", "this runtime runs no images", "use `command`")).collect()
    }

    async fn check(&self, workload: &WorkloadSpec) -> Result<Vec<Finding>> {
        let yaml = workload.deployment_yaml.as_deref().unwrap_or_default();
        if yaml.contains("unreachable") {
            return Err(Error::Unavailable { backend: "fake", reason: "it is away".to_owned(), source: None });
        }
        if yaml.contains("denied") {
            return Err(Error::PermissionDenied { backend: "fake", reason: "account x may not".to_owned() });
        }
        if yaml.contains("quota") {
            return Err(Error::invalid("namespace", "exceeded quota: small", "raise the quota"));
        }
        let refused = yaml.contains("refused").then(|| Finding::new("selfHosted.deploymentYaml", "no", "change it"));
        Ok(refused.into_iter().collect())
    }

    /// Every line that names a variable whose definition changed goes.
    fn sync_overrides(&self, yaml: &str, before: &SelfHosted, after: &SelfHosted) -> Result<String> {
        let gone = before.env.iter().filter(|one| !after.env.contains(one));
        let stale: Vec<_> = gone.map(|one| one.name.as_str()).collect();
        if yaml.contains("fixed") && !stale.is_empty() {
            return Err(Error::invalid("selfHosted.deploymentYaml", "it cannot be taken out", "write it otherwise"));
        }
        let kept = yaml.lines().filter(|line| !stale.iter().any(|name| line.contains(name)));
        Ok(kept.map(|line| format!("{line}\n")).collect())
    }

    async fn render(&self, _: &Workload) -> Result<Manifest> {
        Ok(Manifest { documents: Vec::new() })
    }

    async fn apply(&self, workload: &Workload) -> Result<Applied> {
        let held = self.state.lock().unwrap().held.take();
        if let Some(held) = held {
            held.notified().await;
        }
        let mut state = self.state.lock().unwrap();
        // Where a workload runs is what an apply answers, and nothing that a later one changes.
        let placed = |spec: &WorkloadSpec| WorkloadSpec { namespace: Some("servers".to_owned()), ..spec.clone() };
        let known = state.workloads.get(&workload.id);
        if known.is_some_and(|(there, _)| there.revision > workload.revision) {
            return Err(Error::stale_revision(&workload.id, "a newer one is there"));
        }
        let same = known.is_some_and(|(there, _)| {
            there.revision == workload.revision && placed(&there.spec) == placed(&workload.spec)
        });
        if (!same || state.drifted.contains_key(&workload.id))
            && let Some(refusal) = state.refusals.pop_front()
        {
            return Err(refusal);
        }
        state.drifted.remove(&workload.id);
        if !same {
            state.applies += 1;
            let status = state.phase.clone().unwrap_or_else(|| WorkloadStatus::new(Phase::Running));
            let status = WorkloadStatus { revision: Some(workload.revision), ..status };
            state.workloads.insert(workload.id.clone(), (workload.clone(), status));
            if let Some(failure) = state.failures.pop_front() {
                return Err(failure);
            }
        }
        Ok(Applied { revision: workload.revision, changed: !same, namespace: Some("servers".to_owned()) })
    }

    async fn status(&self, id: &WorkloadId) -> Result<WorkloadStatus> {
        let state = self.state.lock().unwrap();
        state.workloads.get(id).map(|(_, status)| status.clone()).ok_or_else(|| Error::not_found("workload", id))
    }

    fn watch(&self) -> BoxStream<'static, Result<WorkloadEvent>> {
        let (sender, receiver) = unbounded();
        let mut state = self.state.lock().unwrap();
        sender.unbounded_send(Ok(WorkloadEvent::Snapshot(state.summaries()))).unwrap();
        state.watchers.push(sender);
        receiver.boxed()
    }

    async fn logs(&self, _: &WorkloadId, _: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        Ok(stream::empty().boxed())
    }

    async fn restart(&self, id: &WorkloadId) -> Result<()> {
        self.status(id).await.map(drop)
    }

    async fn remove(&self, id: &WorkloadId) -> Result<()> {
        let held = {
            let mut state = self.state.lock().unwrap();
            state.removed += 1;
            state.removals.clone()
        };
        if let Some(held) = held {
            held.notified().await;
        }
        self.state.lock().unwrap().workloads.remove(id);
        Ok(())
    }

    async fn connect(&self, _: &WorkloadId) -> Result<Connection> {
        Err(Error::Unsupported { backend: "fake", operation: "connect" })
    }

    async fn pull_secrets(&self, _: &Scope) -> Result<Vec<PullSecret>> {
        Ok(Vec::new())
    }

    async fn list(&self) -> Result<Vec<WorkloadSummary>> {
        let state = self.state.lock().unwrap();
        if state.unlistable {
            return Err(Error::unavailable("fake", "there is no cluster"));
        }
        Ok(state.summaries())
    }

    async fn shutdown(&self) {}
}

/// Lists what a test says, after as many failures as it says.
#[derive(Debug, Clone, Default)]
pub(super) struct FakeDiscover {
    state: Arc<Mutex<DiscoverState>>,
}

#[derive(Debug, Default)]
struct DiscoverState {
    tools: Vec<Value>,
    failures: VecDeque<DiscoverError>,
    asked: usize,
    stuck: bool,
    takes: Duration,
}

impl FakeDiscover {
    /// Serves tools of these names.
    pub(super) fn serve(&self, names: &[&str]) {
        self.state.lock().unwrap().tools =
            names.iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect();
    }

    /// Fails so often, each time like this.
    pub(super) fn fail(&self, times: usize, error: &DiscoverError) {
        self.state.lock().unwrap().failures.extend(std::iter::repeat_n(error.clone(), times));
    }

    /// Answers after so long from now on.
    pub(super) fn take(&self, time: Duration) {
        self.state.lock().unwrap().takes = time;
    }

    /// Never answers.
    pub(super) fn hang(&self) {
        self.state.lock().unwrap().stuck = true;
    }

    pub(super) fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }
}

#[async_trait]
impl Discover for FakeDiscover {
    async fn discover(&self, _: &Entry, _: &Installation) -> Result<Vec<Value>, DiscoverError> {
        let (stuck, takes) = {
            let mut state = self.state.lock().unwrap();
            state.asked += 1;
            if let Some(failure) = state.failures.pop_front() {
                return Err(failure);
            }
            (state.stuck, state.takes)
        };
        tokio::time::sleep(takes).await;
        if stuck {
            std::future::pending::<()>().await;
        }
        Ok(self.state.lock().unwrap().tools.clone())
    }
}
