//! What waits to be written to the process: one buffer that all channels append to and one write takes away.

use super::shared::lock;
use bytes::{BufMut, BytesMut};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// How much may wait before senders have to.
const ROOM: usize = 1024 * 1024;
/// A message from here on gets a buffer of its own, so that no lock is held while it is copied.
const LARGE: usize = 32 * 1024;
/// How much of what the multiplexer says itself may wait.
const REPLY_ROOM: usize = 256 * 1024;
/// A buffer that grew beyond this is given back.
const KEEP_SIZE: usize = 2 * ROOM;

/// The queue of one process's stdin.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// Bytes that may still be appended by channels; first come, first served.
    room: Arc<Semaphore>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// Full buffers and large messages, which go before `tail`.
    full: Vec<BytesMut>,
    tail: BytesMut,
    reserved: usize,
    replies: usize,
    closed: bool,
}

/// What is to be written next, together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) full: Vec<BytesMut>,
    pub(super) tail: BytesMut,
    reserved: usize,
}

/// The process's stdin is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutboxClosed;

impl Outbox {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), room: Arc::new(Semaphore::new(ROOM)), filled: Notify::new() }
    }

    /// Waits until a message of this length may be appended.
    pub(super) async fn reserve(&self, length: usize) -> Result<Reserved<'_>, OutboxClosed> {
        let amount = length.clamp(1, ROOM);
        let permits = u32::try_from(amount).unwrap_or(u32::MAX);
        let permit = self.room.acquire_many(permits).await.map_err(|_| OutboxClosed)?;
        Ok(Reserved { outbox: self, permit, amount })
    }

    /// Appends what must not wait and is bounded otherwise: cancellations, of which there is one for each request taken.
    pub(super) fn push_now(&self, message: &[u8]) {
        self.append(&[message], 0, 0);
    }

    /// Appends an answer to something that the process asked, unless it asks and does not read.
    pub(super) fn push_reply(&self, message: &[u8]) {
        if lock(&self.queue).replies < REPLY_ROOM {
            self.append(&[message], 0, message.len());
        } else {
            tracing::debug!("an answer to the server was dropped, because it does not read");
        }
    }

    fn append(&self, pieces: &[&[u8]], reserved: usize, reply: usize) {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        // Line ends in valid JSON are white space; on the wire they would begin another message.
        let broken = pieces.iter().any(|piece| memchr::memchr2(b'\n', b'\r', piece).is_some());
        let own = (broken || length >= LARGE).then(|| {
            let mut own = BytesMut::with_capacity(length + 1);
            pieces.iter().for_each(|piece| own.put_slice(piece));
            if broken {
                own.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
            }
            own.put_u8(b'\n');
            own
        });
        let mut queue = lock(&self.queue);
        if queue.closed {
            return;
        }
        let was_empty = queue.full.is_empty() && queue.tail.is_empty();
        queue.reserved += reserved;
        queue.replies += reply;
        match own {
            Some(own) => {
                if !queue.tail.is_empty() {
                    let before = std::mem::take(&mut queue.tail);
                    queue.full.push(before);
                }
                queue.full.push(own);
            }
            None => {
                queue.tail.reserve(length + 1);
                pieces.iter().for_each(|piece| queue.tail.put_slice(piece));
                queue.tail.put_u8(b'\n');
            }
        }
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits until there is something to write.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Swaps what waits for the empty `batch`; tells whether there was anything.
    pub(super) fn take(&self, batch: &mut Batch) -> bool {
        let mut queue = lock(&self.queue);
        if queue.full.is_empty() && queue.tail.is_empty() {
            return false;
        }
        std::mem::swap(&mut queue.full, &mut batch.full);
        std::mem::swap(&mut queue.tail, &mut batch.tail);
        batch.reserved = std::mem::take(&mut queue.reserved);
        queue.replies = 0;
        true
    }

    /// Gives the room of a written batch back to the senders, and makes it empty.
    pub(super) fn written(&self, batch: &mut Batch) {
        batch.full.clear();
        batch.tail.clear();
        if batch.tail.capacity() > KEEP_SIZE {
            batch.tail = BytesMut::new();
        }
        self.room.add_permits(std::mem::take(&mut batch.reserved));
    }

    /// Takes nothing more in; whoever waits for room is told.
    pub(super) fn close(&self) {
        self.room.close();
        let mut queue = lock(&self.queue);
        queue.closed = true;
        let left = (std::mem::take(&mut queue.full), std::mem::take(&mut queue.tail));
        drop(queue);
        drop(left);
    }
}

/// Room for one message.
#[derive(Debug)]
pub(super) struct Reserved<'a> {
    outbox: &'a Outbox,
    permit: SemaphorePermit<'a>,
    amount: usize,
}

impl Reserved<'_> {
    /// Appends the message that consists of these pieces.
    pub(super) fn push(self, pieces: &[&[u8]]) {
        self.permit.forget();
        self.outbox.append(pieces, self.amount, 0);
    }
}
