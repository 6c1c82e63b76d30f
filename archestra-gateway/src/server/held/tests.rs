//! Tests of `Held`, between a server and a client of hyper.

use super::*;
use crate::server::pace::Paced;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http2, server::conn::http2 as server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use tokio::{io::DuplexStream, task::JoinHandle};
use tokio_util::task::TaskTracker;

const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked of the server here: how much, or how long to think about it.
async fn answer(request: Request<Incoming>, held: Arc<Held>) -> Result<Response<Served>, Infallible> {
    let answering = held.answering();
    let path = request.uri().path().trim_start_matches('/');
    if let Some(seconds) = path.strip_prefix("slow/") {
        tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await;
    }
    let body = Full::new(Bytes::from(vec![b'x'; path.parse().unwrap_or(1)])).map_err(|never| match never {});
    drop(answering);
    let body = if path == "late" {
        let late = futures::stream::once(async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(Frame::data(Bytes::from_static(b"late")))
        });
        Paced::new(StreamBody::new(late), PATIENCE, &TaskTracker::new()).boxed()
    } else if path == "100000" {
        Paced::new(body, PATIENCE, &TaskTracker::new()).boxed()
    } else {
        body.boxed()
    };
    Ok(Response::new(Holding::new(body, &held)))
}

type Served = Holding<BoxBody<Bytes, io::Error>>;

/// A server on one end, which says whether it had to end the connection.
fn serve(stream: DuplexStream) -> (JoinHandle<bool>, Arc<Held>) {
    let held = Arc::new(Held::default());
    let seen = Arc::clone(&held);
    let serving = tokio::spawn(async move {
        let of_service = Arc::clone(&held);
        let service = service_fn(move |request| answer(request, Arc::clone(&of_service)));
        let mut builder = server::Builder::new(TokioExecutor::new());
        let connection = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        held.attend(connection, PATIENCE).await.is_none()
    });
    (serving, seen)
}

async fn client(stream: DuplexStream, window: u32) -> http2::SendRequest<Empty<Bytes>> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let shake = builder.initial_stream_window_size(window).handshake(TokioIo::new(stream));
    let (sender, connection) = shake.await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://server/{path}")).body(Empty::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_which_nothing_is_taken_ends() {
    for (window, size) in [(0, "1"), (1, "1000"), (1, "100000"), (16, "100000"), (0, "late")] {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (serving, _) = serve(ours);
        let mut sender = client(theirs, window).await;
        let begun = Instant::now();
        let _unread = sender.send_request(get(size)).await.unwrap();
        assert!(serving.await.unwrap(), "{size} bytes through a window of {window}");
        assert!(begun.elapsed() <= PATIENCE * 3, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_read_or_idle_or_waits_for_an_answer_does_not() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (serving, held) = serve(ours);
    let mut sender = client(theirs, 1024).await;
    let whole = sender.send_request(get("100000")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(whole.to_bytes().len(), 100_000);
    tokio::time::sleep(PATIENCE * 5).await;
    assert_eq!(held.waiting.load(Ordering::Relaxed), 0, "everything has been taken");

    let _unread = sender.send_request(get("100000")).await.unwrap();
    let slow = sender.send_request(get(&format!("slow/{}", PATIENCE.as_secs() * 5)));
    assert_eq!(slow.await.unwrap().into_body().collect().await.unwrap().to_bytes().len(), 1);
    assert!(!serving.is_finished(), "others were being answered");
    assert!(serving.await.unwrap(), "now nobody is");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_takes_what_waits_along() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (serving, held) = serve(ours);
    let mut sender = client(theirs, 1).await;
    let unread = sender.send_request(get("1000")).await.unwrap();
    assert!(held.waiting.load(Ordering::Relaxed) > 0);
    drop(unread);
    tokio::time::sleep(PATIENCE * 5).await;
    assert_eq!(held.waiting.load(Ordering::Relaxed), 0);
    assert!(!serving.is_finished(), "a stream that is reset harms no other");
    drop(sender);
    assert!(!serving.await.unwrap());
}
