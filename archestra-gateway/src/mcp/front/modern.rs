//! Requests of the modern era (2026-07-28): stateless, one exchange each; a caller that goes away has cancelled.

use super::{
    McpBody, Visit,
    answer::{Reply, events, json, rpc_error},
    body::{BROKE_OFF, BROKEN_OFF},
    call::{Called, Caller, call},
    record::CallLog,
    result, streams,
};
use crate::{
    mcp::{
        envelope::{self, Id, Message, Payload, Request},
        error::{ErrorKind, RpcError, code},
        headers::validate_modern,
        outcome::{BodyFormat, OutcomeScanner},
        sse,
        version::{Era, ProtocolVersion, meta},
    },
    platform::Shared,
    upstream::{Answer, Cancel, MessageStream, deadline_body::DeadlineBody},
};
use archestra_core::event::Outcome as Recorded;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::sync::Arc;

/// How long a client may keep what `server/discover` says, in milliseconds.
const DISCOVER_TTL_MS: u32 = 300_000;

/// Up to which length an answer is waited for as a whole. Most come in one piece with their head.
const WHOLE: u64 = 16 * 1024;

pub(super) async fn request(
    shared: &Arc<Shared>,
    visit: Visit,
    headers: &HeaderMap,
    body: &Bytes,
    request: &Request<'_>,
) -> Result<Reply, Reply> {
    let refuse = |error: &RpcError| rpc_error(error, Some(request.id), Era::Modern);
    validate_modern(headers, request).map_err(|error| refuse(&error))?;
    match &*request.method {
        "tools/call" => {
            let caller = Caller {
                principal: &visit.who.principal,
                usage: Some(&visit.who.usage),
                consumer: &visit.consumer,
                session: None,
                address: visit.address,
                era: Era::Modern,
                headers,
                cancel: Cancel::ByDropping,
            };
            Ok(match call(shared, caller, body, request).await {
                Called::Rejected(error) => refuse(&error),
                Called::Message(message) => json(StatusCode::OK, message),
                Called::Answer(answer, log) => pass(answer, log, request).await,
                Called::Cancelled => refuse(&RpcError::new(ErrorKind::Internal, "the call was cancelled")),
            })
        }
        "tools/list" => {
            let cursor = request.params.cursor.as_ref().map(|cursor| &*cursor.value);
            let page = visit.consumer.list.page(cursor, Era::Modern).ok_or_else(|| refuse(&stale_cursor()))?;
            Ok(result(request.id, &page))
        }
        "server/discover" => Ok(result(request.id, discover(shared, &visit).as_bytes())),
        "subscriptions/listen" => streams::modern(shared, &visit, request),
        method => Err(refuse(&unknown_method(method))),
    }
}

/// The upstream's answer as the client gets it.
async fn pass(answer: Answer, log: CallLog, request: &Request<'_>) -> Reply {
    match answer {
        Answer::Message(message) => {
            let status = status_of(&message);
            log.finish_message(&message);
            json(status, message)
        }
        Answer::Body { content_type, content_length, body } => {
            let streamed = content_type.as_bytes().starts_with(b"text/event-stream");
            if !streamed && content_length.is_some_and(|length| length <= WHOLE) {
                return whole(content_type, body, log, request).await;
            }
            let format = if streamed { BodyFormat::EventStream } else { BodyFormat::Json };
            let body = McpBody::upstream(body, format, request.id.as_str(), log);
            let mut reply = if streamed { events(body) } else { json(StatusCode::OK, Bytes::new()).map(|_| body) };
            reply.headers_mut().insert(header::CONTENT_TYPE, content_type);
            if let Some(length) = content_length {
                reply.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            }
            reply
        }
        Answer::Stream(messages) => {
            let relay = Relay {
                messages,
                log: Some(log),
                scanner: OutcomeScanner::new(BodyFormat::EventStream),
                bytes: 0,
                id: request.id.as_str().into(),
            };
            let stream =
                futures::stream::unfold(relay, async |mut relay| relay.next().await.map(|event| (event, relay)));
            events(McpBody::events(stream))
        }
    }
}

/// A small answer is waited for, so that one that breaks off can still become an error.
async fn whole(
    content_type: HeaderValue,
    mut body: DeadlineBody<Incoming>,
    log: CallLog,
    request: &Request<'_>,
) -> Reply {
    let mut message = Bytes::new();
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(part)) if message.is_empty() => message = part,
            Ok(Ok(part)) => message = [message, part].concat().into(),
            // Trailers.
            Ok(Err(_)) => {}
            Err(error) => {
                tracing::info!(%error, "an upstream broke off its answer");
                log.finish(Recorded::Error, Some(BROKE_OFF), message.len() as u64);
                return rpc_error(&RpcError::new(ErrorKind::Internal, BROKEN_OFF), Some(request.id), Era::Modern);
            }
        }
    }
    log.finish_message(&message);
    let mut reply = json(StatusCode::OK, message);
    reply.headers_mut().insert(header::CONTENT_TYPE, content_type);
    reply
}

/// The HTTP status that the modern era has for a response: an error of the protocol itself shows in it.
fn status_of(message: &[u8]) -> StatusCode {
    let Ok(Message::Response(response)) = envelope::parse(message) else { return StatusCode::OK };
    let Payload::Error(error) = response.payload else { return StatusCode::OK };
    match error.code {
        code::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        code::HEADER_MISMATCH | code::MISSING_CLIENT_CAPABILITY | code::UNSUPPORTED_PROTOCOL_VERSION => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::OK,
    }
}

/// Messages of an upstream on their way into an event stream.
struct Relay {
    messages: MessageStream,
    log: Option<CallLog>,
    scanner: OutcomeScanner,
    bytes: u64,
    id: Box<str>,
}

impl Relay {
    async fn next(&mut self) -> Option<Bytes> {
        self.log.as_ref()?;
        match self.messages.next().await {
            Some(Ok(message)) => {
                let event = sse::encode_message(&message, None);
                self.scanner.push(&event);
                self.bytes += event.len() as u64;
                Some(event)
            }
            Some(Err(error)) => {
                if let Some(log) = self.log.take() {
                    log.finish(Recorded::Error, Some(&error.to_string()), self.bytes);
                }
                let error = RpcError::new(ErrorKind::Internal, error.client_text());
                Some(sse::encode_message(&error.render(Id::parse(&self.id), Era::Modern), None))
            }
            None => {
                let scanner = std::mem::replace(&mut self.scanner, OutcomeScanner::new(BodyFormat::EventStream));
                if let Some(log) = self.log.take() {
                    log.finish_by(scanner.finish(), self.bytes);
                }
                None
            }
        }
    }
}

fn discover(shared: &Shared, visit: &Visit) -> String {
    let supported: Vec<_> = ProtocolVersion::of_era(Era::Modern).map(ProtocolVersion::as_str).collect();
    let mut body = serde_json::json!({
        "resultType": "complete",
        "supportedVersions": supported,
        "capabilities": { "tools": { "listChanged": true } },
        "ttlMs": DISCOVER_TTL_MS,
        "cacheScope": "private",
        "_meta": { meta::SERVER_INFO: shared.server_info },
    });
    if let Some(text) = &visit.consumer.consumer.spec.description {
        body["instructions"] = text.as_str().into();
    }
    body.to_string()
}

pub(super) fn stale_cursor() -> RpcError {
    RpcError::new(ErrorKind::InvalidParams, "the cursor does not belong to the present list: start again without one")
}

pub(super) fn unknown_method(method: &str) -> RpcError {
    let method: String = method.chars().take(128).collect();
    RpcError::new(ErrorKind::MethodNotFound, format!("`{method}` is not served here"))
}
