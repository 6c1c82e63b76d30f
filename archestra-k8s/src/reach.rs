//! The way to a workload's server: its HTTP endpoint, its bridge's port, or the stream of its process.
//!
//! A server that listens, and the bridge before one that does not, are reached at the pod's own address, so that it is known
//! which process answers; where pods are out of reach, at the Service's address; and where that is too, by a port-forward
//! through the API server. [`ReachMode`](crate::ReachMode) says which of these are tried. What is tried at an address is told
//! the bridge's token, so on a machine whose own networks overlap the cluster's, `PortForward` is the mode to use.
//!
//! A process without a bridge is attached to. One stream belongs to one replica of the platform, the holder of the Lease
//! `<workload>-attach`, and is multiplexed there. The other replicas connect to that one, at the address that the Lease bears,
//! and are served from its multiplexer. Where replicas do not listen for each other, they answer
//! [`Unavailable`](archestra_core::Error::Unavailable) and name the holder.
//!
//! A node that falls silent ends no connection that goes through the API server, so what is observed of a pod ends them too
//! (`standing`): it is gone, or was to end by now. One stream for everybody also moves to the pod that took its place.

mod attach;
mod bridge;
mod forward;
mod http;
mod lease;
mod link;
mod peer;
mod route;
mod standing;
mod ws;

use crate::{
    config::KubernetesConfig,
    error::BACKEND,
    names::Wiring,
    observe::{Observer, Place, view},
};
use archestra_core::{
    Error, Result,
    runtime::{Connection, Phase, WorkloadId, stdio::Multiplexer},
    secret::SecretValue,
};
use link::{Link, ReadyPod};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The pause before a server that seemed ready and did not answer is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Reaches the workloads of one namespace.
#[derive(Debug)]
pub(crate) struct Reach(Arc<Shared>);

/// What everything that reaches has in common.
pub(in crate::reach) struct Shared {
    client: kube::Client,
    observer: Arc<Observer>,
    config: Arc<KubernetesConfig>,
    tasks: TaskTracker,
    stop: CancellationToken,
    links: Mutex<HashMap<WorkloadId, Arc<Link>>>,
    /// The way that worked where others do not lead anywhere.
    preferred: Mutex<Option<route::Known>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(lock(&self.links).keys()).finish()
    }
}

impl Reach {
    /// Reaches what `observer` sees, until `stop`. It must be called within a Tokio runtime.
    pub(crate) fn new(
        client: kube::Client,
        observer: Arc<Observer>,
        config: Arc<KubernetesConfig>,
        tasks: TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared {
            client,
            observer,
            config,
            tasks,
            stop: stop.child_token(),
            links: Mutex::default(),
            preferred: Mutex::default(),
        });
        drop(shared.tasks.spawn(forget_the_gone(Arc::clone(&shared))));
        Self(shared)
    }

    /// A private connection to the workload's server. One that is about to be ready is waited for a little.
    ///
    /// # Errors
    /// `NotFound` for an unknown workload; `Unavailable` with the reason while its server cannot be reached.
    pub(crate) async fn connect(&self, id: &WorkloadId) -> Result<Connection> {
        let shared = &self.0;
        let deadline = Instant::now() + shared.config.connect_wait;
        loop {
            let (place, pod) = shared.ready(id, deadline).await?;
            match shared.connect(id, &place, pod).await {
                Err(error) if error.is_retryable() && Instant::now() + RETRY < deadline => sleep(RETRY).await,
                outcome => return outcome,
            }
        }
    }

    /// The stream that this replica is attached to, for other replicas.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn held(&self, id: &WorkloadId) -> Result<Arc<Multiplexer>, String> {
        let link = lock(&self.0.links).get(id).map(Arc::clone);
        link.ok_or_else(|| "this replica is not attached to it".to_owned())
            .and_then(|link| attach::held(&self.0, &link))
    }

    /// The token of the workload's bridge, if it was needed before.
    pub(crate) fn known_token(&self, id: &WorkloadId) -> Option<SecretValue> {
        let link = lock(&self.0.links).get(id).map(Arc::clone);
        link?.known_token()
    }

    /// The workload was removed: its connections end.
    pub(crate) fn forget(&self, id: &WorkloadId) {
        let link = lock(&self.0.links).remove(id);
        if let Some(link) = link {
            link.stop.cancel();
        }
    }

    /// Ends all connections. The tasks behind them end soon after; whoever owns the tracker waits for them.
    #[expect(clippy::unused_async, reason = "the way a connection is ended is of no concern to whoever ends it")]
    pub(crate) async fn shutdown(&self) {
        self.0.stop.cancel();
        lock(&self.0.links).clear();
    }
}

impl Drop for Reach {
    fn drop(&mut self) {
        self.0.stop.cancel();
    }
}

impl Shared {
    /// The pod that serves, once there is one.
    async fn ready(&self, id: &WorkloadId, deadline: Instant) -> Result<(Place, ReadyPod)> {
        let mut changed = self.observer.changed();
        loop {
            changed.mark_unchanged();
            let place = self.observer.place(id).ok_or_else(|| Error::not_found("workload", id))?;
            if let Some(pod) = place.pods.first().filter(|pod| view::is_ready(pod)) {
                let pod = ReadyPod::of(Arc::clone(pod));
                return Ok((place, pod));
            }
            let status = self.observer.summary(id).map(|summary| summary.status);
            let hopeless = status.as_ref().is_some_and(|status| matches!(status.phase, Phase::Error | Phase::Stopped));
            if hopeless || !matches!(timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                let reason = status.and_then(|status| status.reason);
                return Err(unavailable(reason.unwrap_or_else(|| "none of its pods is ready".to_owned())));
            }
        }
    }

    async fn connect(self: &Arc<Self>, id: &WorkloadId, place: &Place, pod: ReadyPod) -> Result<Connection> {
        let link = self.link(id, place)?;
        match Wiring::of(&place.deployment.metadata) {
            Some(Wiring::Http) => http::endpoint(self, &link, place, &pod).await.map(Connection::Http),
            Some(Wiring::Bridge) => bridge::channel(self, &link, place, &pod).await.map(Connection::Stdio),
            Some(Wiring::Attach) => attach::channel(self, &link).await.map(Connection::Stdio),
            None => Err(Error::Backend {
                backend: BACKEND,
                reason: format!("the Deployment {id} does not say how its server is talked to; apply it again"),
                source: None,
            }),
        }
    }

    /// The links of workloads that are there, and those of removed ones, which are remembered no more. Whatever has a link was
    /// seen, so what is not there now is gone.
    fn links_now(&self) -> (Vec<Arc<Link>>, Vec<Arc<Link>>) {
        let mut links = lock(&self.links);
        let removed = links.extract_if(|id, _| !self.observer.has(id)).map(|(_, link)| link).collect();
        (links.values().map(Arc::clone).collect(), removed)
    }

    fn link(&self, id: &WorkloadId, place: &Place) -> Result<Arc<Link>> {
        if self.stop.is_cancelled() {
            return Err(unavailable("the platform is being stopped".to_owned()));
        }
        let mut links = lock(&self.links);
        let link = links.entry(id.clone()).or_insert_with(|| {
            let namespace = place.deployment.metadata.namespace.clone().unwrap_or_default();
            Arc::new(Link::new(id.clone(), namespace, self.stop.child_token()))
        });
        Ok(Arc::clone(link))
    }
}

/// Ends the connections to workloads that are gone, whoever removed them, and forgets the ways to pods that are.
async fn forget_the_gone(shared: Arc<Shared>) {
    let mut changed = shared.observer.changed();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            known = changed.changed() => if known.is_err() { return },
        }
        let (there, removed) = shared.links_now();
        for link in removed {
            link.stop.cancel();
        }
        for link in there {
            link.forget_the_gone(&shared.observer);
        }
    }
}

fn unavailable(reason: String) -> Error {
    Error::Unavailable { backend: BACKEND, reason, source: None }
}

/// Locks; no guarded section can panic halfway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
