//! The stream of a process that is attached to, as frames of a WebSocket.
//!
//! What is written at once becomes one frame, and is written to the connection at once: each frame costs its way through the
//! API server, the kubelet and the container runtime, whatever is in it. kube's own stream passes everything through two more
//! buffers and tasks, in pieces of 4 KiB.

use bytes::{Bytes, BytesMut};
use futures::{Sink as _, Stream as _};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message},
};

use super::lock;

/// The streams of a process, the first byte of each frame.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
/// How the process, or attaching to it, ended.
const STATUS: u8 = 3;
/// From version 5 of the protocol on: the stream that follows has ended.
const CLOSE: u8 = 255;
/// How much becomes one frame at most.
const FRAME: usize = 64 * 1024;
/// How often a silent connection is used, for the sake of whoever is in between.
///
/// Nothing is concluded from an answer that does not come. Whoever ends the WebSocket, the API server or the kubelet, answers
/// pings only while it reads frames, and it reads none while the process does not take the input that it was sent before: what
/// is busy would be taken for dead. That a path is dead is found out by the connection itself (`transport`), and that a pod is,
/// by what is observed of it (`standing`).
const PING: Duration = Duration::from_secs(30);

/// Whether the end of one stream can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HalfClose {
    /// The end of the input can be told by itself.
    Known,
    /// It is the end of the connection.
    Unknown,
}

/// The process's standard output.
pub(super) struct Stdout<S> {
    wire: Arc<Wire<S>>,
    /// What is left of a frame.
    frame: Bytes,
    ended: bool,
    ping: Interval,
}

/// The process's standard input.
pub(super) struct Stdin<S> {
    wire: Arc<Wire<S>>,
    half_close: HalfClose,
    closing: bool,
}

struct Wire<S>(Mutex<Shared<S>>);

struct Shared<S> {
    stream: WebSocketStream<S>,
    /// Whoever writes, to be woken after the reader has used the way out.
    writer: Option<Waker>,
}

/// The two halves of an attached connection.
pub(super) fn split<S>(stream: WebSocketStream<S>, half_close: HalfClose) -> (Stdout<S>, Stdin<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let wire = Arc::new(Wire(Mutex::new(Shared { stream, writer: None })));
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    (
        Stdout { wire: Arc::clone(&wire), frame: Bytes::new(), ended: false, ping },
        Stdin { wire, half_close, closing: false },
    )
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stdout<S> {
    /// Uses the connection if it is time.
    fn ping(&mut self, context: &mut Context<'_>) {
        while self.ping.poll_tick(context).is_ready() {
            let mut shared = lock(&self.wire.0);
            if matches!(Pin::new(&mut shared.stream).poll_ready(context), Poll::Ready(Ok(()))) {
                // A connection that is broken shows when it is read.
                let _broken = Pin::new(&mut shared.stream).start_send(Message::Ping(Bytes::new()));
            }
            let _later = Pin::new(&mut shared.stream).poll_flush(context);
            // There is one place for whoever waits for the way out, and it was the writer's.
            if let Some(writer) = shared.writer.take() {
                writer.wake();
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stdout<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.ping(context);
        let before = into.filled().len();
        loop {
            let fits = self.frame.len().min(into.remaining());
            into.put_slice(&self.frame.split_to(fits));
            if self.ended || into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // Whatever has arrived already is read together.
            let next = Pin::new(&mut lock(&self.wire.0).stream).poll_next(context);
            match next {
                Poll::Pending if into.filled().len() > before => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(Message::Binary(frame)))) => match frame.first() {
                    Some(&STDOUT) => self.frame = frame.slice(1..),
                    Some(&STATUS) => self.ended = true,
                    _ => {}
                },
                Poll::Ready(Some(Ok(Message::Close(_))) | None) => self.ended = true,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(error))),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stdin<S> {
    fn with<T>(
        &self,
        context: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut WebSocketStream<S>>, &mut Context<'_>) -> Poll<Result<T, Error>>,
    ) -> Poll<io::Result<T>> {
        let mut shared = lock(&self.wire.0);
        let acted = act(Pin::new(&mut shared.stream), context);
        shared.writer = acted.is_pending().then(|| context.waker().clone());
        acted.map_err(broken)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stdin<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = &bytes[..bytes.len().min(FRAME)];
        self.with(context, |mut stream, context| {
            ready!(stream.as_mut().poll_ready(context))?;
            let mut frame = BytesMut::with_capacity(taken.len() + 1);
            frame.extend_from_slice(&[STDIN]);
            frame.extend_from_slice(taken);
            stream.start_send(Message::Binary(frame.freeze()))?;
            Poll::Ready(Ok(taken.len()))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.half_close == HalfClose::Unknown {
            return self.with(context, |stream, context| stream.poll_close(context));
        }
        if !self.closing {
            let told = self.with(context, |mut stream, context| {
                ready!(stream.as_mut().poll_ready(context))?;
                stream.start_send(Message::Binary(Bytes::from_static(&[CLOSE, STDIN])))?;
                Poll::Ready(Ok(()))
            });
            ready!(told)?;
            self.closing = true;
        }
        self.poll_flush(context)
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{CLOSE, FRAME, HalfClose, PING, STATUS, STDIN, STDOUT, split};
    use futures::{SinkExt as _, StreamExt as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio_tungstenite::{
        WebSocketStream,
        tungstenite::{Message, protocol::Role},
    };

    async fn pair() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = duplex(1024);
        let ours = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        (ours, WebSocketStream::from_raw_socket(theirs, Role::Server, None).await)
    }

    fn frame(stream: u8, text: &[u8]) -> Message {
        Message::Binary([&[stream], text].concat().into())
    }

    #[tokio::test]
    async fn output_is_read_to_the_status_and_no_further() {
        let (ours, mut server) = pair().await;
        let (mut stdout, _stdin) = split(ours, HalfClose::Known);
        let writing = tokio::spawn(async move {
            let large = vec![b'x'; 200_000];
            for message in [
                frame(STDOUT, b"a\nb"),
                frame(2, b"what goes to standard error"),
                frame(STDOUT, b""),
                Message::Ping("p".into()),
                frame(STDOUT, b"\n"),
                frame(STDOUT, &large),
                frame(STATUS, b"{}"),
            ] {
                server.send(message).await.unwrap();
            }
            server
        });
        let mut read = Vec::new();
        stdout.read_to_end(&mut read).await.unwrap();
        assert!(read.starts_with(b"a\nb\nxxx") && read.len() == 4 + 200_000, "{}", read.len());
        assert_eq!(stdout.read(&mut [0; 8]).await.unwrap(), 0, "it stays at its end");
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_written_at_once_is_one_frame_up_to_a_limit() {
        for half_close in [HalfClose::Known, HalfClose::Unknown] {
            let (ours, mut server) = pair().await;
            let (_stdout, mut stdin) = split(ours, half_close);
            let writing = tokio::spawn(async move {
                stdin.write_all(b"one\ntwo\n").await.unwrap();
                stdin.flush().await.unwrap();
                stdin.write_all(&vec![b'x'; FRAME + 1]).await.unwrap();
                stdin.flush().await.unwrap();
                drop(tokio::time::timeout(PING, stdin.shutdown()).await);
            });
            assert_eq!(server.next().await.unwrap().unwrap(), frame(STDIN, b"one\ntwo\n"));
            assert_eq!(server.next().await.unwrap().unwrap(), frame(STDIN, &[b'x'; FRAME]));
            assert_eq!(server.next().await.unwrap().unwrap(), frame(STDIN, b"x"));
            let end = server.next().await.unwrap().unwrap();
            match half_close {
                HalfClose::Known => assert_eq!(end, Message::Binary(vec![CLOSE, STDIN].into())),
                HalfClose::Unknown => assert!(end.is_close(), "{end:?}"),
            }
            drop(server);
            writing.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_used_now_and_then() {
        let (ours, mut server) = pair().await;
        let (mut stdout, mut stdin) = split(ours, HalfClose::Known);
        let reading = tokio::spawn(async move { stdout.read(&mut [0; 8]).await.unwrap() });
        assert!(server.next().await.unwrap().unwrap().is_ping());
        stdin.write_all(b"still").await.unwrap();
        stdin.flush().await.unwrap();
        assert_eq!(server.next().await.unwrap().unwrap(), frame(STDIN, b"still"));
        server.send(frame(STDOUT, b"here")).await.unwrap();
        assert_eq!(reading.await.unwrap(), 4);
    }
}
