//! JSON-RPC responses: where their parts stand, and their translation between the eras.

use super::envelope::{EnvelopeError, Id, Problem};
use super::json::{Cursor, Kind, Raw, ScanError, Span, Text};
use super::splice::Cuts;

#[cfg(test)]
mod tests;
mod translate;

pub use translate::{Asked, reidentify, to_legacy, to_modern};

/// A message that answers a request.
#[derive(Debug, Clone)]
pub struct Response<'a> {
    /// Which request; nothing if it says `null` or, in an error, nothing at all.
    pub id: Option<Id<'a>>,
    /// The answer.
    pub payload: Payload<'a>,
    id_raw: Option<Raw<'a>>,
    body: usize,
}

/// The answer.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "boxing the usual variant would allocate for every answer")]
pub enum Payload<'a> {
    /// The request was served.
    Result(ResultHead<'a>),
    /// It was not.
    Error(ErrorHead<'a>),
}

/// The looked-at members of a `result`.
#[derive(Debug, Clone)]
pub struct ResultHead<'a> {
    /// The whole value.
    pub raw: Raw<'a>,
    /// `resultType`; only modern results have one.
    pub result_type: Option<Text<'a>>,
    /// Whether `isError` is `true`.
    pub is_error: bool,
    /// `requestState` of a result that asks for input.
    pub request_state: Option<Text<'a>>,
    /// `inputRequests` of a result that asks for input.
    pub input_requests: Option<Raw<'a>>,
    /// `taskId` of a task.
    pub task_id: Option<Text<'a>>,
    /// `ttlMs`.
    pub ttl_ms: Option<Raw<'a>>,
    /// `cacheScope`.
    pub cache_scope: Option<Raw<'a>>,
    /// A `resultType` that is no string.
    odd_type: Option<Span>,
    modern_members: [Option<Span>; 4],
}

/// The parts of an `error`.
#[derive(Debug, Clone)]
pub struct ErrorHead<'a> {
    /// The whole object.
    pub raw: Raw<'a>,
    /// The code.
    pub code: i64,
    /// The message.
    pub message: Text<'a>,
    /// Details.
    pub data: Option<Raw<'a>>,
    code_span: Span,
}

impl<'a> Response<'a> {
    pub(crate) const fn new(id: Option<Id<'a>>, id_raw: Option<Raw<'a>>, payload: Payload<'a>, body: usize) -> Self {
        Self { id, payload, id_raw, body }
    }
}

const SINGLE: [&str; 7] = ["resultType", "isError", "requestState", "inputRequests", "taskId", "ttlMs", "cacheScope"];

impl<'a> ResultHead<'a> {
    pub(crate) fn read(cursor: &mut Cursor<'a>, problem: &mut Problem) -> Result<Self, ScanError> {
        let mut head = Self {
            raw: Raw::NULL,
            result_type: None,
            is_error: false,
            request_state: None,
            input_requests: None,
            task_id: None,
            ttl_ms: None,
            cache_scope: None,
            odd_type: None,
            modern_members: [None; 4],
        };
        if cursor.kind() != Some(Kind::Object) {
            head.raw = cursor.skip()?;
            return Ok(head);
        }
        let whole = cursor.clone();
        let mut members = cursor.open_object()?;
        let mut met = [false; SINGLE.len()];
        let mut cuts = Cuts::default();
        let mut spans = head.modern_members.iter_mut();
        let mut cut = |span: Option<Span>| {
            if let (Some(span), Some(slot)) = (span, span.and_then(|_| spans.next())) {
                *slot = Some(span);
            }
        };
        while let Some(key) = cursor.next_key(&mut members)? {
            let value = cursor.skip()?;
            if let Some(at) = SINGLE.iter().position(|single| *single == key.value) {
                if met[at] {
                    problem.note(EnvelopeError::Duplicate { key: SINGLE[at] });
                    continue;
                }
                met[at] = true;
            }
            let member = Span::new(key.span.start, value.span().end);
            match &*key.value {
                "resultType" => {
                    head.result_type = value.to_text();
                    head.odd_type = head.result_type.is_none().then(|| value.span());
                }
                "isError" => head.is_error = value.kind() == Kind::True,
                "requestState" => head.request_state = value.to_text(),
                "inputRequests" => head.input_requests = Some(value),
                "taskId" => head.task_id = value.to_text(),
                "ttlMs" => head.ttl_ms = Some(value),
                "cacheScope" => head.cache_scope = Some(value),
                _ => {}
            }
            cut(match &*key.value {
                "resultType" | "ttlMs" | "cacheScope" => cuts.drop_member(member),
                _ => cuts.keep_member(member),
            });
        }
        cut(cuts.finish());
        head.raw = whole.until(cursor);
        Ok(head)
    }

    /// Whether the result asks the caller for input before the request can be served.
    #[must_use]
    pub fn is_input_required(&self) -> bool {
        self.result_type.as_ref().is_some_and(|kind| kind.value == "input_required")
    }
}

impl<'a> ErrorHead<'a> {
    /// Reads an `error`; `null` counts as absent.
    pub(crate) fn read(cursor: &mut Cursor<'a>, problem: &mut Problem) -> Result<Option<Self>, ScanError> {
        let raw = cursor.skip()?;
        match raw.kind() {
            Kind::Null => return Ok(None),
            Kind::Object => {}
            _ => {
                problem.note(EnvelopeError::Error);
                return Ok(None);
            }
        }
        let mut inner = raw.cursor();
        let mut members = inner.open_object()?;
        let (mut code, mut message, mut data) = (None, None, None);
        while let Some(key) = inner.next_key(&mut members)? {
            let value = inner.skip()?;
            let twice = match &*key.value {
                "code" => code.replace(value).map(|_| "code"),
                "message" => message.replace(value).map(|_| "message"),
                "data" => data.replace(value).map(|_| "data"),
                _ => None,
            };
            if let Some(key) = twice {
                problem.note(EnvelopeError::Duplicate { key });
            }
        }
        let number = code.and_then(|code| Some((code.as_str().parse().ok()?, code.span())));
        let (Some((code, code_span)), Some(message)) = (number, message.and_then(|message| message.to_text())) else {
            problem.note(EnvelopeError::Error);
            return Ok(None);
        };
        Ok(Some(Self { raw, code, message, data, code_span }))
    }
}
