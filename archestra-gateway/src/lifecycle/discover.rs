//! How the lifecycle asks a server for its tools, and what can go wrong with that.

use super::Lifecycle;
use archestra_core::{Error, catalog::Entry, installation::Installation};
use async_trait::async_trait;
use serde_json::Value;
use std::{fmt, time::Duration};

/// Lists the tools of an installation's server.
///
/// # Contract
/// * [`discover`](Self::discover) opens a connection of its own with the credentials that the installation names, reads all
///   pages, closes it, and returns each definition as the server sent it, in its order. The installation need not be in the
///   catalog yet.
/// * Connecting takes at most 30 seconds, and so does listing. Dropping the future closes the connection.
/// * No text of an error holds a secret value.
#[async_trait]
pub trait Discover: fmt::Debug + Send + Sync + 'static {
    /// Connects to the installation's server and lists all its tools.
    async fn discover(&self, entry: &Entry, installation: &Installation) -> Result<Vec<Value>, DiscoverError>;
}

/// Why the tools of a server could not be listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// No connection came about.
    #[error("the server cannot be reached: {reason}")]
    Unreachable {
        /// What was seen.
        reason: String,
    },
    /// The server did not accept the credential.
    #[error("the server refused the credential: {reason}")]
    Unauthorized {
        /// What it said.
        reason: String,
    },
    /// What answered does not speak MCP as it should.
    #[error("the server's answer is not usable: {reason}")]
    Protocol {
        /// What was seen.
        reason: String,
    },
    /// A deadline passed.
    #[error("the server did not answer in time")]
    Timeout,
}

impl DiscoverError {
    /// Whether a server that is still starting may answer otherwise a little later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::Unauthorized { .. })
    }

    /// What a person can do about it.
    pub(super) fn hint(&self, entry: &Entry) -> String {
        match (self, entry.spec.self_hosted.is_some()) {
            (Self::Unauthorized { .. }, _) => "check the values it was installed with, and reinstall".to_owned(),
            (Self::Unreachable { .. }, false) => "check the entry's URL, and that this address is allowed".to_owned(),
            (Self::Protocol { .. }, false) => {
                "check that the entry's URL is the server's streamable-http endpoint".to_owned()
            }
            (Self::Timeout, false) => "check that the server is up, and try again".to_owned(),
            (_, true) => {
                "read the installation's logs; check command, transport, port and path of the entry".to_owned()
            }
        }
    }

    /// As the error of an operation.
    pub(super) fn into_error(self, entry: &Entry, deadline: Duration) -> Error {
        let hint = self.hint(entry);
        match self {
            Self::Unauthorized { reason } => {
                Error::invalid("values", format!("the server refused the credential: {reason}"), hint)
            }
            Self::Unreachable { reason } => {
                Error::Unavailable { backend: "the server", reason: format!("{reason} ({hint})"), source: None }
            }
            Self::Protocol { reason } => {
                Error::Backend { backend: "the server", reason: format!("{reason} ({hint})"), source: None }
            }
            Self::Timeout => Error::Timeout { operation: "listing the server's tools", after: deadline },
        }
    }
}

impl Lifecycle {
    /// One attempt, under a deadline, and given up when the platform shuts down.
    pub(super) async fn list_once(
        &self,
        entry: &Entry,
        installation: &Installation,
    ) -> Result<Vec<Value>, DiscoverError> {
        let attempt =
            tokio::time::timeout(self.options().discover_timeout, self.inner.discover.discover(entry, installation));
        tokio::select! {
            () = self.inner.stop.cancelled() => Err(DiscoverError::Unreachable { reason: "the platform is shutting down".to_owned() }),
            outcome = attempt => outcome.unwrap_or(Err(DiscoverError::Timeout)),
        }
    }
}
