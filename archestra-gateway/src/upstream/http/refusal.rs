//! Answers with another status than 200: what they say, and what that means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Format;
use crate::mcp::envelope::{self, Message, Payload};
use crate::upstream::client::read_limited;
use crate::upstream::error::UpstreamError;

/// How much of the body of such an answer is read, and for how long.
const BODY_LIMIT: usize = 64 * 1024;
const BODY_TIME: Duration = Duration::from_secs(5);

/// An answer that is no success.
#[derive(Debug)]
pub(in crate::upstream) struct Refusal {
    pub(in crate::upstream) status: StatusCode,
    /// The body, if it is JSON.
    pub(in crate::upstream) json: Option<Bytes>,
    challenge: Option<Arc<str>>,
    content_type: Option<String>,
}

/// The JSON-RPC error in a refusal's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream) struct RpcFault {
    pub(in crate::upstream) code: i64,
    /// Whether it names a request, as opposed to `null`.
    pub(in crate::upstream) names_request: bool,
    /// Whether its words are about a session that is missing or was never initialized.
    pub(in crate::upstream) speaks_of_session: bool,
}

impl Refusal {
    /// One whose body is of no interest.
    pub(in crate::upstream) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            status,
            json: None,
            challenge: text(WWW_AUTHENTICATE).map(Arc::from),
            content_type: text(CONTENT_TYPE).map(|kind| kind.chars().take(64).collect()),
        }
    }

    pub(in crate::upstream) async fn read(response: Response<Incoming>, deadline: Instant) -> Self {
        let mut refusal = Self::of(response.status(), response.headers());
        if Format::of(response.headers()) == Some(Format::Json) {
            let deadline = deadline.min(Instant::now() + BODY_TIME);
            refusal.json = read_limited(response.into_body(), BODY_LIMIT, deadline).await.ok();
        }
        refusal
    }

    /// The JSON-RPC error, if the body is one.
    pub(in crate::upstream) fn rpc_fault(&self) -> Option<RpcFault> {
        match envelope::parse(self.json.as_ref()?) {
            Ok(Message::Response(response)) => match response.payload {
                Payload::Error(error) => Some(RpcFault {
                    code: error.code,
                    names_request: response.id.is_some(),
                    speaks_of_session: speaks_of_session(&error.message.value),
                }),
                Payload::Result(_) => None,
            },
            _ => None,
        }
    }

    pub(in crate::upstream) fn is_unauthorized(&self) -> bool {
        matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }

    /// What it means where the body says nothing.
    pub(in crate::upstream) fn to_error(&self, server: &Arc<str>) -> UpstreamError {
        let number = self.status.as_u16();
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => UpstreamError::Unauthorized {
                server: Arc::clone(server),
                status: self.status,
                challenge: self.challenge.clone(),
            },
            StatusCode::OK => {
                let kind = self.content_type.as_deref().unwrap_or("no content type");
                UpstreamError::protocol(
                    server,
                    format!(
                        "it answers with {kind} instead of JSON or an event stream; is the URL that of an MCP endpoint?"
                    ),
                )
            }
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::METHOD_NOT_ALLOWED => {
                UpstreamError::protocol(server, format!("there is no MCP endpoint at its URL (HTTP {number})"))
            }
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                UpstreamError::unreachable(server, format!("it answers with HTTP {number}"))
            }
            status if status.is_redirection() => UpstreamError::protocol(
                server,
                format!("it redirects (HTTP {number}); redirects are not followed, use the final URL"),
            ),
            status if status.is_success() => {
                UpstreamError::protocol(server, format!("it accepts the request without answering it (HTTP {number})"))
            }
            _ => UpstreamError::protocol(server, format!("it answers with HTTP {number}")),
        }
    }
}

fn speaks_of_session(message: &str) -> bool {
    let lower = message.to_ascii_lowercase();
    lower.contains("session") || lower.contains("initializ")
}
