//! Listing the tools of an installation's server, page by page, by the same way that calls take.

use std::sync::Arc;
use std::time::Duration;

use archestra_core::catalog::Entry;
use archestra_core::credential::{Candidate, CredentialPlan, plan};
use archestra_core::installation::Installation;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::error::{CredentialFault, UpstreamError};
use super::exchange::{Answer, Cancel, Exchange};
use super::pool::Upstreams;
use super::target::Target;
use crate::lifecycle::{Discover, DiscoverError};
use crate::mcp::envelope::{self, Message, Payload};
use crate::mcp::error::code;
use crate::mcp::headers::HeaderParams;
use crate::mcp::version::Era;

/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// More than this is taken for a server that never ends.
const MAX_PAGES: usize = 100;
const MAX_TOOLS: usize = 10_000;

/// How many bytes all pages together may have.
const MAX_LISTING: usize = 32 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    tools: Vec<Value>,
    next_cursor: Option<String>,
}

impl Upstreams {
    /// The definitions of all tools of a server, as it sent them and in its order.
    ///
    /// Tools whose `x-mcp-header` annotations break the protocol's rules are left out, as it demands.
    ///
    /// # Errors
    /// A page cannot be had within 30 seconds, or the list does not end.
    pub async fn list_tools(&self, target: &Arc<Target>, plan: &CredentialPlan) -> Result<Vec<Value>, UpstreamError> {
        let server = target.server();
        let mut tools = Vec::new();
        let mut cursor: Option<String> = None;
        let mut bytes = 0;
        for number in 0..MAX_PAGES {
            let message = self.page(target, plan, number, cursor.as_deref()).await?;
            bytes += message.len();
            if bytes > MAX_LISTING {
                return Err(UpstreamError::protocol(server, "its list of tools is larger than 32 MiB"));
            }
            let Some(page) = read_page(&message, server)? else { return Ok(tools) };
            tools.extend(page.tools.into_iter().filter(|tool| is_usable(server, tool)));
            if tools.len() > MAX_TOOLS {
                return Err(UpstreamError::protocol(server, format!("it lists more than {MAX_TOOLS} tools")));
            }
            match page.next_cursor {
                None => return Ok(tools),
                next if next == cursor => {
                    return Err(UpstreamError::protocol(server, "its list of tools comes back to the same page"));
                }
                next => cursor = next,
            }
        }
        Err(UpstreamError::protocol(server, format!("its list of tools has more than {MAX_PAGES} pages")))
    }

    /// The response that holds one page.
    async fn page(
        &self,
        target: &Arc<Target>,
        plan: &CredentialPlan,
        number: usize,
        cursor: Option<&str>,
    ) -> Result<Bytes, UpstreamError> {
        let server = target.server();
        let params = cursor.map_or_else(|| serde_json::json!({}), |cursor| serde_json::json!({ "cursor": cursor }));
        let message = serde_json::json!({ "jsonrpc": "2.0", "id": number, "method": "tools/list", "params": params });
        let body = Bytes::from(message.to_string());
        let Ok(Message::Request(request)) = envelope::parse(&body) else {
            return Err(UpstreamError::request(server, "its cursor cannot be sent back"));
        };
        let exchange = Exchange {
            body: &body,
            request: &request,
            // In legacy terms every answer comes as messages.
            caller_era: Era::Legacy,
            name: None,
            log_level: None,
            plan,
            principal: None,
            turn: None,
            forwarded: HeaderMap::new(),
            traceparent: None,
            deadline: Instant::now() + PAGE_TIMEOUT,
            cancel: Cancel::ByDropping,
        };
        let answer = Box::pin(self.call(target, exchange)).await?;
        last_message(answer, server).await
    }
}

async fn last_message(answer: Answer, server: &Arc<str>) -> Result<Bytes, UpstreamError> {
    let mut stream = match answer {
        Answer::Message(message) => return Ok(message),
        Answer::Stream(stream) => stream,
        Answer::Body { .. } => return Err(UpstreamError::protocol(server, "its list came in another era's terms")),
    };
    let mut last = None;
    while let Some(message) = stream.next().await {
        last = Some(message?);
    }
    last.ok_or_else(|| UpstreamError::protocol(server, "it closed the stream before its response"))
}

/// What is on a page; nothing if the server has no tools at all.
fn read_page(message: &[u8], server: &Arc<str>) -> Result<Option<Page>, UpstreamError> {
    let Ok(Message::Response(response)) = envelope::parse(message) else {
        return Err(UpstreamError::protocol(server, "its answer to tools/list is no JSON-RPC response"));
    };
    match response.payload {
        Payload::Result(result) => serde_json::from_str(result.raw.as_str())
            .map(Some)
            .map_err(|_| UpstreamError::protocol(server, "its answer to tools/list has no list of tools")),
        // A server without tools need not know the method.
        Payload::Error(error) if error.code == code::METHOD_NOT_FOUND => Ok(None),
        Payload::Error(error) => {
            let text: String = error.message.value.chars().take(200).collect();
            Err(UpstreamError::protocol(server, format!("it answers tools/list with error {}: {text}", error.code)))
        }
    }
}

fn is_usable(server: &Arc<str>, tool: &Value) -> bool {
    let Some(name) = tool.get("name").and_then(Value::as_str) else {
        tracing::warn!(%server, "a tool without a name is left out");
        return false;
    };
    let schema = tool.get("inputSchema").map_or_else(|| "{}".to_owned(), Value::to_string);
    match HeaderParams::compile(&schema) {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(%server, tool = name, %error, "a tool is left out");
            false
        }
    }
}

#[async_trait]
impl Discover for Upstreams {
    async fn discover(&self, entry: &Entry, installation: &Installation) -> Result<Vec<Value>, DiscoverError> {
        let candidate = Candidate {
            installation: installation.id,
            owner: installation.owner,
            secrets: installation.secrets.clone(),
        };
        let plan =
            plan(entry, &candidate).map_err(|error| DiscoverError::Unauthorized { reason: error.to_string() })?;
        let target = Arc::new(Target::new(Arc::new(entry.clone()), Arc::new(installation.clone())));
        self.list_tools(&target, &plan).await.map_err(DiscoverError::from)
    }
}

impl From<UpstreamError> for DiscoverError {
    fn from(error: UpstreamError) -> Self {
        let reason = error.to_string();
        match error {
            UpstreamError::Unauthorized { .. } => Self::Unauthorized { reason },
            UpstreamError::Credential {
                fault: CredentialFault::StoreUnavailable { .. } | CredentialFault::Unreadable { .. },
                ..
            }
            | UpstreamError::Unreachable { .. }
            | UpstreamError::Refused { .. }
            | UpstreamError::Gone { .. }
            | UpstreamError::Cancelled
            | UpstreamError::Stopping => Self::Unreachable { reason },
            UpstreamError::Credential { .. } => Self::Unauthorized { reason },
            UpstreamError::Timeout { .. } => Self::Timeout,
            UpstreamError::Protocol { .. } | UpstreamError::TooLarge { .. } | UpstreamError::Request { .. } => {
                Self::Protocol { reason }
            }
        }
    }
}
