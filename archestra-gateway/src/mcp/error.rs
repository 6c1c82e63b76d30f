//! JSON-RPC errors: codes, the HTTP status each has in either era, and their rendering.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use super::envelope::{EnvelopeError, Id};
use super::json::{ScanError, write_quoted};
use super::version::{Era, ProtocolVersion};

#[cfg(test)]
mod tests;

/// The numbers.
pub mod code {
    /// The body is not JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// The JSON is no valid message.
    pub const INVALID_REQUEST: i64 = -32600;
    /// Nothing serves this method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The parameters are wrong; in the modern era also: the resource does not exist.
    pub const INVALID_PARAMS: i64 = -32602;
    /// Our fault, or the upstream's.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// Legacy only: the resource does not exist.
    pub const RESOURCE_NOT_FOUND: i64 = -32002;
    /// Legacy only (2025-11-25): the user has to visit a URL first.
    pub const URL_ELICITATION_REQUIRED: i64 = -32042;
    /// Modern only: headers and body disagree.
    pub const HEADER_MISMATCH: i64 = -32020;
    /// Modern only: the client lacks a capability that the request needs.
    pub const MISSING_CLIENT_CAPABILITY: i64 = -32021;
    /// Modern only: the revision is not served.
    pub const UNSUPPORTED_PROTOCOL_VERSION: i64 = -32022;
    /// Our own: the caller has too much under way. Both eras leave numbers outside -32768..=-32000 to us.
    pub const TOO_MANY_REQUESTS: i64 = 429;
}

/// What went wrong, in terms that both eras can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The body is not JSON.
    Parse,
    /// The JSON is no valid message.
    InvalidRequest,
    /// Nothing serves this method.
    MethodNotFound,
    /// The parameters are wrong.
    InvalidParams,
    /// The protocol fields of `_meta` are missing or wrong.
    MalformedMeta,
    /// The resource does not exist.
    ResourceNotFound,
    /// Our fault, or the upstream's.
    Internal,
    /// Headers and body disagree.
    HeaderMismatch,
    /// The client lacks a capability that the request needs.
    MissingClientCapability,
    /// The revision is not served.
    UnsupportedVersion,
    /// The user has to visit a URL first.
    UrlElicitationRequired,
    /// The caller has too much under way.
    TooManyRequests,
    /// A code of our own or of an upstream, outside the ones above.
    Other(i64),
}

impl ErrorKind {
    /// The JSON-RPC code that says this in `era`.
    #[must_use]
    pub const fn code(self, era: Era) -> i64 {
        match (self, era) {
            (Self::Parse, _) => code::PARSE_ERROR,
            (Self::InvalidRequest, _) => code::INVALID_REQUEST,
            (Self::MethodNotFound, _) => code::METHOD_NOT_FOUND,
            (Self::InvalidParams | Self::MalformedMeta, _) | (Self::ResourceNotFound, Era::Modern) => {
                code::INVALID_PARAMS
            }
            (Self::ResourceNotFound, Era::Legacy) => code::RESOURCE_NOT_FOUND,
            (Self::UrlElicitationRequired, Era::Legacy) => code::URL_ELICITATION_REQUIRED,
            (Self::Internal, _) | (Self::UrlElicitationRequired, Era::Modern) => code::INTERNAL_ERROR,
            (Self::HeaderMismatch, Era::Modern) => code::HEADER_MISMATCH,
            (Self::MissingClientCapability, Era::Modern) => code::MISSING_CLIENT_CAPABILITY,
            (Self::UnsupportedVersion, Era::Modern) => code::UNSUPPORTED_PROTOCOL_VERSION,
            // The modern numbers would mean nothing to a legacy client.
            (Self::HeaderMismatch | Self::MissingClientCapability | Self::UnsupportedVersion, Era::Legacy) => {
                code::INVALID_REQUEST
            }
            (Self::TooManyRequests, _) => code::TOO_MANY_REQUESTS,
            (Self::Other(code), _) => code,
        }
    }

    /// The HTTP status of an answer whose only content is this error.
    #[must_use]
    pub const fn http_status(self, era: Era) -> StatusCode {
        match (self, era) {
            (Self::Parse | Self::InvalidRequest | Self::HeaderMismatch | Self::UnsupportedVersion, _)
            | (Self::MalformedMeta | Self::MissingClientCapability, Era::Modern) => StatusCode::BAD_REQUEST,
            (Self::MethodNotFound, Era::Modern) => StatusCode::NOT_FOUND,
            (Self::TooManyRequests, _) => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::OK,
        }
    }
}

/// A JSON-RPC error that the gateway itself answers with.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The sentence for the client.
    pub message: Cow<'static, str>,
    /// Structured details.
    pub data: Option<Box<RawValue>>,
}

impl RpcError {
    /// An error without details.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), data: None }
    }

    /// The same error with details; details that cannot be written as JSON are left out.
    #[must_use]
    pub fn with_data<T: Serialize + ?Sized>(mut self, data: &T) -> Self {
        self.data = serde_json::value::to_raw_value(data).ok();
        self
    }

    /// The answer to a modern request whose revision is not served.
    #[must_use]
    pub fn unsupported_version(requested: &str) -> Self {
        let supported: Vec<&str> = ProtocolVersion::of_era(Era::Modern).map(ProtocolVersion::as_str).collect();
        Self::new(
            ErrorKind::UnsupportedVersion,
            format!("unsupported protocol version; supported: {}", supported.join(", ")),
        )
        .with_data(&serde_json::json!({ "supported": supported, "requested": requested }))
    }

    /// The answer to a modern request that needs capabilities its client did not declare.
    #[must_use]
    pub fn missing_capability(required: &serde_json::Value) -> Self {
        Self::new(ErrorKind::MissingClientCapability, "the request needs client capabilities that were not declared")
            .with_data(&serde_json::json!({ "requiredCapabilities": required }))
    }

    /// The JSON-RPC code in `era`.
    #[must_use]
    pub const fn code(&self, era: Era) -> i64 {
        self.kind.code(era)
    }

    /// The HTTP status in `era`.
    #[must_use]
    pub const fn http_status(&self, era: Era) -> StatusCode {
        self.kind.http_status(era)
    }

    /// The whole response message; without an id it says `null`.
    #[must_use]
    pub fn render(&self, id: Option<Id<'_>>, era: Era) -> Bytes {
        let id = id.map_or("null", |id| id.as_str());
        let mut out = BytesMut::with_capacity(96 + id.len() + self.message.len());
        out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        out.put_slice(id.as_bytes());
        out.put_slice(b",\"error\":{\"code\":");
        out.put_slice(self.code(era).to_string().as_bytes());
        out.put_slice(b",\"message\":");
        write_quoted(&mut out, &self.message);
        if let Some(data) = &self.data {
            out.put_slice(b",\"data\":");
            out.put_slice(data.get().as_bytes());
        }
        out.put_slice(b"}}");
        out.freeze()
    }
}

impl From<&EnvelopeError> for RpcError {
    fn from(error: &EnvelopeError) -> Self {
        let kind = match error {
            EnvelopeError::NotUtf8 | EnvelopeError::Json(ScanError::Syntax { .. } | ScanError::Surrogate { .. }) => {
                ErrorKind::Parse
            }
            EnvelopeError::Field { .. } | EnvelopeError::Params => ErrorKind::InvalidParams,
            EnvelopeError::Meta { .. } => ErrorKind::MalformedMeta,
            _ => ErrorKind::InvalidRequest,
        };
        Self::new(kind, error.to_string())
    }
}
