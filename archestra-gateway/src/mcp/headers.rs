//! The headers of modern requests, which mirror the body: checking them, and making them for upstreams.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::envelope::{Params, Request};
use super::error::{ErrorKind, RpcError};
use super::version::{Era, ProtocolVersion, header, meta};

mod params;
mod schema;
#[cfg(test)]
mod tests;
mod value;

pub use params::HeaderParams;
pub use schema::AnnotationError;
pub use value::{decode_value, encode_value};

/// Which part of `params` a method's `Mcp-Name` mirrors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameSource {
    /// `params.name`
    Name,
    /// `params.uri`
    Uri,
    /// `params.taskId`
    TaskId,
}

impl NameSource {
    /// The source for `method`, if its requests have an `Mcp-Name`.
    #[must_use]
    pub fn of(method: &str) -> Option<Self> {
        match method {
            "tools/call" | "prompts/get" => Some(Self::Name),
            "resources/read" => Some(Self::Uri),
            "tasks/get" | "tasks/update" | "tasks/cancel" => Some(Self::TaskId),
            _ => None,
        }
    }

    /// The key in `params`.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Uri => "uri",
            Self::TaskId => "taskId",
        }
    }

    /// The value in `params`.
    #[must_use]
    pub fn value<'p>(self, params: &'p Params<'_>) -> Option<&'p str> {
        let text = match self {
            Self::Name => &params.name,
            Self::Uri => &params.uri,
            Self::TaskId => &params.task_id,
        };
        text.as_ref().map(|text| &*text.value)
    }
}

/// The era a request belongs to: modern if its body says so, or if its header names a modern revision.
#[must_use]
pub fn era_of(headers: &HeaderMap, request: &Request<'_>) -> Era {
    let in_body = request.params.meta.as_ref().is_some_and(|meta| meta.protocol_version.is_some());
    let in_header = || {
        headers
            .get(header::PROTOCOL_VERSION)
            .and_then(|value| value.to_str().ok())
            .and_then(ProtocolVersion::parse)
            .is_some_and(|version| version.era() == Era::Modern)
    };
    if in_body || (request.method != "initialize" && in_header()) { Era::Modern } else { Era::Legacy }
}

/// Checks everything that a modern request must carry beside what its method asks for, `Mcp-Param-*` excepted.
///
/// # Errors
/// The first rule that is broken: `_meta` incomplete, headers missing or different from the body, or a revision
/// that is not served.
pub fn validate_modern(headers: &HeaderMap, request: &Request<'_>) -> Result<ProtocolVersion, RpcError> {
    let requested = required_meta(request)?;
    let version = required(headers, "MCP-Protocol-Version", header::PROTOCOL_VERSION)?;
    if version != requested {
        return Err(mismatch(format!("MCP-Protocol-Version does not match `_meta[\"{}\"]`", meta::PROTOCOL_VERSION)));
    }
    let Some(version) = ProtocolVersion::parse(version).filter(|version| version.era() == Era::Modern) else {
        return Err(RpcError::unsupported_version(requested));
    };
    if required(headers, "Mcp-Method", header::METHOD)? != request.method {
        return Err(mismatch("Mcp-Method does not match `method`"));
    }
    if let Some(source) = NameSource::of(&request.method) {
        validate_name(headers, request, source)?;
    }
    Ok(version)
}

/// The headers that a modern upstream wants with a request, `Mcp-Param-*` excepted; `name` is the rewritten value.
///
/// # Errors
/// `method` cannot be a header value; such a request can be sent to no modern server.
pub fn emit_modern(
    headers: &mut HeaderMap,
    version: ProtocolVersion,
    method: &str,
    name: Option<&str>,
) -> Result<(), RpcError> {
    let method = HeaderValue::from_str(method).map_err(|_| {
        RpcError::new(ErrorKind::InvalidRequest, "`method` contains characters that no header can carry")
    })?;
    headers.insert(HeaderName::from_static(header::PROTOCOL_VERSION), HeaderValue::from_static(version.as_str()));
    headers.insert(HeaderName::from_static(header::METHOD), method);
    match name {
        Some(name) => headers.insert(HeaderName::from_static(header::NAME), encode_value(name)),
        None => headers.remove(header::NAME),
    };
    Ok(())
}

/// The revision in `_meta`, after checking that the other required field is there too.
fn required_meta<'r>(request: &'r Request<'_>) -> Result<&'r str, RpcError> {
    let absent = |key: &str| RpcError::new(ErrorKind::MalformedMeta, format!("`params._meta[\"{key}\"]` is required"));
    let fields = request.params.meta.as_ref().ok_or_else(|| absent(meta::PROTOCOL_VERSION))?;
    let version = fields.protocol_version.as_ref().ok_or_else(|| absent(meta::PROTOCOL_VERSION))?;
    if fields.client_capabilities.is_none() {
        return Err(absent(meta::CLIENT_CAPABILITIES));
    }
    Ok(&version.value)
}

fn validate_name(headers: &HeaderMap, request: &Request<'_>, source: NameSource) -> Result<(), RpcError> {
    let key = source.key();
    let expected = source
        .value(&request.params)
        .ok_or_else(|| RpcError::new(ErrorKind::InvalidParams, format!("`params.{key}` is required")))?;
    let name = required(headers, "Mcp-Name", header::NAME)?;
    let name = decode_value(name).ok_or_else(|| mismatch("Mcp-Name is not valid Base64 of UTF-8"))?;
    if name != expected {
        return Err(mismatch(format!("Mcp-Name does not match `params.{key}`")));
    }
    Ok(())
}

fn required<'h>(headers: &'h HeaderMap, shown: &str, name: &str) -> Result<&'h str, RpcError> {
    single(headers, shown, name)?.ok_or_else(|| mismatch(format!("{shown} is required")))
}

/// The only value of a header. Of several, other readers might choose another one than we.
fn single<'h>(headers: &'h HeaderMap, shown: &str, name: &str) -> Result<Option<&'h str>, RpcError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(mismatch(format!("{shown} appears more than once")));
    }
    match value.to_str() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(mismatch(format!("{shown} contains characters that are not allowed"))),
    }
}

fn mismatch(reason: impl Into<Cow<'static, str>>) -> RpcError {
    RpcError::new(ErrorKind::HeaderMismatch, format!("header mismatch: {}", reason.into()))
}
