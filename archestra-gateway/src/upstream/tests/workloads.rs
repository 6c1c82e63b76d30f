//! Servers that a runtime runs: channels to stdio processes, and endpoints that move.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use archestra_core::catalog::Scope;
use archestra_core::runtime::stdio::{Channel, wire};
use archestra_core::runtime::{
    Applied, Connection, HttpEndpoint, LogLine, LogOptions, Manifest, PullSecret, Runtime, RuntimeCapabilities,
    Workload, WorkloadEvent, WorkloadId, WorkloadSpec, WorkloadStatus, WorkloadSummary,
};
use archestra_core::{Error, Finding, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::peer::{Peer, discovered, error, json_reply, modern, result};
use super::support::{Caller, legacy_call, modern_call, options, target_of, upstreams_with};
use crate::upstream::{Answer, Target, UpstreamError, Upstreams};

type Connect = Box<dyn Fn(usize) -> Result<Connection> + Send + Sync>;

/// A runtime that can do nothing but connect, as a closure says.
pub(super) struct Connects {
    connect: Connect,
    pub(super) count: AtomicUsize,
    /// How many channels of [`process`] are open.
    pub(super) open: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Connects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connects")
    }
}

fn no<T>() -> Result<T> {
    Err(Error::Unsupported { backend: "this runtime", operation: "do that" })
}

#[async_trait]
impl Runtime for Connects {
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities {
            name: "test",
            images: false,
            commands: true,
            pull_secrets: false,
            env_from: false,
            overrides: false,
            mounts: false,
            isolation: false,
        }
    }
    fn validate(&self, _: &WorkloadSpec) -> Vec<Finding> {
        Vec::new()
    }
    async fn render(&self, _: &Workload) -> Result<Manifest> {
        no()
    }
    async fn apply(&self, _: &Workload) -> Result<Applied> {
        no()
    }
    async fn status(&self, _: &WorkloadId) -> Result<WorkloadStatus> {
        no()
    }
    fn watch(&self) -> BoxStream<'static, Result<WorkloadEvent>> {
        futures::stream::pending().boxed()
    }
    async fn logs(&self, _: &WorkloadId, _: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        no()
    }
    async fn restart(&self, _: &WorkloadId) -> Result<()> {
        no()
    }
    async fn remove(&self, _: &WorkloadId) -> Result<()> {
        no()
    }
    async fn connect(&self, _: &WorkloadId) -> Result<Connection> {
        (self.connect)(self.count.fetch_add(1, Ordering::SeqCst))
    }
    async fn pull_secrets(&self, _: &Scope) -> Result<Vec<PullSecret>> {
        no()
    }
    async fn list(&self) -> Result<Vec<WorkloadSummary>> {
        no()
    }
    async fn shutdown(&self) {}
}

pub(super) fn runtime(connect: impl Fn(usize) -> Result<Connection> + Send + Sync + 'static) -> Arc<Connects> {
    Arc::new(Connects { connect: Box::new(connect), count: AtomicUsize::new(0), open: Arc::default() })
}

pub(super) fn with_runtime(runtime: &Arc<Connects>) -> Upstreams {
    upstreams_with(options(), Some(Arc::clone(runtime) as Arc<dyn Runtime>), Arc::default())
}

pub(super) fn hosted(more: &Value) -> Arc<Target> {
    let mut spec = json!({ "name": "files", "selfHosted": { "command": ["x"] } });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    target_of(spec)
}

/// What a process writes in answer to one message.
type Script = Arc<dyn Fn(&Value) -> Vec<Value> + Send + Sync>;

/// What came in over all channels.
type Log = Arc<Mutex<Vec<Value>>>;

/// Counts an open channel.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A channel to a process; it ends when the process has written `null`.
fn channel(script: &Script, log: &Log, open: &Arc<AtomicUsize>) -> Connection {
    let (to_server, mut inbox) = mpsc::channel::<Bytes>(8);
    let (outbox, from_server) = mpsc::channel::<Bytes>(8);
    let (script, log, open) = (Arc::clone(script), Arc::clone(log), Open::of(open));
    tokio::spawn(async move {
        let _open = open;
        while let Some(message) = inbox.recv().await {
            let message: Value = serde_json::from_slice(&message).unwrap();
            log.lock().unwrap().push(message.clone());
            for answer in script(&message) {
                tokio::task::yield_now().await;
                if answer.is_null() || outbox.send(Bytes::from(answer.to_string())).await.is_err() {
                    return;
                }
            }
        }
    });
    Connection::Stdio(Channel::new(to_server, from_server))
}

pub(super) fn process(script: impl Fn(&Value) -> Vec<Value> + Send + Sync + 'static) -> (Arc<Connects>, Log) {
    let (script, log): (Script, Log) = (Arc::new(script), Arc::default());
    let (kept, open) = (Arc::clone(&log), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&open);
    let connect = move |_| Ok(channel(&script, &log, &counted));
    (Arc::new(Connects { connect: Box::new(connect), count: AtomicUsize::new(0), open }), kept)
}

fn calls(log: &Log) -> Vec<Value> {
    log.lock().unwrap().iter().filter(|message| message["method"] == "tools/call").cloned().collect()
}

/// A legacy process: the multiplexer in front of it has initialized it, and knows no `server/discover`.
pub(super) fn old(message: &Value, answer: impl FnOnce(&Value) -> Vec<Value>) -> Vec<Value> {
    match message["method"].as_str() {
        Some("server/discover") => vec![error(&message["id"], -32601)],
        Some(method) if !method.starts_with("notifications/") => answer(message),
        _ => Vec::new(),
    }
}

pub(super) fn said(message: &Value) -> Value {
    result(&message["id"], &json!({ "said": message["params"]["arguments"]["a"] }))
}

#[tokio::test]
async fn a_legacy_process_is_translated_for_modern_callers() {
    let (runtime, log) = process(|message| old(message, |call| vec![said(call)]));
    let (upstreams, target) = (with_runtime(&runtime), hosted(&json!({})));
    for id in ["1", "\"x\""] {
        let message = Caller::modern(modern_call(id, r#","progressToken":3"#)).message(&upstreams, &target).await;
        let id: Value = serde_json::from_str(id).unwrap();
        assert_eq!(message, result(&id, &json!({ "resultType": "complete", "said": 1 })));
        let message = Caller::legacy(legacy_call("7", "")).message(&upstreams, &target).await;
        assert_eq!(message, result(&json!(7), &json!({ "said": 1 })));
    }
    assert_eq!(
        calls(&log)[0]["params"],
        json!({ "name": "echo", "arguments": { "a": 1 }, "_meta": { "progressToken": 3 } })
    );
    assert_eq!(runtime.count.load(Ordering::SeqCst), 1, "the channel is used again");
}

#[tokio::test]
async fn a_modern_process_gets_modern_messages() {
    let (runtime, log) = process(|message| match message["method"].as_str() {
        Some("server/discover") => vec![discovered(&message["id"])],
        _ => vec![result(&message["id"], &json!({ "resultType": "complete", "content": [] }))],
    });
    let (upstreams, target) = (with_runtime(&runtime), hosted(&json!({})));
    let sent = modern_call("1", "");
    let Answer::Message(answer) = Caller::modern(sent.clone()).call(&upstreams, &target).await.unwrap() else {
        panic!()
    };
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()["result"]["resultType"], "complete");
    let expected: Value = serde_json::from_str(&sent.replace("t__echo", "echo")).unwrap();
    assert_eq!(calls(&log)[0], expected);
    let message = Caller::legacy(legacy_call("2", "")).message(&upstreams, &target).await;
    assert_eq!(message, result(&json!(2), &json!({ "content": [] })));
    assert_eq!(calls(&log)[1]["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
}

#[tokio::test]
async fn many_callers_with_one_id_never_get_each_others_answers() {
    let (runtime, _) = process(|message| {
        old(message, |call| {
            let token = &call["params"]["_meta"]["progressToken"];
            let progress = |token: &Value| json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": call["params"]["arguments"]["a"] } });
            vec![progress(&json!("other")), progress(token), result(&json!("other"), &json!({})), said(call)]
        })
    });
    let (upstreams, target) = (with_runtime(&runtime), hosted(&json!({})));
    for _ in 0..3 {
        let calls = (0..64).map(|number| {
            let (upstreams, target) = (upstreams.clone(), Arc::clone(&target));
            tokio::spawn(async move {
                let body = legacy_call("1", r#","_meta":{"progressToken":"t"}"#)
                    .replace(r#""a":1"#, &format!(r#""a":{number}"#));
                (number, Caller::legacy(body).messages(&upstreams, &target).await.unwrap())
            })
        });
        for call in futures::future::join_all(calls).await {
            let (number, messages) = call.unwrap();
            assert_eq!(messages.len(), 2);
            assert_eq!(messages[0]["params"], json!({ "progressToken": "t", "progress": number }));
            assert_eq!(messages[1], result(&json!(1), &json!({ "said": number })));
        }
    }
    assert!(runtime.count.load(Ordering::SeqCst) <= 65, "idle channels are used again");
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_and_its_channel_given_up() {
    let (runtime, log) = process(|message| {
        old(message, |call| {
            let token = &call["params"]["_meta"]["progressToken"];
            match token.is_null() {
                true => vec![said(call)],
                false => vec![
                    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": 1 } }),
                ],
            }
        })
    });
    let (upstreams, target) = (with_runtime(&runtime), hosted(&json!({})));
    let caller = Caller::legacy(legacy_call("\"long\"", r#","_meta":{"progressToken":1}"#));
    let answer = caller.call(&upstreams, &target).await.unwrap();
    assert!(matches!(answer, Answer::Stream(_)), "{answer:?}");
    drop(answer);
    let outcome = caller.call(&upstreams, &target).await.unwrap();
    caller.cancel.cancel();
    let outcome = super::support::collect(outcome).await;
    assert!(matches!(outcome, Err(UpstreamError::Cancelled)), "{outcome:?}");
    let cancelled = || {
        log.lock()
            .unwrap()
            .iter()
            .filter(|message| message["method"] == "notifications/cancelled")
            .cloned()
            .collect::<Vec<_>>()
    };
    until("both are cancelled", || cancelled().len() == 2).await;
    assert_eq!(cancelled()[0]["params"]["requestId"], "long");
    Caller::legacy(legacy_call("1", "")).message(&upstreams, &target).await;
    assert_eq!(runtime.count.load(Ordering::SeqCst), 3);
}

/// What a multiplexer further on answers when its process ends.
fn unfinished(id: &Value) -> Value {
    let text = format!("the server process ended {}", wire::UNFINISHED);
    serde_json::from_slice(&wire::error_response(id.to_string().as_bytes(), wire::SERVER_ERROR, &text)).unwrap()
}

#[tokio::test]
async fn a_process_that_ends_fails_the_call_under_way_and_not_the_next() {
    let (runtime, _) = process(|message| {
        old(message, |call| match call["params"]["arguments"]["a"].as_u64() {
            Some(1) => vec![said(call)],
            Some(2) => vec![Value::Null],
            Some(4) => vec![unfinished(&call["id"]), Value::Null],
            Some(5) => vec![error(&call["id"], -32000)],
            _ => vec![said(call), Value::Null],
        })
    });
    let (upstreams, target) = (with_runtime(&runtime), hosted(&json!({})));
    let call = |a: u32| Caller::legacy(legacy_call("1", "").replace(r#""a":1"#, &format!(r#""a":{a}"#)));
    call(1).message(&upstreams, &target).await;
    let outcome = call(2).messages(&upstreams, &target).await;
    let Err(error @ UpstreamError::Gone { .. }) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().contains("ended while the call was under way"));
    assert_eq!(call(5).message(&upstreams, &target).await["error"]["code"], -32000);
    let outcome = call(4).messages(&upstreams, &target).await;
    assert!(matches!(outcome, Err(UpstreamError::Gone { .. })), "{outcome:?}");
    // The channel ends while it lies idle: nobody notices.
    for _ in 0..3 {
        call(3).message(&upstreams, &target).await;
        until("the channel has ended", || runtime.open.load(Ordering::SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn a_workload_that_is_not_ready_says_why_and_is_asked_again() {
    let ready = Arc::new(AtomicBool::new(false));
    let script: Script = Arc::new(|message| old(message, |call| vec![said(call)]));
    let (now, log) = (Arc::clone(&ready), Log::default());
    let runtime = runtime(move |_| match now.load(Ordering::SeqCst) {
        true => Ok(channel(&script, &log, &Arc::default())),
        false => {
            Err(Error::Unavailable { backend: "the workload", reason: "pulling its image".to_owned(), source: None })
        }
    });
    let (upstreams, target) = (with_runtime(&runtime), hosted(&json!({})));
    let outcome = Caller::legacy(legacy_call("1", "")).messages(&upstreams, &target).await;
    assert!(
        matches!(&outcome, Err(UpstreamError::Unreachable { reason, .. }) if reason.contains("pulling its image")),
        "{outcome:?}"
    );
    ready.store(true, Ordering::SeqCst);
    Caller::legacy(legacy_call("1", "")).message(&upstreams, &target).await;

    let nowhere = upstreams_with(options(), None, Arc::default());
    let outcome = Caller::legacy(legacy_call("1", "")).messages(&nowhere, &target).await;
    assert!(matches!(outcome, Err(UpstreamError::Unreachable { .. })), "{outcome:?}");
}

#[tokio::test]
async fn an_exclusive_process_is_let_go_after_a_call_of_no_session() {
    let (runtime, _) = process(|message| old(message, |call| vec![said(call)]));
    let (upstreams, target) = (with_runtime(&runtime), hosted(&json!({ "toolConcurrency": "exclusive" })));
    for _ in 0..3 {
        Caller::legacy(legacy_call("1", "")).message(&upstreams, &target).await;
    }
    assert_eq!(runtime.count.load(Ordering::SeqCst), 4, "one to learn the transport, then one for each call");
}

#[tokio::test]
async fn an_endpoint_is_remembered_until_nobody_answers_there() {
    let answer = |seen: super::peer::Seen| async move {
        json_reply(&result(&seen.message["id"], &json!({ "key": seen.header("x-bridge") })))
    };
    let (first, second) = (modern(answer).await, modern(answer).await);
    let (port, generation) = (Arc::new(AtomicU64::new(u64::from(first.port))), Arc::new(AtomicU64::new(1)));
    let (at, of) = (Arc::clone(&port), Arc::clone(&generation));
    let runtime = runtime(move |_| {
        Ok(Connection::Http(HttpEndpoint {
            url: format!("http://127.0.0.1:{}/mcp", at.load(Ordering::SeqCst)),
            headers: vec![("x-bridge".to_owned(), "br1dge".into())],
            generation: of.load(Ordering::SeqCst),
        }))
    });
    let target = hosted(&json!({ "selfHosted": { "command": ["x"], "transport": "streamable-http" } }));
    let upstreams = with_runtime(&runtime);
    let call = || async { Caller::modern(modern_call("1", "")).message(&upstreams, &target).await };
    for _ in 0..5 {
        assert_eq!(call().await["result"]["key"], "br1dge");
    }
    assert_eq!(runtime.count.load(Ordering::SeqCst), 1);

    port.store(u64::from(second.port), Ordering::SeqCst);
    generation.store(2, Ordering::SeqCst);
    stop(first).await;
    call().await;
    call().await;
    assert_eq!(runtime.count.load(Ordering::SeqCst), 2);
    assert_eq!((second.seen("server/discover").len(), second.seen("tools/call").len()), (1, 2));
}

/// Stops a server, and waits until nobody listens at its port.
async fn stop(peer: Peer) {
    let port = peer.port;
    drop(peer);
    for _ in 0..3000 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("somebody still listens at {port}");
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    for _ in 0..3000 {
        if reached() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until {what}");
}
