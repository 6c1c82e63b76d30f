//! The scheduler and the kubelet: pods are placed, started, watched and ended, as their images say.

mod bridge;
mod container;
mod http;
mod needs;
mod process;
mod run;
mod status;

pub(super) use container::{Console, Container, Programs};

use super::{
    address,
    cluster::Inner,
    controllers::tell,
    store::{Key, items, text},
    time,
};
use futures::future::join_all;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// The one node.
pub(super) const NODE: &str = "fake-node-1";

/// One pod as the kubelet has it.
#[derive(Debug)]
pub(super) struct PodRun {
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) ip: Ipv4Addr,
    pub(super) containers: BTreeMap<String, Arc<Container>>,
    stop: CancellationToken,
    /// Its node is out of reach.
    lost: CancellationToken,
}

/// The pods that the kubelet knows, by identifier.
#[derive(Debug, Default)]
pub(super) struct Kubelet(Mutex<HashMap<String, Arc<PodRun>>>);

impl Kubelet {
    /// The pod of this name that runs.
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<Arc<PodRun>> {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.values().find(|run| run.key.namespace == namespace && run.key.name == name).map(Arc::clone)
    }

    /// Starts what is new and ends what is to end.
    pub(super) fn sync(&self, inner: &Arc<Inner>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = Vec::new();
        inner.read(|store| {
            for (key, pod) in store.all("Pod", None) {
                let uid = text(pod, "/metadata/uid").to_owned();
                let ending = !pod["metadata"]["deletionTimestamp"].is_null();
                if let Some(run) = known.get(&uid) {
                    if ending {
                        run.hear_of_its_end();
                    }
                } else if !matches!(text(pod, "/status/phase"), "Failed" | "Succeeded") || ending {
                    let run = Arc::new(PodRun::new(key, pod, inner.stop.child_token()));
                    if ending {
                        run.stop.cancel();
                    }
                    drop(inner.tasks.spawn(live(Arc::clone(inner), Arc::clone(&run))));
                    known.insert(uid.clone(), run);
                }
                seen.push(uid);
            }
        });
        known.retain(|uid, run| {
            let there = seen.contains(uid);
            if !there {
                run.hear_of_its_end();
            }
            there
        });
    }
}

impl PodRun {
    fn new(key: &Key, pod: &Value, stop: CancellationToken) -> Self {
        let lost = CancellationToken::new();
        let containers = ["/spec/initContainers", "/spec/containers"]
            .into_iter()
            .flat_map(|list| items(pod, list))
            .map(|container| (text(container, "/name").to_owned(), Arc::new(Container::new(lost.clone()))))
            .collect();
        let uid = text(pod, "/metadata/uid").to_owned();
        Self { key: key.clone(), uid, ip: address::unused(), containers, stop, lost }
    }

    /// Its node falls silent: nothing of it goes on, nothing of it ends, and nobody says anything about it.
    pub(super) fn lose(&self) {
        self.lost.cancel();
    }

    /// Its end is wanted, which a node that is out of reach does not hear.
    fn hear_of_its_end(&self) {
        if !self.lost.is_cancelled() {
            self.stop.cancel();
        }
    }

    /// Ends its processes, whatever becomes of it.
    pub(super) fn end(&self) {
        self.stop.cancel();
    }

    /// The pod as it is stored, unless it is gone.
    fn pod(&self, inner: &Inner) -> Option<Arc<Value>> {
        inner.read(|store| store.get(&self.key).filter(|pod| text(pod, "/metadata/uid") == self.uid).map(Arc::clone))
    }

    /// Changes the stored pod, unless it is gone.
    fn edit(&self, inner: &Inner, change: impl FnOnce(&mut Value)) {
        if self.lost.is_cancelled() {
            return;
        }
        inner.write(|store| {
            if store.get(&self.key).is_some_and(|pod| text(pod, "/metadata/uid") == self.uid) {
                store.edit(&self.key, change);
            }
        });
    }

    fn tell(&self, inner: &Inner, warning: bool, reason: &str, message: &str, who: &str) {
        if let Some(pod) = self.pod(inner) {
            inner.write(|store| tell(store, &pod, warning, reason, message, who));
        }
    }
}

/// What is said of a pod whose node is silent.
pub(super) fn not_ready(pod: &mut Value) {
    for condition in ["ContainersReady", "Ready"] {
        status::set(pod, condition, false, "NodeNotReady", "");
    }
}

/// The life of one pod.
async fn live(inner: Arc<Inner>, run: Arc<PodRun>) {
    let mut working = Box::pin(work(&inner, &run));
    tokio::select! {
        biased;
        () = run.stop.cancelled() => {}
        () = run.lost.cancelled() => run.stop.cancelled().await,
        () = &mut working => run.stop.cancelled().await,
    }
    drop(working);
    for container in run.containers.values() {
        container.close();
    }
    if !inner.stop.is_cancelled() {
        inner.write(|store| {
            let ours = store.get(&run.key).is_some_and(|pod| {
                text(pod, "/metadata/uid") == run.uid && !pod["metadata"]["deletionTimestamp"].is_null()
            });
            if ours {
                store.end_pod(&run.key);
            }
        });
    }
}

async fn work(inner: &Arc<Inner>, run: &PodRun) {
    schedule(inner, run).await;
    let Some(pod) = run.pod(inner) else { return };
    let (inits, mains) = (items(&pod, "/spec/initContainers"), items(&pod, "/spec/containers"));
    run.edit(inner, |pod| status::begin(pod, inits, mains));
    volumes(inner, run, &pod).await;
    tokio::time::sleep(inner.timing.start).await;
    run.edit(inner, |pod| {
        pod["status"]["hostIP"] = "127.0.0.1".into();
        pod["status"]["podIP"] = run.ip.to_string().into();
        pod["status"]["podIPs"] = json!([{"ip": run.ip.to_string()}]);
    });
    for spec in inits {
        let job = container::Job { inner, run, pod: &pod, spec, init: true };
        if !job.run_to_end().await {
            run.edit(inner, |pod| pod["status"]["phase"] = "Failed".into());
            return;
        }
    }
    run.edit(inner, status::initialized);
    let jobs = mains.iter().map(|spec| container::Job { inner, run, pod: &pod, spec, init: false });
    let succeeded = join_all(jobs.map(|job| async move { job.run_to_end().await })).await.into_iter().all(|done| done);
    run.edit(inner, |pod| {
        pod["status"]["phase"] = if succeeded { "Succeeded".into() } else { "Failed".into() };
        status::conditions(pod);
    });
}

/// Waits until there is a node for the pod.
async fn schedule(inner: &Inner, run: &PodRun) {
    let mut changed = inner.changed.subscribe();
    loop {
        changed.mark_unchanged();
        let Some(pod) = run.pod(inner) else { return };
        let Some(reason) = inner.read(|store| needs::unschedulable(store, &pod)) else {
            run.edit(inner, |pod| {
                pod["spec"]["nodeName"] = NODE.into();
                status::set(pod, "PodScheduled", true, "", "");
                pod["status"]["startTime"] = time::now().into();
            });
            let message = format!("Successfully assigned {}/{} to {NODE}", run.key.namespace, run.key.name);
            run.tell(inner, false, "Scheduled", &message, "default-scheduler");
            return;
        };
        let known = items(&pod, "/status/conditions").iter().any(|condition| condition["message"] == reason);
        if !known {
            run.edit(inner, |pod| status::set(pod, "PodScheduled", false, "Unschedulable", &reason));
            run.tell(inner, true, "FailedScheduling", &reason, "default-scheduler");
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until all that the pod mounts is there.
async fn volumes(inner: &Inner, run: &PodRun, pod: &Value) {
    let mut changed = inner.changed.subscribe();
    let mut told = String::new();
    loop {
        changed.mark_unchanged();
        let Some(missing) = inner.read(|store| needs::missing_volume(store, pod)) else { return };
        if missing != told {
            run.tell(inner, true, "FailedMount", &missing, "kubelet");
            told = missing;
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}
