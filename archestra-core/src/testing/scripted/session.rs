//! One channel to a scripted server: reads its messages, runs their answers side by side, and ends with the server.

use super::{
    answer::{Answer, Kind},
    runtime::Inner,
    server::{Eras, LEGACY, MODERN, ScriptedServer},
};
use crate::runtime::{
    WorkloadId,
    stdio::{Channel, wire},
};
use bytes::Bytes;
use futures::FutureExt as _;
use serde_json::{Map, Value, json};
use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const QUEUE: usize = 64;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const INTERNAL: i64 = -32603;
const UNSUPPORTED_VERSION: i64 = -32022;

/// How long a client that does not read is waited for when its server ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a channel's answers are made from.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) runtime: Arc<Inner>,
    pub(super) workload: WorkloadId,
    pub(super) server: ScriptedServer,
}

/// A channel, and the task that serves it until either side ends.
pub(super) fn open(peer: Peer, life: CancellationToken) -> (Channel, impl Future<Output = ()> + Send + 'static) {
    let (to_server, incoming) = mpsc::channel(QUEUE);
    let (outgoing, from_server) = mpsc::channel(QUEUE);
    (Channel::new(to_server, from_server), serve(Arc::new(peer), incoming, outgoing, life))
}

async fn serve(
    peer: Arc<Peer>,
    mut incoming: mpsc::Receiver<Bytes>,
    outgoing: mpsc::Sender<Bytes>,
    life: CancellationToken,
) {
    let mut running: JoinSet<(String, Value)> = JoinSet::new();
    let mut pending: HashMap<String, (Value, AbortHandle)> = HashMap::new();
    loop {
        let message = tokio::select! {
            biased;
            () = life.cancelled() => break,
            () = outgoing.closed() => return,
            Some(done) = running.join_next(), if !running.is_empty() => {
                // What was cancelled has no answer.
                if let Ok((key, answer)) = done && pending.remove(&key).is_some() {
                    tokio::select! {
                        () = life.cancelled() => break,
                        _ = outgoing.send(encode(&answer)) => {}
                    }
                }
                continue;
            }
            message = incoming.recv() => message,
        };
        let Some(message) = message else { return };
        let Ok(message) = serde_json::from_slice::<Value>(&message) else {
            let refusal =
                json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "the message is not JSON"}});
            if outgoing.send(encode(&refusal)).await.is_err() {
                return;
            }
            continue;
        };
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        match message.get("id") {
            Some(id) if !method.is_empty() => {
                let key = id.to_string();
                let (peer, id, outgoing, task_key) = (Arc::clone(&peer), id.clone(), outgoing.clone(), key.clone());
                let request_id = id.clone();
                let task = running.spawn(async move {
                    let answer = AssertUnwindSafe(peer.answer(&method, &message, &outgoing)).catch_unwind().await;
                    let outcome = answer.unwrap_or_else(|_| Err(failure(INTERNAL, "the tool's script panicked")));
                    let response = match outcome {
                        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
                        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
                    };
                    (task_key, response)
                });
                pending.insert(key, (request_id, task));
            }
            _ if method == "notifications/cancelled" => {
                if let Some((_, task)) = pending.remove(&message["params"]["requestId"].to_string()) {
                    task.abort();
                }
            }
            _ => {}
        }
    }
    for (_, (id, _)) in pending {
        let text = format!("the server ended {}", wire::UNFINISHED);
        let answer = wire::error_response(id.to_string().as_bytes(), wire::SERVER_ERROR, &text);
        if !matches!(timeout(FAREWELL, outgoing.send(answer)).await, Ok(Ok(()))) {
            return;
        }
    }
}

fn encode(message: &Value) -> Bytes {
    Bytes::from(message.to_string())
}

fn failure(code: i64, message: impl Into<String>) -> Value {
    json!({"code": code, "message": message.into()})
}

impl Peer {
    async fn answer(&self, method: &str, message: &Value, outgoing: &mpsc::Sender<Bytes>) -> Result<Value, Value> {
        if !self.server.latency.is_zero() {
            sleep(self.server.latency).await;
        }
        let params = &message["params"];
        let modern = params["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str();
        if let Some(requested) = modern
            && self.server.eras != Eras::Legacy
            && requested != MODERN
        {
            return Err(self.unsupported(requested));
        }
        let result = match method {
            "server/discover" if self.server.eras != Eras::Legacy => {
                json!({"supportedVersions": [MODERN], "capabilities": {"tools": {"listChanged": true}}, "ttlMs": 0, "cacheScope": "private"})
            }
            "initialize" if self.server.eras != Eras::Modern => return Ok(self.initialize(params)),
            "initialize" => return Err(self.unsupported(params["protocolVersion"].as_str().unwrap_or_default())),
            "ping" => return Ok(json!({})),
            "tools/list" => self.list(params)?,
            "tools/call" => self.call(params, outgoing).await?,
            other => return Err(failure(METHOD_NOT_FOUND, format!("there is no method {other}"))),
        };
        Ok(if modern.is_some() || method == "server/discover" { self.modernized(method, result) } else { result })
    }

    fn unsupported(&self, requested: &str) -> Value {
        let supported =
            if self.server.eras == Eras::Modern { vec![MODERN] } else { [MODERN].into_iter().chain(LEGACY).collect() };
        json!({"code": UNSUPPORTED_VERSION, "message": "the protocol version is not supported", "data": {"supported": supported, "requested": requested}})
    }

    fn initialize(&self, params: &Value) -> Value {
        let requested = params["protocolVersion"].as_str().unwrap_or_default();
        let version = LEGACY.iter().find(|version| **version == requested).unwrap_or(&LEGACY[0]);
        json!({"protocolVersion": version, "capabilities": {"tools": {"listChanged": true}}, "serverInfo": self.info()})
    }

    fn info(&self) -> Value {
        json!({"name": self.server.name, "version": "1.0.0"})
    }

    /// What the modern era asks of every result.
    fn modernized(&self, method: &str, result: Value) -> Value {
        let Value::Object(mut result) = result else { return result };
        result.entry("resultType").or_insert_with(|| "complete".into());
        if method == "tools/list" {
            result.insert("ttlMs".to_owned(), 0.into());
            result.insert("cacheScope".to_owned(), "private".into());
        }
        if let Value::Object(meta) = result.entry("_meta").or_insert_with(|| Map::new().into()) {
            meta.entry("io.modelcontextprotocol/serverInfo").or_insert_with(|| self.info());
        }
        result.into()
    }

    fn list(&self, params: &Value) -> Result<Value, Value> {
        let start: usize = match &params["cursor"] {
            Value::Null => 0,
            cursor => cursor
                .as_str()
                .and_then(|cursor| cursor.parse().ok())
                .ok_or_else(|| failure(INVALID_PARAMS, "not a cursor of this list"))?,
        };
        let end = start.saturating_add(self.server.page_size);
        let tools: Vec<_> = self
            .server
            .tools
            .iter()
            .skip(start)
            .take(self.server.page_size)
            .map(|tool| tool.definition.clone())
            .collect();
        let mut page = json!({"tools": tools});
        if end < self.server.tools.len() {
            page["nextCursor"] = end.to_string().into();
        }
        Ok(page)
    }

    async fn call(&self, params: &Value, outgoing: &mpsc::Sender<Bytes>) -> Result<Value, Value> {
        let name = params["name"].as_str().unwrap_or_default();
        let Some(tool) = self.server.tools.iter().find(|tool| tool.name == name) else {
            return Err(failure(INVALID_PARAMS, format!("unknown tool: {name}")));
        };
        let arguments = params.get("arguments").cloned().unwrap_or_else(|| json!({}));
        self.runtime.record_call(&self.workload, name, &arguments);
        let Answer { kind, delay, progress, log } = (tool.respond)(&arguments);
        for line in log {
            self.runtime.server_log(&self.workload, &line);
        }
        self.progress(&params["_meta"]["progressToken"], delay, &progress, outgoing).await;
        match kind {
            Kind::Result(result) => Ok(result),
            Kind::Error { code, message } => Err(failure(code, message)),
            Kind::Never => std::future::pending().await,
            Kind::Crash(reason) => {
                self.runtime.crash(&self.workload, &reason);
                // The end of the server answers this call.
                std::future::pending().await
            }
        }
    }

    async fn progress(&self, token: &Value, delay: Duration, steps: &[(u64, u64)], outgoing: &mpsc::Sender<Bytes>) {
        let pause = delay / u32::try_from(steps.len() + 1).unwrap_or(u32::MAX);
        for (progress, total) in steps {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            if !token.is_null() {
                let params = json!({"progressToken": token, "progress": progress, "total": total});
                let notification = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
                if outgoing.send(encode(&notification)).await.is_err() {
                    return;
                }
            }
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
}
