//! Which ways to a pod are tried, in which order, and what a way that leads nowhere means for the next time.

use super::{
    Shared, forward,
    link::{Link, ReadyPod},
    lock, unavailable,
};
use crate::config::ReachMode;
use archestra_core::{Result, bridge};
use std::{io, net::SocketAddr, pin::Pin, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};

/// How long a TCP connection may take while another way is left, and when none is.
const PROBE: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(5);

/// A way to a pod's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The pod's own address.
    Pod,
    /// The address of the Service.
    Service,
    /// The name of the Service.
    Name,
    /// Through the API server.
    Forward,
}

/// A stream to the port.
pub(super) type Stream = Pin<Box<dyn Duplex>>;

/// Reads and writes.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// Why a way led nowhere.
#[derive(Debug)]
pub(super) struct Dead {
    way: Way,
    reason: String,
    /// Nothing answers at all, so the way is none for other pods either.
    silent: bool,
}

impl Dead {
    pub(super) fn new(way: Way, reason: String) -> Self {
        Self { way, reason, silent: false }
    }
}

/// The ways that a mode allows.
fn allowed(mode: ReachMode) -> &'static [Way] {
    match mode {
        ReachMode::Auto => &[Way::Pod, Way::Service, Way::Forward],
        ReachMode::Cluster => &[Way::Name],
        ReachMode::Direct => &[Way::Pod, Way::Service],
        ReachMode::PortForward => &[Way::Forward],
    }
}

/// The ways in the order in which they are tried: the one that led to this pod first, then the one that others needed.
pub(super) fn ways(shared: &Shared, link: &Link, pod: &ReadyPod) -> Vec<Way> {
    let known = link.way(pod).or(*lock(&shared.preferred));
    order(allowed(shared.config.reach), known)
}

fn order(allowed: &[Way], known: Option<Way>) -> Vec<Way> {
    let mut ways: Vec<_> = known.into_iter().filter(|way| allowed.contains(way)).collect();
    ways.extend(allowed.iter().filter(|way| known != Some(**way)));
    ways
}

/// Notes that a way led to the pod, after those that did not.
pub(super) fn note(shared: &Shared, link: &Link, pod: &ReadyPod, way: Way, dead: &[Dead]) {
    link.remember(pod, way);
    if !dead.is_empty() && dead.iter().all(|dead| dead.silent) {
        let before = lock(&shared.preferred).replace(way);
        if before != Some(way) {
            tracing::info!(?way, "pods are reached this way from here, because others lead nowhere");
        }
    }
}

/// What is said when no way led anywhere.
pub(super) fn nowhere(dead: &[Dead]) -> archestra_core::Error {
    let tried: Vec<_> = dead.iter().map(|dead| dead.reason.as_str()).collect();
    unavailable(format!("its server cannot be reached: {}", tried.join("; ")))
}

/// Where a way leads; `None` for a port-forward, which leads to no address.
pub(super) async fn address(
    shared: &Shared,
    link: &Link,
    pod: &ReadyPod,
    way: Way,
    port: u16,
) -> Result<Option<SocketAddr>> {
    let host = match way {
        Way::Pod => pod.address().ok_or_else(|| unavailable(format!("the pod {} has no address", pod.name())))?,
        Way::Service => link.service(shared).await?,
        Way::Name => {
            let name = service_name(shared, link);
            let found = timeout(shared.config.call_timeout, lookup_host((name.as_str(), port))).await;
            let found = found.ok().and_then(io::Result::ok).and_then(|mut found| found.next());
            return found.map(Some).ok_or_else(|| unavailable(format!("the name {name} has no address here")));
        }
        Way::Forward => return Ok(None),
    };
    Ok(Some(SocketAddr::new(host, port)))
}

/// The name of the workload's Service within the cluster.
pub(super) fn service_name(shared: &Shared, link: &Link) -> String {
    format!("{}.{}.svc.{}", crate::names::object(&link.id), link.namespace, shared.config.cluster_domain)
}

/// A connection to an address.
pub(super) async fn dial(way: Way, address: SocketAddr, others_left: Others) -> Result<TcpStream, Dead> {
    let limit = match others_left {
        Others::Some => PROBE,
        Others::None => CONNECT,
    };
    let dead = |reason: String, silent| Dead { way, reason, silent };
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => match bridge::tune(&stream) {
            Ok(()) => Ok(stream),
            Err(error) => Err(dead(format!("{address}: {error}"), false)),
        },
        Ok(Err(error)) => {
            let silent = matches!(
                error.kind(),
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::TimedOut
            );
            Err(dead(format!("{address}: {error}"), silent))
        }
        Err(_) => Err(dead(format!("{address} did not answer within {limit:?}"), true)),
    }
}

/// Whether another way is left to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    Some,
    None,
}

/// A stream to the pod's port on one way.
pub(super) async fn stream(
    shared: &Shared,
    link: &Link,
    pod: &ReadyPod,
    way: Way,
    port: u16,
    others: Others,
) -> Result<Stream, Dead> {
    match address(shared, link, pod, way, port).await {
        Ok(Some(address)) => dial(way, address, others).await.map(|stream| Box::pin(stream) as Stream),
        Ok(None) => match forward::open(shared, link, pod.name(), port).await {
            Ok(stream) => Ok(Box::pin(stream)),
            Err(error) => Err(Dead::new(way, error.to_string())),
        },
        Err(error) => Err(Dead::new(way, error.to_string())),
    }
}

/// What one way that led nowhere means: a Service may be another one next time.
pub(super) fn bury(link: &Link, dead: &Dead) {
    if dead.way == Way::Service {
        link.forget_service();
    }
    tracing::debug!(workload = %link.id, way = ?dead.way, reason = dead.reason, "a way to a server leads nowhere");
}

#[cfg(test)]
mod tests {
    use super::{Others, Way, allowed, dial, order};
    use crate::config::ReachMode;

    #[test]
    fn what_is_known_to_work_is_tried_first_if_it_is_allowed() {
        let auto = allowed(ReachMode::Auto);
        assert_eq!(order(auto, None), [Way::Pod, Way::Service, Way::Forward]);
        assert_eq!(order(auto, Some(Way::Forward)), [Way::Forward, Way::Pod, Way::Service]);
        assert_eq!(order(allowed(ReachMode::Direct), Some(Way::Forward)), [Way::Pod, Way::Service]);
    }

    #[tokio::test]
    async fn a_port_that_refuses_is_no_silent_address() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dead = dial(Way::Pod, address, Others::None).await.unwrap_err();
        assert!(!dead.silent && dead.reason.contains(&address.to_string()), "{dead:?}");
    }
}
