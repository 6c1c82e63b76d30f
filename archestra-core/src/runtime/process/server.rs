//! The MCP server inside a workload's process: when it is ready, how it is reached, when it is over.

use crate::runtime::{Connection, HttpEndpoint, stdio::Multiplexer};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
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
/// Where a local server may listen: `localhost` means the one to some and the other to others.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

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
                Ok(endpoint) => Ok(Reach::Http(endpoint)),
                Err(_) => Err(NotReady::Refused(format!(
                    "nothing listened on loopback port {} within {deadline:?}",
                    server.port
                ))),
            },
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
}

impl HttpServer {
    pub(super) fn new(port: u16, path: &str, generation: u64) -> Self {
        let slash = if path.starts_with('/') { "" } else { "/" };
        Self { port, path: format!("{slash}{path}"), generation }
    }

    async fn ready(&self) -> HttpEndpoint {
        loop {
            for address in LOOPBACK.map(|ip| SocketAddr::new(ip, self.port)) {
                if let Ok(Ok(_)) = timeout(PROBE_DEADLINE, TcpStream::connect(address)).await {
                    return HttpEndpoint {
                        url: format!("http://{address}{}", self.path),
                        headers: Vec::new(),
                        generation: self.generation,
                    };
                }
            }
            sleep(PROBE_PAUSE).await;
        }
    }
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("port", &self.port).finish_non_exhaustive()
    }
}

/// A loopback port that nobody listens on: the one that is wanted, or any. The reason and a hint, if there is none.
pub(super) fn reserve_port(wanted: Option<u16>) -> Result<u16, (String, String)> {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    free(wanted.unwrap_or(0)).map(|address| address.port()).map_err(|error: io::Error| match wanted {
        Some(port) => (
            format!("port {port} cannot be listened on: {error}"),
            "end what uses it, or leave `port` empty and let the server listen on PORT or ${archestra.http_port}"
                .to_owned(),
        ),
        None => (format!("there is no free loopback port: {error}"), "end something that uses many".to_owned()),
    })
}
