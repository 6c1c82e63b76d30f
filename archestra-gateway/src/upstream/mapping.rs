//! One request between two eras: what is sent upstream, and what its messages become on the way back.

use std::sync::Arc;

use bytes::Bytes;

use super::error::UpstreamError;
use super::exchange::Exchange;
use crate::mcp::envelope::{self, Message, Notification, Payload, Response};
use crate::mcp::error::code;
use crate::mcp::headers::NameSource;
use crate::mcp::json::Span;
use crate::mcp::response::{Asked, reidentify, to_legacy, to_modern};
use crate::mcp::splice::{MetaEdit, ModernMeta, Piece, RequestEdits, Splice, SpliceError, TokenEdit};
use crate::mcp::version::{Era, ProtocolVersion};

/// Who we say we are, as JSON text.
pub(super) const CLIENT_INFO: &str = concat!(r#"{"name":"archestra","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);

/// What we declare upstream: nothing is relayed to callers.
pub(super) const NO_CAPABILITIES: &str = "{}";

/// Which id and progress token a request has upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ids {
    /// The caller's own: nothing else is on this connection.
    Callers,
    /// This number, for both.
    Ours(u64),
}

/// The message to send to a server of `upstream` era.
pub(super) fn outgoing(
    exchange: &Exchange<'_>,
    upstream: Era,
    ids: Ids,
    server: &Arc<str>,
) -> Result<Bytes, UpstreamError> {
    let edited = match (exchange.caller_era, upstream, ids) {
        (Era::Modern, Era::Modern, Ids::Callers) => rename_only(exchange),
        _ => edits(exchange, upstream, ids).apply(exchange.body, exchange.request),
    };
    edited.map_err(|error| UpstreamError::request(server, error.to_string()))
}

/// The value that the message has upstream where its method's `Mcp-Name` mirrors one.
pub(super) fn mirrored_name<'e>(exchange: &Exchange<'e>) -> Option<&'e str> {
    let source = NameSource::of(&exchange.request.method)?;
    exchange.name.or_else(|| source.value(&exchange.request.params))
}

/// Both sides are modern: the name and the declared capabilities are all that changes.
fn rename_only(exchange: &Exchange<'_>) -> Result<Bytes, SpliceError> {
    let params = &exchange.request.params;
    let mut splice = Splice::new();
    if let (Some(name), Some(at)) = (exchange.name, name_span(exchange)) {
        splice.replace(at, Piece::Quoted(name));
    }
    let declared = params.meta.as_ref().and_then(|meta| meta.client_capabilities);
    if let Some(declared) = declared.filter(|declared| !declared.is_empty_container()) {
        splice.replace(declared.span(), Piece::Raw(NO_CAPABILITIES));
    }
    splice.apply(exchange.body)
}

fn name_span(exchange: &Exchange<'_>) -> Option<Span> {
    let params = &exchange.request.params;
    let text = match NameSource::of(&exchange.request.method) {
        Some(NameSource::Name) => params.name.as_ref(),
        Some(NameSource::Uri) => params.uri.as_ref(),
        Some(NameSource::TaskId) => params.task_id.as_ref(),
        None => params.reference.as_ref().and_then(|one| one.name.as_ref().or(one.uri.as_ref())),
    };
    text.map(|text| text.span)
}

fn edits<'e>(exchange: &Exchange<'e>, upstream: Era, ids: Ids) -> RequestEdits<'e> {
    let params = &exchange.request.params;
    let source = NameSource::of(&exchange.request.method);
    let refers_to_uri = params.reference.as_ref().is_some_and(|one| one.name.is_none());
    let wants_progress = params.meta.as_ref().is_some_and(|meta| meta.progress_token.is_some());
    let of = |wanted: bool| exchange.name.filter(|_| wanted);
    RequestEdits {
        id: match ids {
            Ids::Callers => None,
            Ids::Ours(number) => Some(Piece::Number(number)),
        },
        name: of(source == Some(NameSource::Name) || (source.is_none() && !refers_to_uri)),
        uri: of(source == Some(NameSource::Uri) || (source.is_none() && refers_to_uri)),
        task_id: of(source == Some(NameSource::TaskId)),
        progress_token: match ids {
            Ids::Ours(number) if wants_progress => TokenEdit::Set(Piece::Number(number)),
            Ids::Ours(_) | Ids::Callers => TokenEdit::Keep,
        },
        meta: match (exchange.caller_era, upstream) {
            (Era::Modern, Era::Legacy) => MetaEdit::Strip,
            (Era::Legacy, Era::Legacy) => MetaEdit::Keep,
            (caller, Era::Modern) => MetaEdit::Modern(ModernMeta {
                version: ProtocolVersion::LATEST,
                client_capabilities: NO_CAPABILITIES,
                client_info: CLIENT_INFO,
                log_level: match caller {
                    Era::Legacy => exchange.log_level,
                    Era::Modern => {
                        params.meta.as_ref().and_then(|meta| meta.log_level.as_ref()).map(|level| &*level.value)
                    }
                },
            }),
        },
        ..RequestEdits::default()
    }
}

/// What has to be known of a request to understand its answer; outlives the request.
#[derive(Debug)]
pub(super) struct Mapping {
    caller: Era,
    upstream: Era,
    asked: Asked,
    ids: Ids,
    /// The caller's id, as JSON text.
    id: Box<str>,
    /// The caller's progress token, as JSON text.
    token: Option<Box<str>>,
    logs: Logs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logs {
    Wanted,
    Unwanted,
}

/// What a message from upstream turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The answer, as the caller gets it, and what it is.
    Response(Bytes, Verdict),
    /// A notification, as the caller gets it.
    Notification(Bytes),
    /// A request of the server, with our answer to it.
    Asked { answer: Bytes },
    /// The server says that its tools are different now.
    ToolsChanged,
    /// None of our business.
    Ignored,
}

/// Whether a server has served a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Result,
    Error,
}

impl Mapping {
    pub(super) fn new(exchange: &Exchange<'_>, upstream: Era, ids: Ids) -> Self {
        let meta = exchange.request.params.meta.as_ref();
        let logs = match exchange.caller_era {
            Era::Modern if meta.is_none_or(|meta| meta.log_level.is_none()) => Logs::Unwanted,
            Era::Modern | Era::Legacy => Logs::Wanted,
        };
        Self {
            caller: exchange.caller_era,
            upstream,
            asked: Asked::of(&exchange.request.method),
            ids,
            id: exchange.request.id.as_str().into(),
            token: meta.and_then(|meta| meta.progress_token).map(|token| token.as_str().into()),
            logs,
        }
    }

    /// The id that the request has upstream, as JSON text.
    pub(super) fn sent_id(&self) -> String {
        match self.ids {
            Ids::Callers => (*self.id).to_owned(),
            Ids::Ours(number) => number.to_string(),
        }
    }

    /// Sorts a message from upstream.
    ///
    /// # Errors
    /// It cannot be read, and may have been the answer.
    pub(super) fn take(&self, message: &Bytes) -> Result<Taken, String> {
        match envelope::parse(message) {
            Ok(Message::Response(response)) => self.response(message, &response),
            Ok(Message::Notification(notification)) => Ok(self.notification(message, &notification)),
            Ok(Message::Request(request)) => {
                Ok(Taken::Asked { answer: answer_to_server(&request.method, request.id.as_str()) })
            }
            Err(rejected) if is_call(message) => {
                tracing::debug!(error = %rejected.error, "a message of an upstream server was passed over");
                Ok(Taken::Ignored)
            }
            Err(rejected) => Err(format!("its answer cannot be read: {}", rejected.error)),
        }
    }

    fn response(&self, message: &Bytes, response: &Response<'_>) -> Result<Taken, String> {
        let ours = match (&response.id, self.ids) {
            // Who could not read the request cannot repeat its id.
            (None, _) => matches!(response.payload, Payload::Error(_)),
            (Some(id), Ids::Ours(number)) => id.to_number() == Some(number),
            (Some(id), Ids::Callers) => same_json(id.as_str(), &self.id),
        };
        if !ours {
            return Ok(Taken::Ignored);
        }
        let id = match (self.ids, &response.id) {
            (Ids::Callers, Some(_)) => None,
            _ => Some(Piece::Raw(&self.id)),
        };
        let translated = match (self.upstream, self.caller) {
            (Era::Legacy, Era::Modern) => to_modern(message, response, self.asked, id),
            (Era::Modern, Era::Legacy) => to_legacy(message, response, self.asked, id),
            (Era::Modern, Era::Modern) | (Era::Legacy, Era::Legacy) => match id {
                Some(id) => reidentify(message, response, id),
                None => Ok(message.clone()),
            },
        };
        let verdict = match response.payload {
            Payload::Result(_) => Verdict::Result,
            Payload::Error(_) => Verdict::Error,
        };
        translated
            .map(|answer| Taken::Response(answer, verdict))
            .map_err(|error| format!("its answer cannot be translated: {error}"))
    }

    fn notification(&self, message: &Bytes, notification: &Notification<'_>) -> Taken {
        match &*notification.method {
            "notifications/progress" => {
                self.progress(message, notification).map_or(Taken::Ignored, Taken::Notification)
            }
            "notifications/message" if self.logs == Logs::Wanted => Taken::Notification(message.clone()),
            "notifications/tools/list_changed" => Taken::ToolsChanged,
            _ => Taken::Ignored,
        }
    }

    fn progress(&self, message: &Bytes, notification: &Notification<'_>) -> Option<Bytes> {
        let wanted = self.token.as_deref()?;
        let reported = notification.params.progress_token?;
        match self.ids {
            Ids::Callers => same_json(reported.as_str(), wanted).then(|| message.clone()),
            Ids::Ours(number) => {
                if reported.as_str().parse() != Ok(number) {
                    return None;
                }
                let edits = RequestEdits { reported_token: Some(Piece::Raw(wanted)), ..RequestEdits::default() };
                edits.apply_to_notification(message, notification).ok()
            }
        }
    }
}

/// The notification that ends the request with this id, given as JSON text.
pub(super) fn cancelled(id: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"the caller gave up"}}}}"#
    ))
}

/// What a server that asks us something is told: we declared that we can do nothing.
fn answer_to_server(method: &str, id: &str) -> Bytes {
    if method == "ping" {
        return Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
    }
    let number = code::METHOD_NOT_FOUND;
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{number},"message":"this client declared no capability for that"}}}}"#
    ))
}

/// Whether a message that our strict reader refused is at least no answer.
fn is_call(message: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(message).is_ok_and(|value| value.get("method").is_some())
}

/// Whether two scalars are the same, also where one was written anew.
fn same_json(left: &str, right: &str) -> bool {
    let value = |text| serde_json::from_str::<serde_json::Value>(text);
    left == right || matches!((value(left), value(right)), (Ok(left), Ok(right)) if left == right)
}
