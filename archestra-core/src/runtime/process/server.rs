//! The MCP server inside a workload's process: when it is ready, how it is reached, when it is over.

use super::procfs::{self, Listener};
use crate::runtime::{Connection, HttpEndpoint, stdio::Multiplexer};
use futures::FutureExt as _;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

mod stdio;

pub(super) use stdio::{Hints, StdioServer};

const PROBE_PAUSE: Duration = Duration::from_millis(100);
const PROBE_DEADLINE: Duration = Duration::from_secs(1);
/// Where a server may listen that is told a port and no address; `localhost` is either.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// How often in a row somebody else must be seen on a port until it is believed: sockets change hands.
const FOREIGN_PROBES: u32 = 3;

/// A server in a process that runs.
#[derive(Debug)]
pub(super) enum Server {
    Stdio(StdioServer),
    Http(HttpServer),
}

/// How a server that is ready is reached.
#[derive(Debug, Clone)]
pub(super) enum Reach {
    Stdio(Arc<Multiplexer>),
    Http(HttpEndpoint),
}

/// Why a server will not be ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotReady {
    /// It closed its streams.
    Closed,
    /// What it answered is not what an MCP server answers, or it did not answer in time.
    Refused(String),
    /// Another program listens on its port.
    Taken(u16),
}

/// What happens to a server that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// No further call can succeed.
    Closed,
    /// It said that its tools have changed.
    ToolsChanged,
}

impl Reach {
    /// A new connection; why there is none, if there is none.
    pub(super) fn connect(&self) -> Result<Connection, String> {
        match self {
            Self::Stdio(multiplexer) => stdio::channel(multiplexer).map(Connection::Stdio),
            Self::Http(endpoint) => Ok(Connection::Http(endpoint.clone())),
        }
    }
}

impl Server {
    /// Waits until the server answers, at most for the deadline.
    pub(super) async fn ready(&self, deadline: Duration) -> Result<Reach, NotReady> {
        match self {
            Self::Stdio(server) => server.ready().await.map(Reach::Stdio),
            Self::Http(server) => match timeout(deadline, server.ready()).await {
                Ok(ready) => ready.map(Reach::Http),
                Err(_) => Err(NotReady::Refused(format!(
                    "nothing listened on port {} of this machine within {deadline:?}",
                    server.port
                ))),
            },
        }
    }

    /// Why it was given up before its process ended, if it was.
    pub(super) fn given_up(&self) -> Option<String> {
        match self {
            Self::Stdio(server) => match server.ready().now_or_never() {
                Some(Err(NotReady::Refused(reason))) => Some(reason),
                _ => None,
            },
            Self::Http(_) => None,
        }
    }

    /// Keeps what a server that is ready told of itself.
    pub(super) fn teach(&self, hints: &mut Hints) {
        match self {
            Self::Stdio(server) => server.teach(hints),
            Self::Http(_) => {}
        }
    }

    /// Whether a process that has ended did so when it was asked for its era, as some old servers do.
    pub(super) async fn died_of_probe(&self) -> bool {
        match self {
            Self::Stdio(server) => server.died_of_probe().await,
            Self::Http(_) => false,
        }
    }

    /// Waits for the next thing to happen. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Happening {
        match self {
            Self::Stdio(server) => server.next().await,
            Self::Http(_) => std::future::pending().await,
        }
    }

    /// Lets what a process wrote before its end arrive.
    pub(super) async fn settle(&self) {
        match self {
            Self::Stdio(server) => server.settle().await,
            Self::Http(_) => {}
        }
    }

    /// Ends its streams. Calls under way are answered with an error.
    pub(super) async fn end(self) {
        match self {
            Self::Stdio(server) => server.end().await,
            Self::Http(_) => {}
        }
    }
}

/// A server that listens on a loopback port.
pub(super) struct HttpServer {
    port: u16,
    path: String,
    generation: u64,
    /// All processes that may be the server descend from this one.
    supervisor: Option<i32>,
}

impl HttpServer {
    pub(super) fn new(port: u16, path: &str, generation: u64, supervisor: Option<i32>) -> Self {
        let slash = if path.starts_with('/') { "" } else { "/" };
        Self { port, path: format!("{slash}{path}"), generation, supervisor }
    }

    async fn ready(&self) -> Result<HttpEndpoint, NotReady> {
        let mut foreign = 0;
        loop {
            let mut seen = None;
            for address in LOOPBACK.map(|address| SocketAddr::from((address, self.port))) {
                let Ok(Ok(_)) = timeout(PROBE_DEADLINE, TcpStream::connect(address)).await else { continue };
                match self.listener(address.ip()).await {
                    Listener::Them | Listener::Unknown => {
                        return Ok(HttpEndpoint {
                            url: format!("http://{address}{}", self.path),
                            headers: Vec::new(),
                            generation: self.generation,
                        });
                    }
                    listener => seen = seen.max(Some(listener == Listener::Other)),
                }
            }
            match seen {
                Some(true) => foreign += 1,
                Some(false) => foreign = 0,
                None => {}
            }
            if foreign >= FOREIGN_PROBES {
                return Err(NotReady::Taken(self.port));
            }
            sleep(PROBE_PAUSE).await;
        }
    }

    /// Whoever listens is sent callers' data and credentials, so it must be the server and not a program that was quicker.
    async fn listener(&self, address: IpAddr) -> Listener {
        let Some(supervisor) = self.supervisor else { return Listener::Nobody };
        let port = self.port;
        tokio::task::spawn_blocking(move || procfs::listener(address, port, supervisor))
            .await
            .unwrap_or(Listener::Nobody)
    }
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("port", &self.port).finish_non_exhaustive()
    }
}
