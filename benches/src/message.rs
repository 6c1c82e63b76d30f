//! The requests the harness sends, built once, and the check every answer has to pass.

use bytes::Bytes;
use memchr::memmem;

use crate::{
    Failure,
    peer::{LEGACY_VERSION, MODERN_VERSION},
    target::Era,
};

/// The text every call asks to have echoed.
pub(crate) const PAYLOAD: &str = "the quick brown fox jumps over the lazy dog, 64 bytes in a row..";
/// Call ids have ten digits, so that a template is patched in place; every connection counts on from its own start.
const FIRST_ID: u64 = 1_000_000_000;
const IDS_PER_CONNECTION: u64 = 10_000_000;
const ID_DIGITS: usize = 10;
const SAMPLE: usize = 400;

/// A `tools/call` request body in which only the id changes.
#[derive(Clone, Debug)]
pub(crate) struct CallTemplate {
    body: Vec<u8>,
    id_at: usize,
}

impl CallTemplate {
    pub(crate) fn new(era: Era, tool: &str) -> Self {
        let head = r#"{"jsonrpc":"2.0","id":"#;
        let meta = meta(era);
        let comma = if meta.is_empty() { "" } else { "," };
        let body = format!(
            r#"{head}{FIRST_ID},"method":"tools/call","params":{{{meta}{comma}"name":"{tool}","arguments":{{"message":"{PAYLOAD}"}}}}}}"#
        );
        Self { body: body.into_bytes(), id_at: head.len() }
    }

    pub(crate) fn with_id(&self, id: u64) -> Bytes {
        let mut body = self.body.clone();
        self.patch(&mut body, 0, id);
        Bytes::from(body)
    }

    /// Appends the request as one line.
    pub(crate) fn append_line(&self, id: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.body);
        self.patch(out, start, id);
        out.push(b'\n');
    }

    fn patch(&self, bytes: &mut [u8], start: usize, id: u64) {
        let at = start + self.id_at;
        let mut rest = id;
        for digit in bytes[at..at + ID_DIGITS].iter_mut().rev() {
            *digit = b"0123456789"[(rest % 10) as usize];
            rest /= 10;
        }
    }
}

/// The first id of a connection; connections never share ids, so an answer that went astray is noticed.
pub(crate) fn first_id(connection: usize) -> u64 {
    FIRST_ID + connection as u64 * IDS_PER_CONNECTION
}

/// A request other than a call, of the given era.
pub(crate) fn request(era: Era, method: &str, params: &str) -> Bytes {
    let meta = meta(era);
    let comma = if meta.is_empty() || params.is_empty() { "" } else { "," };
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{meta}{comma}{params}}}}}"#))
}

/// The `initialize` request of a legacy client.
pub(crate) fn initialize() -> Bytes {
    let params = format!(
        r#""protocolVersion":"{LEGACY_VERSION}","capabilities":{{}},"clientInfo":{{"name":"overhead","version":"1"}}"#
    );
    request(Era::Legacy, "initialize", &params)
}

/// The notification that ends a legacy handshake.
pub(crate) fn initialized() -> Bytes {
    Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
}

/// Accepts an answer only when it is the echo of this very call.
pub(crate) fn check(id: u64, body: &[u8]) -> Result<(), Failure> {
    let expected = format_id(id);
    let problem = if memmem::find(body, br#""error":"#).is_some() || memmem::find(body, br#""isError":true"#).is_some()
    {
        "is an error"
    } else if memmem::find(body, &expected).is_none() {
        "has another id"
    } else if memmem::find(body, PAYLOAD.as_bytes()).is_none() {
        "does not echo the message"
    } else {
        return Ok(());
    };
    Err(format!("the answer to call {id} {problem}: {}", excerpt(body)).into())
}

/// The beginning of a body, for error texts.
pub(crate) fn excerpt(body: &[u8]) -> String {
    let cut = &body[..body.len().min(SAMPLE)];
    format!("`{}`{}", String::from_utf8_lossy(cut), if cut.len() < body.len() { " …" } else { "" })
}

fn format_id(id: u64) -> [u8; 5 + ID_DIGITS] {
    let mut text = *br#""id":0000000000"#;
    let mut rest = id;
    for digit in text[5..].iter_mut().rev() {
        *digit = b"0123456789"[(rest % 10) as usize];
        rest /= 10;
    }
    text
}

fn meta(era: Era) -> String {
    match era {
        Era::Legacy => String::new(),
        Era::Modern => format!(
            concat!(
                r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{}","#,
                r#""io.modelcontextprotocol/clientCapabilities":{{}},"#,
                r#""io.modelcontextprotocol/clientInfo":{{"name":"overhead","version":"1"}}}}"#
            ),
            MODERN_VERSION
        ),
    }
}
