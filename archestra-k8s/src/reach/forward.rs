//! Ports forwarded through the API server.

use super::{Shared, bridge::ready_pod, link::Link};
use crate::error::{self, within};
use archestra_core::{Error, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::Portforwarder};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

const OPERATION: &str = "forwarding a port";
/// How many connections of one workload are forwarded at a time; others wait.
const MAX_CONNECTIONS: usize = 256;
/// How long a connection waits for a pod that is ready.
const READY: Duration = Duration::from_secs(5);
/// The pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A stream to a pod's port. It ends with its forwarder.
pub(super) struct Forwarded {
    stream: DuplexStream,
    forwarder: Portforwarder,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A stream to the port of a pod.
pub(super) async fn open(shared: &Shared, link: &Link, pod: &str, port: u16) -> Result<Forwarded> {
    let pods: Api<Pod> = Api::namespaced(shared.client.clone(), &link.namespace);
    let mut forwarder = within(shared.config.call_timeout, OPERATION, pods.portforward(pod, &[port])).await?;
    let stream = forwarder.take_stream(port).ok_or_else(|| Error::Backend {
        backend: error::BACKEND,
        reason: format!("{OPERATION}: the port was forwarded without a stream"),
        source: None,
    })?;
    Ok(Forwarded { stream, forwarder })
}

/// A loopback address whose connections are forwarded to the port of whichever pod of the workload is ready. Programs on this
/// machine can connect there too.
pub(super) async fn listener(shared: &Arc<Shared>, link: &Arc<Link>, port: u16) -> Result<SocketAddr> {
    let address = link.listener.get_or_try_init(|| async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        drop(shared.tasks.spawn(serve(Arc::clone(shared), Arc::clone(link), listener, port)));
        Ok(address)
    });
    address.await.copied().map_err(|error: io::Error| Error::Backend {
        backend: error::BACKEND,
        reason: format!("{OPERATION}: no loopback port can be listened on: {error}"),
        source: Some(Box::new(error)),
    })
}

async fn serve(shared: Arc<Shared>, link: Arc<Link>, listener: TcpListener, otherwise: u16) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (shared, link) = (Arc::clone(&shared), Arc::clone(&link));
            let tasks = shared.tasks.clone();
            drop(tasks.spawn(async move {
                if let Err(error) = carry(&shared, &link, stream, otherwise).await {
                    tracing::debug!(workload = %link.id, %error, "a forwarded connection ended");
                }
                drop(place);
            }));
        }
    };
    tokio::select! {
        () = link.stop.cancelled() => {}
        () = accepting => {}
    }
}

async fn carry(shared: &Shared, link: &Link, mut stream: TcpStream, otherwise: u16) -> Result<()> {
    let pod = timeout(READY, ready_pod(shared, link)).await;
    let pod = pod.map_err(|_| Error::Timeout { operation: "waiting for a pod that is ready", after: READY })?;
    let mut forwarded = open(shared, link, pod.name(), pod.port(otherwise)).await?;
    let gone = link.gone(&pod);
    let copied = async {
        stream.set_nodelay(true)?;
        copy_bidirectional(&mut stream, &mut forwarded).await
    };
    tokio::select! {
        () = gone.cancelled() => Ok(()),
        copied = copied => copied.map(drop).map_err(|error| Error::unavailable(error::BACKEND, error)),
    }
}
