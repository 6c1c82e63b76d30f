//! Why an exchange with an upstream server failed: one text for the log, another for the client.

use std::sync::Arc;
use std::time::Duration;

use archestra_core::Error as CoreError;
use http::StatusCode;
use thiserror::Error;

use super::client::HttpError;
use super::dial::PRIVATE_NETWORKS_SETTING;
use super::flight::Stopping;

/// Why an exchange with an upstream server failed.
///
/// `Display` is for the log: it names hosts and what the other side said, never a secret.
/// [`client_text`](Self::client_text) is for whoever called.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// There is no connection to be had.
    #[error("the server {server} cannot be reached: {reason}")]
    Unreachable {
        /// The entry's name.
        server: Arc<str>,
        /// What was seen.
        reason: String,
    },
    /// The deadline passed.
    #[error("the server {server} did not answer within {after:?}")]
    Timeout {
        /// The entry's name.
        server: Arc<str>,
        /// How long was waited.
        after: Duration,
    },
    /// The server does not accept the credential.
    #[error("the server {server} refused the credential (HTTP {})", status.as_u16())]
    Unauthorized {
        /// The entry's name.
        server: Arc<str>,
        /// 401 or 403.
        status: StatusCode,
        /// Its `WWW-Authenticate`, which names what it wants.
        challenge: Option<Arc<str>>,
    },
    /// The server does not keep to the protocol.
    #[error("the server {server} broke the protocol: {reason}")]
    Protocol {
        /// The entry's name.
        server: Arc<str>,
        /// How.
        reason: String,
    },
    /// An answer that has to be read whole is too large for that.
    #[error("the answer of the server {server} is larger than {limit} bytes")]
    TooLarge {
        /// The entry's name.
        server: Arc<str>,
        /// How many bytes are accepted.
        limit: usize,
    },
    /// The server ended while the call was under way; whether it had an effect is not known.
    #[error("the server {server} ended while the call was under way")]
    Gone {
        /// The entry's name.
        server: Arc<str>,
    },
    /// The dial policy forbids the connection.
    #[error("the server {server} is not dialled: {reason}")]
    Refused {
        /// The entry's name.
        server: Arc<str>,
        /// Which address, by which rule, under which setting.
        reason: String,
    },
    /// The caller gave up.
    #[error("the call was cancelled")]
    Cancelled,
    /// The credential cannot be sent.
    #[error("the credential for the server {server} cannot be used: {fault}")]
    Credential {
        /// The entry's name.
        server: Arc<str>,
        /// Why.
        fault: CredentialFault,
    },
    /// The request cannot be put into a form that the server takes.
    #[error("the request cannot be forwarded to the server {server}: {reason}")]
    Request {
        /// The entry's name.
        server: Arc<str>,
        /// Why.
        reason: String,
    },
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    Stopping,
}

impl From<Stopping> for UpstreamError {
    fn from(_: Stopping) -> Self {
        Self::Stopping
    }
}

/// Why a credential cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CredentialFault {
    /// A value that the entry asks for is not there.
    #[error("the value of {field} is missing")]
    Missing {
        /// The field.
        field: String,
    },
    /// A value cannot travel in a header.
    #[error("the value of {field} cannot be sent as a header")]
    Unsendable {
        /// The field.
        field: String,
    },
    /// The secret store does not answer.
    #[error("the secret store failed: {reason}")]
    StoreUnavailable {
        /// What it said; no secret.
        reason: String,
    },
    /// The secret store refuses, which does not pass by itself.
    #[error("the secret store gives no value: {reason}")]
    Unreadable {
        /// What it said; no secret.
        reason: String,
    },
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// This way to authenticate cannot be carried out here.
    #[error("{kind} credentials are not available for calls")]
    NotAvailable {
        /// Which way.
        kind: &'static str,
    },
}

impl UpstreamError {
    /// What the caller is told: helpful, without addresses, internals or secrets.
    #[must_use]
    pub fn client_text(&self) -> String {
        match self {
            Self::Unreachable { server, .. } => {
                format!("the server {server} cannot be reached right now; try again later")
            }
            Self::Timeout { server, after } => format!("the server {server} did not answer within {}", spoken(*after)),
            Self::Unauthorized { server, .. } => {
                format!("the server {server} refused the credential of this installation; it has to be renewed")
            }
            Self::Protocol { server, .. } => {
                format!("the server {server} answered with something that is not a valid MCP response")
            }
            Self::TooLarge { server, limit } => {
                format!(
                    "the answer of the server {server} is larger than the {limit} bytes that are accepted; ask for less"
                )
            }
            Self::Gone { server } => {
                format!(
                    "the server {server} ended while the call was under way; whether the call had an effect is not known"
                )
            }
            Self::Refused { server, .. } => format!(
                "the server {server} is at an address that this gateway does not dial; \
                 an admin can save its entry and list its network in {PRIVATE_NETWORKS_SETTING}"
            ),
            Self::Cancelled => "the call was cancelled".to_owned(),
            Self::Credential { server, fault } => fault.client_text(server),
            Self::Request { server, reason } => {
                format!("the request cannot be forwarded to the server {server}: {reason}")
            }
            Self::Stopping => "the gateway is shutting down; try again".to_owned(),
        }
    }

    /// A short, stable name for metrics and structured errors.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "upstreamUnreachable",
            Self::Timeout { .. } => "upstreamTimeout",
            Self::Unauthorized { .. } => "upstreamUnauthorized",
            Self::Protocol { .. } => "upstreamProtocol",
            Self::TooLarge { .. } => "upstreamTooLarge",
            Self::Gone { .. } => "upstreamGone",
            Self::Refused { .. } => "upstreamRefused",
            Self::Cancelled => "cancelled",
            Self::Credential { .. } => "credential",
            Self::Request { .. } => "request",
            Self::Stopping => "stopping",
        }
    }

    pub(super) fn protocol(server: &Arc<str>, reason: impl Into<String>) -> Self {
        Self::Protocol { server: Arc::clone(server), reason: reason.into() }
    }

    pub(super) fn unreachable(server: &Arc<str>, reason: impl Into<String>) -> Self {
        Self::Unreachable { server: Arc::clone(server), reason: reason.into() }
    }

    pub(super) fn credential(server: &Arc<str>, fault: CredentialFault) -> Self {
        Self::Credential { server: Arc::clone(server), fault }
    }

    pub(super) fn request(server: &Arc<str>, reason: impl Into<String>) -> Self {
        Self::Request { server: Arc::clone(server), reason: reason.into() }
    }

    /// What a failed HTTP exchange with `server` means.
    pub(super) fn from_http(server: &Arc<str>, error: &HttpError) -> Self {
        let server = Arc::clone(server);
        match error {
            HttpError::Refused(_) | HttpError::Url(_) => Self::Refused { server, reason: error.to_string() },
            HttpError::Timeout { after, what } if !what.is_connect() => Self::Timeout { server, after: *after },
            HttpError::TooLarge { limit } => Self::TooLarge { server, limit: *limit },
            HttpError::Protocol { .. } | HttpError::Redirect { .. } => {
                Self::Protocol { server, reason: error.to_string() }
            }
            HttpError::Resolve { .. }
            | HttpError::Connect { .. }
            | HttpError::Tls { .. }
            | HttpError::Timeout { .. } => Self::Unreachable { server, reason: error.to_string() },
        }
    }

    /// What a runtime's refusal to connect means.
    pub(super) fn from_runtime(server: &Arc<str>, error: &CoreError) -> Self {
        match error {
            CoreError::Timeout { after, .. } => Self::Timeout { server: Arc::clone(server), after: *after },
            other => Self::unreachable(server, other.to_string()),
        }
    }
}

impl CredentialFault {
    fn client_text(&self, server: &str) -> String {
        match self {
            Self::Missing { field } => format!("the installation of {server} has no value for {field}; enter it again"),
            Self::Unsendable { field } => {
                format!(
                    "the value of {field} in the installation of {server} cannot be sent as a header; enter it again"
                )
            }
            Self::StoreUnavailable { .. } => {
                format!("the credential for {server} cannot be read right now; try again later")
            }
            Self::Unreadable { .. } => {
                format!("the credential for {server} cannot be read; enter it again, or have an admin see the log")
            }
            Self::Expired => format!("the credential for {server} has expired; it has to be renewed"),
            Self::NotAvailable { kind } => {
                format!("{server} authenticates with {kind} credentials, which cannot be used for calls here")
            }
        }
    }
}

fn spoken(after: Duration) -> String {
    if after < Duration::from_secs(1) {
        format!("{} ms", after.as_millis())
    } else {
        format!("{:.0} s", after.as_secs_f64())
    }
}
