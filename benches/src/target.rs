//! What is measured: a target is an address, a credential, a tool, an era and the processes that pay for it.

use std::{fmt, net::SocketAddr, path::PathBuf};

use crate::cpu::Charge;

/// The protocol era a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Era {
    Modern,
    Legacy,
}

impl Era {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Legacy => "legacy",
        }
    }
}

/// What stands between the client and the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hop {
    Direct,
    Nginx,
    Gateway,
}

/// The server that answers in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Upstream {
    Http(Era),
    Stdio,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) hop: Hop,
    pub(crate) client: Era,
    pub(crate) upstream: Upstream,
}

impl Row {
    /// Every row, in the order of the table.
    pub(crate) fn all() -> Vec<Self> {
        let eras = [Era::Modern, Era::Legacy];
        let mut rows = Vec::new();
        for hop in [Hop::Direct, Hop::Nginx] {
            rows.extend(eras.map(|era| Self { hop, client: era, upstream: Upstream::Http(era) }));
        }
        rows.push(Self { hop: Hop::Direct, client: Era::Modern, upstream: Upstream::Stdio });
        for client in eras {
            for upstream in [Upstream::Http(Era::Modern), Upstream::Http(Era::Legacy), Upstream::Stdio] {
                rows.push(Self { hop: Hop::Gateway, client, upstream });
            }
        }
        rows
    }

    /// The same upstream with nothing in between.
    pub(crate) fn direct(self) -> Self {
        self.through(Hop::Direct)
    }

    /// The same upstream behind nginx, which stdio upstreams do not have.
    pub(crate) fn nginx(self) -> Option<Self> {
        matches!(self.upstream, Upstream::Http(_)).then(|| self.through(Hop::Nginx))
    }

    fn through(self, hop: Hop) -> Self {
        let client = match self.upstream {
            Upstream::Http(era) => era,
            Upstream::Stdio => Era::Modern,
        };
        Self { hop, client, upstream: self.upstream }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hop = match self.hop {
            Hop::Direct => "direct",
            Hop::Nginx => "nginx",
            Hop::Gateway => "gateway",
        };
        f.write_str(hop)?;
        if self.hop == Hop::Gateway {
            write!(f, "/{}", self.client.as_str())?;
        }
        match self.upstream {
            Upstream::Http(era) => write!(f, "/http-{}", era.as_str()),
            Upstream::Stdio => f.write_str("/stdio"),
        }
    }
}

/// An MCP endpoint over HTTP.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) bearer: Option<String>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

/// A stdio server and its arguments.
#[derive(Clone, Debug)]
pub(crate) struct StdioServer {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
}

/// How a target is reached.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    /// One connection per caller; CPU is charged to the named processes.
    Http { endpoint: Endpoint, tool: String, charge: Charge },
    /// The program alone on its pipe, started for each measurement.
    Pipe { server: StdioServer },
}

/// Something to measure.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) row: Row,
    pub(crate) link: Link,
}
