//! Services: a listener on each Service's own address, whose connections lead to pods that are ready.

use super::{
    cluster::Inner,
    controllers::is_ready,
    store::{Key, Store, items, text},
};
use serde_json::Value;
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The listeners of Services, with the specification that they were made for.
#[derive(Debug, Default)]
pub(super) struct Proxy(Mutex<HashMap<Key, (Value, DropGuard)>>);

impl Proxy {
    /// Opens and closes listeners as the Services say.
    pub(super) fn sync(&self, inner: &Arc<Inner>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<(Key, Value)> = inner.read(|store| {
            open.retain(|key, (spec, _)| store.get(key).is_some_and(|service| service["spec"] == *spec));
            let all = store.all("Service", None).filter(|(key, _)| !open.contains_key(*key));
            all.map(|(key, service)| (key.clone(), service["spec"].clone())).collect()
        });
        for (key, spec) in new {
            let stop = inner.stop.child_token();
            if let Ok(address) = text(&spec, "/clusterIP").parse::<Ipv4Addr>() {
                for port in items(&spec, "/ports") {
                    let serving = serve(Arc::clone(inner), key.clone(), address, port.clone());
                    drop(inner.tasks.spawn(stop.clone().run_until_cancelled_owned(serving)));
                }
            }
            open.insert(key, (spec, guard(stop)));
        }
    }
}

fn guard(stop: CancellationToken) -> DropGuard {
    stop.drop_guard()
}

async fn serve(inner: Arc<Inner>, service: Key, address: Ipv4Addr, port: Value) {
    let number = port["port"].as_u64().and_then(|number| u16::try_from(number).ok()).unwrap_or_default();
    // What cannot be listened on cannot be reached, as a Service whose node has lost its rules.
    let Ok(listener) = TcpListener::bind(SocketAddr::from((address, number))).await else { return };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((mut near, _)) = accepted else { return };
                let target = inner.read(|store| endpoint(store, &service, &port["targetPort"]));
                drop(connections.spawn(async move {
                    let Some(target) = target else { return };
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        let tuned = near.set_nodelay(true).and(far.set_nodelay(true));
                        if tuned.is_ok() {
                            // Either side may end it.
                            drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                        }
                    }
                }));
            }
        }
    }
}

/// The address of a pod that is ready behind a Service.
fn endpoint(store: &Store, service: &Key, target: &Value) -> Option<SocketAddr> {
    let spec = &store.get(service)?["spec"];
    let selector = spec["selector"].as_object()?;
    let fits = |pod: &Value| {
        let labels = &pod["metadata"]["labels"];
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && is_ready(pod)
            && pod["metadata"]["deletionTimestamp"].is_null()
    };
    let (_, pod) = store.all("Pod", Some(&service.namespace)).find(|(_, pod)| fits(pod))?;
    let port = match target {
        Value::String(name) => items(pod, "/spec/containers")
            .iter()
            .flat_map(|container| items(container, "/ports"))
            .find(|port| port["name"] == *name)?["containerPort"]
            .as_u64()?,
        number => number.as_u64()?,
    };
    let ip: Ipv4Addr = text(pod, "/status/podIP").parse().ok()?;
    Some(SocketAddr::from((ip, u16::try_from(port).ok()?)))
}
