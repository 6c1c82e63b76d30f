//! MCP requests by hand, in either era, so that a test sees exactly what is on the wire.

use crate::{Answer, Api};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

const ACCEPT: (&str, &str) = ("accept", "application/json, text/event-stream");
const JSON: (&str, &str) = ("content-type", "application/json");

/// The endpoint of one gateway or agent.
#[derive(Debug, Clone)]
pub struct Mcp {
    api: Api,
    path: String,
}

impl Mcp {
    /// The endpoint of the gateway or agent of this name.
    pub fn new(api: Api, slug: &str) -> Self {
        Self { api, path: format!("/v1/mcp/{slug}") }
    }

    /// The same endpoint with another token, or none.
    #[must_use]
    pub fn as_token(&self, token: Option<&str>) -> Self {
        Self { api: self.api.as_token(token), path: self.path.clone() }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("{}{}", self.api.url(), self.path)
    }

    /// A modern request (2026-07-28).
    pub async fn modern(&self, method: &str, params: Value) -> Answer {
        let (headers, body) = modern(method, params, 1);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.raw(&headers, body).await
    }

    /// Any POST with exactly this body and these headers, besides `Accept` and `Content-Type`.
    pub async fn raw(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut all = vec![ACCEPT, JSON];
        all.extend_from_slice(headers);
        self.api.raw(Method::POST, &self.path, &all, body.into()).await
    }

    /// A POST without any header of its own.
    pub async fn bare(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.api.raw(Method::POST, &self.path, headers, body.into()).await
    }

    /// A modern tool call; the result of its response, or the whole response when it has none.
    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        let answer = self.modern("tools/call", json!({ "name": tool, "arguments": arguments })).await;
        result(response(&answer))
    }

    /// The names of all tools, as a modern client lists them.
    pub async fn tools(&self) -> Vec<String> {
        let answer = self.modern("tools/list", json!({})).await;
        names(&response(&answer))
    }

    /// Waits until a tool is listed.
    pub async fn until_listed(&self, tool: &str) {
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(120);
        loop {
            let tools = self.tools().await;
            if tools.iter().any(|name| name == tool) {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "{tool} is not listed; listed are {tools:?}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// A modern request, up to the head of its answer.
    ///
    /// # Errors
    /// The server is not there, or takes too long.
    pub async fn open(&self, method: &str, params: Value) -> Result<http::Response<hyper::body::Incoming>, String> {
        let (headers, body) = modern(method, params, 1);
        let mut all = vec![ACCEPT, JSON];
        all.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
        self.api.open(Method::POST, &self.path, &all, body).await
    }

    /// Begins a legacy session.
    pub async fn session(&self) -> Session {
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
        });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
        let answer = self.raw(&[], body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer.headers.get("mcp-session-id").expect("a session id").to_str().unwrap().to_owned();
        let session = Session { mcp: self.clone(), id, initialized: answer.json()["result"].clone() };
        let notified = session.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        assert_eq!(notified.status, 202, "{}", notified.text());
        session
    }
}

/// The headers and the body of a modern request.
pub fn modern(method: &str, mut params: Value, id: u64) -> (Vec<(&'static str, String)>, Bytes) {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({ "name": "test", "version": "1" });
    let mut headers = vec![("mcp-protocol-version", "2026-07-28".to_owned()), ("mcp-method", method.to_owned())];
    if let Some(name) = params["name"].as_str() {
        headers.push(("mcp-name", name.to_owned()));
    }
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    (headers, Bytes::from(body.to_string()))
}

/// A legacy session.
#[derive(Debug, Clone)]
pub struct Session {
    mcp: Mcp,
    /// Its id.
    pub id: String,
    /// What `initialize` answered.
    pub initialized: Value,
}

impl Session {
    /// Sends one message.
    pub async fn post(&self, message: &Value) -> Answer {
        let headers = [("mcp-session-id", self.id.as_str()), ("mcp-protocol-version", "2025-11-25")];
        self.mcp.raw(&headers, message.to_string()).await
    }

    /// A request.
    pub async fn request(&self, id: u64, method: &str, params: Value) -> Answer {
        self.post(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await
    }

    /// A tool call; the result of its response, or the whole response when it has none.
    pub async fn call(&self, id: u64, tool: &str, arguments: Value) -> Value {
        let answer = self.request(id, "tools/call", json!({ "name": tool, "arguments": arguments })).await;
        result(response(&answer))
    }

    /// The names of all tools.
    pub async fn tools(&self) -> Vec<String> {
        names(&response(&self.request(1, "tools/list", json!({})).await))
    }

    /// The endpoint.
    pub const fn endpoint(&self) -> &Mcp {
        &self.mcp
    }
}

fn result(mut response: Value) -> Value {
    response.get_mut("result").map(Value::take).unwrap_or(response)
}

/// The JSON-RPC response in an answer, be it JSON or an event stream.
pub fn response(answer: &Answer) -> Value {
    messages(answer).pop().unwrap_or_else(|| panic!("{} {}", answer.status, answer.text()))
}

/// All JSON-RPC messages in an answer, be it JSON or an event stream.
pub fn messages(answer: &Answer) -> Vec<Value> {
    let kind = answer.headers.get("content-type").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    if !kind.starts_with("text/event-stream") {
        return serde_json::from_slice(&answer.body).into_iter().collect();
    }
    answer.text().lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?.trim()).ok()).collect()
}

fn names(listed: &Value) -> Vec<String> {
    let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("no tools in {listed}"));
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

/// The text of a tool result.
pub fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {result}"))
}
