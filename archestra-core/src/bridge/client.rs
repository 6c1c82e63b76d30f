//! The client's half: from an address and a token to a private channel, and to what the server announces.
//!
//! [`multiplexer`] lets many callers share one connection to a server that is shared, which spares each of them a connection
//! and lets their messages travel together. Where the server is exclusive, each session needs a connection of its own. Each such
//! channel has one [`Driver`], a future that carries its frames and that whoever connected must run: it ends when the
//! channel is dropped or the connection is. Dropping it ends the channel.

use super::{
    frames::Batch,
    protocol::{MAX_LINE, Purpose, Refusal, hello},
    socket::tune,
};
use crate::{
    runtime::stdio::{Channel, Line, LineSplitter, Multiplexer, MultiplexerOptions},
    secret::SecretValue,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};

/// How many frames wait in each direction.
const QUEUE: usize = 64;
/// A caller's own id may be longer than the number that the server saw.
const SLACK: usize = 64 * 1024;
/// The longest line that is read.
pub(super) const LONGEST: usize = MAX_LINE + SLACK;
/// How long what the bridge said last is read after its side was closed for writing.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing answers there.
    #[error("the bridge cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    /// It did not answer in time.
    #[error("the bridge did not answer within {after:?}")]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// It does not let us in.
    #[error("the bridge refused: {0}")]
    Refused(Refusal),
    /// It is no bridge.
    #[error("there is no bridge: {0}")]
    NotABridge(String),
}

/// Carries the frames of one channel.
#[must_use = "a channel carries nothing unless its driver runs"]
pub struct Driver(BoxFuture<'static, ()>);

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driver")
    }
}

/// A private channel over a new TCP connection.
///
/// # Errors
/// [`ConnectError`], at the latest after `deadline`.
pub async fn connect(
    address: SocketAddr,
    token: &SecretValue,
    deadline: Duration,
) -> Result<(Channel, Driver), ConnectError> {
    within(deadline, async {
        let (reader, writer) = dial(address).await?;
        greet(reader, writer, token, Purpose::Channel).await.map(Greeted::into_channel)
    })
    .await
}

/// A private channel over a stream that leads to a bridge, such as a forwarded port.
///
/// # Errors
/// [`ConnectError`], at the latest after `deadline`.
pub async fn over<S>(stream: S, token: &SecretValue, deadline: Duration) -> Result<(Channel, Driver), ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    within(deadline, async { greet(reader, writer, token, Purpose::Channel).await.map(Greeted::into_channel) }).await
}

/// Many private channels over one stream that leads to the bridge of a shared server. When the connection ends, what is under
/// way is answered with an error, as when the process ends. The multiplexer initializes itself with the bridge, which answers
/// at once; wait for [`Multiplexer::ready`].
///
/// # Errors
/// [`ConnectError`], at the latest after `deadline`.
pub async fn multiplexer<S>(
    stream: S,
    token: &SecretValue,
    deadline: Duration,
    options: MultiplexerOptions,
) -> Result<Multiplexer, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let greeted = within(deadline, greet(reader, writer, token, Purpose::Channel)).await?;
    Ok(greeted.into_multiplexer(options))
}

/// What the server announces, over a new TCP connection.
///
/// # Errors
/// [`ConnectError`], at the latest after `deadline`.
pub async fn events(address: SocketAddr, token: &SecretValue, deadline: Duration) -> Result<Events, ConnectError> {
    within(deadline, async {
        let (reader, writer) = dial(address).await?;
        greet(reader, writer, token, Purpose::Events).await.map(Greeted::into_events)
    })
    .await
}

/// What the server announces, over a stream that leads to a bridge.
///
/// # Errors
/// [`ConnectError`], at the latest after `deadline`.
pub async fn events_over<S>(stream: S, token: &SecretValue, deadline: Duration) -> Result<Events, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    within(deadline, async { greet(reader, writer, token, Purpose::Events).await.map(Greeted::into_events) }).await
}

/// What a server announces.
pub struct Events {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    _writer: Box<dyn AsyncWrite + Send + Unpin>,
    lines: LineSplitter,
}

impl Events {
    /// How often the server has said that its tools changed, since it was started: at once, and then whenever it says so
    /// again; `None` when the connection has ended. Dropping the future loses nothing.
    pub async fn tools_changed(&mut self) -> Option<u64> {
        loop {
            while let Some(line) = self.lines.next_line() {
                let Line::Whole(line) = line else { return None };
                let count = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("tools ")?.parse().ok());
                if count.is_some() {
                    return count;
                }
            }
            if !matches!(self.reader.read_buf(self.lines.room()).await, Ok(1..)) {
                return None;
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

pub(super) async fn within<T>(
    deadline: Duration,
    connecting: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout(deadline, connecting).await.map_err(|_| ConnectError::TimedOut { after: deadline })?
}

async fn dial(address: SocketAddr) -> io::Result<(tokio::net::tcp::OwnedReadHalf, tokio::net::tcp::OwnedWriteHalf)> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream)?;
    Ok(stream.into_split())
}

/// A connection that was let in; what came after the answer is in `lines`.
pub(super) struct Greeted<R, W> {
    pub(super) reader: R,
    pub(super) writer: W,
    pub(super) lines: LineSplitter,
}

async fn greet<R, W>(
    mut reader: R,
    mut writer: W,
    token: &SecretValue,
    purpose: Purpose,
) -> Result<Greeted<R, W>, ConnectError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    writer.write_all(hello(token, purpose).as_bytes()).await?;
    writer.flush().await?;
    let mut lines = LineSplitter::new(LONGEST);
    loop {
        if let Some(line) = lines.next_line() {
            let Line::Whole(line) = line else {
                return Err(ConnectError::NotABridge("its first line does not end".to_owned()));
            };
            return match Refusal::of_answer(line) {
                Ok(None) => Ok(Greeted { reader, writer, lines }),
                Ok(Some(refusal)) => Err(ConnectError::Refused(refusal)),
                Err(reason) => Err(ConnectError::NotABridge(reason)),
            };
        }
        if reader.read_buf(lines.room()).await? == 0 {
            return Err(ConnectError::Unreachable(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

impl<R, W> Greeted<R, W>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    pub(super) fn into_channel(self) -> (Channel, Driver) {
        let (to_server, outgoing) = mpsc::channel(QUEUE);
        let (incoming, from_server) = mpsc::channel(QUEUE);
        (Channel::new(to_server, from_server), Driver(Box::pin(self.carry(outgoing, incoming))))
    }

    pub(super) fn into_multiplexer(mut self, options: MultiplexerOptions) -> Multiplexer {
        let begun = io::Cursor::new(self.lines.room().split());
        let options = MultiplexerOptions { max_line: options.max_line.max(MAX_LINE) + SLACK, ..options };
        Multiplexer::start(begun.chain(self.reader), self.writer, options)
    }

    pub(super) fn into_events(self) -> Events {
        Events { reader: Box::new(self.reader), _writer: Box::new(self.writer), lines: self.lines }
    }

    /// Carries frames both ways until the connection or the channel ends. Closing our side tells the bridge that the channel
    /// is gone, so it stays open while there is a receiver.
    async fn carry(self, outgoing: mpsc::Receiver<Bytes>, incoming: mpsc::Sender<Bytes>) {
        let Self { reader, mut writer, lines } = self;
        let closed = incoming.clone();
        let write = async {
            write_all(&mut writer, outgoing).await;
            // It cannot be written to any more, but what the bridge said last may still be on its way.
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            biased;
            () = read_all(reader, lines, incoming) => {}
            () = write => {}
            () = closed.closed() => {}
        }
        drop(closed);
        // Whoever is at the other end sees the end of the connection either way.
        let _closed = timeout(LAST_WORDS, writer.shutdown()).await;
    }
}

async fn read_all<R: AsyncRead + Unpin>(mut reader: R, mut lines: LineSplitter, incoming: mpsc::Sender<Bytes>) {
    loop {
        while let Some(line) = lines.next_line() {
            let frame = match line {
                Line::Whole([]) => continue,
                Line::Whole(line) => Bytes::copy_from_slice(line),
                Line::TooLong { length, .. } => {
                    tracing::warn!(length, "a bridge sent a line that is too long; its connection is closed");
                    return;
                }
            };
            if incoming.send(frame).await.is_err() {
                return;
            }
        }
        if !matches!(reader.read_buf(lines.room()).await, Ok(1..)) {
            return;
        }
    }
}

/// Returns when the stream cannot be written to.
async fn write_all<W: AsyncWrite + Unpin>(writer: &mut W, mut outgoing: mpsc::Receiver<Bytes>) {
    let mut batch = Batch::default();
    while let Some(frame) = outgoing.recv().await {
        batch.push(&frame);
        while !batch.is_full() {
            let Ok(frame) = outgoing.try_recv() else { break };
            batch.push(&frame);
        }
        if batch.write(writer).await.is_err() {
            return;
        }
    }
    // Nobody sends any more, which ends nothing: what is under way is still answered.
    std::future::pending().await
}
