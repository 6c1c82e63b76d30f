//! JSON-RPC envelopes on newline-delimited JSON: reading them in one pass, and splicing ids by byte range.
//!
//! Everything here is pure and takes any bytes without panicking.

mod envelope;
mod overlong;
#[cfg(test)]
mod tests;

pub use self::overlong::id_of_overlong;

use self::envelope::{ClientParams, Envelope, Text};
use super::raw_id::RawId;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, ops::Range};

/// The longest id or progress token that is accepted, in bytes of its JSON text.
pub const MAX_ID_LENGTH: usize = 1024;

/// JSON-RPC: the message is not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// JSON-RPC: the message is not a request, notification or response.
pub const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC: there is no such method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// The server could not complete the call.
pub const SERVER_ERROR: i32 = -32000;
/// How the message of the error ends that a call is answered with whose process ended: see [`is_unfinished`].
pub const UNFINISHED: &str = "and the call was not completed";

/// A piece of a message and where it stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    text: &'a str,
    range: Range<usize>,
}

impl<'a> Part<'a> {
    fn new(message: &[u8], raw: &'a RawValue) -> Option<Self> {
        let text = raw.get();
        let start = text.as_ptr().addr().checked_sub(message.as_ptr().addr())?;
        let range = start..start.checked_add(text.len())?;
        (message.get(range.clone())? == text.as_bytes()).then_some(Self { text, range })
    }

    /// An id or token: a string or a number, not too long.
    fn id(message: &[u8], raw: &'a RawValue) -> Option<Self> {
        let acceptable = raw.get().len() <= MAX_ID_LENGTH
            && raw.get().starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
        acceptable.then(|| Self::new(message, raw)).flatten()
    }

    /// Its JSON text.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// Where it stands.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// It as one of the numbers that the multiplexer gives out.
    #[must_use]
    pub fn to_number(&self) -> Option<u64> {
        self.text.parse().ok()
    }

    pub(super) fn to_raw_id(&self) -> RawId {
        RawId::new(self.text)
    }
}

/// What a client says to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// It wants an answer.
    Request {
        /// To be repeated in the answer.
        id: Part<'a>,
        /// The method.
        method: Cow<'a, str>,
        /// `params._meta.progressToken`.
        progress_token: Option<Part<'a>>,
    },
    /// It wants none.
    Notification {
        /// The method.
        method: Cow<'a, str>,
        /// `params.requestId`.
        request_id: Option<Part<'a>>,
    },
    /// It answers a request of the server.
    Response {
        /// The id of that request.
        id: Part<'a>,
    },
}

/// A client's message that is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Malformed {
    /// The JSON-RPC code.
    pub code: i32,
    /// What is wrong with it.
    pub reason: String,
    /// The JSON text of the id to answer to, where there is one.
    pub id: Option<String>,
}

impl Malformed {
    fn new(code: i32, reason: impl Into<String>, id: Option<&RawValue>) -> Self {
        let id = id.filter(|id| id.get().len() <= MAX_ID_LENGTH && !id.get().starts_with(['{', '[', 't', 'f']));
        Self { code, reason: reason.into(), id: id.map(|id| id.get().to_owned()) }
    }

    /// The error response that says so.
    #[must_use]
    pub fn to_response(&self) -> Bytes {
        error_response(self.id.as_deref().unwrap_or("null").as_bytes(), self.code, &self.reason)
    }
}

/// Reads what a client sent.
///
/// Two readers of one message must not disagree about its id or progress token, or one caller could be given another one's
/// answer: keys that appear twice, or that differ from a decisive one only by case, are refused.
///
/// # Errors
/// [`Malformed`], with the answer it deserves.
pub fn parse_client(message: &[u8]) -> Result<ClientMessage<'_>, Malformed> {
    let envelope: Envelope<'_, ClientParams<'_>> = serde_json::from_slice(message).map_err(|error| {
        #[derive(Deserialize)]
        struct OnlyId<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
        }
        if error.is_data() {
            let id = serde_json::from_slice::<OnlyId<'_>>(message).ok().and_then(|only| only.id);
            Malformed::new(INVALID_REQUEST, format!("the message is not a JSON-RPC message: {error}"), id)
        } else {
            Malformed::new(PARSE_ERROR, format!("the message is not JSON: {error}"), None)
        }
    })?;
    let refuse = |reason: &str| Malformed::new(INVALID_REQUEST, reason, envelope.id);
    if envelope.version.as_deref() != Some("2.0") {
        return Err(refuse("`jsonrpc` must be \"2.0\""));
    }
    let id = match envelope.id {
        Some(raw) => Some(
            Part::id(message, raw).ok_or_else(|| refuse("`id` must be a string or a number of acceptable length"))?,
        ),
        None => None,
    };
    let answers = envelope.result.is_some() || envelope.error.is_some();
    match (envelope.method, id) {
        (Some(Text(method)), Some(id)) if !answers => {
            let progress_token = match envelope.params.and_then(|params| params.progress_token) {
                Some(raw) => Some(Part::id(message, raw).ok_or_else(|| {
                    Malformed::new(
                        INVALID_REQUEST,
                        "`params._meta.progressToken` must be a string or a number of acceptable length",
                        envelope.id,
                    )
                })?),
                None => None,
            };
            Ok(ClientMessage::Request { id, method, progress_token })
        }
        (Some(Text(method)), None) if !answers && !envelope.null_id => {
            let request_id = envelope.params.and_then(|params| params.request_id);
            Ok(ClientMessage::Notification { method, request_id: request_id.and_then(|raw| Part::id(message, raw)) })
        }
        (None, Some(id)) if answers => Ok(ClientMessage::Response { id }),
        _ => Err(Malformed::new(
            INVALID_REQUEST,
            "a message has either `method`, or `id` and one of `result` and `error`",
            envelope.id,
        )),
    }
}

/// What a server's line is.
#[derive(Debug, Clone)]
pub enum ServerLine<'a> {
    /// Nothing but white space.
    Blank,
    /// Not JSON: servers print banners.
    NotJson,
    /// JSON, but no message.
    Unrecognized,
    /// It answers a request.
    Response {
        /// The id of that request.
        id: Part<'a>,
        /// What it answers; absent when the answer is an error.
        result: Option<&'a RawValue>,
    },
    /// It wants an answer of the client.
    Request {
        /// To be repeated in the answer.
        id: Part<'a>,
        /// The method.
        method: Cow<'a, str>,
    },
    /// It wants none.
    Notification {
        /// The method.
        method: Cow<'a, str>,
        /// What it refers to.
        refers_to: Reference<'a>,
    },
}

/// What a server's notification refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reference<'a> {
    /// `params.progressToken`, of `notifications/progress`.
    pub progress_token: Option<Part<'a>>,
    /// `params.requestId`, of `notifications/cancelled`.
    pub request_id: Option<Part<'a>>,
    /// `params._meta["io.modelcontextprotocol/subscriptionId"]`: the id of a `subscriptions/listen`.
    pub subscription_id: Option<Part<'a>>,
}

/// Reads a line that a server wrote.
#[must_use]
pub fn parse_server_line(line: &[u8]) -> ServerLine<'_> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return ServerLine::Blank;
    }
    let envelope: Envelope<'_, &RawValue> = match serde_json::from_slice(line) {
        Ok(envelope) => envelope,
        Err(error) if error.is_data() => return ServerLine::Unrecognized,
        Err(_) => return ServerLine::NotJson,
    };
    let id = envelope.id.and_then(|raw| Part::id(line, raw));
    match (envelope.method, id, envelope.id) {
        (None, Some(id), _) if envelope.result.is_some() != envelope.error.is_some() => {
            ServerLine::Response { id, result: envelope.result }
        }
        (Some(Text(method)), Some(id), _) => ServerLine::Request { id, method },
        (Some(Text(method)), None, None) => {
            let refers_to = envelope.params.map(|params| reference(line, params)).unwrap_or_default();
            ServerLine::Notification { method, refers_to }
        }
        _ => ServerLine::Unrecognized,
    }
}

/// The `_meta` of a notification or result, as far as it refers to a subscription.
#[derive(Deserialize)]
struct SubscriptionMeta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription_id: Option<&'a RawValue>,
}

fn reference<'a>(line: &[u8], params: &'a RawValue) -> Reference<'a> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, rename = "progressToken")]
        progress_token: Option<&'a RawValue>,
        #[serde(borrow, rename = "requestId")]
        request_id: Option<&'a RawValue>,
        #[serde(borrow, rename = "_meta")]
        meta: Option<SubscriptionMeta<'a>>,
    }
    let part = |raw: Option<&'a RawValue>| raw.and_then(|raw| Part::id(line, raw));
    let Ok(params) = serde_json::from_str::<Params<'a>>(params.get()) else {
        return Reference::default();
    };
    Reference {
        progress_token: part(params.progress_token),
        request_id: part(params.request_id),
        subscription_id: part(params.meta.and_then(|meta| meta.subscription_id)),
    }
}

/// The subscription id in the `_meta` of a `subscriptions/listen` result.
pub(super) fn subscription_id<'a>(line: &[u8], result: &'a RawValue) -> Option<Part<'a>> {
    #[derive(Deserialize)]
    struct ListenResult<'a> {
        #[serde(borrow, rename = "_meta")]
        meta: Option<SubscriptionMeta<'a>>,
    }
    let result = serde_json::from_str::<ListenResult<'a>>(result.get()).ok()?;
    Part::id(line, result.meta?.subscription_id?)
}

/// `message` with pieces replaced. The ranges must not overlap; one that is not within the message is left out.
#[must_use]
pub fn splice<const N: usize>(message: &[u8], replacements: [Option<(Range<usize>, &[u8])>; N]) -> Bytes {
    let pieces = pieces(message, replacements);
    let mut out = BytesMut::with_capacity(pieces.iter().flatten().map(|piece| piece.len()).sum());
    for piece in pieces.iter().flatten() {
        out.put_slice(piece);
    }
    out.freeze()
}

/// The pieces of `message` with replacements, in order.
pub(super) fn pieces<'a, const N: usize>(
    message: &'a [u8],
    mut replacements: [Option<(Range<usize>, &'a [u8])>; N],
) -> [[&'a [u8]; 2]; 3] {
    const { assert!(N <= 2, "a message has an id and a token") };
    replacements.sort_by_key(|replacement| replacement.as_ref().map_or(usize::MAX, |(range, _)| range.start));
    let mut pieces: [[&[u8]; 2]; 3] = [[&[]; 2]; 3];
    let mut done = 0;
    let mut used = 0;
    for (range, replacement) in replacements.into_iter().flatten() {
        if let Some(before) = message.get(done..range.start)
            && range.end <= message.len()
        {
            pieces[used] = [before, replacement];
            used += 1;
            done = range.end;
        }
    }
    pieces[used] = [&message[done..], &[]];
    pieces
}

/// A JSON-RPC error response. `id` is JSON text.
#[must_use]
pub fn error_response(id: &[u8], code: i32, message: &str) -> Bytes {
    let message = serde_json::Value::from(message).to_string();
    let mut out = BytesMut::with_capacity(64 + id.len() + message.len());
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.put_slice(id);
    out.put_slice(b",\"error\":{\"code\":");
    out.put_slice(code.to_string().as_bytes());
    out.put_slice(b",\"message\":");
    out.put_slice(message.as_bytes());
    out.put_slice(b"}}");
    out.freeze()
}

/// Whether this error response is the answer that a multiplexer gives by itself to a call whose process ended before it
/// answered. It passes through other multiplexers as it is.
#[must_use]
pub fn is_unfinished(error: &[u8]) -> bool {
    let has = |text: &str| memchr::memmem::find(error, text.as_bytes()).is_some();
    has(&format!("{UNFINISHED}\"}}")) && has(&format!("\"error\":{{\"code\":{SERVER_ERROR},"))
}

/// A JSON-RPC response. `id` and `result` are JSON text.
#[must_use]
pub fn response(id: &[u8], result: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(40 + id.len() + result.len());
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.put_slice(id);
    out.put_slice(b",\"result\":");
    out.put_slice(result.as_bytes());
    out.put_slice(b"}");
    out.freeze()
}
