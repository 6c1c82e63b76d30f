//! `Held`: what of a connection's answers its client has yet to take, and the end of a connection of which nothing is taken.
//!
//! On HTTP/2 a client may close the window of its streams. What has been handed over then stays where nobody can take it
//! back until the connection ends. A connection ends when answers wait on it, none of them has moved for a whole patience,
//! and nothing else is being answered on it: the streams that other callers of the same proxy read go on.

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// What waits on one connection.
#[derive(Debug, Default)]
pub(super) struct Held {
    waiting: AtomicUsize,
    /// How often something moved.
    moved: AtomicU64,
    answering: AtomicUsize,
    /// Whether the connection speaks HTTP/2: others leave nothing here.
    used: AtomicBool,
    /// The connection's task, which is not woken by a frame that it has no window for.
    task: AtomicWaker,
}

impl Held {
    /// A request that is being answered, until it is dropped.
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.used.store(true, Ordering::Relaxed);
        self.answering.fetch_add(1, Ordering::Relaxed);
        self.moved.fetch_add(1, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    /// Drives a connection to its end; `None` when it had to be ended because nothing moves on it.
    pub(super) async fn attend<T>(&self, connection: impl Future<Output = T>, patience: Duration) -> Option<T> {
        let mut connection = pin!(connection);
        // Armed only while something waits, and looked at only when it is over, so that what moves costs no timer.
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        let (mut armed, mut seen) = (false, 0);
        poll_fn(|cx| {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
            if !armed {
                if !self.used.load(Ordering::Relaxed) {
                    return Poll::Pending;
                }
                self.task.register(cx.waker());
                if self.waiting.load(Ordering::Acquire) == 0 {
                    return Poll::Pending;
                }
            }
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now())));
            loop {
                if armed {
                    ready!(timer.as_mut().poll(cx));
                    self.task.register(cx.waker());
                    if self.waiting.load(Ordering::Acquire) == 0 {
                        armed = false;
                        return Poll::Pending;
                    }
                    let answering = self.answering.load(Ordering::Relaxed);
                    if answering == 0 && self.moved.load(Ordering::Relaxed) == seen {
                        return Poll::Ready(None);
                    }
                }
                armed = true;
                seen = self.moved.load(Ordering::Relaxed);
                timer.as_mut().reset(Instant::now() + patience);
            }
        })
        .await
    }

    fn wait(&self) {
        if self.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            self.task.wake();
        }
    }

    fn pass(&self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        self.moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Answering(Arc<Held>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that waits whenever it could go on and is not asked to, and so does each of its frames until it has been written.
#[derive(Debug)]
pub(super) struct Holding<B> {
    body: B,
    held: Arc<Held>,
    waits: bool,
}

impl<B> Holding<B> {
    pub(super) fn new(body: B, held: &Arc<Held>) -> Self {
        held.wait();
        Self { body, held: Arc::clone(held), waits: true }
    }
}

impl<B> Body for Holding<B>
where
    B: Body<Data = Bytes, Error = io::Error> + Unpin,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if std::mem::take(&mut self.waits) {
            self.held.pass();
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.held.wait();
        self.waits = true;
        let held = &self.held;
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| handed(data, held)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Holding<B> {
    fn drop(&mut self) {
        if self.waits {
            self.held.pass();
        }
    }
}

/// Bytes that wait until nobody has them any more.
struct Handed {
    data: Bytes,
    held: Arc<Held>,
}

fn handed(data: Bytes, held: &Arc<Held>) -> Bytes {
    held.wait();
    Bytes::from_owner(Handed { data, held: Arc::clone(held) })
}

impl AsRef<[u8]> for Handed {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.held.pass();
    }
}

#[cfg(test)]
mod tests;
