//! `FakeCluster`: what a test holds of the cluster, and steers it by.

use super::{
    FakeImage, Faults, controllers,
    kinds::named,
    kubelet::Kubelet,
    managed::Writer,
    proxy::Proxy,
    service::{ApiServer, InProcess},
    store::{Key, Store, text},
    time,
    write::Options,
};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::sleep};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

const REQUESTS: usize = 100_000;
/// How often what depends on the clock alone is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long things take in a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// What a container takes to be created.
    pub start: Duration,
    /// How long the kubelet waits before it starts a container anew, or pulls an image again, the first time. It waits twice
    /// as long each time after.
    pub backoff: Duration,
    /// The longest that it waits.
    pub max_backoff: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            start: Duration::from_millis(5),
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
        }
    }
}

/// A request that the API server was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRequest {
    /// Its method.
    pub method: http::Method,
    /// Its path.
    pub path: String,
    /// Its query.
    pub query: String,
}

impl RecordedRequest {
    /// Whether it is a watch.
    #[must_use]
    pub fn is_watch(&self) -> bool {
        self.query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"))
    }
}

/// A Kubernetes cluster in this process. Clones are handles on the same cluster; it ends with the last of them, clients
/// included. It must be made within a Tokio runtime.
///
/// See the [module](crate::testing) for what it can do.
#[derive(Debug, Clone)]
pub struct FakeCluster {
    pub(super) inner: Arc<Inner>,
    _guard: Arc<DropGuard>,
}

pub(super) struct Inner {
    store: Mutex<Store>,
    pub(super) changed: watch::Sender<u64>,
    pub(super) faults: Faults,
    pub(super) timing: Timing,
    pub(super) kubelet: Kubelet,
    proxy: Proxy,
    requests: Mutex<VecDeque<RecordedRequest>>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeCluster").finish_non_exhaustive()
    }
}

impl Inner {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.store())
    }

    /// Changes the store, and tells whoever follows it.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let before = store.version();
        let result = change(&mut store);
        let after = store.version();
        drop(store);
        if after != before {
            self.changed.send_replace(after);
        }
        result
    }

    /// Changes the rules, and has everything looked at again.
    fn rule(&self, change: impl FnOnce(&mut Store)) {
        let mut store = self.store();
        change(&mut store);
        store.rules_changed = true;
        let version = store.version();
        drop(store);
        self.changed.send_replace(version);
    }

    pub(super) fn record(&self, request: RecordedRequest) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() == REQUESTS {
            requests.pop_front();
        }
        requests.push_back(request);
    }
}

/// Runs the controllers, the kubelet and the proxy for as long as the cluster lives.
async fn control(inner: Arc<Inner>) {
    let mut changed = inner.changed.subscribe();
    let mut settled = None;
    loop {
        changed.mark_unchanged();
        settled = Some(inner.write(|store| controllers::settle(store, settled)));
        inner.kubelet.sync(&inner);
        inner.proxy.sync(&inner);
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            _ = changed.changed() => {}
            () = sleep(TICK) => settled = None,
        }
    }
}

impl Default for FakeCluster {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeCluster {
    /// A cluster with one node, the namespaces `default` and `kube-system`, and no image.
    #[must_use]
    pub fn new() -> Self {
        Self::with_timing(Timing::default())
    }

    /// The same, in which things take their time.
    #[must_use]
    pub fn with_timing(timing: Timing) -> Self {
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            store: Mutex::default(),
            changed: watch::Sender::new(0),
            faults: Faults::new(),
            timing,
            kubelet: Kubelet::default(),
            proxy: Proxy::default(),
            requests: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        let cluster = Self { inner, _guard: Arc::new(stop.drop_guard()) };
        for namespace in ["default", "kube-system"] {
            cluster.add_namespace(namespace);
        }
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": super::kubelet::NODE},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        cluster.put("Node", "", node);
        drop(cluster.inner.tasks.spawn(control(Arc::clone(&cluster.inner))));
        cluster
    }

    fn put(&self, kind: &str, namespace: &str, object: Value) {
        let writer = Writer { name: "fake-cluster".to_owned(), subresource: String::new(), time: time::now() };
        let options = Options { dry_run: false, force: false, strict: false, writer };
        if let Some(kind) = named(kind) {
            // What is there already stays as it is.
            drop(self.inner.write(|store| store.create(kind, namespace, object, &options)));
        }
    }

    fn add_namespace(&self, name: &str) {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        });
        self.put("Namespace", "", object);
    }

    /// The same, with another namespace.
    #[must_use]
    pub fn namespace(self, name: &str) -> Self {
        self.add_namespace(name);
        self
    }

    /// The same, with another image. An image of the same name is replaced, for containers that start from now on.
    #[must_use]
    pub fn image(self, name: impl Into<String>, image: impl Into<FakeImage>) -> Self {
        self.set_image(name, image);
        self
    }

    /// Puts an image in place of the one of this name. What waits for it, or is restarted, finds it; what runs, runs on.
    pub fn set_image(&self, name: impl Into<String>, image: impl Into<FakeImage>) {
        let (name, image) = (name.into(), image.into());
        self.inner.rule(|store| drop(store.rules.images.insert(name, image)));
    }

    /// The same, whose node has this label.
    #[must_use]
    pub fn node_label(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let (key, value) = (key.into(), value.into());
        self.inner.rule(|store| drop(store.rules.node_labels.insert(key, value)));
        self
    }

    /// From now on no node takes a new pod, for this reason, or takes them again.
    pub fn unschedulable(&self, reason: Option<&str>) {
        self.inner.rule(|store| store.rules.unschedulable = reason.map(str::to_owned));
    }

    /// From now on a namespace takes so many pods, or any number.
    pub fn pod_quota(&self, namespace: impl Into<String>, pods: Option<usize>) {
        let namespace = namespace.into();
        self.inner.rule(|store| {
            match pods {
                Some(pods) => store.rules.pod_quotas.insert(namespace, pods),
                None => store.rules.pod_quotas.remove(&namespace),
            };
        });
    }

    /// From now on admission refuses new objects of this kind, for this reason, or takes them again.
    pub fn deny(&self, kind: impl Into<String>, reason: Option<&str>) {
        let kind = kind.into();
        self.inner.rule(|store| {
            match reason {
                Some(reason) => store.rules.denials.insert(kind, reason.to_owned()),
                None => store.rules.denials.remove(&kind),
            };
        });
    }

    /// From now on the webhook that judges new objects of this kind cannot be called, for this reason, or can again.
    pub fn webhook_away(&self, kind: impl Into<String>, reason: Option<&str>) {
        let kind = kind.into();
        self.inner.rule(|store| {
            match reason {
                Some(reason) => store.rules.unjudged.insert(kind, reason.to_owned()),
                None => store.rules.unjudged.remove(&kind),
            };
        });
    }

    /// From now on the webhook that judges new objects of this kind takes no dry runs, as one with side effects does not.
    pub fn refuse_dry_runs(&self, kind: impl Into<String>) {
        let kind = kind.into();
        self.inner.rule(|store| {
            store.rules.no_dry_runs.insert(kind);
        });
    }

    /// From now on a namespace takes so many objects of this kind, or any number.
    pub fn object_quota(&self, namespace: impl Into<String>, kind: impl Into<String>, most: Option<usize>) {
        let place = (namespace.into(), kind.into());
        self.inner.rule(|store| {
            match most {
                Some(most) => store.rules.object_quotas.insert(place, most),
                None => store.rules.object_quotas.remove(&place),
            };
        });
    }

    /// What goes wrong with its API server.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// A client whose namespace is `default`.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_in("default")
    }

    /// A client with this namespace.
    #[must_use]
    pub fn client_in(&self, namespace: &str) -> Client {
        Client::new(InProcess::new(self.clone()), namespace)
    }

    /// Serves the API on a free port of the loopback interface, for clients that are made from a kubeconfig.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn serve(&self) -> io::Result<ApiServer> {
        ApiServer::start(self).await
    }

    /// One object, as it is now.
    #[must_use]
    pub fn get<K: Resource<DynamicType = ()> + DeserializeOwned>(&self, namespace: &str, name: &str) -> Option<K> {
        let kind = named(&K::kind(&()))?;
        let key = Key::new(kind.name, if kind.namespaced { namespace } else { "" }, name);
        self.inner.read(|store| store.get(&key).and_then(|object| K::deserialize(&**object).ok()))
    }

    /// The objects of a kind, as they are now; by name.
    #[must_use]
    pub fn all<K: Resource<DynamicType = ()> + DeserializeOwned>(&self, namespace: &str) -> Vec<K> {
        let Some(kind) = named(&K::kind(&())) else { return Vec::new() };
        let within = kind.namespaced.then_some(namespace);
        self.inner.read(|store| {
            store.all(kind.name, within).filter_map(|(_, object)| K::deserialize(&**object).ok()).collect()
        })
    }

    /// The requests that its API server was sent, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.inner.requests.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Forgets the requests up to now.
    pub fn forget_requests(&self) {
        self.inner.requests.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets all changes up to now: whoever wants to go on from an earlier version is told that it has expired.
    pub fn compact(&self) {
        self.inner.write(Store::compact);
    }

    /// Ends the processes of a pod's containers with this exit code, as if they had died; the kubelet starts them again.
    /// Nothing happens if there is no such pod.
    pub fn crash(&self, namespace: &str, pod: &str, code: i32) {
        if let Some(run) = self.inner.kubelet.find(namespace, pod) {
            run.containers.values().for_each(|container| container.kill(code));
        }
    }

    /// Writes a line to the log of a pod's containers as if they had. Nothing happens if there is no such pod.
    pub fn log(&self, namespace: &str, pod: &str, line: &str) {
        if let Some(run) = self.inner.kubelet.find(namespace, pod) {
            run.containers.values().for_each(|container| container.log.write(line));
        }
    }

    /// Has the bridge of a pod announce that its server's tools have changed. Nothing happens if there is no such pod.
    pub fn tools_changed(&self, namespace: &str, pod: &str) {
        if let Some(run) = self.inner.kubelet.find(namespace, pod) {
            run.containers.values().for_each(|container| container.tools.send_modify(|count| *count += 1));
        }
    }

    /// Evicts a pod, as a node under pressure does: it stays behind as failed. Nothing happens if there is no such pod.
    pub fn evict(&self, namespace: &str, pod: &str, message: &str) {
        let key = Key::new("Pod", namespace, pod);
        if let Some(run) = self.inner.kubelet.find(namespace, pod) {
            run.end();
        }
        self.inner.write(|store| {
            store.edit(&key, |pod| {
                let start = text(pod, "/status/startTime").to_owned();
                pod["status"] = json!({"phase": "Failed", "reason": "Evicted", "message": message, "startTime": start});
            });
        });
    }

    /// Loses a pod, as with its node: it is not ready any more, its server says nothing, its streams stay open, and when it is
    /// deleted nobody confirms its end, so that it goes only when it is deleted without grace. Nothing happens if there is no
    /// such pod.
    pub fn lose(&self, namespace: &str, pod: &str) {
        let Some(run) = self.inner.kubelet.find(namespace, pod) else { return };
        run.lose();
        self.inner.write(|store| store.edit(&run.key, super::kubelet::not_ready));
    }

    /// Ends the cluster: its pods, listeners and watches, and waits for it.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.faults.down();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}
