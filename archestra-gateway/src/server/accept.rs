//! The accept loop: connection limit, header deadline, TCP_NODELAY, and a drain that lets calls under way end.

use crate::{
    mcp::front::{Front, McpBody},
    platform::Shared,
};
use axum::{Router, body::Body, extract::ConnectInfo};
use http::{Request, Response};
use http_body_util::Either;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// How often it is asked whether an HTTP/2 client is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(100);
const MCP: &str = "/v1/mcp/";

/// Serves until `shutdown` fires, then drains.
pub(crate) async fn serve(
    listener: TcpListener,
    front: Front,
    router: Router,
    shared: &Arc<Shared>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(HEADER_TIMEOUT);
    let builder = Arc::new(builder);
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(shared.options.max_connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let slot = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            // The semaphore is never closed.
            slot = Arc::clone(&slots).acquire_owned() => slot.map_err(io::Error::other)?,
        };
        let (stream, peer) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a client that was gone already: neither ends the server.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            },
        };
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let watcher = graceful.watcher();
        let service = Service { front: front.clone(), router: router.clone(), peer };
        let (builder, draining) = (Arc::clone(&builder), shutdown.clone());
        connections.spawn(async move {
            // Who has said nothing yet must not hold a drain up.
            let spoken = tokio::time::timeout(HEADER_TIMEOUT, spoken(&stream));
            if !matches!(draining.run_until_cancelled(spoken).await, Some(Ok(()))) {
                return;
            }
            // Hyper keeps the future of the request at hand in the connection, so that none is allocated per request.
            let service = service_fn(move |request| service.clone().answer(request));
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%peer, %error, "a connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    // Long streams say goodbye, so that they do not hold the drain up.
    shared.stop.cancel();
    let drained = tokio::time::timeout_at(shared.drain_deadline(), async {
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!("connections were still open when the drain timeout passed");
        connections.shutdown().await;
    }
    Ok(())
}

/// Waits until a client has shown which protocol it speaks: until then no deadline of hyper's runs.
async fn spoken(stream: &TcpStream) {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut head = [0; PREFACE.len()];
    // An error, or the end of the stream, is hyper's to see.
    while let Ok(read @ 1..) = stream.peek(&mut head).await
        && read < PREFACE.len()
        && PREFACE.starts_with(&head[..read])
    {
        tokio::time::sleep(RETRY).await;
    }
}

/// Tool calls go straight to the front door; everything else through the router.
#[derive(Debug, Clone)]
struct Service {
    front: Front,
    router: Router,
    peer: SocketAddr,
}

type Answer = Either<McpBody, Body>;

impl Service {
    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
        let uri = request.uri().clone();
        if let Some(place) = uri.path().strip_prefix(MCP).filter(|place| is_place(place)) {
            return Ok(self.front.handle(place, Some(self.peer.ip()), request).await.map(Either::Left));
        }
        request.extensions_mut().insert(ConnectInfo(self.peer));
        // Boxed to keep small what every tool call carries along.
        let routed = Box::pin(self.router.oneshot(request.map(Body::new))).await?;
        Ok(routed.map(Either::Right))
    }
}

/// Whether this can be a consumer's slug or id as it stands, without decoding.
fn is_place(place: &str) -> bool {
    !place.is_empty() && place.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
