//! A remote MCP server of the modern era that can fall ill: it falls silent, never ends an answer, breaks it off, or drops
//! connections.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::Sleep,
};

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// How a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// It answers.
    Well,
    /// It takes requests and answers none.
    Silent,
    /// It begins to answer, and sends a blank every now and then for ever.
    Trickling,
    /// It drops every connection at the first request.
    Dropping,
    /// Its answers to calls go on for as long as anybody reads them.
    Flooding,
    /// It says how long its answer to a call is, and breaks it off before the end.
    CutShort,
    /// It breaks its answer to a call off without having said how long it is.
    CutOpen,
}

/// A server with one tool, `wait`, that answers at once. Dropped, it is gone.
#[derive(Debug)]
pub struct Remote {
    address: SocketAddr,
    mood: Arc<AtomicU8>,
    flowing: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Remote {
    /// Starts one that is well.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mood = Arc::new(AtomicU8::new(Mood::Well as u8));
        let flowing = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(listener, Arc::clone(&mood), Arc::clone(&flowing)));
        Self { address, mood, flowing, task }
    }

    /// Its endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// How many answers without an end are being sent.
    pub fn flowing(&self) -> usize {
        self.flowing.load(Ordering::Relaxed)
    }

    /// Changes how it does.
    pub fn be(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::Relaxed);
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, mood: Arc<AtomicU8>, flowing: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, Arc::clone(&mood), Arc::clone(&flowing)));
                }
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, mood: Arc<AtomicU8>, flowing: Arc<AtomicUsize>) {
    let service = service_fn(|request| answer(request, mood.load(Ordering::Relaxed), &flowing));
    // A client that goes away in the middle is nothing to report.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn answer(request: Request<Incoming>, mood: u8, flowing: &Arc<AtomicUsize>) -> Result<Answer, io::Error> {
    if mood == Mood::Silent as u8 {
        return std::future::pending().await;
    }
    if mood == Mood::Dropping as u8 {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let mut response = if mood == Mood::Trickling as u8 {
        Response::new(Trickle(Box::pin(tokio::time::sleep(Duration::ZERO))).boxed_unsync())
    } else {
        let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
        match mood {
            _ if message["method"] != "tools/call" => respond(&message),
            mood if mood == Mood::Flooding as u8 => Response::new(Flood::new(flowing).boxed_unsync()),
            mood if mood == Mood::CutShort as u8 => {
                let mut answer = Response::new(Cut::new(&message).boxed_unsync());
                answer.headers_mut().insert(header::CONTENT_LENGTH, 4096.into());
                answer
            }
            mood if mood == Mood::CutOpen as u8 => Response::new(Cut::new(&message).boxed_unsync()),
            _ => respond(&message),
        }
    };
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn respond(message: &Value) -> Answer {
    let result = match message["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private", "supportedVersions": ["2026-07-28"],
            "capabilities": { "tools": {} }, "serverInfo": { "name": "remote", "version": "1" },
        }),
        "tools/list" => json!({
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
            "tools": [{ "name": "wait", "description": "Answers", "inputSchema": { "type": "object" } }],
        }),
        "tools/call" => {
            let said = message["params"]["arguments"]["say"].as_str().unwrap_or_default();
            json!({ "resultType": "complete", "content": [{ "type": "text", "text": format!("waited for {said}") }] })
        }
        method => {
            let error = json!({ "code": -32601, "message": format!("no method {method}") });
            let mut response = whole(&json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
    };
    whole(&json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }))
}

fn whole(message: &Value) -> Answer {
    Response::new(Full::new(Bytes::from(message.to_string())).map_err(|never| match never {}).boxed_unsync())
}

/// A body of blanks that never ends.
struct Trickle(Pin<Box<Sleep>>);

impl Body for Trickle {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.0.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.0 = Box::pin(tokio::time::sleep(Duration::from_millis(200)));
        // The new alarm has not been looked at yet, and must be to wake anybody.
        let _ = self.0.as_mut().poll(cx);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))))
    }
}

/// The beginning of a response and then more of its text for ever, as fast as it is taken.
struct Flood {
    begun: bool,
    flowing: Arc<AtomicUsize>,
}

impl Flood {
    fn new(flowing: &Arc<AtomicUsize>) -> Self {
        flowing.fetch_add(1, Ordering::Relaxed);
        Self { begun: false, flowing: Arc::clone(flowing) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.flowing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Body for Flood {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let begun = std::mem::replace(&mut self.begun, true);
        let part: &[u8] =
            if begun { &[b'a'; 65_536] } else { b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"text\":\"" };
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(part)))))
    }
}

/// Half of a response, and then the end of the connection.
struct Cut {
    half: Option<Bytes>,
    /// What was sent must have left before the connection ends.
    pause: Pin<Box<Sleep>>,
}

impl Cut {
    fn new(message: &Value) -> Self {
        let half = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{\"content\":[", message["id"]);
        Self { half: Some(half.into()), pause: Box::pin(tokio::time::sleep(Duration::from_millis(100))) }
    }
}

impl Body for Cut {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(half) = self.half.take() {
            return Poll::Ready(Some(Ok(Frame::data(half))));
        }
        self.pause.as_mut().poll(cx).map(|()| Some(Err(io::ErrorKind::ConnectionAborted.into())))
    }
}
