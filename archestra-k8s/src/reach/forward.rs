//! Ports forwarded through the API server.

use super::{
    Shared,
    bridge::ready_pod,
    link::{Link, ReadyPod},
    standing, unavailable,
};
use crate::error::{self, within};
use archestra_core::{Error, Result, secret::SecretValue};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
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
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

const OPERATION: &str = "forwarding a port";
/// How many connections of one workload are forwarded at a time; others wait.
const MAX_CONNECTIONS: usize = 256;
/// How long a connection waits for a pod that is ready.
const READY: Duration = Duration::from_secs(5);
/// How long a server may take to answer through a forwarded port.
const ANSWER: Duration = Duration::from_secs(5);
/// How long whoever connects may take to ask something, and how long that may be before its body.
const HEAD: Duration = Duration::from_secs(15);
const MAX_HEAD: usize = 64 * 1024;
/// The header with the key of a [`Door`].
const KEY_HEADER: &str = "x-archestra-forward";
const QUESTION: &str = "OPTIONS / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const REFUSAL: &str = "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
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

/// Whether something answers behind the port of a pod, to a request that changes nothing.
pub(super) async fn check(shared: &Shared, link: &Link, pod: &ReadyPod, otherwise: u16) -> Result<()> {
    let port = pod.port(otherwise);
    let asked = async {
        let mut stream = open(shared, link, pod.name(), port).await?;
        let heard = async {
            stream.write_all(QUESTION.as_bytes()).await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        match heard.await {
            Ok(answer) if &answer == b"HTTP/" => Ok(()),
            Ok(_) => Err(unavailable(format!("{OPERATION}: what answers at port {port} does not speak HTTP"))),
            Err(error) => Err(unavailable(format!("{OPERATION}: nothing answers at port {port}: {error}"))),
        }
    };
    timeout(ANSWER, asked)
        .await
        .unwrap_or(Err(Error::Timeout { operation: "waiting for an answer through a forwarded port", after: ANSWER }))
}

/// A loopback address whose connections are forwarded to the port of whichever pod of the workload is ready, for those who know
/// its key.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    key: SecretValue,
}

impl Door {
    /// What the first request of each connection must carry: other users of this machine can connect too.
    pub(super) fn header(&self) -> (String, SecretValue) {
        (KEY_HEADER.to_owned(), self.key.clone())
    }
}

/// The workload's door, opened when it is needed first.
pub(super) async fn door<'a>(shared: &Arc<Shared>, link: &'a Arc<Link>, port: u16) -> Result<&'a Door> {
    let door = link.listener.get_or_try_init(|| async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut bytes = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let key = SecretValue::new(URL_SAFE_NO_PAD.encode(bytes));
        drop(shared.tasks.spawn(serve(Arc::clone(shared), Arc::clone(link), listener, key.clone(), port)));
        Ok(Door { address, key })
    });
    door.await.map_err(|error: io::Error| Error::Backend {
        backend: error::BACKEND,
        reason: format!("{OPERATION}: no loopback port can be listened on: {error}"),
        source: Some(Box::new(error)),
    })
}

async fn serve(shared: Arc<Shared>, link: Arc<Link>, listener: TcpListener, key: SecretValue, otherwise: u16) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (shared, link, key) = (Arc::clone(&shared), Arc::clone(&link), key.clone());
            let tasks = shared.tasks.clone();
            drop(tasks.spawn(async move {
                if let Err(error) = carry(&shared, &link, stream, &key, otherwise).await {
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

async fn carry(shared: &Shared, link: &Link, mut stream: TcpStream, key: &SecretValue, otherwise: u16) -> Result<()> {
    let ended = |error| Error::unavailable(error::BACKEND, error);
    stream.set_nodelay(true).map_err(ended)?;
    let head = tokio::select! {
        () = link.stop.cancelled() => return Ok(()),
        head = timeout(HEAD, head(&mut stream, key)) => head,
    };
    let head = match head {
        Ok(Ok(Some(head))) => head,
        Ok(Ok(None)) => return stream.write_all(REFUSAL.as_bytes()).await.map_err(ended),
        Ok(Err(error)) => return Err(ended(error)),
        Err(_) => return Err(Error::Timeout { operation: "waiting for a request to forward", after: HEAD }),
    };
    let pod = timeout(READY, ready_pod(shared, link)).await;
    let pod = pod.map_err(|_| Error::Timeout { operation: "waiting for a pod that is ready", after: READY })?;
    let mut forwarded = open(shared, link, pod.name(), pod.port(otherwise)).await?;
    let copied = async {
        forwarded.write_all(&head).await?;
        copy_bidirectional(&mut stream, &mut forwarded).await
    };
    tokio::select! {
        () = link.stop.cancelled() => Ok(()),
        // A client may keep the connection for its next request, and the API server keeps it to whoever was there.
        () = standing::over(shared, link, &pod) => Ok(()),
        copied = copied => copied.map(drop).map_err(ended),
    }
}

/// The beginning of the first request, without the key; `None` where the key is missing or another.
async fn head(stream: &mut TcpStream, key: &SecretValue) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(without_key(&head, end, key));
        }
        if head.len() >= MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
}

/// What was read, without the line of the key, which must be among those before `end`.
fn without_key(read: &[u8], end: usize, key: &SecretValue) -> Option<Vec<u8>> {
    let mut start = 0;
    while start < end {
        let length = read[start..].windows(2).position(|window| window == b"\r\n")?;
        let line = &read[start..start + length];
        let next = start + length + 2;
        if let Some(colon) = line.iter().position(|byte| *byte == b':')
            && line[..colon].eq_ignore_ascii_case(KEY_HEADER.as_bytes())
        {
            let given = line[colon + 1..].trim_ascii();
            verify_slices_are_equal(given, key.expose().as_bytes()).ok()?;
            return Some([&read[..start], &read[next..]].concat());
        }
        start = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::without_key;
    use archestra_core::secret::SecretValue;

    #[test]
    fn the_key_is_asked_for_and_does_not_go_on() {
        let key = SecretValue::new("k3y");
        let pass = |text: &str| {
            let end = text.find("\r\n\r\n").unwrap();
            without_key(text.as_bytes(), end, &key).map(|left| String::from_utf8(left).unwrap())
        };
        let request = "POST /mcp HTTP/1.1\r\nhost: a\r\nX-Archestra-Forward: k3y\r\ncontent-length: 2\r\n\r\n{}";
        let without = "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(pass(request).as_deref(), Some(without));
        assert_eq!(
            pass("GET / HTTP/1.1\r\nx-archestra-forward:k3y\r\n\r\n").as_deref(),
            Some("GET / HTTP/1.1\r\n\r\n")
        );
        assert_eq!(pass(without), None);
        assert_eq!(pass("GET / HTTP/1.1\r\nx-archestra-forward: other\r\n\r\n"), None);
        assert_eq!(pass("GET / HTTP/1.1\r\n\r\nx-archestra-forward: k3y\r\n"), None, "that is the body");
    }
}
