//! A remote server that tells what it was sent as credentials.

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// What its installations give as credential, in `Authorization`, as an entry says it.
fn credential() -> Value {
    json!({"name": "token", "header": "Authorization", "prefix": "Bearer ", "secret": true, "required": true})
}

/// A remote server at any path, whose tool `echo` tells the path and the credentials (`Authorization`, and `x-key` if it was
/// sent), and which remembers the former. Dropped, it is gone.
#[derive(Debug)]
pub struct Upstream {
    /// Its endpoint; it serves whatever is below as well.
    pub url: String,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(request, &noted));
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
        });
        Self { url, seen, task }
    }

    /// The credentials since this was last asked.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// What makes it an entry, installed as `installation` says, behind the gateway `all`.
    pub fn document(&self, installation: &Value) -> Value {
        json!({
            "apiVersion": "archestra.dev/v1",
            "teams": [{"name": "finance", "members": ["admin@localhost"]}],
            "entries": [{"name": "tracker", "remote": {"url": self.url}, "credential": {"static": [credential()]}}],
            "installations": [installation],
            "gateways": [{"slug": "all", "scope": "organization",
                "tools": [{"entry": "tracker", "tool": "*", "credential": "resolveAtCallTime"}]}],
        })
    }

    /// What makes it as many servers as there are tokens, each installed with its own, behind a gateway.
    pub fn servers(&self, gateway: &str, tokens: &BTreeMap<String, String>) -> Value {
        let entries = tokens.keys().map(|name| {
            let url = format!("{}/{name}", self.url);
            json!({"name": name, "remote": {"url": url}, "credential": {"static": [credential()]}})
        });
        let installations = tokens
            .iter()
            .map(|(name, token)| json!({"entry": name, "scope": "organization", "values": {"token": token}}));
        let tools = tokens.keys().map(|name| json!({"entry": name, "tool": "*", "credential": "resolveAtCallTime"}));
        json!({
            "apiVersion": "archestra.dev/v1",
            "entries": entries.collect::<Vec<_>>(),
            "installations": installations.collect::<Vec<_>>(),
            "gateways": [{"slug": gateway, "scope": "organization", "tools": tools.collect::<Vec<_>>()}],
        })
    }

    /// An entry of the server `name`, which has a key of its own, and whose installations give a token; the gateway that
    /// [`gateway`] makes has it once it is installed.
    pub fn keyed(&self, name: &str) -> Value {
        let key = json!({"name": "key", "header": "x-key", "secret": true, "value": key(name)});
        json!({
            "name": name, "scope": "organization", "labels": {"kind": LABELLED},
            "remote": {"url": format!("{}/{name}", self.url)}, "credential": {"static": [credential(), key]},
        })
    }

    /// What its tool tells who calls it with what [`keyed`](Self::keyed) and [`token`] say.
    pub fn told(name: &str) -> String {
        format!("/mcp/{name} Bearer {} {}", token(name), key(name))
    }
}

/// The label of entries and gateways that belong together.
const LABELLED: &str = "keyed";

/// The gateway `all`, with the tools of all [`keyed`](Upstream::keyed) entries.
pub fn gateway() -> Value {
    let labels = json!({"kind": LABELLED});
    json!({"slug": "all", "scope": "organization", "toolAssignment": "automatic", "labels": labels})
}

/// The token of the server `name`.
pub fn token(name: &str) -> String {
    format!("canary-token-{name}")
}

fn key(name: &str) -> String {
    format!("canary-key-{name}")
}

async fn answer(request: Request<Incoming>, seen: &Mutex<Vec<String>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let credential = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let mut echoed = format!("{} {}", request.uri().path(), credential.as_deref().unwrap_or_default());
    if let Some(key) = request.headers().get("x-key") {
        echoed = format!("{echoed} {}", key.to_str().unwrap());
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match message["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "serverInfo": {"name": "remote", "version": "1"},
        }),
        "tools/list" => json!({
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
            "tools": [{"name": "echo", "inputSchema": {"type": "object"}}],
        }),
        _ => {
            seen.lock().unwrap().extend(credential);
            json!({"resultType": "complete", "content": [{"type": "text", "text": echoed}]})
        }
    };
    let text = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}
