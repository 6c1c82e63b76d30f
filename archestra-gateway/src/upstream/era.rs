//! Which era a server speaks: asked once, the modern way first.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;

use super::error::UpstreamError;
use super::headers::CredentialHeaders;
use super::http::refusal::Refusal;
use super::http::{Http, Outcome, request_headers};
use super::mapping::{CLIENT_INFO, NO_CAPABILITIES};
use super::target::Endpoint;
use crate::mcp::envelope::{self, Message, Payload};
use crate::mcp::error::code;
use crate::mcp::headers::emit_modern;
use crate::mcp::version::{Era, ProtocolVersion, meta};

/// What is known of the server behind an endpoint.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) era: Era,
    /// Of which generation of the endpoint.
    pub(super) generation: u64,
    /// When it was found out.
    pub(super) since: Instant,
    /// Whether the server tells when its tools change; for legacy servers each session says so.
    pub(super) tells_changes: bool,
    /// Whether somebody listens for that.
    pub(super) listening: AtomicBool,
}

impl Known {
    fn new(verdict: Verdict, generation: u64) -> Self {
        Self {
            era: verdict.era,
            generation,
            since: Instant::now(),
            tells_changes: verdict.tells_changes,
            listening: AtomicBool::new(false),
        }
    }
}

/// What one message says about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) era: Era,
    pub(super) tells_changes: bool,
}

const LEGACY: Verdict = Verdict { era: Era::Legacy, tells_changes: false };
const MODERN: Verdict = Verdict { era: Era::Modern, tells_changes: false };

/// The `server/discover` that finds out; `id` is JSON text.
pub(super) fn discover_message(id: impl fmt::Display) -> Bytes {
    modern_message(id, "server/discover", "")
}

/// A modern request of our own; `params` are further members, each followed by a comma.
pub(super) fn modern_message(id: impl fmt::Display, method: &str, params: &str) -> Bytes {
    let (version, version_key) = (ProtocolVersion::LATEST, meta::PROTOCOL_VERSION);
    let (info_key, capabilities_key) = (meta::CLIENT_INFO, meta::CLIENT_CAPABILITIES);
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}"_meta":{{"{version_key}":"{version}","{info_key}":{CLIENT_INFO},"{capabilities_key}":{NO_CAPABILITIES}}}}}}}"#
    ))
}

/// Asks the server at `endpoint`.
pub(super) async fn probe(
    http: &Http,
    endpoint: &Endpoint,
    credential: &CredentialHeaders,
    server: &Arc<str>,
) -> Result<Known, UpstreamError> {
    let deadline = Instant::now() + http.options.probe_timeout;
    let mut headers = request_headers(endpoint, credential, &HeaderMap::new(), None);
    emit_modern(&mut headers, ProtocolVersion::LATEST, "server/discover", None)
        .map_err(|error| UpstreamError::request(server, error.to_string()))?;
    let reply = http.ask(endpoint, headers, discover_message(0), deadline).await;
    let reply = reply.map_err(|error| UpstreamError::from_http(server, &error))?;
    let verdict = match reply.outcome {
        Outcome::Message(message) => judge(&message),
        Outcome::Refused(refusal) => judge_refusal(&refusal, server)?,
    };
    tracing::debug!(%server, era = ?verdict.era, "the era of an upstream server is known");
    Ok(Known::new(verdict, endpoint.generation))
}

/// What the answer to `server/discover` says.
pub(super) fn judge(message: &[u8]) -> Verdict {
    let Ok(Message::Response(response)) = envelope::parse(message) else { return LEGACY };
    match response.payload {
        Payload::Result(result) => {
            let Ok(discovered) = serde_json::from_str::<Discovered>(result.raw.as_str()) else { return LEGACY };
            if !speaks_ours(&discovered.supported_versions) {
                return LEGACY;
            }
            Verdict { era: Era::Modern, tells_changes: discovered.capabilities.tells_changes() }
        }
        Payload::Error(error) => match error.code {
            code::HEADER_MISMATCH | code::MISSING_CLIENT_CAPABILITY => MODERN,
            code::UNSUPPORTED_PROTOCOL_VERSION => {
                let data = error.data.and_then(|data| serde_json::from_str::<Unsupported>(data.as_str()).ok());
                if data.is_some_and(|data| speaks_ours(&data.supported)) { MODERN } else { LEGACY }
            }
            _ => LEGACY,
        },
    }
}

fn judge_refusal(refusal: &Refusal, server: &Arc<str>) -> Result<Verdict, UpstreamError> {
    if refusal.is_unauthorized() {
        return Err(refusal.to_error(server));
    }
    if refusal.rpc_fault().is_some() {
        return Ok(refusal.json.as_deref().map_or(LEGACY, judge));
    }
    match refusal.status {
        // Of these `initialize` will tell more.
        StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR | StatusCode::NOT_IMPLEMENTED => Ok(LEGACY),
        StatusCode::TOO_MANY_REQUESTS => Err(refusal.to_error(server)),
        status if status.is_client_error() || (status.is_success() && status != StatusCode::OK) => Ok(LEGACY),
        _ => Err(refusal.to_error(server)),
    }
}

fn speaks_ours(supported: &[String]) -> bool {
    supported.iter().any(|name| ProtocolVersion::parse(name).is_some_and(|version| version.era() == Era::Modern))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered {
    supported_versions: Vec<String>,
    #[serde(default)]
    capabilities: Capabilities,
}

#[derive(Deserialize)]
struct Unsupported {
    supported: Vec<String>,
}

/// What a server says it can do, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Capabilities {
    tools: Option<ToolsCapability>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolsCapability {
    #[serde(default)]
    list_changed: bool,
}

impl Capabilities {
    pub(super) fn tells_changes(&self) -> bool {
        self.tools.as_ref().is_some_and(|tools| tools.list_changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(message: &str) -> Verdict {
        judge(message.as_bytes())
    }

    #[test]
    fn only_what_names_a_modern_revision_is_modern() {
        let tells = r#"{"jsonrpc":"2.0","id":0,"result":{"supportedVersions":["2025-11-25","2026-07-28"],"capabilities":{"tools":{"listChanged":true}}}}"#;
        assert_eq!(verdict(tells), Verdict { era: Era::Modern, tells_changes: true });
        let other =
            r#"{"jsonrpc":"2.0","id":0,"result":{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}}"#;
        assert_eq!(verdict(other), MODERN);
        for legacy in [
            r#"{"jsonrpc":"2.0","id":0,"result":{"supportedVersions":["2031-01-01"]}}"#,
            r#"{"jsonrpc":"2.0","id":0,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"no such method"}}"#,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: Server not initialized"}}"#,
            r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32022,"message":"x","data":{"supported":["2025-11-25"]}}}"#,
            "<html>",
        ] {
            assert_eq!(verdict(legacy), LEGACY, "{legacy}");
        }
        for modern in [
            r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32020,"message":"x"}}"#,
            r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32022,"message":"x","data":{"supported":["2026-07-28"]}}}"#,
        ] {
            assert_eq!(verdict(modern), MODERN, "{modern}");
        }
    }

    #[test]
    fn our_own_messages_are_valid() {
        let message = modern_message(7, "tools/list", r#""cursor":"x","#);
        let Ok(Message::Request(request)) = envelope::parse(&message) else { panic!("{message:?}") };
        assert_eq!(request.params.cursor.unwrap().value, "x");
        assert_eq!(request.params.meta.unwrap().protocol_version.unwrap().value, "2026-07-28");
    }
}
