//! Responses of one era made into responses of the other.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

use super::super::error::code;
use super::super::json::{Kind, write_quoted};
use super::super::splice::{Member, Piece, Splice, SpliceError};
use super::super::version::Era;
use super::{ErrorHead, Payload, Response, ResultHead};

/// What the answered request was, as far as the shape of its answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `tools/call`: failures can be told as a result.
    ToolCall,
    /// A method whose modern results must say how long they may be kept.
    Cacheable,
    /// Anything else.
    Other,
}

impl Asked {
    /// The shape of the answers to `method`.
    #[must_use]
    pub fn of(method: &str) -> Self {
        match method {
            "tools/call" => Self::ToolCall,
            "server/discover"
            | "tools/list"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read" => Self::Cacheable,
            _ => Self::Other,
        }
    }
}

/// The same answer under another id, for a caller of the same era as the server.
///
/// # Errors
/// `response` was not parsed from `message`.
pub fn reidentify(message: &Bytes, response: &Response<'_>, id: Piece<'_>) -> Result<Bytes, SpliceError> {
    let mut splice = Splice::new();
    set_id(&mut splice, response, Some(id));
    splice.apply(message)
}

/// A legacy server's answer for a modern caller; without `id` it keeps its own.
///
/// Results get a `resultType` and, where they must have them, cache hints that forbid sharing and reuse.
/// The error numbers that the modern era took back are replaced.
///
/// # Errors
/// `response` was not parsed from `message`.
pub fn to_modern(
    message: &Bytes,
    response: &Response<'_>,
    asked: Asked,
    id: Option<Piece<'_>>,
) -> Result<Bytes, SpliceError> {
    let mut splice = Splice::new();
    match &response.payload {
        Payload::Result(result) => complete(&mut splice, result, asked),
        Payload::Error(error) => match (error.code, asked) {
            (code::URL_ELICITATION_REQUIRED, Asked::ToolCall) => {
                let text = with_links(&error.message.value, error.data.map(|data| data.as_str()));
                return Ok(tool_error(response, id, Era::Modern, &text));
            }
            (code::URL_ELICITATION_REQUIRED, _) => {
                splice.replace(error.code_span, Piece::Raw("-32603"));
            }
            (code::RESOURCE_NOT_FOUND, _) => splice.replace(error.code_span, Piece::Raw("-32602")),
            _ => {}
        },
    }
    set_id(&mut splice, response, id);
    splice.apply(message)
}

/// A modern server's answer for a legacy caller; without `id` it keeps its own.
///
/// Fields that only modern results have are taken out. A result that is not final cannot be told to a legacy
/// caller and becomes an error that says so: a tool error for `tools/call`, a JSON-RPC error otherwise.
///
/// # Errors
/// `response` was not parsed from `message`.
pub fn to_legacy(
    message: &Bytes,
    response: &Response<'_>,
    asked: Asked,
    id: Option<Piece<'_>>,
) -> Result<Bytes, SpliceError> {
    let mut splice = Splice::new();
    match &response.payload {
        Payload::Result(result) => {
            if let Some(text) = not_final(result) {
                return Ok(match asked {
                    Asked::ToolCall => tool_error(response, id, Era::Legacy, &text),
                    Asked::Cacheable | Asked::Other => rpc_error(response, id, &text),
                });
            }
            for span in result.modern_members.iter().flatten() {
                splice.remove(*span);
            }
        }
        Payload::Error(error) => {
            if is_modern_only(error) {
                splice.replace(error.code_span, Piece::Raw("-32603"));
            }
        }
    }
    set_id(&mut splice, response, id);
    splice.apply(message)
}

fn complete<'e>(splice: &mut Splice<'e>, result: &ResultHead<'_>, asked: Asked) {
    if result.raw.kind() != Kind::Object {
        return;
    }
    // A second member of the name would leave readers to disagree.
    if let Some(odd) = result.odd_type {
        splice.replace(odd, Piece::Quoted("complete"));
    }
    let untyped = result.result_type.is_none() && result.odd_type.is_none();
    let wanted = [
        (untyped, Member { key: "resultType", value: Piece::Quoted("complete") }),
        (asked == Asked::Cacheable && result.ttl_ms.is_none(), Member { key: "ttlMs", value: Piece::Number(0) }),
        (
            asked == Asked::Cacheable && result.cache_scope.is_none(),
            Member { key: "cacheScope", value: Piece::Quoted("private") },
        ),
    ];
    let mut members: [Member<'e>; 3] = wanted.map(|(_, member)| member);
    let mut count = 0;
    for (_, member) in wanted.into_iter().filter(|(missing, _)| *missing) {
        members[count] = member;
        count += 1;
    }
    splice.insert_members(result.raw, &members[..count]);
}

/// What to tell a legacy caller about a result that is not the final one.
fn not_final(result: &ResultHead<'_>) -> Option<String> {
    match &*result.result_type.as_ref()?.value {
        "complete" => None,
        "input_required" => Some(with_links(
            "the server needs more input, which the protocol revision of this client cannot provide",
            result.input_requests.map(|requests| requests.as_str()),
        )),
        "task" => {
            Some("the server answered with a task, which the protocol revision of this client cannot follow".to_owned())
        }
        _ => Some(
            "the server answered with a result that the protocol revision of this client cannot express".to_owned(),
        ),
    }
}

/// The modern numbers mean nothing to a legacy caller.
fn is_modern_only(error: &ErrorHead<'_>) -> bool {
    [code::HEADER_MISMATCH, code::MISSING_CLIENT_CAPABILITY, code::UNSUPPORTED_PROTOCOL_VERSION].contains(&error.code)
}

/// `text`, and the messages and URLs of the elicitations in `details`, whether a list or a map of them.
fn with_links(text: &str, details: Option<&str>) -> String {
    let mut text = text.to_owned();
    let Some(details) = details.and_then(|details| serde_json::from_str::<Value>(details).ok()) else { return text };
    let requests: Vec<&Value> = match details.get("elicitations") {
        Some(Value::Array(elicitations)) => elicitations.iter().collect(),
        _ => details.as_object().into_iter().flat_map(|map| map.values()).filter_map(|one| one.get("params")).collect(),
    };
    for request in requests {
        for part in ["message", "url"] {
            if let Some(part) = request.get(part).and_then(Value::as_str) {
                text.push_str(if text.ends_with(':') { " " } else { ": " });
                text.push_str(part);
            }
        }
    }
    text
}

fn set_id<'e>(splice: &mut Splice<'e>, response: &Response<'_>, id: Option<Piece<'e>>) {
    let Some(id) = id else { return };
    match response.id_raw {
        Some(present) => splice.replace(present.span(), id),
        None => {
            splice.insert(response.body, Piece::Raw("\"id\":"));
            splice.insert(response.body, id);
            splice.insert(response.body, Piece::Raw(","));
        }
    }
}

fn tool_error(response: &Response<'_>, id: Option<Piece<'_>>, era: Era, text: &str) -> Bytes {
    let mut out = open_message(response, id, text.len());
    out.put_slice(match era {
        Era::Modern => b"\"result\":{\"resultType\":\"complete\",\"content\":[{\"type\":\"text\",\"text\":".as_slice(),
        Era::Legacy => b"\"result\":{\"content\":[{\"type\":\"text\",\"text\":".as_slice(),
    });
    write_quoted(&mut out, text);
    out.put_slice(b"}],\"isError\":true}}");
    out.freeze()
}

fn rpc_error(response: &Response<'_>, id: Option<Piece<'_>>, text: &str) -> Bytes {
    let mut out = open_message(response, id, text.len());
    out.put_slice(b"\"error\":{\"code\":-32603,\"message\":");
    write_quoted(&mut out, text);
    out.put_slice(b"}}");
    out.freeze()
}

fn open_message(response: &Response<'_>, id: Option<Piece<'_>>, text: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(text + 192);
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    match (id, response.id_raw) {
        (Some(id), _) => id.write(&mut out),
        (None, Some(present)) => out.put_slice(present.as_bytes()),
        (None, None) => out.put_slice(b"null"),
    }
    out.put_u8(b',');
    out
}
