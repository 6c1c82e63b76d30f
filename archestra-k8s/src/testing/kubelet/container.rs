//! One container: pulled, started, restarted with back-off, and what of it is seen from outside.

use super::{PodRun, needs, run, status};
use crate::testing::{
    cluster::Inner,
    exec::Program,
    image::FakeImage,
    log::Log,
    store::{items, text},
    time,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// The streams of a container that can be attached to.
#[derive(Debug, Clone)]
pub(in crate::testing) struct Console {
    pub(in crate::testing) stdin: mpsc::Sender<Bytes>,
    pub(in crate::testing) stdout: broadcast::Sender<Bytes>,
}

/// The commands that can be executed in a container while it runs.
#[derive(Debug, Clone)]
pub(in crate::testing) struct Programs {
    /// By the first word of their command line.
    pub(in crate::testing) known: Vec<(String, Program)>,
    /// The present run of the container, which ends what is executed in it.
    pub(in crate::testing) over: CancellationToken,
}

/// What of a container is seen from outside.
#[derive(Debug)]
pub(in crate::testing) struct Container {
    pub(in crate::testing) log: Arc<Log>,
    console: Mutex<Option<Console>>,
    programs: Mutex<Option<Programs>>,
    /// Raised to end the present run with this exit code.
    kill: watch::Sender<Option<i32>>,
    /// How often its server has announced other tools.
    pub(in crate::testing) tools: watch::Sender<u64>,
    /// Its node is out of reach.
    lost: CancellationToken,
}

impl Container {
    pub(super) fn new(lost: CancellationToken) -> Self {
        Self {
            log: Arc::new(Log::new()),
            console: Mutex::default(),
            programs: Mutex::default(),
            kill: watch::Sender::new(None),
            tools: watch::Sender::new(0),
            lost,
        }
    }

    /// Does something for as long as its node is in reach. What is not done then stays as it is.
    pub(in crate::testing) async fn in_reach<T>(&self, doing: impl Future<Output = T>) -> T {
        let mut doing = pin!(doing);
        tokio::select! {
            biased;
            () = self.lost.cancelled() => std::future::pending().await,
            done = &mut doing => done,
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Console>> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its streams, while it runs and has some.
    pub(in crate::testing) fn console(&self) -> Option<Console> {
        self.slot().clone()
    }

    /// What can be executed in it, while it runs.
    pub(in crate::testing) fn programs(&self) -> Option<Programs> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_programs(&self, programs: Option<Programs>) {
        let before = std::mem::replace(&mut *self.programs.lock().unwrap_or_else(PoisonError::into_inner), programs);
        if let Some(before) = before {
            before.over.cancel();
        }
    }

    pub(super) fn open(&self, console: Console) {
        *self.slot() = Some(console);
    }

    /// Ends the present run with an exit code.
    pub(in crate::testing) fn kill(&self, code: i32) {
        self.kill.send_replace(Some(code));
    }

    /// The present run is over.
    pub(super) fn close(&self) {
        self.slot().take();
        self.set_programs(None);
        self.log.end();
    }
}

/// How a run of a container ended.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) code: i32,
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// It has never run.
    pub(super) not_started: bool,
}

impl Exit {
    pub(super) fn with_code(code: i32) -> Self {
        let reason = if code == 0 { "Completed" } else { "Error" };
        Self { code, reason, message: String::new(), not_started: false }
    }
}

/// One container of one pod.
pub(super) struct Job<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) run: &'a PodRun,
    pub(super) pod: &'a Value,
    pub(super) spec: &'a Value,
    pub(super) init: bool,
}

impl Job<'_> {
    pub(super) fn name(&self) -> &str {
        text(self.spec, "/name")
    }

    fn list(&self) -> &'static str {
        if self.init { "initContainerStatuses" } else { "containerStatuses" }
    }

    pub(super) fn container(&self) -> Option<&Arc<Container>> {
        self.run.containers.get(self.name())
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        self.run.edit(self.inner, |pod| {
            if let Some(container) = status::of_container(pod, self.list(), self.name()) {
                change(container);
            }
            status::conditions(pod);
        });
    }

    fn tell(&self, warning: bool, reason: &str, message: &str) {
        self.run.tell(self.inner, warning, reason, message, "kubelet");
    }

    fn wait_for(&self, reason: &str, message: &str) {
        self.edit(|container| {
            container["state"] = json!({"waiting": {"reason": reason, "message": message}});
            container["ready"] = false.into();
            container["started"] = false.into();
        });
    }

    /// Whether its server is ready.
    pub(super) fn ready(&self, ready: bool) {
        self.edit(|container| container["ready"] = ready.into());
    }

    /// Runs it until it is not to be started again; whether it has ended well.
    pub(super) async fn run_to_end(&self) -> bool {
        let policy = text(self.pod, "/spec/restartPolicy");
        let timing = &self.inner.timing;
        let mut backoff = timing.backoff;
        loop {
            let image = self.pull().await;
            self.configured().await;
            let Some(container) = self.container() else { return false };
            let exit = self.once(container, &image).await;
            container.close();
            self.ended(&exit);
            let done = exit.code == 0 && (self.init || policy != "Always");
            if done || policy == "Never" {
                return exit.code == 0;
            }
            let message = format!(
                "back-off {backoff:?} restarting failed container={} pod={}_{}({})",
                self.name(),
                self.run.key.name,
                self.run.key.namespace,
                self.run.uid
            );
            sleep(timing.start).await;
            self.wait_for("CrashLoopBackOff", &message);
            self.tell(true, "BackOff", &format!("Back-off restarting failed container {}", self.name()));
            sleep(backoff).await;
            backoff = (backoff * 2).min(timing.max_backoff);
            self.edit(|container| {
                container["restartCount"] = (container["restartCount"].as_i64().unwrap_or(0) + 1).into();
            });
        }
    }

    /// Waits until there is an image.
    async fn pull(&self) -> FakeImage {
        let mut changed = self.inner.changed.subscribe();
        let image = text(self.spec, "/image");
        loop {
            changed.mark_unchanged();
            let why = match self.inner.read(|store| needs::image(store, self.pod, self.spec, self.init)) {
                Ok(found) => return found,
                Err(why) => why,
            };
            if text(self.spec, "/imagePullPolicy") == "Never" {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                self.wait_for("ErrImageNeverPull", &message);
                self.tell(true, "ErrImageNeverPull", &message);
            } else {
                self.tell(true, "Failed", &format!("Failed to pull image \"{image}\": {why}"));
                self.wait_for("ErrImagePull", &why);
                sleep(self.inner.timing.backoff).await;
                self.wait_for("ImagePullBackOff", &format!("Back-off pulling image \"{image}\": ErrImagePull: {why}"));
                self.tell(false, "BackOff", &format!("Back-off pulling image \"{image}\""));
            }
            self.until(&mut changed, |job| {
                job.inner.read(|store| needs::image(store, job.pod, job.spec, job.init)).is_ok()
            })
            .await;
        }
    }

    /// Waits until all values of its environment are there.
    async fn configured(&self) {
        let mut changed = self.inner.changed.subscribe();
        let missing = |job: &Self| {
            let namespace = &job.run.key.namespace;
            job.inner.read(|store| needs::missing_value(store, namespace, job.spec))
        };
        while let Some(why) = missing(self) {
            self.wait_for("CreateContainerConfigError", &why);
            self.tell(true, "Failed", &format!("Error: {why}"));
            self.until(&mut changed, |job| missing(job).is_none()).await;
        }
    }

    /// Waits for a change that makes something hold.
    async fn until(&self, changed: &mut watch::Receiver<u64>, holds: impl Fn(&Self) -> bool) {
        loop {
            changed.mark_unchanged();
            if holds(self) {
                return;
            }
            // What is missed while the last look was taken is seen by the next one.
            drop(timeout(Duration::from_secs(1), changed.changed()).await);
        }
    }

    /// One run.
    async fn once(&self, container: &Arc<Container>, image: &FakeImage) -> Exit {
        let mut kill = container.kill.subscribe();
        container.kill.send_replace(None);
        kill.mark_unchanged();
        container.tools.send_replace(0);
        container.log.begin();
        let probed =
            ["readinessProbe", "startupProbe"].iter().any(|probe| self.spec.get(*probe).is_some_and(Value::is_object));
        let starts = run::starts(image, self.spec);
        if starts {
            let now = time::now();
            self.edit(|container| {
                container["state"] = json!({"running": {"startedAt": now}});
                container["started"] = true.into();
                container["ready"] = (!probed).into();
                container["imageID"] = format!("fake://{}", text(container, "/image")).into();
                container["containerID"] = format!("fake://{}", container["restartCount"]).into();
            });
            let over = CancellationToken::new();
            container.set_programs(Some(Programs { known: image.programs.clone(), over }));
            self.tell(false, "Started", &format!("Started container {}", self.name()));
        }
        tokio::select! {
            biased;
            Ok(code) = kill.wait_for(Option::is_some) => Exit::with_code(code.unwrap_or(137)),
            exit = run::run(self, container, image) => exit,
        }
    }

    fn ended(&self, exit: &Exit) {
        let now = time::now();
        self.edit(|container| {
            let started = container["state"]["running"]["startedAt"].as_str().unwrap_or(&now).to_owned();
            let mut terminated = json!({
                "exitCode": exit.code, "reason": exit.reason, "startedAt": started, "finishedAt": now,
                "containerID": container["containerID"],
            });
            if !exit.message.is_empty() {
                terminated["message"] = exit.message.clone().into();
            }
            if terminated["containerID"].is_null()
                && let Value::Object(fields) = &mut terminated
            {
                fields.remove("containerID");
            }
            container["state"] = json!({"terminated": terminated});
            container["lastState"] = json!({"terminated": terminated});
            container["ready"] = (self.init && exit.code == 0).into();
            container["started"] = false.into();
        });
        if exit.not_started {
            self.tell(true, "Failed", &format!("Error: {}", exit.message));
        }
    }

    /// The words of its command line.
    pub(super) fn words(&self) -> Vec<String> {
        ["/command", "/args"]
            .into_iter()
            .flat_map(|list| items(self.spec, list))
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    }

    /// Writes a line to its log.
    pub(super) fn log(&self, line: &str) {
        if let Some(container) = self.container() {
            container.log.write(line);
        }
    }
}
