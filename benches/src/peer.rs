//! The protocol side of the fast upstreams: one JSON-RPC message in, one answer out, both eras.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The protocol version of the modern era.
pub const MODERN_VERSION: &str = "2026-07-28";
/// The protocol version the legacy era negotiates.
pub const LEGACY_VERSION: &str = "2025-11-25";

const VERSION_KEY: &[u8] = b"\"io.modelcontextprotocol/protocolVersion\"";
const SERVER_INFO: &str = r#"{"name":"fast-upstream","version":"1"}"#;
const CAPABILITIES: &str = r#"{"tools":{}}"#;
const TOOLS: &str = concat!(
    r#"[{"name":"echo","description":"answers with the message it was sent","inputSchema":{"type":"object","#,
    r#""properties":{"message":{"type":"string"}},"required":["message"]}}]"#
);

/// Which protocol eras a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eras {
    /// Only the stateless protocol of 2026-07-28.
    Modern,
    /// Only `initialize` and sessions.
    Legacy,
    /// Both.
    Both,
}

impl Eras {
    /// Reads `modern`, `legacy` or `both`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "modern" => Some(Self::Modern),
            "legacy" => Some(Self::Legacy),
            "both" => Some(Self::Both),
            _ => None,
        }
    }
}

/// What the transport says about a message, beside the message itself.
#[derive(Clone, Copy, Debug)]
pub enum Carrier<'a> {
    /// A line on a pipe: nothing.
    Pipe,
    /// A POST of the modern era with its mirrored headers.
    Modern {
        /// `Mcp-Method`.
        method: Option<&'a [u8]>,
        /// `Mcp-Name`.
        name: Option<&'a [u8]>,
    },
    /// A POST of the legacy era, inside a session.
    Session,
    /// A POST of the legacy era without a session.
    NoSession,
}

/// What became of a message; the answer's bytes are in the buffer given to [`answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A result.
    Answered,
    /// The result of `initialize`: over HTTP a session begins.
    Opened,
    /// A notification: no answer.
    Accepted,
    /// An error for a method this server does not have (HTTP 404 in the modern era).
    Unknown,
    /// An error for a message this server refuses (HTTP 400).
    Refused,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    arguments: Echo<'a>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Echo<'a> {
    #[serde(borrow)]
    message: &'a RawValue,
}

/// Answers one message into `out`, which is only appended to.
pub fn answer(message: &[u8], eras: Eras, carrier: Carrier<'_>, out: &mut Vec<u8>) -> Outcome {
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(message) else {
        return refuse(out, None, -32700, "parse error");
    };
    if matches!(carrier, Carrier::NoSession) && envelope.method != "initialize" {
        return refuse(out, None, -32000, "Bad Request: Server not initialized");
    }
    let Some(id) = envelope.id else {
        return Outcome::Accepted;
    };
    if let Carrier::Modern { method, .. } = carrier
        && method != Some(envelope.method.as_bytes())
    {
        return refuse(out, Some(id), -32020, "header Mcp-Method does not match the body");
    }
    match &*envelope.method {
        "tools/call" => call(id, envelope.params, carrier, out),
        "tools/list" => {
            let tail = match is_modern(envelope.params) {
                true => r#","resultType":"complete","ttlMs":60000,"cacheScope":"public""#,
                false => "",
            };
            result(out, id, &[r#"{"tools":"#, TOOLS, tail, "}"]);
            Outcome::Answered
        }
        "server/discover" if eras != Eras::Legacy => {
            result(
                out,
                id,
                &[
                    r#"{"resultType":"complete","supportedVersions":[""#,
                    MODERN_VERSION,
                    r#""],"capabilities":"#,
                    CAPABILITIES,
                    r#","ttlMs":60000,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":"#,
                    SERVER_INFO,
                    "}}",
                ],
            );
            Outcome::Answered
        }
        "initialize" if eras != Eras::Modern => {
            result(
                out,
                id,
                &[
                    r#"{"protocolVersion":""#,
                    LEGACY_VERSION,
                    r#"","capabilities":"#,
                    CAPABILITIES,
                    r#","serverInfo":"#,
                    SERVER_INFO,
                    "}",
                ],
            );
            Outcome::Opened
        }
        "ping" if eras != Eras::Modern => {
            result(out, id, &["{}"]);
            Outcome::Answered
        }
        _ => {
            error(out, Some(id), -32601, "method not found");
            Outcome::Unknown
        }
    }
}

fn call(id: &RawValue, params: Option<&RawValue>, carrier: Carrier<'_>, out: &mut Vec<u8>) -> Outcome {
    let Some(call) = params.and_then(|params| serde_json::from_str::<Call<'_>>(params.get()).ok()) else {
        return refuse(out, Some(id), -32602, "params need a name and the argument `message`");
    };
    if let Carrier::Modern { name, .. } = carrier
        && name != Some(call.name.as_bytes())
    {
        return refuse(out, Some(id), -32020, "header Mcp-Name does not match the body");
    }
    if call.name != "echo" {
        return refuse(out, Some(id), -32602, "unknown tool");
    }
    let head = match is_modern(call.meta) {
        true => r#"{"resultType":"complete","content":[{"type":"text","text":"#,
        false => r#"{"content":[{"type":"text","text":"#,
    };
    result(out, id, &[head, call.arguments.message.get(), r#"}],"isError":false}"#]);
    Outcome::Answered
}

fn is_modern(part: Option<&RawValue>) -> bool {
    part.is_some_and(|part| memmem::find(part.get().as_bytes(), VERSION_KEY).is_some())
}

fn result(out: &mut Vec<u8>, id: &RawValue, parts: &[&str]) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.get().as_bytes());
    out.extend_from_slice(br#","result":"#);
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'}');
}

fn refuse(out: &mut Vec<u8>, id: Option<&RawValue>, code: i32, text: &str) -> Outcome {
    error(out, id, code, text);
    Outcome::Refused
}

fn error(out: &mut Vec<u8>, id: Option<&RawValue>, code: i32, text: &str) {
    let id = id.map_or("null", RawValue::get);
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{text}"}}}}"#);
    out.extend_from_slice(answer.as_bytes());
}

#[cfg(test)]
mod tests;
