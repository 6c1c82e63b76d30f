//! One JSON-RPC message, read in a single pass over borrowed bytes; payloads stay raw.

use std::borrow::Cow;

use super::json::{Cursor, Kind, Raw, ScanError, Span, Text};
pub use super::response::{ErrorHead, Payload, Response, ResultHead};

mod params;
#[cfg(test)]
mod tests;

pub use params::{Meta, Params, Reference};

/// The longest id, in bytes of its JSON text, that is accepted.
pub const MAX_ID_LENGTH: usize = 256;

/// Why a body is not a message that the gateway handles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The body is not UTF-8.
    #[error("the body is not valid UTF-8")]
    NotUtf8,
    /// The body is not JSON, or nests too deeply.
    #[error("{0}")]
    Json(#[from] ScanError),
    /// The body is an array.
    #[error("batches are not supported: send one message per request")]
    Batch,
    /// The body is some other JSON value.
    #[error("the message is not a JSON object")]
    NotAnObject,
    /// `jsonrpc` is absent or different.
    #[error("`jsonrpc` must be \"2.0\"")]
    Version,
    /// `id` has a type or length that is not accepted.
    #[error("`id` must be a string or an integer of at most {MAX_ID_LENGTH} bytes")]
    Id,
    /// `method` is not a string.
    #[error("`method` must be a string")]
    Method,
    /// `error` is not an object with an integer `code`.
    #[error("`error` must be an object with an integer `code` and a string `message`")]
    Error,
    /// Neither request nor notification nor response, or several at once.
    #[error("a message has either `method`, or `id` and `result`, or `error`")]
    Shape,
    /// A key that decides something appears twice: readers would disagree about its value.
    #[error("`{key}` appears more than once")]
    Duplicate {
        /// The key.
        key: &'static str,
    },
    /// A key differs from one that decides something only by case: some readers would take it for that one.
    #[error("a key that differs from `{key}` only by case is refused")]
    Lookalike {
        /// The key it resembles.
        key: &'static str,
    },
    /// `params` is not an object.
    #[error("`params` must be an object")]
    Params,
    /// A parameter has the wrong type.
    #[error("`params.{key}` must be {expected}")]
    Field {
        /// The parameter.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// `_meta` or a protocol field in it has the wrong type.
    #[error("`params._meta` is malformed: `{key}` must be {expected}")]
    Meta {
        /// The key.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// A body that was refused, with the id to answer to where one could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Rejected<'a> {
    /// Why.
    #[source]
    pub error: EnvelopeError,
    /// The id of the refused request.
    pub id: Option<Id<'a>>,
}

/// A request's id: a string or an integer, kept as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id<'a> {
    raw: Raw<'a>,
}

impl<'a> Id<'a> {
    /// Takes a JSON text for an id, if it is a string or an integer of acceptable length.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        Self::from_raw(Raw::parse(text).ok()?)
    }

    pub(crate) fn from_raw(raw: Raw<'a>) -> Option<Self> {
        let acceptable = match raw.kind() {
            Kind::String => true,
            Kind::Number => !raw.as_str().contains(['.', 'e', 'E']),
            Kind::Object | Kind::Array | Kind::True | Kind::False | Kind::Null => false,
        };
        (acceptable && raw.as_str().len() <= MAX_ID_LENGTH).then_some(Self { raw })
    }

    /// The id's JSON text, quotes included.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.raw.as_str()
    }

    /// Where the id stands in the message.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.raw.span()
    }

    /// The id as the small number that the gateway gives to its own requests.
    #[must_use]
    pub fn to_number(&self) -> Option<u64> {
        self.as_str().parse().ok()
    }
}

/// A message that wants an answer.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What the answer must carry.
    pub id: Id<'a>,
    /// The method.
    pub method: Cow<'a, str>,
    /// The parameters; absent and `null` are the same.
    pub params: Params<'a>,
    pub(crate) head: Head,
}

/// A message that wants none.
#[derive(Debug, Clone)]
pub struct Notification<'a> {
    /// The method.
    pub method: Cow<'a, str>,
    /// The parameters; absent and `null` are the same.
    pub params: Params<'a>,
    pub(crate) head: Head,
}

/// Where edits attach that have no member to replace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// The offset after the message's opening brace.
    pub(crate) body: usize,
    /// The range of a `params` that is `null`.
    pub(crate) null_params: Option<Span>,
}

/// What a body turned out to be.
#[derive(Debug, Clone)]
pub enum Message<'a> {
    /// Wants an answer.
    Request(Request<'a>),
    /// Wants none.
    Notification(Notification<'a>),
    /// Answers a request.
    Response(Response<'a>),
}

/// Reads one message.
///
/// # Errors
/// The body is not one acceptable message; the id to answer to is kept where it could be read.
pub fn parse(body: &[u8]) -> Result<Message<'_>, Rejected<'_>> {
    let text = std::str::from_utf8(body).map_err(|_| Rejected { error: EnvelopeError::NotUtf8, id: None })?;
    let mut fields = Fields::default();
    match fields.read(text) {
        Ok(()) => fields.into_message(),
        // Whatever follows a syntax error is guesswork, the id included.
        Err(error) => Err(Rejected { error, id: None }),
    }
}

/// The first thing found wrong that leaves the JSON readable, so that the id can still be found.
#[derive(Debug, Default)]
pub(crate) struct Problem(Option<EnvelopeError>);

impl Problem {
    pub(crate) fn note(&mut self, error: EnvelopeError) {
        self.0.get_or_insert(error);
    }
}

/// The key among `known` that `key` would be taken for by a reader that ignores case.
pub(crate) fn lookalike(key: &str, known: &[&'static str]) -> Option<&'static str> {
    known.iter().copied().find(|known| {
        // U+017F and U+212A fold to letters of ASCII, so lengths in characters are compared.
        key.len() >= known.len()
            && key.len() <= known.len() * 3
            && key.chars().map(fold).eq(known.chars().map(|known| known.to_ascii_lowercase()))
    })
}

const fn fold(letter: char) -> char {
    match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

const KEYS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

#[derive(Debug, Default)]
struct Fields<'a> {
    body: usize,
    jsonrpc: Option<bool>,
    id: Option<Raw<'a>>,
    method: Option<Cow<'a, str>>,
    params: Option<Params<'a>>,
    null_params: Option<Span>,
    result: Option<ResultHead<'a>>,
    error: Option<ErrorHead<'a>>,
    problem: Problem,
}

impl<'a> Fields<'a> {
    fn read(&mut self, text: &'a str) -> Result<(), EnvelopeError> {
        let mut cursor = Cursor::new(text);
        match cursor.kind() {
            Some(Kind::Object) => {}
            other => {
                let error = if other == Some(Kind::Array) { EnvelopeError::Batch } else { EnvelopeError::NotAnObject };
                cursor.skip()?;
                cursor.finish()?;
                return Err(error);
            }
        }
        self.body = cursor.offset() + 1;
        let mut members = cursor.open_object()?;
        while let Some(key) = cursor.next_key(&mut members)? {
            self.member(&mut cursor, &key)?;
        }
        Ok(cursor.finish()?)
    }

    fn member(&mut self, cursor: &mut Cursor<'a>, key: &Text<'a>) -> Result<(), ScanError> {
        match &*key.value {
            "jsonrpc" => {
                let value = cursor.skip()?;
                let right = value.to_text().is_some_and(|version| version.value == "2.0");
                self.once("jsonrpc", |fields| fields.jsonrpc.replace(right).is_some());
            }
            "id" => {
                let value = cursor.skip()?;
                self.once("id", |fields| fields.id.replace(value).is_some());
            }
            "method" => {
                if cursor.kind() == Some(Kind::String) {
                    let method = cursor.text()?.value;
                    self.once("method", |fields| fields.method.replace(method).is_some());
                } else {
                    cursor.skip()?;
                    self.problem.note(EnvelopeError::Method);
                }
            }
            "params" => self.params(cursor)?,
            "result" => {
                let result = ResultHead::read(cursor, &mut self.problem)?;
                self.once("result", |fields| fields.result.replace(result).is_some());
            }
            "error" => {
                let Some(error) = ErrorHead::read(cursor, &mut self.problem)? else { return Ok(()) };
                self.once("error", |fields| fields.error.replace(error).is_some());
            }
            unknown => {
                if let Some(key) = lookalike(unknown, &KEYS) {
                    self.problem.note(EnvelopeError::Lookalike { key });
                }
                cursor.skip()?;
            }
        }
        Ok(())
    }

    fn params(&mut self, cursor: &mut Cursor<'a>) -> Result<(), ScanError> {
        if self.params.is_some() {
            self.problem.note(EnvelopeError::Duplicate { key: "params" });
        }
        match cursor.kind() {
            Some(Kind::Object) => self.params = Some(Params::read(cursor, &mut self.problem)?),
            Some(Kind::Null) => {
                self.null_params = Some(cursor.skip()?.span());
                self.params = Some(Params::default());
            }
            _ => {
                cursor.skip()?;
                self.problem.note(EnvelopeError::Params);
            }
        }
        Ok(())
    }

    fn once(&mut self, key: &'static str, set: impl FnOnce(&mut Self) -> bool) {
        if set(self) {
            self.problem.note(EnvelopeError::Duplicate { key });
        }
    }

    fn into_message(self) -> Result<Message<'a>, Rejected<'a>> {
        let id = self.id.and_then(Id::from_raw);
        let is_call = self.method.is_some();
        let reject = |error| Err(Rejected { error, id: if is_call { id } else { None } });
        if let Some(problem) = self.problem.0 {
            return reject(problem);
        }
        if self.jsonrpc != Some(true) {
            return reject(EnvelopeError::Version);
        }
        let head = Head { body: self.body, null_params: self.null_params };
        match (self.method, self.result, self.error) {
            (Some(method), None, None) => {
                let params = self.params.unwrap_or_default();
                match (self.id, id) {
                    (None, _) => Ok(Message::Notification(Notification { method, params, head })),
                    (Some(_), Some(id)) => Ok(Message::Request(Request { id, method, params, head })),
                    (Some(_), None) => reject(EnvelopeError::Id),
                }
            }
            (None, Some(result), None) => match (self.id, id) {
                (Some(raw), Some(id)) => {
                    Ok(Message::Response(Response::new(Some(id), Some(raw), Payload::Result(result), self.body)))
                }
                (Some(_), None) => reject(EnvelopeError::Id),
                (None, _) => reject(EnvelopeError::Shape),
            },
            (None, None, Some(error)) => {
                if id.is_none() && self.id.is_some_and(|raw| raw.kind() != Kind::Null) {
                    return reject(EnvelopeError::Id);
                }
                Ok(Message::Response(Response::new(id, self.id, Payload::Error(error), self.body)))
            }
            _ => reject(EnvelopeError::Shape),
        }
    }
}
