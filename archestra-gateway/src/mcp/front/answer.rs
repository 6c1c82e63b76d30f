//! The HTTP shapes of what the front door answers.

use super::McpBody;
use crate::mcp::{
    envelope::Id,
    error::{ErrorKind, RpcError},
    version::Era,
};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use std::time::Duration;

pub(super) type Reply = Response<McpBody>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A JSON message.
pub(super) fn json(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(McpBody::full(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, JSON);
    reply
}

/// A stream of events.
pub(super) fn events(body: McpBody) -> Reply {
    let mut reply = Response::new(body);
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(crate::mcp::version::header::ACCEL_BUFFERING, HeaderValue::from_static("no"));
    reply
}

/// Nothing but a status.
pub(super) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(McpBody::empty());
    *reply.status_mut() = status;
    reply
}

/// A JSON-RPC error with the HTTP status it has in this era.
pub(super) fn rpc_error(error: &RpcError, id: Option<Id<'_>>, era: Era) -> Reply {
    let mut reply = json(error.http_status(era), error.render(id, era));
    if error.kind == ErrorKind::TooManyRequests {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

/// A refusal before there is any message to answer (RFC 9457 keeps it readable for everybody else).
pub(super) fn problem(status: StatusCode, detail: &str) -> Reply {
    let title = status.canonical_reason().unwrap_or("error");
    let body = serde_json::json!({ "title": title, "status": status.as_u16(), "detail": detail });
    let mut reply = json(status, Bytes::from(body.to_string()));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    reply
}

/// A refusal that says when to try again.
pub(super) fn later(status: StatusCode, detail: &str, wait: Duration) -> Reply {
    let mut reply = problem(status, detail);
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    reply
}

/// Only these methods are served.
pub(super) fn method_not_allowed() -> Reply {
    let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, "use POST; GET and DELETE belong to legacy sessions");
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE"));
    reply
}
