//! What waits to be read by one channel, and the bounds on it.

use super::{pending::CallList, shared::lock};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};
use tokio::sync::{Notify, Semaphore};

/// The receiving side of one channel, filled by the reader without ever waiting.
///
/// Answers are always taken: a request holds one of `slots` from when it is sent until its answer is read, so there are never
/// more of them than slots. Everything else is dropped while the queue is full.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) number: u64,
    /// How many more requests it may have under way or answered and not yet read.
    pub(super) slots: Semaphore,
    /// Its requests that are under way; guarded by the lock of the pending calls.
    pub(super) calls: CallList,
    /// Raised when the last of its requests is answered after it ended.
    pub(super) drained: Notify,
    queue: Mutex<Queue>,
    limit: usize,
    ended: AtomicBool,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    frames: VecDeque<Frame>,
    waker: Option<Waker>,
    open: bool,
}

#[derive(Debug)]
enum Frame {
    /// Gives a slot back when it is read.
    Answer(Bytes),
    Other(Bytes),
}

impl Mailbox {
    pub(super) fn new(number: u64, limit: usize, slots: usize) -> Self {
        Self {
            number,
            slots: Semaphore::new(slots.clamp(1, Semaphore::MAX_PERMITS)),
            calls: CallList::default(),
            drained: Notify::new(),
            queue: Mutex::new(Queue { frames: VecDeque::new(), waker: None, open: true }),
            limit,
            ended: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        }
    }

    /// Puts in the answer to a request that holds a slot.
    pub(super) fn push_answer(&self, frame: Bytes) {
        let mut queue = lock(&self.queue);
        if self.has_ended() {
            return;
        }
        queue.frames.push_back(Frame::Answer(frame));
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Puts in anything else, unless the reader is too far behind.
    pub(super) fn push_other(&self, frame: Bytes) -> Result<(), Behind> {
        let mut queue = lock(&self.queue);
        if !queue.open || queue.frames.len() >= self.limit {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Err(Behind);
        }
        queue.frames.push_back(Frame::Other(frame));
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    pub(super) fn poll_recv(&self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut queue = lock(&self.queue);
        let frame = match queue.frames.pop_front() {
            Some(frame) => frame,
            None if !queue.open => return Poll::Ready(None),
            None => {
                if !queue.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    queue.waker = Some(context.waker().clone());
                }
                return Poll::Pending;
            }
        };
        drop(queue);
        Poll::Ready(Some(match frame {
            Frame::Answer(frame) => {
                self.slots.add_permits(1);
                frame
            }
            Frame::Other(frame) => frame,
        }))
    }

    /// Takes nothing more in; what is there can still be read.
    pub(super) fn close(&self) {
        self.slots.close();
        let mut queue = lock(&self.queue);
        queue.open = false;
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Nobody reads it any more.
    pub(super) fn discard(&self) {
        self.close();
        let frames = std::mem::take(&mut lock(&self.queue).frames);
        drop(frames);
    }

    /// Whether its channel is gone. Decisive only under the lock of the pending calls.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Marks its channel as gone; tells whether it was before.
    pub(super) fn end(&self) -> bool {
        self.ended.swap(true, Ordering::AcqRel)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The reader of a mailbox is too far behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behind;
