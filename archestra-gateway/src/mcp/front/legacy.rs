//! Requests of the legacy era (2025-11-25 and older): `initialize`, sessions, `notifications/cancelled`.

use super::{
    McpBody, Visit,
    answer::{Reply, empty, events, json, later, method_not_allowed, problem, rpc_error},
    call::{Called, Caller, call},
    modern::{stale_cursor, unknown_method},
    result,
    session::Session,
    told,
};
use crate::{
    mcp::{
        envelope::{self, Message, Notification, Request},
        error::{ErrorKind, RpcError},
        outcome::{BodyFormat, OutcomeScanner},
        sse,
        version::{Era, ProtocolVersion, header},
    },
    platform::Shared,
    upstream::{Answer, Cancel},
};
use archestra_core::event::Outcome as Recorded;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Messages of one answer that wait for a slow client.
const PENDING_EVENTS: usize = 64;

/// The longest request id that other replicas are told.
const MAX_ID: usize = 1024;

/// How long a client may leave its answer unread.
const STALLED: Duration = Duration::from_secs(30);

pub(super) async fn request(
    shared: &Arc<Shared>,
    visit: Visit,
    headers: &HeaderMap,
    body: &Bytes,
    request: &Request<'_>,
) -> Result<Reply, Reply> {
    let refuse = |error: &RpcError| rpc_error(error, Some(request.id), Era::Legacy);
    if request.method == "initialize" {
        return initialize(shared, &visit, request);
    }
    check_version(headers)?;
    let session = resume(shared, &visit, headers)?;
    match &*request.method {
        "tools/call" => Ok(tools_call(shared, visit, session, headers, body, request).await),
        "tools/list" => {
            let cursor = request.params.cursor.as_ref().map(|cursor| &*cursor.value);
            let page = visit.consumer.list.page(cursor, Era::Legacy).ok_or_else(|| refuse(&stale_cursor()))?;
            Ok(result(request.id, &page))
        }
        "ping" => Ok(result(request.id, b"{}")),
        method => Err(refuse(&unknown_method(method))),
    }
}

/// Handles a notification, which is never answered.
pub(super) async fn notification(
    shared: &Shared,
    visit: &Visit,
    headers: &HeaderMap,
    notification: &Notification<'_>,
) -> Result<Reply, Reply> {
    if notification.method == "notifications/cancelled"
        && let Some(session) = resume(shared, visit, headers)?
        && let Some(id) = notification.params.request_id
        && !shared.in_flight.cancel(session.id, id.as_str())
        && id.as_str().len() <= MAX_ID
        && visit.who.usage.tell().is_ok()
        && let Err(error) = told::cancelled(&*shared.state, session.id, id.as_str()).await
    {
        tracing::debug!(%error, "other replicas were not told that a call was taken back");
    }
    Ok(empty(StatusCode::ACCEPTED))
}

/// Ends a session (`DELETE`), here and at the other replicas.
pub(super) async fn end_session(shared: &Shared, visit: &Visit, headers: &HeaderMap) -> Result<Reply, Reply> {
    let Some(session) = resume(shared, visit, headers)? else {
        return Err(method_not_allowed());
    };
    if let Err(wait) = visit.who.usage.tell() {
        return Err(later(StatusCode::TOO_MANY_REQUESTS, "too many sessions were ended within a minute", wait));
    }
    if let Err(error) = told::ended(&*shared.state, session.id).await {
        tracing::warn!(%error, "other replicas could not be told that a session has ended");
        let detail = "the session could not be ended: try again";
        return Err(later(StatusCode::SERVICE_UNAVAILABLE, detail, Duration::from_secs(1)));
    }
    shared.sessions.ended(session.id);
    Ok(empty(StatusCode::NO_CONTENT))
}

/// The session that the request names. None at all is allowed: what we serve needs none.
pub(super) fn resume(shared: &Shared, visit: &Visit, headers: &HeaderMap) -> Result<Option<Session>, Reply> {
    let Some(id) = headers.get(header::SESSION_ID) else { return Ok(None) };
    let session =
        id.to_str().ok().and_then(|id| shared.sessions.resume(id, &visit.who.principal, visit.consumer.consumer.id));
    match session {
        Some(session) => Ok(Some(session)),
        None => Err(problem(StatusCode::NOT_FOUND, "there is no such session: send `initialize` to begin a new one")),
    }
}

fn check_version(headers: &HeaderMap) -> Result<(), Reply> {
    let Some(version) = headers.get(header::PROTOCOL_VERSION) else { return Ok(()) };
    let known = version.to_str().ok().and_then(ProtocolVersion::parse);
    if known.is_some_and(|version| version.era() == Era::Legacy) {
        return Ok(());
    }
    let known: Vec<_> = ProtocolVersion::KNOWN.into_iter().map(ProtocolVersion::as_str).collect();
    let detail = format!("this MCP-Protocol-Version is not served; served are {}", known.join(", "));
    Err(problem(StatusCode::BAD_REQUEST, &detail))
}

fn initialize(shared: &Shared, visit: &Visit, request: &Request<'_>) -> Result<Reply, Reply> {
    #[derive(Deserialize)]
    struct Params {
        #[serde(rename = "protocolVersion")]
        protocol_version: String,
    }
    let params = request.params.raw.and_then(|raw| serde_json::from_str::<Params>(raw.as_str()).ok());
    let Some(params) = params else {
        let error = RpcError::new(ErrorKind::InvalidParams, "`params.protocolVersion` is required");
        return Err(rpc_error(&error, Some(request.id), Era::Legacy));
    };
    let version = ProtocolVersion::negotiate_legacy(&params.protocol_version);
    let consumer = &visit.consumer.consumer;
    let session = shared.sessions.open(&visit.who.principal, consumer.id, version).map_err(|error| {
        tracing::error!(%error, "a session id could not be made");
        problem(StatusCode::INTERNAL_SERVER_ERROR, "a session could not be made")
    })?;
    let mut body = serde_json::json!({
        "protocolVersion": version.as_str(),
        "capabilities": { "tools": { "listChanged": true } },
        "serverInfo": shared.server_info,
    });
    if let Some(text) = &consumer.spec.description {
        body["instructions"] = text.as_str().into();
    }
    let mut reply = result(request.id, body.to_string().as_bytes());
    if let Ok(session) = HeaderValue::from_str(&session) {
        reply.headers_mut().insert(header::SESSION_ID, session);
    }
    Ok(reply)
}

/// What a call's task hands back to whoever waits for it, if anybody still does.
enum Handed {
    Message(Bytes),
    Rejected(RpcError),
    Events(mpsc::Receiver<Bytes>),
    Cancelled,
}

/// A legacy client that goes away has not cancelled: the call runs on in a task of its own, to its deadline.
async fn tools_call(
    shared: &Arc<Shared>,
    visit: Visit,
    session: Option<Session>,
    headers: &HeaderMap,
    body: &Bytes,
    request: &Request<'_>,
) -> Reply {
    let cancel = shared.kill.child_token();
    let entry = match session {
        None => None,
        Some(session) => match shared.in_flight.begin(session.id, request.id.as_str(), cancel.clone()) {
            Some(entry) => Some(entry),
            None => {
                let error =
                    RpcError::new(ErrorKind::InvalidRequest, "a request with this id is under way in this session");
                return rpc_error(&error, Some(request.id), Era::Legacy);
            }
        },
    };
    let (hand, handed) = oneshot::channel();
    let (session, headers, body) = (session.map(|session| session.id), headers.clone(), body.clone());
    let task = Detached { shared: Arc::clone(shared), visit, session, headers, body, cancel };
    shared.tasks.spawn(async move {
        task.run(hand).await;
        drop(entry);
    });
    match handed.await {
        Ok(Handed::Message(message)) => json(StatusCode::OK, message),
        Ok(Handed::Rejected(error)) => rpc_error(&error, Some(request.id), Era::Legacy),
        Ok(Handed::Events(messages)) => {
            let stream = futures::stream::unfold(messages, async |mut messages| {
                messages.recv().await.map(|event| (event, messages))
            });
            events(McpBody::events(stream))
        }
        // A request that was taken back gets no response.
        Ok(Handed::Cancelled) => empty(StatusCode::ACCEPTED),
        Err(_) => {
            let error = RpcError::new(ErrorKind::Internal, "the gateway is shutting down; the call was not completed");
            rpc_error(&error, Some(request.id), Era::Legacy)
        }
    }
}

struct Detached {
    shared: Arc<Shared>,
    visit: Visit,
    session: Option<u128>,
    headers: HeaderMap,
    body: Bytes,
    cancel: CancellationToken,
}

impl Detached {
    async fn run(self, hand: oneshot::Sender<Handed>) {
        let Ok(Message::Request(request)) = envelope::parse(&self.body) else { return };
        let caller = Caller {
            principal: &self.visit.who.principal,
            usage: Some(&self.visit.who.usage),
            consumer: &self.visit.consumer,
            session: self.session,
            address: self.visit.address,
            era: Era::Legacy,
            headers: &self.headers,
            cancel: Cancel::By(&self.cancel),
        };
        let called = call(&self.shared, caller, &self.body, &request).await;
        // Nobody may wait any more; the call has been made all the same.
        match called {
            Called::Rejected(error) => drop(hand.send(Handed::Rejected(error))),
            Called::Message(message) => drop(hand.send(Handed::Message(message))),
            Called::Cancelled => drop(hand.send(Handed::Cancelled)),
            Called::Answer(Answer::Message(message), log) => {
                log.finish_message(&message);
                drop(hand.send(Handed::Message(message)));
            }
            Called::Answer(Answer::Stream(mut messages), log) => {
                let (sender, receiver) = mpsc::channel(PENDING_EVENTS);
                let mut listener = hand.send(Handed::Events(receiver)).is_ok().then_some(sender);
                let mut scanner = OutcomeScanner::new(BodyFormat::EventStream);
                let mut bytes = 0;
                let mut failure = None;
                while let Some(Some(message)) = self.cancel.run_until_cancelled(messages.next()).await {
                    let message = message.unwrap_or_else(|error| {
                        let answer = RpcError::new(ErrorKind::Internal, error.client_text());
                        failure = Some(error);
                        answer.render(Some(request.id), Era::Legacy)
                    });
                    let event = sse::encode_message(&message, None);
                    scanner.push(&event);
                    bytes += event.len() as u64;
                    if let Some(sender) = &listener {
                        // A client that reads nothing for so long counts as gone; the call goes on without it.
                        let sent = tokio::time::timeout(STALLED, sender.send(event));
                        if !matches!(self.cancel.run_until_cancelled(sent).await, Some(Ok(Ok(())))) {
                            listener = None;
                        }
                    }
                }
                match failure {
                    Some(error) => log.finish(Recorded::Error, Some(&error.to_string()), bytes),
                    // Dropped, the log says that the call was cancelled.
                    None if self.cancel.is_cancelled() => {}
                    None => log.finish_by(scanner.finish(), bytes),
                }
            }
            Called::Answer(Answer::Body { .. }, log) => {
                log.finish(Recorded::Error, Some("a modern body for a legacy caller"), 0);
            }
        }
    }
}
