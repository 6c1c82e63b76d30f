//! What is known of the workloads of one namespace: kept by watches, never by asking again.

mod derive;
mod feed;
mod parts;
mod store;
mod synced;
pub(crate) mod view;
mod watching;
mod words;

pub(crate) use parts::Part;

use crate::names::{self, Wiring};
use archestra_core::{
    Result,
    runtime::{WorkloadEvent, WorkloadId, WorkloadSummary},
};
use chrono::Utc;
use feed::Update;
use futures::stream::BoxStream;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::Client;
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use store::{Store, Touched};
use synced::{Problem, Progress};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the first lists are waited for.
const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// Observes the workloads of one namespace.
#[derive(Debug)]
pub(crate) struct Observer {
    namespace: String,
    store: Mutex<Store>,
    feed: broadcast::Sender<Update>,
    /// Counts what has become known.
    changes: watch::Sender<u64>,
    progress: watch::Sender<Progress>,
    words: mpsc::Sender<words::Request>,
}

/// Where a workload is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its Deployment.
    pub(crate) deployment: Arc<Deployment>,
    /// Its pods that are there to serve: the ready ones first, among them those of what is desired now, then the newest.
    pub(crate) pods: Vec<Arc<Pod>>,
}

impl Observer {
    /// Begins to observe what the label selector `ours` finds, until `stop`.
    pub(crate) fn start(
        client: Client,
        namespace: String,
        ours: &str,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let (words, requests) = mpsc::channel(words::WAITING);
        let observer = Arc::new(Self {
            store: Mutex::new(Store::new(namespace.clone())),
            namespace,
            feed: broadcast::Sender::new(feed::CAPACITY),
            changes: watch::Sender::new(0),
            progress: watch::Sender::new(Progress::default()),
            words,
        });
        watching::start(&observer, &client, ours, tasks, &stop);
        tasks.spawn(words::run(Arc::clone(&observer), client, requests, stop));
        observer
    }

    /// Waits until all there is has been listed once.
    ///
    /// # Errors
    /// `PermissionDenied` at once where a watch is refused, `Unavailable` with what was seen when it takes too long.
    pub(crate) async fn synced(&self) -> Result<()> {
        synced::wait(self.progress.subscribe(), &self.namespace, SYNC_LIMIT).await
    }

    /// The Deployments whose NetworkPolicy bears another mark than the one that it would get, once all there is is known.
    ///
    /// # Errors
    /// As [`synced`](Self::synced).
    pub(crate) async fn with_other_policy(
        &self,
        wanted: impl Fn(&Deployment) -> Option<String>,
    ) -> Result<Vec<Arc<Deployment>>> {
        self.synced().await?;
        let mut progress = self.progress.subscribe();
        drop(progress.wait_for(|progress| progress.has_listed(<NetworkPolicy as store::Tracked>::KIND)).await);
        Ok(self.lock().with_other_policy(wanted))
    }

    /// How a workload is.
    pub(crate) fn summary(&self, id: &WorkloadId) -> Option<WorkloadSummary> {
        self.lock().summary(id).cloned()
    }

    /// How all are, in the order of their ids.
    pub(crate) fn summaries(&self) -> Vec<WorkloadSummary> {
        self.lock().summaries()
    }

    /// A snapshot first and after each interruption, then every change in order. It does not end.
    pub(crate) fn watch(self: &Arc<Self>) -> BoxStream<'static, Result<WorkloadEvent>> {
        feed::watch(Arc::clone(self))
    }

    /// Where a workload is.
    pub(crate) fn place(&self, id: &WorkloadId) -> Option<Place> {
        let store = self.lock();
        let deployment = Arc::clone(store.deployment(id)?);
        Some(Place { pods: store.serving(id), deployment })
    }

    /// Whether there is such a workload.
    pub(crate) fn has(&self, id: &WorkloadId) -> bool {
        self.lock().deployment(id).is_some()
    }

    /// The address of a workload's Service, if it has one. Where none is known yet, that Services have been listed is waited for.
    pub(crate) async fn service(&self, id: &WorkloadId) -> Option<IpAddr> {
        let known = self.lock().parts.service(id);
        if known.is_some() {
            return known;
        }
        let mut progress = self.progress.subscribe();
        drop(progress.wait_for(|progress| progress.is_settled(<Service as store::Tracked>::KIND)).await);
        self.lock().parts.service(id)
    }

    /// All pods of a workload, those that end or have ended included; the oldest first.
    pub(crate) fn pods(&self, id: &WorkloadId) -> Vec<Arc<Pod>> {
        let mut pods: Vec<_> = self.lock().pods(id).map(Arc::clone).collect();
        pods.sort_by_key(|pod| view::created(&pod.metadata));
        pods
    }

    /// Changes whenever anything that is known here does.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What was applied a moment ago is known from now on.
    pub(crate) fn note_applied(&self, deployment: Deployment, parts: Vec<Part>) {
        self.change(|store| store.note_applied(deployment, parts));
    }

    /// What was removed a moment ago is gone from now on.
    pub(crate) fn note_removed(&self, id: &WorkloadId) {
        self.change(|store| store.note_removed(id));
    }

    /// A server has said that its tools changed.
    pub(crate) fn tools_changed(&self, id: &WorkloadId) {
        let store = self.lock();
        if store.summary(id).is_some() {
            self.send(Update::Event(WorkloadEvent::ToolsChanged(id.clone())));
        }
        drop(store);
    }

    /// Changes what is known, and tells those who watch while nothing else can change: they see it in this order.
    fn change(&self, change: impl FnOnce(&mut Store) -> Touched) {
        let mut asked = Vec::new();
        let mut store = self.lock();
        let touched = change(&mut store);
        if touched == Touched::Nothing {
            return;
        }
        let now = Utc::now();
        for id in store.named(touched) {
            let (event, asks) = store.tell(&id, now);
            if let Some(event) = event {
                self.send(Update::Event(event));
            }
            if let Some(ended) = asks {
                let wiring = store.deployment(&id).and_then(|found| Wiring::of(&found.metadata));
                // Its own, though the pod may not read it any more.
                let mut secrets = BTreeSet::from([names::object(&id)]);
                let pod = store.pods(&id).find(|pod| view::uid(&pod.metadata) == ended.uid);
                secrets.extend(pod.into_iter().flat_map(|pod| view::secrets_of(pod)));
                let speaks = wiring == Some(Wiring::Attach);
                asked.push(words::Request { workload: id, ended, speaks, secrets });
            }
        }
        for request in asked {
            if let Err(refused) = self.words.try_send(request) {
                // It is asked for again with the next change.
                store.forget_words(&refused.into_inner().ended);
            }
        }
        drop(store);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Everything, and what comes after it.
    fn snapshot(&self) -> (Vec<WorkloadSummary>, broadcast::Receiver<Update>) {
        let store = self.lock();
        (store.summaries(), self.feed.subscribe())
    }

    fn note_listed(&self, kind: &'static str) {
        let mut complete = (false, false);
        self.progress.send_if_modified(|progress| {
            let before = progress.is_complete();
            let news = progress.note_listed(kind);
            complete = (before, progress.is_complete());
            news
        });
        // What exists is decided by Deployments; other lists that came again are told by what they changed.
        if complete == (true, true) && kind == <Deployment as store::Tracked>::KIND {
            let store = self.lock();
            self.send(Update::Resync);
            drop(store);
        }
    }

    fn note_well(&self, kind: &'static str) {
        if self.progress.send_if_modified(|progress| progress.note_well(kind)) {
            tracing::info!(namespace = %self.namespace, kind, "a watch works again");
        }
    }

    fn note_problem(&self, kind: &'static str, problem: Problem) {
        let told = problem.clone();
        if self.progress.send_if_modified(|progress| progress.note_problem(kind, problem)) {
            tracing::warn!(kind, reason = told.reason(), "a watch failed; it is tried again");
        }
    }

    fn send(&self, update: Update) {
        // Without a receiver there is nobody to tell.
        drop(self.feed.send(update));
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod tests;
