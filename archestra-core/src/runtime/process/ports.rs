//! Which ports the servers of one runtime were given, so that no two are given the same.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How often a free port is asked for that the system has just given to another workload.
const TRIES: u32 = 32;
/// What a person can do about a port that somebody else has.
pub(super) const TAKEN_HINT: &str =
    "end what uses it, or leave `port` empty and let the server listen on PORT or ${archestra.http_port}";

/// The ports that are held.
#[derive(Debug, Default)]
pub(super) struct Ports {
    held: Arc<Mutex<BTreeSet<u16>>>,
}

/// A port that no other workload is given, as long as this lives.
#[derive(Debug)]
pub(super) struct PortLease {
    port: u16,
    held: Arc<Mutex<BTreeSet<u16>>>,
}

/// Why there is no port, and what a person can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoPort {
    pub(super) reason: String,
    pub(super) hint: &'static str,
}

impl Ports {
    /// This port, if no other workload holds it.
    pub(super) fn fixed(&self, port: u16) -> Result<PortLease, NoPort> {
        self.hold(port).ok_or_else(|| NoPort {
            reason: format!("port {port} is held by another workload"),
            hint: "remove the other one, give one of them another `port`, or leave it empty",
        })
    }

    /// Any loopback port that nobody listens on.
    pub(super) fn free(&self) -> Result<PortLease, NoPort> {
        let none = |reason: String| NoPort { reason, hint: "end something that uses many ports" };
        for _ in 0..TRIES {
            let port = listen(0).map_err(|error| none(format!("there is no free loopback port: {error}")))?;
            if let Some(lease) = self.hold(port) {
                return Ok(lease);
            }
        }
        Err(none("there is no free loopback port that no other workload holds".to_owned()))
    }

    fn hold(&self, port: u16) -> Option<PortLease> {
        lock(&self.held).insert(port).then(|| PortLease { port, held: Arc::clone(&self.held) })
    }
}

impl PortLease {
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Whether a server could listen on it now.
    pub(super) fn available(&self) -> Result<(), NoPort> {
        let port = self.port;
        listen(port)
            .map(|_| ())
            .map_err(|error| NoPort { reason: format!("port {port} cannot be listened on: {error}"), hint: TAKEN_HINT })
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        lock(&self.held).remove(&self.port);
    }
}

fn lock(held: &Mutex<BTreeSet<u16>>) -> MutexGuard<'_, BTreeSet<u16>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens for a moment; on which port.
fn listen(port: u16) -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::Ports;

    #[test]
    fn a_port_is_given_once_until_it_is_given_back() {
        let ports = Ports::default();
        let first = ports.free().unwrap();
        let refused = ports.fixed(first.port()).unwrap_err();
        assert_eq!(refused.reason, format!("port {} is held by another workload", first.port()));
        assert_ne!(ports.free().unwrap().port(), first.port());
        let port = first.port();
        drop(first);
        assert!(ports.fixed(port).unwrap().available().is_ok());
    }
}
