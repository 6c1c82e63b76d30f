//! HTTP in a container: the scripted server over streamable HTTP, and the bridge's health.

use super::{
    container::Container,
    process::{Door, Process},
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{convert::Infallible, sync::Arc};
use tokio::{net::TcpListener, task::JoinSet};

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

async fn accept<H, F>(listener: TcpListener, container: &Arc<Container>, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let (handle, container) = (handle.clone(), Arc::clone(container));
                drop(connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let answered = handle(request);
                        async move { Ok::<_, Infallible>(answered.await) }
                    });
                    // The end of a connection is all that its client needs to know.
                    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    drop(container.in_reach(serving).await);
                }));
            }
        }
    }
}

/// The bridge's health, once its server is ready.
pub(super) async fn health(listener: Option<TcpListener>, container: &Arc<Container>) {
    match listener {
        Some(listener) => {
            accept(listener, container, |_| async { answer(StatusCode::OK, "text/plain", "ok\n") }).await;
        }
        None => std::future::pending().await,
    }
}

/// The server over streamable HTTP, without sessions, until it is dropped.
pub(super) async fn serve(listener: TcpListener, container: &Arc<Container>, process: &Process) {
    let door = process.door().clone();
    accept(listener, container, move |request| {
        let door = door.clone();
        async move { post(&door, request).await }
    })
    .await;
}

async fn post(door: &Door, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only POST is allowed\n");
    }
    let Ok(body) = request.into_body().collect().await.map(http_body_util::Collected::to_bytes) else {
        return answer(StatusCode::BAD_REQUEST, "text/plain", "the body ended early\n");
    };
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return answer(StatusCode::BAD_REQUEST, "text/plain", "the body is not JSON\n");
    };
    if message.get("id").is_none() || message.get("method").is_none() {
        return answer(StatusCode::ACCEPTED, "text/plain", "");
    }
    let Some(mut channel) = door.channel().await else {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "the server is ending\n");
    };
    if channel.send(message.to_string().into()).await.is_err() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "the server is ending\n");
    }
    let Some(first) = channel.recv().await else {
        return answer(StatusCode::BAD_GATEWAY, "text/plain", "the server ended before it answered\n");
    };
    if is_answer(&first) {
        return answer(StatusCode::OK, "application/json", first);
    }
    let rest = stream::unfold(Some((first, channel)), |state| async move {
        let (frame, mut channel) = state?;
        let event = Frame::data(Bytes::from([b"event: message\ndata: ", &*frame, b"\n\n"].concat()));
        if is_answer(&frame) {
            return Some((Ok(event), None));
        }
        let next = channel.recv().await;
        Some((Ok(event), next.map(|next| (next, channel))))
    });
    let mut response = Response::new(StreamBody::new(rest.boxed()).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
    response
}

fn is_answer(frame: &[u8]) -> bool {
    serde_json::from_slice::<Value>(frame).is_ok_and(|message| message.get("method").is_none())
}
