//! Bodies on their way in: size, media type, strict JSON and YAML, and decoding with errors that name the field and echo nothing.

mod read;

use super::Problem;
use archestra_core::Finding;
use axum::{
    body::Bytes,
    extract::{FromRequest, OptionalFromRequest, Request},
};
use http::header;
use http_body::Body as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;

/// The greatest body that the control plane takes.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

/// How long a client may take to send its body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// In which notation a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// YAML, of which JSON is a part.
    Yaml,
}

/// A body that was read as JSON or YAML, before it is known what it should hold. No key is in an object twice.
#[derive(Debug, Clone)]
pub(crate) struct Document(pub(crate) Value);

impl Document {
    /// The value as its type.
    pub(crate) fn decode<T: DeserializeOwned>(self) -> Result<T, Problem> {
        decode(self.0).map_err(|finding| Problem::invalid(vec![finding]))
    }

    /// The value as its type, without the keys that only answers carry; and the version it was made for, if it names one.
    pub(crate) fn decode_write<T: DeserializeOwned>(self, answer_only: &[&str]) -> Result<(T, Option<u64>), Problem> {
        let mut object = self.into_object()?;
        let version = take_version(&mut object)?;
        for key in ANSWER_ONLY.iter().chain(answer_only) {
            object.remove(*key);
        }
        Ok((Self(Value::Object(object)).decode()?, version))
    }

    /// The keys and values, for those who take some out before the rest is decoded.
    pub(crate) fn into_object(self) -> Result<Map<String, Value>, Problem> {
        match self.0 {
            Value::Object(map) => Ok(map),
            _ => Err(Problem::finding("", "the body is not an object", "send `{…}`")),
        }
    }
}

/// What every answer carries and no request can change: an answer, edited, can be sent back.
pub(crate) const ANSWER_ONLY: &[&str] = &["id", "createdAt", "updatedAt", "applySet", "author"];

/// Takes `resourceVersion` out.
pub(crate) fn take_version(object: &mut Map<String, Value>) -> Result<Option<u64>, Problem> {
    match object.remove("resourceVersion") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| Problem::finding("resourceVersion", "not a version", "send the number that you read")),
    }
}

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let format = match request.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default()) {
            Some(text) => media_format(text).ok_or_else(|| Problem::media_type("application/json"))?,
            None => return Err(Problem::media_type("application/json")),
        };
        let read = tokio::time::timeout(READ_TIMEOUT, Bytes::from_request(request, state)).await;
        let bytes =
            read.map_err(|_| Problem::slow(READ_TIMEOUT))?.map_err(|rejection| match rejection.status().as_u16() {
                413 => Problem::too_large(MAX_BODY),
                _ => Problem::malformed("the body ended early; send it again"),
            })?;
        parse(&bytes, format).map(Self)
    }
}

impl<S: Send + Sync> OptionalFromRequest<S> for Document {
    type Rejection = Problem;

    /// No body at all is no document.
    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        if !request.headers().contains_key(header::CONTENT_TYPE) && request.body().is_end_stream() {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

fn media_format(content_type: &str) -> Option<Format> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Some(Format::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Some(Format::Yaml),
        other if other.ends_with("+json") => Some(Format::Json),
        other if other.ends_with("+yaml") => Some(Format::Yaml),
        _ => None,
    }
}

/// Reads a document without looking at what it means.
///
/// # Errors
/// A 400 that names line and column, and repeats nothing of the document.
pub(crate) fn parse(bytes: &[u8], format: Format) -> Result<Value, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::malformed("the body is empty; send a document"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Problem::malformed("the body is not UTF-8; send it as UTF-8"));
    };
    match format {
        Format::Json => read::json(text).map_err(|error| {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            Problem::malformed(format!("not JSON at line {}, column {}: {message}", error.line(), error.column()))
        }),
        Format::Yaml => read::yaml(text).map_err(|error| {
            let at = error
                .location()
                .map(|at| format!(" at line {}, column {}", at.line(), at.column()))
                .unwrap_or_default();
            let message = error.without_snippet().to_string();
            let message = message.lines().next().unwrap_or_default();
            Problem::malformed(format!("not YAML{at}: {message}"))
        }),
    }
}

/// Decodes a value; what is wrong is a finding at its path.
pub(crate) fn decode<T: DeserializeOwned>(value: Value) -> Result<T, Finding> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        explain(path, &error.into_inner().to_string())
    })
}

/// Turns serde's words into a finding that holds no value of the document.
fn explain(path: String, message: &str) -> Finding {
    let expected = |text: &str| text.rsplit_once(", expected ").map(|(_, expected)| expected.to_owned());
    if message.starts_with("data did not match any variant") {
        return Finding::new(path, "the value has none of the forms that this field takes", "see /api/v1/openapi.json");
    }
    for (start, what) in
        [("invalid type: ", "the value has the wrong type"), ("invalid value: ", "the value does not fit")]
    {
        if let Some(rest) = message.strip_prefix(start) {
            let remedy = expected(rest).map_or_else(|| "correct it".to_owned(), |expected| format!("use {expected}"));
            let seen = rest.split([' ', ',']).next().unwrap_or_default();
            let seen = if matches!(seen, "string" | "integer" | "floating" | "boolean" | "map" | "sequence" | "null") {
                format!(" ({seen})")
            } else {
                String::new()
            };
            return Finding::new(path, format!("{what}{seen}"), remedy);
        }
    }
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let name = rest.split(',').next().unwrap_or_default().trim_matches('`');
        let remedy =
            expected(rest).map_or_else(|| "remove it".to_owned(), |expected| format!("remove it, or use {expected}"));
        return Finding::new(path, format!("unknown field `{name}`"), remedy);
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return Finding::new(path, format!("the field {rest} is missing"), "add it");
    }
    match message.split_once(", expected ") {
        Some((reason, expected)) => Finding::new(path, reason, format!("use {expected}")),
        None => Finding::new(path, message, ""),
    }
}
