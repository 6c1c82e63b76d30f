//! What a caller hands over to be forwarded, and what comes back.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use archestra_core::credential::CredentialPlan;
use archestra_core::id::ConsumerId;
use archestra_core::identity::Principal;
use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use http::{HeaderMap, HeaderValue};
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deadline_body::DeadlineBody;
use super::error::UpstreamError;
use crate::mcp::envelope::Request;
use crate::mcp::version::Era;

/// One request of a caller, to be forwarded to one server.
pub struct Exchange<'a> {
    /// The JSON-RPC message as it was received.
    pub body: &'a Bytes,
    /// The same message, parsed from `body`.
    pub request: &'a Request<'a>,
    /// The era the caller speaks; the answer is in it.
    pub caller_era: Era,
    /// What stands upstream in the place of `params.name`, `params.uri` or `params.taskId`, whichever the method has.
    pub name: Option<&'a str>,
    /// The log level that a legacy caller's session has set; modern callers say it in each message.
    pub log_level: Option<&'a str>,
    /// Which credential goes with the request.
    pub plan: &'a CredentialPlan,
    /// Who calls, for plans that depend on it.
    pub principal: Option<&'a Principal>,
    /// For whom a process that serves one session at a time is kept after the request; nobody if absent.
    pub turn: Option<Turn<'a>>,
    /// Headers of the caller that are passed on: the allow-listed ones and `Mcp-Param-*`.
    pub forwarded: HeaderMap,
    /// The trace that the request is part of.
    pub traceparent: Option<HeaderValue>,
    /// When the whole answer must be there.
    pub deadline: Instant,
    /// How the caller gives up.
    pub cancel: Cancel<'a>,
}

/// Whose requests belong together at a process that serves one session at a time.
#[derive(Debug, Clone, Copy)]
pub enum Turn<'a> {
    /// Those of this session.
    Session(u128),
    /// Those of this caller through this consumer, where there are no sessions.
    Caller {
        /// Who.
        principal: &'a Principal,
        /// Through what.
        consumer: ConsumerId,
    },
}

/// How a caller takes a call back.
#[derive(Debug, Clone, Copy)]
pub enum Cancel<'a> {
    /// By dropping it: nothing has to be waited for.
    ByDropping,
    /// By this, or by dropping it.
    By(&'a CancellationToken),
}

impl Cancel<'_> {
    /// Waits until the caller has given up; for ever if nothing but dropping says so.
    pub(crate) async fn cancelled(self) {
        match self {
            Self::ByDropping => std::future::pending().await,
            Self::By(token) => token.cancelled().await,
        }
    }

    /// The token, to keep it.
    pub(super) fn token(self) -> Option<CancellationToken> {
        match self {
            Self::ByDropping => None,
            Self::By(token) => Some(token.clone()),
        }
    }
}

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("method", &self.request.method)
            .field("caller_era", &self.caller_era)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What came back, in the caller's era, with the caller's id and progress token.
///
/// Dropping it before its end cancels the request upstream.
#[derive(Debug)]
pub enum Answer {
    /// The one JSON-RPC response.
    Message(Bytes),
    /// The body of a response with status 200, untouched: JSON or an event stream, to be sent on as it comes.
    Body {
        /// Which of the two.
        content_type: HeaderValue,
        /// How long it is, if the server said so.
        content_length: Option<u64>,
        /// The bytes.
        body: DeadlineBody<Incoming>,
    },
    /// Notifications, then the response.
    Stream(MessageStream),
}

/// JSON-RPC messages that belong to one request: notifications, then the response, after which it ends.
///
/// After an error it ends too. Dropping it before the response cancels the request upstream.
pub struct MessageStream {
    inner: BoxStream<'static, Result<Bytes, UpstreamError>>,
}

impl MessageStream {
    pub(super) fn new(inner: BoxStream<'static, Result<Bytes, UpstreamError>>) -> Self {
        Self { inner }
    }
}

impl Stream for MessageStream {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for MessageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream").finish_non_exhaustive()
    }
}
