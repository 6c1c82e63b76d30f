//! Which ways to a pod are tried, in which order, and what a way that leads nowhere means for the next time.

use super::{
    Shared, forward,
    link::{Link, ReadyPod},
    lock, unavailable,
};
use crate::config::ReachMode;
use archestra_core::{Error, Result, bridge};
use std::{io, net::SocketAddr, pin::Pin, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
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

/// How long a way is taken for the best that is not the first one of its mode. Then the others are tried again.
const BELIEVED: Duration = Duration::from_secs(60);

/// A way that led somewhere, and since when that is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    way: Way,
    since: Instant,
}

impl Known {
    fn now(way: Way) -> Self {
        Self { way, since: Instant::now() }
    }

    /// The way, as long as nothing better is to be looked for.
    fn holds(self, allowed: &[Way]) -> Option<Way> {
        (allowed.first() == Some(&self.way) || self.since.elapsed() < BELIEVED).then_some(self.way)
    }
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

    /// For this error, without what is said of all of them once.
    pub(super) fn of(way: Way, error: Error) -> Self {
        match error {
            Error::Unavailable { reason, .. } => Self::new(way, reason),
            error => Self::new(way, error.to_string()),
        }
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
    let allowed = allowed(shared.config.reach);
    let preferred = lock(&shared.preferred).and_then(|known| known.holds(allowed));
    order(allowed, known(shared, link, pod).or(preferred))
}

/// The way that led to this pod, while it is taken for the best.
pub(super) fn known(shared: &Shared, link: &Link, pod: &ReadyPod) -> Option<Way> {
    link.way(pod)?.holds(allowed(shared.config.reach))
}

fn order(allowed: &[Way], known: Option<Way>) -> Vec<Way> {
    let mut ways: Vec<_> = known.into_iter().filter(|way| allowed.contains(way)).collect();
    ways.extend(allowed.iter().filter(|way| known != Some(**way)));
    ways
}

/// Notes that a way led to the pod, after those that did not.
pub(super) fn note(shared: &Shared, link: &Link, pod: &ReadyPod, way: Way, dead: &[Dead]) {
    if known(shared, link, pod) != Some(way) {
        link.remember(pod, Known::now(way));
    }
    let mut preferred = lock(&shared.preferred);
    let before = *preferred;
    if !dead.is_empty() && dead.iter().all(|dead| dead.silent) {
        *preferred = Some(Known::now(way));
        if before.is_none_or(|before| before.way != way) {
            tracing::info!(?way, "pods are reached this way from here, because others lead nowhere");
        }
    } else if before.is_some_and(|before| rank(shared, way) < rank(shared, before.way) || buried(dead, before.way)) {
        // The network has changed.
        *preferred = None;
    }
}

fn rank(shared: &Shared, way: Way) -> Option<usize> {
    allowed(shared.config.reach).iter().position(|one| *one == way)
}

fn buried(dead: &[Dead], way: Way) -> bool {
    dead.iter().any(|dead| dead.way == way)
}

/// What is said when no way led anywhere.
pub(super) fn nowhere(dead: &[Dead]) -> Error {
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
        Way::Service => {
            // Right after a start it is not known yet what Services there are.
            let limit = CONNECT.min(shared.config.call_timeout);
            let known = timeout(limit, shared.observer.service(&link.id)).await;
            let missing = || unavailable(format!("the Service {} has no address", crate::names::object(&link.id)));
            known.ok().flatten().ok_or_else(missing)?
        }
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
            Err(error) => Err(Dead::of(way, error)),
        },
        Err(error) => Err(Dead::of(way, error)),
    }
}

/// Says of one way that it led nowhere.
pub(super) fn bury(link: &Link, dead: &Dead) {
    tracing::debug!(workload = %link.id, way = ?dead.way, reason = dead.reason, "a way to a server leads nowhere");
}

#[cfg(test)]
mod tests {
    use super::{BELIEVED, Known, Others, Way, allowed, dial, order};
    use crate::config::ReachMode;

    #[test]
    fn what_is_known_to_work_is_tried_first_if_it_is_allowed() {
        let auto = allowed(ReachMode::Auto);
        assert_eq!(order(auto, None), [Way::Pod, Way::Service, Way::Forward]);
        assert_eq!(order(auto, Some(Way::Forward)), [Way::Forward, Way::Pod, Way::Service]);
        assert_eq!(order(allowed(ReachMode::Direct), Some(Way::Forward)), [Way::Pod, Way::Service]);
    }

    #[test]
    fn within_the_cluster_the_name_of_the_service_is_the_only_way() {
        for known in [None, Some(Way::Name), Some(Way::Pod), Some(Way::Forward)] {
            assert_eq!(order(allowed(ReachMode::Cluster), known), [Way::Name]);
        }
        for mode in [ReachMode::Auto, ReachMode::Direct, ReachMode::PortForward] {
            assert!(!allowed(mode).contains(&Way::Name), "names lead nowhere without cluster DNS");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn better_ways_are_looked_for_again() {
        let auto = allowed(ReachMode::Auto);
        let (first, last) = (Known::now(Way::Pod), Known::now(Way::Forward));
        assert_eq!((first.holds(auto), last.holds(auto)), (Some(Way::Pod), Some(Way::Forward)));
        tokio::time::advance(BELIEVED).await;
        assert_eq!((first.holds(auto), last.holds(auto)), (Some(Way::Pod), None));
        assert_eq!(last.holds(allowed(ReachMode::PortForward)), Some(Way::Forward), "there is no other");
    }

    #[tokio::test]
    async fn a_port_that_refuses_is_no_silent_address() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dead = dial(Way::Pod, address, Others::None).await.unwrap_err();
        assert!(!dead.silent && dead.reason.contains(&address.to_string()), "{dead:?}");
    }
}
