//! Takes in a request's body: its type, its size and its time.

use super::answer::{Reply, problem, rpc_error};
use crate::mcp::{
    error::{ErrorKind, RpcError},
    version::Era,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use std::{
    pin::{Pin, pin},
    time::Duration,
};

/// What a client may accept to read one of our answers at least.
const READABLE: [&str; 5] = ["*/*", "application/*", "application/json", "text/event-stream", "text/*"];

/// How long a client may take to send its body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long, and how many times the limit, is read of a body that is refused for its size.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
const DISCARD_LIMITS: usize = 4;

/// Refuses what is not JSON, and clients that can read neither form of answer.
pub(super) fn check_headers(headers: &HeaderMap) -> Result<(), Reply> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text(header::CONTENT_TYPE).map(|value| value.split(';').next().unwrap_or_default().trim());
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        let detail = "send one JSON-RPC message with `Content-Type: application/json`";
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let accepts = |value: &str| {
        let mut ranges = value.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
        ranges.any(|range| READABLE.iter().any(|readable| range.eq_ignore_ascii_case(readable)))
    };
    if headers.contains_key(header::ACCEPT)
        && !headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(accepts))
    {
        let detail = "send `Accept: application/json, text/event-stream`";
        return Err(problem(StatusCode::NOT_ACCEPTABLE, detail));
    }
    Ok(())
}

/// Reads the body whole. One that comes in one piece is not copied.
pub(super) async fn read<B>(body: B, headers: &HeaderMap, limit: usize) -> Result<Bytes, Reply>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let mut body = pin!(body);
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let fits = declared.is_none_or(|declared| declared <= limit as u64);
    let whole = async { if fits { collect(body.as_mut(), limit).await } else { Ok(None) } };
    match tokio::time::timeout(READ_TIMEOUT, whole).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            // A client reads no answer while it still writes, and sees a broken connection instead.
            drop(tokio::time::timeout(DISCARD_TIMEOUT, discard(body, limit.saturating_mul(DISCARD_LIMITS))).await);
            Err(too_large(limit))
        }
        Ok(Err(_)) => Err(problem(StatusCode::BAD_REQUEST, "the request's body ended before it was complete")),
        Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "the request's body took longer than 30 s to arrive")),
    }
}

/// The whole body; `None` when it is larger than `limit`.
async fn collect<B>(mut body: Pin<&mut B>, limit: usize) -> Result<Option<Bytes>, B::Error>
where
    B: http_body::Body<Data = Bytes>,
{
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Ok(None);
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(Some(first));
    }
    let mut all = BytesMut::with_capacity(first.len() + rest.len());
    all.extend_from_slice(&first);
    all.extend_from_slice(&rest);
    Ok(Some(all.freeze()))
}

async fn discard<B>(mut body: Pin<&mut B>, most: usize)
where
    B: http_body::Body<Data = Bytes>,
{
    let mut read = 0;
    while read < most
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

fn too_large(limit: usize) -> Reply {
    let text = format!(
        "the message is larger than {limit} bytes: send a smaller one, or ask the operator to raise the body limit"
    );
    let mut reply = rpc_error(&RpcError::new(ErrorKind::InvalidRequest, text), None, Era::Legacy);
    *reply.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    reply
}
