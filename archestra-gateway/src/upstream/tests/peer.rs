//! HTTP servers for tests: what they answer is a closure, and what they were asked is kept.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

pub(super) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// One request that a peer has received.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) http_method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) message: Value,
}

impl Seen {
    pub(super) fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or("")
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

/// A server that answers until it is dropped.
pub(super) struct Peer {
    pub(super) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    _task: AbortOnDropHandle<()>,
}

impl Peer {
    pub(super) async fn start<F>(answer: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, answer)
    }

    pub(super) fn on<F>(listener: TcpListener, answer: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let answer: Arc<dyn Fn(Seen) -> BoxFuture<'static, Reply> + Send + Sync> =
            Arc::new(move |seen| Box::pin(answer(seen)));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                connections.spawn(async move {
                    let serve = service_fn(move |request: Request<Incoming>| {
                        let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                            let message = serde_json::from_slice(&body).unwrap_or(Value::Null);
                            let seen = Seen { http_method: head.method, headers: head.headers, body, message };
                            log.lock().unwrap().push(seen.clone());
                            Ok::<_, Infallible>(answer(seen).await)
                        }
                    });
                    drop(
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await,
                    );
                });
            }
        });
        Self { port, seen, _task: AbortOnDropHandle::new(task) }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    pub(super) fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests with this JSON-RPC method.
    pub(super) fn seen(&self, method: &str) -> Vec<Seen> {
        self.all().into_iter().filter(|seen| seen.method() == method).collect()
    }

    /// Waits until a request with this method has come.
    pub(super) async fn wait_for(&self, method: &str) -> Seen {
        self.wait_for_number(method, 1).await
    }

    /// Waits until so many requests with this method have come; the last one of them.
    pub(super) async fn wait_for_number(&self, method: &str, number: usize) -> Seen {
        for _ in 0..3000 {
            let mut seen = self.seen(method);
            if seen.len() >= number
                && let Some(last) = seen.pop()
            {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "not {number} times {method} came, but {:?}",
            self.all().iter().map(|seen| seen.method().to_owned()).collect::<Vec<_>>()
        );
    }
}

pub(super) fn reply(status: u16, content_type: &str, body: impl Into<Bytes>) -> Reply {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(Full::new(body.into()).boxed_unsync())
        .unwrap()
}

pub(super) fn json_reply(body: &Value) -> Reply {
    reply(200, "application/json", body.to_string())
}

pub(super) fn accepted() -> Reply {
    Response::builder().status(202).body(Full::new(Bytes::new()).boxed_unsync()).unwrap()
}

pub(super) fn with_session(mut reply: Reply, id: &str) -> Reply {
    reply.headers_mut().insert("mcp-session-id", id.parse().unwrap());
    reply
}

pub(super) fn event(message: &Value) -> String {
    format!("event: message\ndata: {message}\n\n")
}

/// An event stream with all of its events at once.
pub(super) fn events(messages: &[Value]) -> Reply {
    reply(200, "text/event-stream", messages.iter().map(event).collect::<String>())
}

/// An event stream that is written piece by piece; it ends when the sender is dropped.
pub(super) fn live() -> (mpsc::UnboundedSender<String>, Reply) {
    let (sender, receiver) = mpsc::unbounded_channel::<String>();
    let stream = futures::stream::unfold(receiver, |mut receiver| async {
        let piece = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(piece))), receiver))
    });
    let body = StreamBody::new(stream).boxed_unsync();
    (sender, Response::builder().header("content-type", "text/event-stream").body(body).unwrap())
}

pub(super) fn result(id: &Value, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

pub(super) fn error(id: &Value, code: i64) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": "no" } })
}

pub(super) fn discovered(id: &Value) -> Value {
    result(
        id,
        &json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} }, "resultType": "complete", "ttlMs": 0, "cacheScope": "private" }),
    )
}

/// A server of 2026-07-28 that answers everything but `server/discover` with `answer`.
pub(super) async fn modern<F>(answer: impl Fn(Seen) -> F + Send + Sync + 'static) -> Peer
where
    F: Future<Output = Reply> + Send + 'static,
{
    Peer::start(move |seen| {
        let discover = (seen.method() == "server/discover").then(|| discovered(&seen.message["id"]));
        let other = discover.is_none().then(|| answer(seen));
        async move {
            match (discover, other) {
                (None, Some(other)) => other.await,
                (discovered, _) => json_reply(&discovered.unwrap_or_default()),
            }
        }
    })
    .await
}

/// What a server of 2025-11-25 with sessions says to everything that is no request of the caller's.
pub(super) fn legacy_handshake(seen: &Seen, sessions: &AtomicUsize) -> Option<Reply> {
    let id = &seen.message["id"];
    Some(match (seen.http_method.as_str(), seen.method()) {
        ("DELETE", _) => reply(200, "text/plain", ""),
        ("GET", _) => reply(405, "text/plain", ""),
        (_, "server/discover") => reply(400, "application/json", error(&Value::Null, -32000).to_string()),
        (_, "initialize") => {
            let number = sessions.fetch_add(1, Ordering::SeqCst);
            let result = result(
                id,
                &json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "serverInfo": { "name": "old", "version": "1" } }),
            );
            with_session(json_reply(&result), &format!("session-{number}"))
        }
        (_, "") if seen.http_method == Method::POST => accepted(),
        (_, method) if method.starts_with("notifications/") => accepted(),
        _ => return None,
    })
}

/// A server of 2025-11-25 that answers requests with `answer`.
pub(super) async fn legacy<F>(answer: impl Fn(Seen) -> F + Send + Sync + 'static) -> Peer
where
    F: Future<Output = Reply> + Send + 'static,
{
    let sessions = AtomicUsize::new(0);
    Peer::start(move |seen| {
        let handshake = legacy_handshake(&seen, &sessions);
        let other = handshake.is_none().then(|| answer(seen));
        async move {
            match (handshake, other) {
                (Some(handshake), _) => handshake,
                (None, Some(other)) => other.await,
                (None, None) => accepted(),
            }
        }
    })
    .await
}
