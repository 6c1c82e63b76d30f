//! Finds out once which era a process speaks, and initializes it.

mod answer;

use self::answer::{Answer, Verdict, is_modern, judge, read_initialize};
use super::{
    channel::Channel,
    options::MultiplexerOptions,
    shared::{Closed, Shared},
    wire,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// What a modern server is asked for.
const MODERN_VERSION: &str = "2026-07-28";
/// What a legacy server is asked for.
const LEGACY_VERSION: &str = "2025-11-25";
/// Once `server/discover` or `initialize` has answered, how much longer the other one may take.
const SETTLE: Duration = Duration::from_secs(5);

/// Which of the two protocols under the name of MCP a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Era {
    /// 2026-07-28 and later: stateless, with `server/discover`.
    Modern,
    /// 2025-11-25 and before: `initialize`, then a session.
    Legacy,
}

/// What a process said about itself.
#[derive(Debug, Clone)]
pub struct Negotiated {
    /// Its era.
    pub era: Era,
    /// The protocol version that it is spoken to in.
    pub protocol_version: String,
    /// Its name and version; for show only.
    pub server_info: Option<Box<RawValue>>,
    /// Its capabilities.
    pub capabilities: Box<RawValue>,
    /// How it wants to be used.
    pub instructions: Option<String>,
    /// The result of `server/discover` or `initialize` as it came; absent when a modern server only answered with an error.
    pub result: Option<Box<RawValue>>,
}

/// Why a process could not be initialized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// It ended after it was sent `server/discover`. Some old servers do: start it again with the era
    /// [`Legacy`](Era::Legacy).
    #[error("the server process ended when it was asked for its protocol version")]
    DiedWhileProbing,
    /// It ended.
    #[error("the server process ended before it was initialized: {0}")]
    Ended(Closed),
    /// It answered neither `server/discover` nor `initialize`.
    #[error("the server answered neither `server/discover` nor `initialize` within {after:?}")]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// It refused both.
    #[error("the server refused `initialize` with code {code}: {message}")]
    Refused {
        /// The JSON-RPC code.
        code: i64,
        /// What it said, shortened.
        message: String,
    },
}

impl Negotiated {
    /// The answer to a caller's `server/discover`; `id` is JSON text.
    pub(super) fn discover_response(&self, id: &[u8]) -> Bytes {
        match (self.era, &self.result) {
            (Era::Modern, Some(result)) => wire::response(id, result.get()),
            (Era::Modern, None) => {
                let versions = [&self.protocol_version];
                let result = json!({
                    "resultType": "complete", "supportedVersions": versions, "capabilities": {},
                    "ttlMs": 0, "cacheScope": "private",
                });
                wire::response(id, &result.to_string())
            }
            (Era::Legacy, _) => {
                let version = &self.protocol_version;
                let text =
                    format!("there is no method `server/discover`: the server speaks {version}, use `initialize`");
                wire::error_response(id, wire::METHOD_NOT_FOUND, &text)
            }
        }
    }

    /// The answer to a caller's `initialize`; `id` is JSON text.
    pub(super) fn initialize_response(&self, id: &[u8]) -> Bytes {
        if let (Era::Legacy, Some(result)) = (self.era, &self.result) {
            return wire::response(id, result.get());
        }
        let info = self.server_info.as_deref().map_or(r#"{"name":"mcp-server","version":"unknown"}"#, RawValue::get);
        let capabilities = self.capabilities.get();
        let instructions = self.instructions.as_ref().map_or_else(String::new, |instructions| {
            format!(",\"instructions\":{}", serde_json::Value::from(instructions.as_str()))
        });
        let result = format!(
            "{{\"protocolVersion\":\"{LEGACY_VERSION}\",\"capabilities\":{capabilities},\"serverInfo\":{info}{instructions}}}"
        );
        wire::response(id, &result)
    }

    fn announces_tool_changes(&self) -> bool {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase")]
        struct Tools {
            #[serde(default)]
            list_changed: bool,
        }
        #[derive(Deserialize)]
        struct Capabilities {
            #[serde(default)]
            tools: Option<Tools>,
        }
        let capabilities: Option<Capabilities> = serde_json::from_str(self.capabilities.get()).ok();
        capabilities.and_then(|capabilities| capabilities.tools).is_some_and(|tools| tools.list_changed)
    }
}

/// Negotiates over a channel of the multiplexer's own.
pub(super) async fn negotiate(
    shared: &Shared,
    channel: &mut Channel,
    options: &MultiplexerOptions,
) -> Result<Negotiated, NegotiationError> {
    let mut talk = Talk { shared, channel, options, probed: false };
    let outcome = timeout(options.deadline, async {
        if options.era == Some(Era::Legacy) { talk.initialize_first().await } else { talk.discover_first().await }
    })
    .await;
    match outcome {
        Err(_) => Err(NegotiationError::TimedOut { after: options.deadline }),
        Ok(Err(NegotiationError::Ended(Closed::Shutdown))) => Err(NegotiationError::Ended(Closed::Shutdown)),
        Ok(Err(NegotiationError::Ended(_))) if talk.probed && options.era != Some(Era::Legacy) => {
            Err(NegotiationError::DiedWhileProbing)
        }
        Ok(outcome) => outcome,
    }
}

/// Listens to a modern server's announcements that its tools have changed, until it ends.
///
/// A modern server announces only what a subscription asked for. That the tools changed is noted where every line of the
/// process is read; here what arrives is only taken away.
pub(super) async fn follow_tools(negotiated: &Negotiated, channel: &mut Channel, options: &MultiplexerOptions) {
    if negotiated.era == Era::Legacy || !negotiated.announces_tool_changes() {
        return;
    }
    let params = json!({
        "_meta": meta(&negotiated.protocol_version, options),
        "notifications": {"toolsListChanged": true},
    });
    if channel.send(request("listen", "subscriptions/listen", &params)).await.is_err() {
        return;
    }
    while let Some(frame) = channel.recv().await {
        if Answer::read(&frame).is_some() {
            return;
        }
    }
}

/// The negotiation as it goes on.
struct Talk<'a> {
    shared: &'a Shared,
    channel: &'a mut Channel,
    options: &'a MultiplexerOptions,
    /// Whether `server/discover` was sent.
    probed: bool,
}

impl Talk<'_> {
    async fn discover_first(&mut self) -> Result<Negotiated, NegotiationError> {
        self.send_discover(MODERN_VERSION).await?;
        if self.options.era == Some(Era::Modern) {
            let first = self.answer().await?;
            return self.settle_or_initialize(&first).await;
        }
        let probe_timeout = self.options.probe_timeout;
        match timeout(probe_timeout, self.answer()).await {
            Ok(first) => self.settle_or_initialize(&first?).await,
            Err(_) => self.initialize_beside_discover().await,
        }
    }

    async fn settle_or_initialize(&mut self, discovered: &Bytes) -> Result<Negotiated, NegotiationError> {
        match self.settle(discovered).await? {
            Some(negotiated) => Ok(negotiated),
            None => self.initialize().await,
        }
    }

    /// What the hint says; a server that has become modern since refuses `initialize`.
    async fn initialize_first(&mut self) -> Result<Negotiated, NegotiationError> {
        let refused = match self.initialize().await {
            Err(refused @ NegotiationError::Refused { .. }) => refused,
            outcome => return outcome,
        };
        self.send_discover(MODERN_VERSION).await?;
        let answer = self.answer().await?;
        self.settle(&answer).await?.ok_or(refused)
    }

    /// Whether the answer to `server/discover` shows a modern server, which may want to be asked in another version.
    async fn settle(&mut self, answer: &Bytes) -> Result<Option<Negotiated>, NegotiationError> {
        let version = match judge(answer) {
            Verdict::Modern(negotiated) => return Ok(Some(negotiated)),
            Verdict::Legacy => return Ok(None),
            Verdict::OtherVersion(version) => version,
        };
        self.send_discover(&version).await?;
        let answer = self.answer().await?;
        Ok(match judge(&answer) {
            Verdict::Modern(negotiated) => Some(negotiated),
            Verdict::Legacy | Verdict::OtherVersion(_) => None,
        })
    }

    async fn initialize(&mut self) -> Result<Negotiated, NegotiationError> {
        self.send_initialize(LEGACY_VERSION).await?;
        let first = self.answer().await?;
        let other =
            Answer::read(&first).and_then(|answer| answer.other_version(LEGACY_VERSION, |version| !is_modern(version)));
        let Some(other) = other else {
            return self.initialized(&first).await;
        };
        self.send_initialize(&other).await?;
        let second = self.answer().await?;
        self.initialized(&second).await
    }

    async fn initialized(&mut self, answer: &Bytes) -> Result<Negotiated, NegotiationError> {
        let negotiated = read_initialize(answer)?;
        let initialized = Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
        self.send(initialized).await?;
        Ok(negotiated)
    }

    /// `server/discover` is unanswered: the server ignores it, or it is slow to start and will answer both in turn.
    async fn initialize_beside_discover(&mut self) -> Result<Negotiated, NegotiationError> {
        self.send_initialize(LEGACY_VERSION).await?;
        let mut modern: Option<Negotiated> = None;
        let mut refused: Option<NegotiationError> = None;
        loop {
            let answer = if modern.is_some() || refused.is_some() {
                match timeout(SETTLE, self.answer()).await {
                    Ok(answer) => answer?,
                    Err(_) => break,
                }
            } else {
                self.answer().await?
            };
            if Answer::read(&answer).is_some_and(|answer| answer.id.get() == "\"initialize\"") {
                match self.initialized(&answer).await {
                    Err(error @ NegotiationError::Refused { .. }) => refused = Some(error),
                    outcome => return outcome,
                }
            } else {
                match judge(&answer) {
                    Verdict::Modern(negotiated) => modern = Some(negotiated),
                    Verdict::Legacy | Verdict::OtherVersion(_) if refused.is_some() => break,
                    Verdict::Legacy | Verdict::OtherVersion(_) => {}
                }
            }
            if modern.is_some() && refused.is_some() {
                break;
            }
        }
        match (modern, refused) {
            (Some(negotiated), _) => Ok(negotiated),
            (None, Some(refused)) => Err(refused),
            (None, None) => Err(self.ended()),
        }
    }

    async fn send_discover(&mut self, version: &str) -> Result<(), NegotiationError> {
        self.probed = true;
        let params = json!({"_meta": meta(version, self.options)});
        self.send(request("discover", "server/discover", &params)).await
    }

    async fn send_initialize(&self, version: &str) -> Result<(), NegotiationError> {
        let params = json!({
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": client_info(self.options),
        });
        self.send(request("initialize", "initialize", &params)).await
    }

    async fn send(&self, message: Bytes) -> Result<(), NegotiationError> {
        self.channel.send(message).await.map_err(|_| self.ended())
    }

    /// The next answer of the process itself.
    async fn answer(&mut self) -> Result<Bytes, NegotiationError> {
        while let Some(frame) = self.channel.recv().await {
            if self.shared.is_closed() {
                break;
            }
            if Answer::read(&frame).is_some() {
                return Ok(frame);
            }
        }
        Err(self.ended())
    }

    fn ended(&self) -> NegotiationError {
        NegotiationError::Ended(self.shared.closed.borrow().clone().unwrap_or(Closed::ProcessEnded))
    }
}

fn client_info(options: &MultiplexerOptions) -> serde_json::Value {
    json!({"name": options.client_name, "version": options.client_version})
}

fn meta(version: &str, options: &MultiplexerOptions) -> serde_json::Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": client_info(options),
    })
}

fn request(id: &str, method: &str, params: &serde_json::Value) -> Bytes {
    Bytes::from(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string())
}

/// Publishes what was negotiated where the channels look for it.
pub(super) fn publish(shared: &Shared, negotiated: Negotiated) -> Arc<Negotiated> {
    let negotiated = Arc::new(negotiated);
    Arc::clone(shared.negotiated.get_or_init(|| negotiated))
}
