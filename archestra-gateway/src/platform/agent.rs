//! Agents as the embedding program calls them: their tools, without HTTP and without a token.

use super::Shared;
use crate::mcp::{
    envelope::{self, Message},
    front::{Called, Caller, call},
    version::Era,
};
use crate::upstream::{Answer, Cancel};
use archestra_core::event::Outcome as Recorded;
use archestra_core::identity::{AuthMethod, Caller as Who, Permission, Permissions, Principal, Resource};
use bytes::Bytes;
use futures::StreamExt as _;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// One agent or gateway, called from within the process.
#[derive(Debug, Clone)]
pub struct Agent {
    shared: Arc<Shared>,
    place: Arc<str>,
    principal: Arc<Principal>,
}

/// A tool that an agent has.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AgentTool {
    /// The name to call it by.
    pub name: String,
    /// Its definition, as its server listed it but for the name.
    #[serde(flatten)]
    pub definition: serde_json::Map<String, Value>,
}

/// Why an agent could not call.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// There is no such agent or gateway.
    #[error("there is no agent or gateway `{0}`")]
    Unknown(String),
    /// The request is wrong, or the server answered with a protocol error.
    #[error("{message} ({code})")]
    Protocol {
        /// The JSON-RPC code.
        code: i64,
        /// What is wrong.
        message: String,
    },
    /// The server's answer broke off.
    #[error("{0}")]
    Failed(String),
    /// The answer cannot be read.
    #[error("the server's answer cannot be read")]
    Unreadable,
}

impl Agent {
    pub(super) fn new(shared: Arc<Shared>, place: &str) -> Self {
        let admin = Resource::ALL.iter().map(|resource| Permission(*resource, archestra_core::identity::Action::Admin));
        let principal = Principal {
            caller: Who::Organization,
            name: "embedded".into(),
            teams: Arc::default(),
            permissions: Arc::new(admin.collect::<Permissions>()),
            method: AuthMethod::Embedded,
            idp_token: None,
            consumer: None,
            scopes: None,
            expires_at: None,
        };
        Self { shared, place: place.into(), principal: Arc::new(principal) }
    }

    /// The same agent on behalf of this principal.
    #[must_use]
    pub fn on_behalf_of(mut self, principal: Principal) -> Self {
        self.principal = Arc::new(principal);
        self
    }

    /// Its tools, by name.
    ///
    /// # Errors
    /// [`AgentError::Unknown`].
    pub fn tools(&self) -> Result<Vec<AgentTool>, AgentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            tools: Vec<AgentTool>,
            next_cursor: Option<String>,
        }
        let route = self.route()?;
        let mut tools = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = route.list.page(cursor.as_deref(), Era::Legacy).ok_or(AgentError::Unreadable)?;
            let page: Page = serde_json::from_slice(&page).map_err(|_| AgentError::Unreadable)?;
            tools.extend(page.tools);
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(tools),
            }
        }
    }

    /// Calls a tool and returns its result, `isError` and all. Dropping the future cancels the call.
    ///
    /// # Errors
    /// See [`AgentError`]. A tool that fails is no error here: its result says so.
    pub async fn call(&self, tool: &str, arguments: &Value) -> Result<Value, AgentError> {
        let route = self.route()?;
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments } });
        let body = Bytes::from(message.to_string());
        let Ok(Message::Request(request)) = envelope::parse(&body) else { return Err(AgentError::Unreadable) };
        let caller = Caller {
            principal: &self.principal,
            usage: None,
            consumer: &route,
            session: None,
            address: None,
            era: Era::Legacy,
            headers: &HeaderMap::new(),
            cancel: Cancel::ByDropping,
        };
        let answer = match call(&self.shared, caller, &body, &request).await {
            Called::Rejected(error) => {
                return Err(AgentError::Protocol {
                    code: error.code(Era::Legacy),
                    message: error.message.into_owned(),
                });
            }
            Called::Message(message) => message,
            Called::Answer(Answer::Message(message), log) => {
                log.finish_message(&message);
                message
            }
            Called::Answer(Answer::Stream(mut messages), log) => {
                let mut last = None;
                while let Some(message) = messages.next().await {
                    match message {
                        Ok(message) => last = Some(message),
                        Err(error) => {
                            log.finish(Recorded::Error, Some(&error.to_string()), 0);
                            return Err(AgentError::Failed(error.client_text()));
                        }
                    }
                }
                let last = last.ok_or(AgentError::Unreadable)?;
                log.finish_message(&last);
                last
            }
            Called::Answer(Answer::Body { .. }, _) | Called::Cancelled => return Err(AgentError::Unreadable),
        };
        read(&answer)
    }

    fn route(&self) -> Result<Arc<crate::route::ConsumerRoute>, AgentError> {
        let snapshot = self.shared.routes.load();
        let route = snapshot.consumer(&self.place).filter(|route| route.admits(&self.principal));
        route.map(Arc::clone).ok_or_else(|| AgentError::Unknown(self.place.as_ref().to_owned()))
    }
}

fn read(answer: &[u8]) -> Result<Value, AgentError> {
    #[derive(Deserialize)]
    struct Response {
        result: Option<Value>,
        error: Option<Fault>,
    }
    #[derive(Deserialize)]
    struct Fault {
        code: i64,
        message: String,
    }
    match serde_json::from_slice(answer).map_err(|_| AgentError::Unreadable)? {
        Response { result: Some(result), error: None } => Ok(result),
        Response { error: Some(Fault { code, message }), .. } => Err(AgentError::Protocol { code, message }),
        Response { .. } => Err(AgentError::Unreadable),
    }
}
