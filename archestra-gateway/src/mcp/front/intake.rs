//! Takes in a request's body: its type, its size and its time.

use super::answer::{Reply, problem, rpc_error};
use crate::mcp::{
    error::{ErrorKind, RpcError},
    version::Era,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::time::Duration;

/// How long a client may take to send its body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Refuses what is not JSON, and clients that can read neither form of answer.
pub(super) fn check_headers(headers: &HeaderMap) -> Result<(), Reply> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text(header::CONTENT_TYPE).map(|value| value.split(';').next().unwrap_or_default().trim());
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        let detail = "send one JSON-RPC message with `Content-Type: application/json`";
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let accepts = |value: &str| {
        value.split(',').map(|range| range.split(';').next().unwrap_or_default().trim()).any(|range| {
            matches!(range, "*/*" | "application/*" | "application/json" | "text/event-stream" | "text/*")
        })
    };
    if headers.contains_key(header::ACCEPT)
        && !headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(accepts))
    {
        let detail = "send `Accept: application/json, text/event-stream`";
        return Err(problem(StatusCode::NOT_ACCEPTABLE, detail));
    }
    Ok(())
}

/// Reads the body whole. One that came in one piece is not copied.
pub(super) async fn read<B>(body: B, headers: &HeaderMap, limit: usize) -> Result<Bytes, Reply>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > limit as u64) {
        return Err(too_large(limit));
    }
    match tokio::time::timeout(READ_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(_)) => Err(problem(StatusCode::BAD_REQUEST, "the request's body ended before it was complete")),
        Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "the request's body took longer than 30 s to arrive")),
    }
}

fn too_large(limit: usize) -> Reply {
    let text = format!("the message is larger than {limit} bytes: send a smaller one, or ask the operator to raise the body limit");
    let mut reply = rpc_error(&RpcError::new(ErrorKind::InvalidRequest, text), None, Era::Legacy);
    *reply.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    reply
}
