//! The API server as a service: in this process, and on a port.

use super::{
    api::{self, Answer},
    cluster::{FakeCluster, Inner, RecordedRequest},
    faults::Fate,
    refusal::Refusal,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, duplex},
    net::TcpListener,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::Service;

/// What is on its way between the two ends of a connection within this process.
const PIPE: usize = 256 * 1024;

/// The API server as the service that a client takes.
#[derive(Clone)]
pub(super) struct InProcess(FakeCluster);

impl InProcess {
    pub(super) fn new(cluster: FakeCluster) -> Self {
        Self(cluster)
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

impl Service<Request<kube::client::Body>> for InProcess {
    type Response = Response<api::Body>;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let inner = Arc::clone(&self.0.inner);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.map_err(io::Error::other)?;
            if parts.headers.contains_key(header::UPGRADE) {
                return through_pipe(inner, parts, body).await;
            }
            answer(&inner, parts, body).await.ok_or_else(lost)
        })
    }
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, "the API server is down")
}

/// Sends a request over a connection of its own, for what becomes a stream in both directions.
async fn through_pipe(inner: Arc<Inner>, mut parts: Parts, body: Bytes) -> Result<Response<api::Body>, io::Error> {
    if inner.faults.is_down() {
        return Err(lost());
    }
    let (near, far) = duplex(PIPE);
    let serving = converse(Arc::clone(&inner), far);
    drop(inner.tasks.spawn(inner.stop.child_token().run_until_cancelled_owned(serving)));
    let (mut sender, connection) =
        client::conn::http1::handshake(TokioIo::new(near)).await.map_err(io::Error::other)?;
    let stop = inner.stop.child_token();
    drop(inner.tasks.spawn(async move {
        // The end of the connection is seen by whoever uses it.
        drop(stop.run_until_cancelled_owned(connection.with_upgrades()).await);
    }));
    parts.headers.entry(header::HOST).or_insert(header::HeaderValue::from_static("fake-cluster"));
    let path =
        parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).parse().map_err(io::Error::other)?;
    parts.uri = path;
    let response = sender.send_request(Request::from_parts(parts, Full::new(body))).await.map_err(io::Error::other)?;
    Ok(response.map(|body| body.map_err(io::Error::other).boxed_unsync()))
}

/// Serves one connection.
async fn converse(inner: Arc<Inner>, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let service = service_fn(move |request: Request<Incoming>| {
        let inner = Arc::clone(&inner);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            answer(&inner, parts, body).await.ok_or_else(lost)
        }
    });
    // The end of a connection is all that its client needs to know.
    drop(server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await);
}

/// The answer to one request; `None`: there is no server.
async fn answer(inner: &Arc<Inner>, parts: Parts, body: Bytes) -> Option<Response<api::Body>> {
    let path = parts.uri.path().to_owned();
    inner.record(RecordedRequest {
        method: parts.method.clone(),
        path: path.clone(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
    });
    let delay = inner.faults.delay();
    if !delay.is_zero() {
        sleep(delay).await;
    }
    let answered = match inner.faults.fate(&parts.method, &path) {
        Fate::Lost => return None,
        Fate::Failed(status) => Err(Refusal::new(status, "the cluster was told to fail this request")),
        Fate::Served => api::handle(inner, parts, &body).await,
    };
    Some(match answered {
        Ok(Answer::Json(code, value)) => api::json(code, &value),
        Ok(Answer::Stream(response)) => response,
        Err(refusal) => {
            let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = api::json(code, &refusal.status());
            if matches!(refusal.code, 429 | 503) {
                response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            }
            response
        }
    })
}

/// The API of a cluster on a port. It is closed when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    _guard: DropGuard,
    _cluster: FakeCluster,
}

impl ApiServer {
    pub(super) async fn start(cluster: &FakeCluster) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let stop = cluster.inner.stop.child_token();
        let accepting = accept(Arc::clone(&cluster.inner), listener);
        drop(cluster.inner.tasks.spawn(stop.clone().run_until_cancelled_owned(accepting)));
        Ok(Self { address, _guard: guard(stop), _cluster: cluster.clone() })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig that leads to it, with `default` as the namespace.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        let url = self.url();
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: fake\nclusters:\n- name: fake\n  cluster: {{server: \"{url}\"}}\n\
             contexts:\n- name: fake\n  context: {{cluster: fake, user: fake, namespace: default}}\nusers:\n- name: fake\n  \
             user: {{}}\n"
        )
    }
}

fn guard(stop: CancellationToken) -> DropGuard {
    stop.drop_guard()
}

async fn accept(inner: Arc<Inner>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                if !inner.faults.is_down() && stream.set_nodelay(true).is_ok() {
                    drop(connections.spawn(converse(Arc::clone(&inner), stream)));
                }
            }
        }
    }
}
