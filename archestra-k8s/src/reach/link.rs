//! What is remembered about the way to one workload.

use super::{Shared, attach, forward::Door, lock, route::Known, unavailable};
use crate::{
    error::within_opt,
    names,
    observe::{Observer, view},
};
use archestra_core::{
    Result,
    runtime::{WorkloadId, stdio::Multiplexer},
    secret::SecretValue,
};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// The way to one workload.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: WorkloadId,
    pub(super) namespace: String,
    /// Ends all of its connections.
    pub(super) stop: CancellationToken,
    token: Mutex<Option<SecretValue>>,
    /// The way that led to each pod.
    ways: Mutex<HashMap<String, Known>>,
    /// The connection that all callers of a shared server share, and to which process it leads.
    stream: Mutex<(u64, Arc<OnceCell<Arc<Multiplexer>>>)>,
    /// The loopback listener whose connections are forwarded.
    pub(super) listener: OnceCell<Door>,
    follows: AtomicBool,
    pub(super) attach: Mutex<Option<attach::Keeper>>,
}

/// A pod whose server answers.
#[derive(Debug, Clone)]
pub(super) struct ReadyPod {
    pub(super) pod: Arc<Pod>,
    pub(super) uid: String,
    pub(super) restarts: u32,
}

/// Which secret is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Known,
    /// The known one was refused.
    Fresh,
}

impl Link {
    pub(super) fn new(id: WorkloadId, namespace: String, stop: CancellationToken) -> Self {
        Self {
            id,
            namespace,
            stop,
            token: Mutex::default(),
            ways: Mutex::default(),
            stream: Mutex::default(),
            listener: OnceCell::new(),
            follows: AtomicBool::new(false),
            attach: Mutex::default(),
        }
    }

    /// The token of the workload's bridge.
    pub(super) async fn token(&self, shared: &Shared, which: Token) -> Result<SecretValue> {
        if which == Token::Known
            && let Some(token) = lock(&self.token).clone()
        {
            return Ok(token);
        }
        let secrets: Api<Secret> = Api::namespaced(shared.client.clone(), &self.namespace);
        let name = names::bridge_secret(&self.id);
        let secret = within_opt(shared.config.call_timeout, "reading a bridge's token", secrets.get(&name)).await?;
        let bytes = secret.and_then(|secret| secret.data).and_then(|mut data| data.remove(names::TOKEN_KEY));
        let token = bytes.and_then(|bytes| String::from_utf8(bytes.0).ok()).map(|text| SecretValue::new(text.trim()));
        let token = token.filter(|token| !token.is_blank());
        let token = token.ok_or_else(|| {
            unavailable(format!(
                "the Secret {name} with the token of its bridge is missing or empty; apply the workload again"
            ))
        })?;
        *lock(&self.token) = Some(token.clone());
        Ok(token)
    }

    /// The token, if it was read before.
    pub(super) fn known_token(&self) -> Option<SecretValue> {
        lock(&self.token).clone()
    }

    /// The way that led to the pod.
    pub(super) fn way(&self, pod: &ReadyPod) -> Option<Known> {
        lock(&self.ways).get(&pod.uid).copied()
    }

    pub(super) fn remember(&self, pod: &ReadyPod, way: Known) {
        lock(&self.ways).insert(pod.uid.clone(), way);
    }

    pub(super) fn forget_the_gone(&self, observer: &Observer) {
        let mut ways = lock(&self.ways);
        if ways.is_empty() {
            return;
        }
        let there = observer.pods(&self.id);
        ways.retain(|uid, _| there.iter().any(|pod| view::uid(&pod.metadata) == uid && !view::is_finished(pod)));
    }

    /// The connection to the pod's process that all callers share, or the place for it.
    pub(super) fn stream(&self, pod: &ReadyPod) -> Arc<OnceCell<Arc<Multiplexer>>> {
        let generation = pod.generation();
        let mut stream = lock(&self.stream);
        let (of, cell) = &*stream;
        let ended = cell.get().is_some_and(|multiplexer| multiplexer.closed_now().is_some());
        if *of != generation || ended {
            // Who uses the former one keeps it until it ends.
            *stream = (generation, Arc::default());
        }
        Arc::clone(&stream.1)
    }

    /// Whether the caller is the one to follow what the server announces: the first who asks.
    pub(super) fn begins_to_follow(&self) -> bool {
        !self.follows.swap(true, Ordering::AcqRel)
    }
}

impl ReadyPod {
    pub(super) fn of(pod: Arc<Pod>) -> Self {
        let uid = view::uid(&pod.metadata).to_owned();
        let restarts = view::server(&pod).map(view::restarts).unwrap_or_default();
        Self { pod, uid, restarts }
    }

    pub(super) fn name(&self) -> &str {
        view::name(&self.pod.metadata)
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
    }

    /// The port where the server, or its bridge, listens.
    pub(super) fn port(&self, otherwise: u16) -> u16 {
        let containers = self.pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let ports = containers.iter().filter_map(|container| container.ports.as_ref()).flatten();
        let mut ours = ports.filter(|port| port.name.as_deref() == Some(names::MCP_PORT));
        ours.find_map(|port| u16::try_from(port.container_port).ok()).unwrap_or(otherwise)
    }

    /// Another number for each process that answers.
    pub(super) fn generation(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.uid, self.restarts).hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::ReadyPod;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;
    use std::sync::Arc;

    fn pod(uid: &str, restarts: u32) -> ReadyPod {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": uid},
            "spec": {"containers": [
                {"name": "sidecar", "ports": [{"containerPort": 9}]},
                {"name": "mcp-server", "ports": [{"name": "mcp", "containerPort": 3001}]},
            ]},
            "status": {"podIP": "10.1.2.3", "containerStatuses": [{
                "name": "mcp-server", "restartCount": restarts, "ready": true, "image": "", "imageID": "",
            }]},
        }))
        .unwrap();
        ReadyPod::of(Arc::new(pod))
    }

    #[test]
    fn each_process_has_a_generation_of_its_own() {
        let all = [pod("a", 0), pod("a", 1), pod("b", 0)].map(|pod| pod.generation());
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
        assert_eq!(all[0], pod("a", 0).generation());
    }

    #[test]
    fn port_and_address_are_the_pods_own() {
        let pod = pod("a", 0);
        assert_eq!((pod.port(8080), pod.address()), (3001, Some("10.1.2.3".parse().unwrap())));
        assert_eq!(ReadyPod::of(Arc::default()).port(8080), 8080);
    }
}
