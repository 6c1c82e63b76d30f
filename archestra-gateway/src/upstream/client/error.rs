//! Why an outgoing request got no answer.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use thiserror::Error;

use crate::upstream::dial::{DialError, UrlError, Waiting};

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why an outgoing request got no answer. The texts name hosts and ports, never paths, queries or credentials.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The dial policy allows none of the host's addresses.
    #[error(transparent)]
    Refused(DialError),
    /// The URL is not one we dial.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The name does not resolve.
    #[error("cannot resolve the host {host}{}", after_colon(source.as_ref()))]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said; nothing when it found the name but no address.
        source: Option<Arc<io::Error>>,
    },
    /// No TCP connection could be made.
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
    /// The body is larger than we accept.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// How many bytes are accepted.
        limit: usize,
    },
    /// The exchange broke off, or the other side does not speak HTTP.
    #[error("the exchange{} failed: {}", with(authority.as_deref()), Chain(source.as_ref()))]
    Protocol {
        /// Host and port, where known.
        authority: Option<String>,
        /// Whether the other side can have seen any of the request.
        sent: Sent,
        /// What broke.
        source: BoxError,
    },
    /// A redirect that is not followed.
    #[error("{from} redirects {}: {fault}", to_host(to.as_deref()))]
    Redirect {
        /// Host and port of the server that redirects.
        from: String,
        /// Host and port of the place it names, where that can be told.
        to: Option<String>,
        /// Why it is not followed.
        fault: RedirectFault,
    },
}

/// Whether the other side can have seen any of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// Nothing was written.
    Nothing,
    /// Some or all of it may have arrived, and may have had its effect.
    Perhaps,
}

/// Why a redirect was not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RedirectFault {
    /// It leads to another scheme, host or port.
    #[error("redirects to another origin are not followed, use the final URL")]
    CrossOrigin,
    /// There were too many before it.
    #[error("too many redirects")]
    TooMany,
    /// It names no place that can be dialled.
    #[error("its Location header is missing or not a usable URL")]
    BadLocation,
}

impl HttpError {
    /// Whether no connection was made at all.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Url(_) | Self::Resolve { .. } | Self::Connect { .. } | Self::Tls { .. } => true,
            Self::Timeout { what, .. } => what.is_connect(),
            Self::TooLarge { .. } | Self::Protocol { .. } | Self::Redirect { .. } => false,
        }
    }

    /// Whether a deadline passed.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// Whether the same request may succeed later, and the other side cannot have seen any of this one.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } => true,
            Self::Timeout { what, .. } => what.is_connect(),
            Self::Protocol { sent, .. } => *sent == Sent::Nothing,
            Self::Refused(_) | Self::Url(_) | Self::Tls { .. } | Self::TooLarge { .. } | Self::Redirect { .. } => false,
        }
    }

    /// What reading a body reported. An error of ours that passed through a foreign body type is found again.
    pub(crate) fn from_body(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(ours) => *ours,
            Err(source) => Self::Protocol { authority: None, sent: Sent::Perhaps, source },
        }
    }

    pub(super) fn from_exchange(authority: Option<&Authority>, error: hyper_util::client::legacy::Error) -> Self {
        if let Some(dial) = error.source().and_then(|source| source.downcast_ref::<DialError>()) {
            return dial.clone().into();
        }
        let authority = authority.map(|authority| authority_text(Some(authority)));
        let sent = sent(&error);
        Self::Protocol { authority, sent, source: Box::new(error) }
    }
}

impl From<DialError> for HttpError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Refused { .. } => Self::Refused(error),
            DialError::Url(error) => Self::Url(error),
            DialError::Resolve { host, source } => Self::Resolve { host, source: Some(source) },
            DialError::NoAddress { host } => Self::Resolve { host, source: None },
            DialError::Connect { authority, source } => Self::Connect { authority, source },
            DialError::Tls { authority, source } => Self::Tls { authority, source },
            DialError::Timeout { after, what } => Self::Timeout { after, what },
        }
    }
}

/// Host and port without credentials, whatever the authority holds.
pub(super) fn authority_text(authority: Option<&Authority>) -> String {
    let text = authority.map_or("", Authority::as_str);
    text.rsplit_once('@').map_or(text, |(_, host)| host).to_owned()
}

fn sent(error: &hyper_util::client::legacy::Error) -> Sent {
    let canceled =
        error.source().and_then(|source| source.downcast_ref::<hyper::Error>()).is_some_and(hyper::Error::is_canceled);
    if canceled || error.is_connect() { Sent::Nothing } else { Sent::Perhaps }
}

fn after_colon(source: Option<&Arc<io::Error>>) -> String {
    source.map_or_else(|| ": it has no address".to_owned(), |source| format!(": {source}"))
}

fn with(authority: Option<&str>) -> String {
    authority.map_or_else(String::new, |authority| format!(" with {authority}"))
}

fn to_host(to: Option<&str>) -> String {
    to.map_or_else(|| "somewhere".to_owned(), |to| format!("to {to}"))
}

/// The causes of an error one after the other; hyper's own text says only which step failed.
struct Chain<'a>(&'a (dyn StdError + Send + Sync + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, mut next) =
            match self.0.downcast_ref::<hyper_util::client::legacy::Error>().and_then(StdError::source) {
                Some(cause) => (cause.to_string(), cause.source()),
                None => (self.0.to_string(), self.0.source()),
            };
        let mut text = first;
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        f.write_str(&text)
    }
}
