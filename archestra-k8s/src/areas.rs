//! The namespaces we work in: for each of them what observes it and what reaches its workloads, and one watch over all.

use crate::{config::KubernetesConfig, names, observe::Observer, reach::Reach};
use archestra_core::{
    Error, Result,
    runtime::{WorkloadEvent, WorkloadId, WorkloadSummary},
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream, SelectAll},
};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// One namespace.
pub(crate) struct Area {
    pub(crate) namespace: String,
    pub(crate) observer: Arc<Observer>,
    pub(crate) reach: Reach,
}

/// All namespaces that are observed. They only become more.
pub(crate) struct Areas {
    client: kube::Client,
    config: Arc<KubernetesConfig>,
    tasks: TaskTracker,
    stop: CancellationToken,
    known: Mutex<BTreeMap<String, Arc<Area>>>,
    grown: watch::Sender<usize>,
}

impl fmt::Debug for Areas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.known().keys()).finish()
    }
}

impl Areas {
    pub(crate) fn new(
        client: kube::Client,
        config: Arc<KubernetesConfig>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { client, config, tasks, stop, known: Mutex::default(), grown: watch::Sender::new(0) }
    }

    /// This namespace, observed from now on.
    pub(crate) fn get(&self, namespace: &str) -> Arc<Area> {
        let mut known = self.known();
        if let Some(area) = known.get(namespace) {
            return Arc::clone(area);
        }
        let ours = names::select_ours(self.config.instance.as_deref());
        let observer =
            Observer::start(self.client.clone(), namespace.to_owned(), &ours, &self.tasks, self.stop.clone());
        let reach = Reach::new(
            self.client.clone(),
            Arc::clone(&observer),
            Arc::clone(&self.config),
            self.tasks.clone(),
            &self.stop,
        );
        let area = Arc::new(Area { namespace: namespace.to_owned(), observer, reach });
        known.insert(namespace.to_owned(), Arc::clone(&area));
        let count = known.len();
        drop(known);
        self.grown.send_replace(count);
        area
    }

    pub(crate) fn all(&self) -> Vec<Arc<Area>> {
        self.known().values().map(Arc::clone).collect()
    }

    /// Where this workload is.
    pub(crate) async fn of(&self, id: &WorkloadId) -> Result<Option<Arc<Area>>> {
        let areas = self.all();
        if let Some(area) = areas.iter().find(|area| area.observer.summary(id).is_some()) {
            return Ok(Some(Arc::clone(area)));
        }
        for area in areas {
            area.observer.synced().await?;
            if area.observer.summary(id).is_some() {
                return Ok(Some(area));
            }
        }
        Ok(None)
    }

    /// Whether new workloads go there.
    pub(crate) fn is_home(&self, namespace: &str) -> bool {
        self.config.namespace == namespace
    }

    /// Everything everywhere.
    pub(crate) async fn summaries(&self) -> Result<Vec<WorkloadSummary>> {
        let mut all = Vec::new();
        for area in self.all() {
            match area.observer.synced().await {
                Ok(()) => all.extend(area.observer.summaries()),
                // A namespace that was left behind must not hold up the one that is used.
                Err(error @ Error::PermissionDenied { .. }) if !self.is_home(&area.namespace) => {
                    tracing::warn!(namespace = %area.namespace, %error, "what runs in this namespace is not known");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// One watch over all namespaces, also those that join later.
    pub(crate) fn watch(self: &Arc<Self>) -> BoxStream<'static, Result<WorkloadEvent>> {
        let merged = Merged {
            areas: Arc::clone(self),
            grown: self.grown.subscribe(),
            events: SelectAll::new(),
            states: BTreeMap::new(),
            complete: false,
            ready: VecDeque::new(),
        };
        stream::unfold(merged, |mut merged| async move { merged.next().await.map(|event| (event, merged)) }).boxed()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Area>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Tagged = (Arc<str>, Result<WorkloadEvent>);

/// The watches of all namespaces as one: a snapshot of one of them becomes a snapshot of all.
struct Merged {
    areas: Arc<Areas>,
    grown: watch::Receiver<usize>,
    events: SelectAll<BoxStream<'static, Tagged>>,
    /// What the events of each namespace add up to; nothing before its first snapshot.
    states: BTreeMap<Arc<str>, Option<BTreeMap<WorkloadId, WorkloadSummary>>>,
    /// Whether a first snapshot has been sent.
    complete: bool,
    ready: VecDeque<Result<WorkloadEvent>>,
}

impl Merged {
    async fn next(&mut self) -> Option<Result<WorkloadEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            self.join_new();
            tokio::select! {
                changed = self.grown.changed() => changed.ok()?,
                event = self.events.next(), if !self.events.is_empty() => {
                    if let Some((namespace, event)) = event {
                        self.take(&namespace, event);
                    }
                }
            }
        }
    }

    fn join_new(&mut self) {
        self.grown.mark_unchanged();
        for area in self.areas.all() {
            let namespace: Arc<str> = area.namespace.as_str().into();
            if self.states.contains_key(&namespace) {
                continue;
            }
            self.states.insert(Arc::clone(&namespace), None);
            let tagged = area.observer.watch().map(move |event| (Arc::clone(&namespace), event));
            self.events.push(tagged.boxed());
        }
    }

    fn take(&mut self, namespace: &Arc<str>, event: Result<WorkloadEvent>) {
        let state = self.states.entry(Arc::clone(namespace)).or_default();
        match &event {
            Ok(WorkloadEvent::Snapshot(all)) => {
                *state = Some(all.iter().map(|one| (one.id.clone(), one.clone())).collect());
                if self.complete || self.states.values().all(Option::is_some) {
                    self.complete = true;
                    let all = self.states.values().flatten().flat_map(BTreeMap::values).cloned().collect();
                    self.ready.push_back(Ok(WorkloadEvent::Snapshot(all)));
                }
                return;
            }
            Ok(WorkloadEvent::Changed(summary)) => {
                if let Some(state) = state {
                    state.insert(summary.id.clone(), summary.clone());
                }
            }
            Ok(WorkloadEvent::Removed(id)) => {
                if let Some(state) = state {
                    state.remove(id);
                }
            }
            Err(Error::PermissionDenied { .. }) if !self.areas.is_home(namespace) => {
                // A namespace that was left behind must not hold up the one that is used.
                state.get_or_insert_default();
                if !self.complete && self.states.values().all(Option::is_some) {
                    self.complete = true;
                    let all = self.states.values().flatten().flat_map(BTreeMap::values).cloned().collect();
                    self.ready.push_back(Ok(WorkloadEvent::Snapshot(all)));
                }
            }
            Ok(WorkloadEvent::ToolsChanged(_)) | Err(_) => {}
        }
        if self.complete || event.is_err() {
            self.ready.push_back(event);
        }
    }
}
