//! How a test makes a scripted runtime and steers it, and how its workloads live.

use super::{CALLS_KEPT, Inner, NAME, RecordedCall, Script, ScriptedRuntime, State};
use crate::{
    catalog::EnvFrom,
    runtime::{
        LogSource, Phase, PullSecret, Runtime as _, RuntimeCapabilities, WorkloadEvent, WorkloadId, watching::CAPACITY,
    },
};
use futures::StreamExt as _;
use serde_json::Value;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::broadcast, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How often a process that ends by itself is started before its workload counts as broken.
const STARTS: u32 = 3;

impl ScriptedRuntime {
    /// A runtime whose workloads all do the same, unless [`script`](Self::script) says otherwise.
    pub fn new(script: impl Into<Script>) -> Self {
        let capabilities = RuntimeCapabilities {
            name: NAME,
            images: true,
            commands: true,
            pull_secrets: true,
            env_from: true,
            overrides: true,
            mounts: true,
            isolation: false,
        };
        let state = State {
            scripts: BTreeMap::new(),
            otherwise: script.into(),
            workloads: BTreeMap::new(),
            calls: VecDeque::new(),
            generation: 0,
        };
        let inner = Inner {
            capabilities,
            pull_secrets: Vec::new(),
            env_sources: Vec::new(),
            start_delay: Duration::ZERO,
            restart_delay: Duration::from_millis(20),
            state: Mutex::new(state),
            events: broadcast::Sender::new(CAPACITY),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The same, with other capabilities: what it lacks, it refuses. Before anything is applied.
    #[must_use]
    pub fn with_capabilities(self, capabilities: RuntimeCapabilities) -> Self {
        self.adjust(|inner| inner.capabilities = capabilities)
    }

    /// The same, with these image pull secrets. Before anything is applied.
    #[must_use]
    pub fn with_pull_secrets(self, secrets: Vec<PullSecret>) -> Self {
        self.adjust(|inner| inner.pull_secrets = secrets)
    }

    /// The same, whose entries may name these Secrets and ConfigMaps in `envFrom`; none unless this says so. Before anything is
    /// applied.
    #[must_use]
    pub fn with_env_sources(self, sources: Vec<EnvFrom>) -> Self {
        self.adjust(|inner| inner.env_sources = sources)
    }

    /// The same, whose workloads take this long to start, and after a crash to be started again. Before anything is applied.
    #[must_use]
    pub fn with_delays(self, start: Duration, restart: Duration) -> Self {
        self.adjust(|inner| (inner.start_delay, inner.restart_delay) = (start, restart))
    }

    fn adjust(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        // Once there is a second handle the runtime is in use, and stays as it is.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            change(inner);
        }
        self
    }

    /// What workloads of this specification name do, from when they are applied or started next.
    pub fn script(&self, name: impl Into<String>, script: impl Into<Script>) {
        let (name, script) = (name.into(), script.into());
        let mut state = self.inner.state();
        for running in state.workloads.values_mut().filter(|running| running.workload.spec.name == name) {
            running.script = script.clone();
        }
        state.scripts.insert(name, script);
    }

    /// Ends a workload's process as if it had crashed; it is started again. Nothing happens if there is no such workload.
    pub fn crash(&self, id: &WorkloadId, reason: &str) {
        self.inner.crash(id, reason);
    }

    /// Writes a line to a workload's log as if its server had. Nothing happens if there is no such workload.
    pub fn log(&self, id: &WorkloadId, line: &str) {
        self.inner.server_log(id, line);
    }

    /// Tells watchers that the tools of a workload's server may have changed.
    pub fn tools_changed(&self, id: &WorkloadId) {
        let state = self.inner.state();
        if state.workloads.contains_key(id) {
            self.inner.send(WorkloadEvent::ToolsChanged(id.clone()));
        }
    }

    /// All calls that its servers were given, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.inner.state().calls.iter().cloned().collect()
    }

    /// Waits until a workload is in a phase, for as long as that takes.
    pub async fn until(&self, id: &WorkloadId, phase: Phase) {
        let mut events = self.watch();
        while events.next().await.is_some() {
            if self.status(id).await.is_ok_and(|status| status.phase == phase) {
                return;
            }
        }
    }
}

impl Inner {
    /// Ends the present run of a workload and begins another one.
    pub(super) fn start(self: &Arc<Self>, state: &mut State, id: &WorkloadId, delay: Duration) {
        state.generation += 1;
        let generation = state.generation;
        let Some(running) = state.workloads.get_mut(id) else { return };
        running.life.cancel();
        running.life = self.shutdown.child_token();
        running.generation = generation;
        running.log.next_run();
        if running.status.phase != Phase::Restarting {
            running.enter(Phase::Pending, Some("its server is being started"), None);
        }
        self.send(WorkloadEvent::Changed(running.summary()));
        let (inner, id, life) = (Arc::clone(self), id.clone(), running.life.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = life.cancelled() => {}
                () = inner.run(&id, generation, delay) => {}
            }
        });
    }

    /// One run of a workload, up to the state it stays in.
    async fn run(self: &Arc<Self>, id: &WorkloadId, generation: u64, delay: Duration) {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let Some(script) = self.state().workloads.get(id).map(|running| running.script.clone()) else { return };
        self.platform_log(id, "started");
        match script {
            Script::Serve(server) => {
                for line in &server.start_log {
                    self.server_log(id, line);
                }
                self.enter(id, generation, Phase::Running, None, None);
            }
            Script::Http(_) => self.enter(id, generation, Phase::Running, None, None),
            Script::Silent => self.enter(id, generation, Phase::Pending, Some("its server does not answer"), None),
            Script::Break { reason, hint } => self.enter(id, generation, Phase::Error, Some(&reason), hint.as_deref()),
            Script::RefuseApply(reason) => self.enter(id, generation, Phase::Error, Some(&reason), None),
            Script::Exit(reason) => {
                for _ in 1..STARTS {
                    self.platform_log(id, &format!("ended: {reason}"));
                    self.count_restart(id, generation);
                    self.enter(id, generation, Phase::Restarting, Some(&reason), None);
                    sleep(self.restart_delay).await;
                    self.platform_log(id, "started");
                }
                self.platform_log(id, &format!("ended: {reason}"));
                self.enter(
                    id,
                    generation,
                    Phase::Error,
                    Some(&format!("its server keeps ending: {reason}")),
                    Some("look at its log"),
                );
            }
        }
    }

    fn enter(&self, id: &WorkloadId, generation: u64, phase: Phase, reason: Option<&str>, hint: Option<&str>) {
        let mut state = self.state();
        if let Some(running) = state.workloads.get_mut(id).filter(|running| running.generation == generation) {
            running.enter(phase, reason, hint);
            self.send(WorkloadEvent::Changed(running.summary()));
        }
    }

    fn count_restart(&self, id: &WorkloadId, generation: u64) {
        let mut state = self.state();
        if let Some(running) = state.workloads.get_mut(id).filter(|running| running.generation == generation) {
            running.status.restarts += 1;
            running.log.next_run();
        }
    }

    /// Ends a workload's process and has it started again.
    pub(in crate::testing::scripted) fn crash(self: &Arc<Self>, id: &WorkloadId, reason: &str) {
        let mut state = self.state();
        let Some(running) = state.workloads.get_mut(id) else { return };
        running.log.write(LogSource::Platform, &format!("ended: {reason}"));
        running.status.restarts += 1;
        running.enter(Phase::Restarting, Some(reason), None);
        self.start(&mut state, id, self.restart_delay);
    }

    pub(in crate::testing::scripted) fn record_call(&self, workload: &WorkloadId, tool: &str, arguments: &Value) {
        let mut state = self.state();
        if state.calls.len() == CALLS_KEPT {
            state.calls.pop_front();
        }
        state.calls.push_back(RecordedCall {
            workload: workload.clone(),
            tool: tool.to_owned(),
            arguments: arguments.clone(),
        });
    }

    pub(in crate::testing::scripted) fn server_log(&self, id: &WorkloadId, line: &str) {
        self.write_log(id, LogSource::Server, line);
    }

    fn platform_log(&self, id: &WorkloadId, line: &str) {
        self.write_log(id, LogSource::Platform, line);
    }

    fn write_log(&self, id: &WorkloadId, source: LogSource, line: &str) {
        let log = self.state().workloads.get(id).map(|running| Arc::clone(&running.log));
        if let Some(log) = log {
            log.write(source, line);
        }
    }
}
