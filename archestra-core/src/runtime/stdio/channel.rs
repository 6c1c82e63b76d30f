//! A private channel: one JSON-RPC message in each frame, in both directions.

use super::session::Session;
use bytes::Bytes;
use std::{future::poll_fn, sync::Arc};
use tokio::sync::mpsc;

/// How many frames wait in each direction where a channel is taken apart into queues.
const QUEUE: usize = 64;

/// A private, ordered, bounded channel to a server. Each frame is one JSON-RPC message without a line end.
///
/// Dropping it ends what it had under way. When the server dies every request that is under way is answered with a JSON-RPC
/// error, and then the channel ends.
#[derive(Debug)]
pub struct Channel {
    sender: ChannelSender,
    receiver: ChannelReceiver,
}

/// The half of a [`Channel`] that sends. Dropping it ends nothing: what is under way is still answered.
#[derive(Debug, Clone)]
pub struct ChannelSender(Sending);

#[derive(Debug, Clone)]
enum Sending {
    Queue(mpsc::Sender<Bytes>),
    Session(Arc<Session>),
}

/// The half of a [`Channel`] that receives. Dropping it ends the channel and what it had under way.
#[derive(Debug)]
pub struct ChannelReceiver(Receiving);

#[derive(Debug)]
enum Receiving {
    Queue(mpsc::Receiver<Bytes>),
    Session(OwnedSession),
}

/// Ends the session with its receiver.
#[derive(Debug)]
struct OwnedSession(Arc<Session>);

impl Drop for OwnedSession {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The other side of a channel is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's channel is closed")]
pub struct ChannelClosed;

impl Channel {
    /// A channel over two queues.
    #[must_use]
    pub fn new(to_server: mpsc::Sender<Bytes>, from_server: mpsc::Receiver<Bytes>) -> Self {
        Self {
            sender: ChannelSender(Sending::Queue(to_server)),
            receiver: ChannelReceiver(Receiving::Queue(from_server)),
        }
    }

    pub(super) fn over(session: Session) -> Self {
        let session = Arc::new(session);
        Self {
            sender: ChannelSender(Sending::Session(Arc::clone(&session))),
            receiver: ChannelReceiver(Receiving::Session(OwnedSession(session))),
        }
    }

    /// Sends one message; waits while the server is slow to read, while as many requests as allowed are unanswered or
    /// unread, and where the server is exclusive until it is this channel's turn. Dropping the future before it is done sends
    /// nothing.
    ///
    /// # Errors
    /// [`ChannelClosed`].
    pub async fn send(&self, message: Bytes) -> Result<(), ChannelClosed> {
        self.sender.send(message).await
    }

    /// The next message; `None` when the channel has ended. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.receiver.recv().await
    }

    /// The two halves, for two tasks.
    #[must_use]
    pub fn split(self) -> (ChannelSender, ChannelReceiver) {
        (self.sender, self.receiver)
    }

    /// The two queues. Dropping the second one ends the channel.
    #[must_use]
    pub fn into_parts(self) -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
        match (self.sender.0, self.receiver.0) {
            (Sending::Queue(to_server), Receiving::Queue(from_server)) => (to_server, from_server),
            (sending, receiving) => queues(ChannelSender(sending), ChannelReceiver(receiving)),
        }
    }
}

impl ChannelSender {
    /// As [`Channel::send`].
    ///
    /// # Errors
    /// [`ChannelClosed`].
    pub async fn send(&self, message: Bytes) -> Result<(), ChannelClosed> {
        match &self.0 {
            Sending::Queue(queue) => queue.send(message).await.map_err(|_| ChannelClosed),
            Sending::Session(session) => session.send(message).await,
        }
    }
}

impl ChannelReceiver {
    /// As [`Channel::recv`].
    pub async fn recv(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Receiving::Queue(queue) => queue.recv().await,
            Receiving::Session(OwnedSession(session)) => poll_fn(|context| session.poll_recv(context)).await,
        }
    }
}

/// Puts queues before a multiplexed channel; the tasks that carry the frames belong to the multiplexer.
fn queues(sender: ChannelSender, mut receiver: ChannelReceiver) -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    let (to_server, mut outgoing) = mpsc::channel(QUEUE);
    let (incoming, from_server) = mpsc::channel(QUEUE);
    let session = match (&sender.0, &receiver.0) {
        (Sending::Session(session), _) | (_, Receiving::Session(OwnedSession(session))) => Arc::clone(session),
        (Sending::Queue(_), Receiving::Queue(_)) => return (to_server, from_server),
    };
    session.spawn(async move {
        while let Some(message) = outgoing.recv().await {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    session.spawn(async move {
        loop {
            let message = tokio::select! {
                () = incoming.closed() => return,
                message = receiver.recv() => message,
            };
            let Some(message) = message else { return };
            if incoming.send(message).await.is_err() {
                return;
            }
        }
    });
    (to_server, from_server)
}
