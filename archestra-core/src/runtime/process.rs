//! `ProcessRuntime`: workloads as local child processes, each under a supervisor that ends it with us.
//!
//! It isolates nothing: a workload runs as our own user, with our own network and files. It is for a developer's machine and
//! for servers that are trusted as the platform itself is. Whoever may save a command may run it.
//!
//! Every workload has a supervisor, a small process made from the embedder's own binary ([`supervisor::run`]) that starts the
//! command in a process group of its own and ends all that comes of it when it is told to, and also when we vanish. Commands
//! never pass through a shell, secrets never through an argument vector. A stdio server's streams are multiplexed; they run
//! between the two processes directly.
//!
//! ```no_run
//! use archestra_core::runtime::process::{ProcessConfig, ProcessRuntime, SupervisorCommand};
//!
//! # async fn example(path: String) -> archestra_core::Result<()> {
//! let supervisor = SupervisorCommand { program: "/usr/local/bin/archestra-supervisor".into(), args: Vec::new() };
//! let mut config = ProcessConfig::new("/var/lib/archestra/processes", supervisor);
//! config.inherit.insert("PATH".to_owned(), path);
//! let runtime = ProcessRuntime::start(config).await?;
//! # Ok(())
//! # }
//! ```

#[cfg(not(unix))]
compile_error!("the feature `process` of archestra-core needs a Unix; on this system run workloads on Kubernetes");

mod child;
mod config;
mod hub;
mod keeper;
mod logs;
mod marker;
mod message;
mod plan;
mod ports;
mod procfs;
mod record;
mod recover;
mod render;
mod server;
mod slot;
pub mod supervisor;
mod validate;

pub use config::{Backoff, ProcessConfig, SupervisorCommand};

use self::{
    hub::Hub,
    keeper::Keeper,
    logs::LogBuffer,
    plan::{Directories, Plan},
    ports::Ports,
    slot::{Desired, Slot},
};
use crate::{
    Error, Finding, Result,
    catalog::Scope,
    runtime::{
        Applied, Connection, LogLine, LogOptions, Manifest, Phase, PullSecret, Runtime, RuntimeCapabilities, Workload,
        WorkloadEvent, WorkloadId, WorkloadSpec, WorkloadStatus, WorkloadSummary,
    },
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::{
    collections::BTreeMap,
    fs::File,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const BACKEND: &str = "process runtime";
/// How long a shutdown waits beyond the grace of the processes.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(7);

/// Runs workloads as local child processes.
///
/// Dropping it ends them without waiting; [`shutdown`](Runtime::shutdown) waits.
#[derive(Debug)]
pub struct ProcessRuntime {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    /// Held as long as we use the state directory.
    _lock: File,
}

/// What the runtime and its keepers share.
#[derive(Debug)]
struct Shared {
    config: ProcessConfig,
    hub: Arc<Hub>,
    slots: Mutex<BTreeMap<WorkloadId, Arc<Slot>>>,
    stop: CancellationToken,
    generations: AtomicU64,
    ports: Ports,
}

/// What putting a plan into its slot came to.
enum Put {
    Changed,
    Unchanged,
    /// The workload is being removed: it can be put there when this is cancelled.
    AfterRemoval(CancellationToken),
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<WorkloadId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, id: &WorkloadId) -> Result<Arc<Slot>> {
        self.slots().get(id).map(Arc::clone).ok_or_else(|| Error::not_found("workload", id))
    }

    fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The last thing that happens to a removed workload.
    fn forget(&self, slot: &Slot) {
        self.hub.remove(&slot.id);
        self.slots().remove(&slot.id);
        slot.gone.cancel();
    }

    fn directories(&self, id: &WorkloadId) -> Directories {
        Directories::new(self.config.state_dir.join(id.as_str()))
    }
}

impl ProcessRuntime {
    /// Takes the state directory, and ends what an earlier runtime left running there.
    ///
    /// What that one ran is listed as stopped until it is applied again or removed. Directories without the mark of a workload
    /// are left alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the supervisor or the state directory is not usable, [`Error::Conflict`] when another runtime
    /// uses the directory, [`Error::Backend`] when processes of an earlier one cannot be ended.
    pub async fn start(config: ProcessConfig) -> Result<Self> {
        let (config, lock, left_over) = tokio::task::spawn_blocking(move || recover::take_over(config))
            .await
            .map_err(|e| Error::backend(BACKEND, e))??;
        let shared = Shared {
            config,
            hub: Arc::new(Hub::new()),
            slots: Mutex::default(),
            stop: CancellationToken::new(),
            generations: AtomicU64::new(0),
            ports: Ports::default(),
        };
        for id in left_over {
            let status = Slot::left_over();
            shared.hub.set(&id, status.clone());
            let slot = Slot::new(id.clone(), None, status, Arc::new(LogBuffer::new(&shared.config)));
            shared.slots().insert(id, Arc::new(slot));
        }
        Ok(Self { shared: Arc::new(shared), tasks: TaskTracker::new(), _lock: lock })
    }

    /// Puts the plan into the workload's slot, and a keeper to it if it has none.
    fn put(&self, workload: &Workload, plan: &Arc<Plan>) -> Result<Put> {
        let mut slots = self.shared.slots();
        if self.shared.stop.is_cancelled() {
            return Err(Error::Unavailable {
                backend: BACKEND,
                reason: "it is shutting down".to_owned(),
                source: None,
            });
        }
        let mut logs = None;
        if let Some(slot) = slots.get(&workload.id) {
            if slot.remove.is_cancelled() {
                return Ok(Put::AfterRemoval(slot.gone.clone()));
            }
            if let Some(desired) = &slot.desired {
                let there = desired.borrow().revision;
                if there > workload.revision {
                    let reason =
                        format!("revision {there} is there, which is newer than revision {}", workload.revision);
                    return Err(Error::stale_revision(&workload.id, reason));
                }
                let mut rolls = false;
                desired.send_modify(|desired| {
                    rolls = !desired.plan.same_as(plan);
                    desired.revision = workload.revision;
                    if rolls {
                        desired.plan = Arc::clone(plan);
                        desired.roll += 1;
                    }
                });
                return Ok(if rolls { Put::Changed } else { Put::Unchanged });
            }
            logs = Some(Arc::clone(&slot.logs));
        }
        let logs = logs.unwrap_or_else(|| Arc::new(LogBuffer::new(&self.shared.config)));
        let desired = Desired { plan: Arc::clone(plan), revision: workload.revision, roll: 0 };
        let status = WorkloadStatus { revision: Some(workload.revision), ..WorkloadStatus::new(Phase::Pending) };
        self.shared.hub.set(&workload.id, status.clone());
        let slot = Arc::new(Slot::new(workload.id.clone(), Some(desired), status, logs));
        slots.insert(workload.id.clone(), Arc::clone(&slot));
        if let Some(desired) = &slot.desired {
            let desired = desired.subscribe();
            let directories = self.shared.directories(&slot.id);
            let keeper = Keeper::new(Arc::clone(&self.shared), slot, desired, directories);
            drop(self.tasks.spawn(keeper.run()));
        }
        Ok(Put::Changed)
    }
}

impl Drop for ProcessRuntime {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities {
            name: "process",
            images: false,
            commands: true,
            pull_secrets: false,
            env_from: false,
            overrides: false,
            mounts: false,
            isolation: false,
        }
    }

    fn validate(&self, workload: &WorkloadSpec) -> Vec<Finding> {
        validate::findings(workload)
    }

    async fn render(&self, workload: &Workload) -> Result<Manifest> {
        Ok(render::render(workload, &self.shared.directories(&workload.id)))
    }

    async fn apply(&self, workload: &Workload) -> Result<Applied> {
        let findings = self.validate(&workload.spec);
        if !findings.is_empty() {
            return Err(Error::Invalid(findings));
        }
        let plan = Arc::new(Plan::new(&self.shared.config, workload)?);
        let changed = loop {
            match self.put(workload, &plan)? {
                Put::Changed => break true,
                Put::Unchanged => break false,
                Put::AfterRemoval(gone) => gone.cancelled().await,
            }
        };
        Ok(Applied { revision: workload.revision, changed, namespace: None })
    }

    async fn status(&self, id: &WorkloadId) -> Result<WorkloadStatus> {
        self.shared.hub.get(id).ok_or_else(|| Error::not_found("workload", id))
    }

    fn watch(&self) -> BoxStream<'static, Result<WorkloadEvent>> {
        self.shared.hub.watch()
    }

    async fn logs(&self, id: &WorkloadId, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        Ok(self.shared.slot(id)?.logs.read(options))
    }

    async fn restart(&self, id: &WorkloadId) -> Result<()> {
        let slot = self.shared.slot(id)?;
        let Some(desired) = &slot.desired else {
            return Err(Error::conflict("workload", id, "it has not been started since the platform was; apply it"));
        };
        slot.logs.say("a restart was asked for");
        desired.send_modify(|desired| desired.roll += 1);
        Ok(())
    }

    async fn remove(&self, id: &WorkloadId) -> Result<()> {
        let (slot, first) = {
            let slots = self.shared.slots();
            let Some(slot) = slots.get(id) else { return Ok(()) };
            let first = !slot.remove.is_cancelled();
            slot.remove.cancel();
            (Arc::clone(slot), first)
        };
        if first && slot.desired.is_none() {
            let (shared, slot, directories) =
                (Arc::clone(&self.shared), Arc::clone(&slot), self.shared.directories(id));
            drop(self.tasks.spawn(async move { keeper::remove_left_over(&shared, &slot, &directories).await }));
        }
        slot.gone.cancelled().await;
        if self.shared.stop.is_cancelled() && self.shared.slot(id).is_ok() {
            // Its keeper ended with the shutdown, before it could see this removal; nobody can apply it again.
            keeper::remove_left_over(&self.shared, &slot, &self.shared.directories(id)).await;
        }
        Ok(())
    }

    async fn connect(&self, id: &WorkloadId) -> Result<Connection> {
        let slot = self.shared.slot(id)?;
        let mut observed = slot.observed.subscribe();
        let mut last = String::new();
        let connected = timeout(self.shared.config.connect_wait, async {
            loop {
                let now = observed.borrow_and_update().clone();
                last = now.status.reason.unwrap_or_else(|| now.status.phase.label().to_owned());
                match (now.reach, now.status.phase) {
                    (Some(reach), _) => match reach.connect() {
                        Ok(connection) => return Some(connection),
                        Err(reason) => last = reason,
                    },
                    (None, Phase::Error | Phase::Stopped) => return None,
                    (None, Phase::Running | Phase::Pending | Phase::Restarting) => {}
                }
                if observed.changed().await.is_err() {
                    return None;
                }
            }
        });
        match connected.await {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) | Err(_) => Err(Error::Unavailable {
                backend: BACKEND,
                reason: format!("the server is not ready: {last}"),
                source: None,
            }),
        }
    }

    async fn pull_secrets(&self, _who: &Scope) -> Result<Vec<PullSecret>> {
        Ok(Vec::new())
    }

    async fn list(&self) -> Result<Vec<WorkloadSummary>> {
        Ok(self.shared.hub.all())
    }

    async fn shutdown(&self) {
        {
            // Under the lock, so that no workload is put there any more that nobody would wait for.
            let _slots = self.shared.slots();
            self.shared.stop.cancel();
        }
        self.tasks.close();
        if timeout(self.shared.config.stop_grace + SHUTDOWN_MARGIN, self.tasks.wait()).await.is_err() {
            tracing::error!("processes of workloads have not ended in time; their supervisors will end them");
        }
    }
}
