//! The accept loop: connection limit, header deadline, TCP_NODELAY, and a drain that lets calls under way end.

use super::{
    held::{Held, Holding},
    pace::{LONGEST, Paced},
    stall::Stalling,
};
use crate::{
    mcp::front::{Front, McpBody},
    platform::Shared,
};
use axum::{Router, body::Body, extract::ConnectInfo};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Either};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
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
        let patience = shared.options.write_timeout;
        let worker = shared.workers.least();
        let home = worker.is_some().then(Handle::current);
        let held = Arc::new(Held::default());
        let service = Service { front: front.clone(), router: router.clone(), peer, home, held: Arc::clone(&held) };
        let (builder, draining) = (Arc::clone(&builder), shutdown.clone());
        // It is registered again with the reactor of the thread that will drive it.
        let Ok(stream) = stream.into_std() else { continue };
        let (place, share) = worker.unzip();
        let connection = async move {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            // Who has said nothing yet must not hold a drain up.
            let spoken = tokio::time::timeout(HEADER_TIMEOUT, spoken(&stream));
            if !matches!(draining.run_until_cancelled(spoken).await, Some(Ok(()))) {
                return;
            }
            // Hyper keeps the future of the request at hand in the connection, so that none is allocated per request.
            let service = service_fn(move |request| service.clone().answer(request));
            let connection =
                builder.serve_connection(TokioIo::new(Stalling::new(stream, patience)), service).into_owned();
            match held.attend(watcher.watch(connection), patience).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%peer, %error, "a connection ended"),
                None => tracing::debug!(%peer, "a connection is ended: its client takes nothing of its answers"),
            }
            drop((slot, share));
        };
        match place {
            Some(place) => connections.spawn_on(connection, place),
            None => connections.spawn(connection),
        };
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
    /// Where everything but tool calls runs, when connections have threads of their own.
    home: Option<Handle>,
    held: Arc<Held>,
}

type Answer = Either<McpBody, Body>;

impl Service {
    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
        let (uri, version) = (request.uri().clone(), request.version());
        let _answering = (version == Version::HTTP_2).then(|| self.held.answering());
        if let Some(place) = uri.path().strip_prefix(MCP).filter(|place| is_place(place)) {
            let answer = self.front.handle(place, Some(self.peer.ip()), request).await;
            if version == Version::HTTP_2 {
                return Ok(answer.map(|body| Either::Right(self.attended_answer(body))));
            }
            return Ok(answer.map(Either::Left));
        }
        request.extensions_mut().insert(ConnectInfo(self.peer));
        // Boxed to keep small what every tool call carries along.
        let routed = Box::pin(self.router.clone().oneshot(request.map(Body::new)));
        let routed = match &self.home {
            None => routed.await?,
            Some(home) => match AbortOnDropHandle::new(home.spawn(routed)).await {
                Ok(routed) => routed?,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => ending(),
            },
        };
        if version == Version::HTTP_2 {
            return Ok(routed.map(|body| Either::Right(self.attended(body.map_err(io::Error::other)))));
        }
        Ok(routed.map(Either::Right))
    }

    fn attended_answer(&self, body: McpBody) -> Body {
        if body.is_whole() && http_body::Body::size_hint(&body).upper().is_some_and(|size| size <= LONGEST as u64) {
            return Body::new(Holding::new(body, &self.held));
        }
        self.attended(body)
    }

    /// The body for HTTP/2, let go of when its client does not read, and told to the connection as long as it waits.
    fn attended<B>(&self, body: B) -> Body
    where
        B: http_body::Body<Data = Bytes, Error = io::Error> + Send + 'static,
    {
        let shared = self.front.shared();
        Body::new(Holding::new(Paced::new(body, shared.options.write_timeout, &shared.tasks), &self.held))
    }
}

/// What is answered when the runtime at home ends before the answer is made.
fn ending() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// Whether this can be a consumer's slug or id as it stands, without decoding.
fn is_place(place: &str) -> bool {
    !place.is_empty() && place.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
