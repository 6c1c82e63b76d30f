//! Why a connection was not made.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::url::UrlError;

/// Why a connection was not made. The texts name hosts, ports and addresses, never paths, queries or credentials.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum DialError {
    /// The policy allows none of the addresses the host has.
    #[error("{}", refusal_text(host, *address, setting, *why))]
    Refused {
        /// The host of the URL.
        host: String,
        /// The first address that was refused.
        address: IpAddr,
        /// The setting that governs this.
        setting: &'static str,
        /// The rule that refused it.
        why: Refusal,
    },
    /// The URL is not one we dial.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The name does not resolve.
    #[error("cannot resolve the host {host}: {source}")]
    Resolve {
        /// The host of the URL.
        host: String,
        /// What the resolver said.
        source: Arc<io::Error>,
    },
    /// The name resolves to nothing.
    #[error("the host {host} has no address")]
    NoAddress {
        /// The host of the URL.
        host: String,
    },
    /// No allowed address accepts the connection.
    #[error("cannot connect to {authority}: {source}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the last address tried said.
        source: Arc<io::Error>,
    },
    /// The TLS handshake failed.
    #[error("the TLS handshake with {authority} failed: {source}")]
    Tls {
        /// Host and port.
        authority: String,
        /// What went wrong in it.
        source: Arc<io::Error>,
    },
    /// It took too long.
    #[error("{what} took longer than {after:?}")]
    Timeout {
        /// How long was waited.
        after: Duration,
        /// What was waited for.
        what: Waiting,
    },
}

/// The rule that refused an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Such addresses are never dialled.
    Never {
        /// The kind of address, as in "link-local".
        block: &'static str,
    },
    /// A private address the operator has not listed.
    NotListed {
        /// The kind of address, as in "loopback".
        block: &'static str,
    },
    /// A private address, named by somebody who may not name one.
    Untrusted {
        /// The kind of address, as in "loopback".
        block: &'static str,
    },
}

/// What was waited for when a deadline passed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// The addresses of a host.
    Resolve {
        /// The host.
        host: String,
    },
    /// A TCP connection.
    Connect {
        /// Host and port.
        authority: String,
    },
    /// The end of a TLS handshake.
    TlsHandshake {
        /// Host and port.
        authority: String,
    },
    /// The head of a response.
    Response {
        /// Host and port.
        authority: String,
    },
    /// The end of a body.
    Body,
    /// The next part of a body.
    BodyProgress,
}

impl Waiting {
    /// Whether there was no connection yet.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } | Self::TlsHandshake { .. } => true,
            Self::Response { .. } | Self::Body | Self::BodyProgress => false,
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host } => write!(f, "resolving the host {host}"),
            Self::Connect { authority } => write!(f, "connecting to {authority}"),
            Self::TlsHandshake { authority } => write!(f, "the TLS handshake with {authority}"),
            Self::Response { authority } => write!(f, "waiting for a response from {authority}"),
            Self::Body => f.write_str("receiving the body"),
            Self::BodyProgress => f.write_str("waiting for more of the body"),
        }
    }
}

/// Host and port as an error text shows them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authority<'a> {
    host: &'a str,
    port: u16,
}

impl<'a> Authority<'a> {
    pub(super) fn new(host: &'a str, port: u16) -> Self {
        Self { host, port }
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

fn refusal_text(host: &str, address: IpAddr, setting: &str, why: Refusal) -> String {
    let subject = if host.parse() == Ok(address) {
        format!("the address {address}")
    } else {
        format!("the address {address} of the host {host}")
    };
    match why {
        Refusal::Never { block } => {
            format!("{subject} is not dialled: {block} addresses never are, and {setting} cannot allow them")
        }
        Refusal::NotListed { block } => {
            format!(
                "{subject} is not dialled: it is a {block} address, and neither it nor its host is listed in {setting}"
            )
        }
        Refusal::Untrusted { block } => format!(
            "{subject} is not dialled: it is a {block} address, and only entries that a registry admin saved reach those; \
             an admin (`entry:admin`) can save the registry entry with this URL and list its network in {setting}"
        ),
    }
}
