//! `Paced`: a body that is let go of when nobody takes its frames for too long.
//!
//! On HTTP/1 a client that stops reading stops the writes of its connection, which have a deadline. On HTTP/2 it only closes
//! the window of one stream, and a body that is not asked for its next frame would keep its server's connection for ever.

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::task::TaskTracker;

/// What a task has read of a body.
#[derive(Debug)]
pub(super) struct Paced {
    parts: mpsc::Receiver<Part>,
    over: bool,
}

/// The longest frame: what a client has not taken of one is held for it in full.
pub(super) const LONGEST: usize = 16 * 1024;

#[derive(Debug)]
enum Part {
    Frame(Result<Frame<Bytes>, io::Error>),
    End,
}

impl Paced {
    /// Reads `body` in a task of its own, for as long as somebody takes what was read.
    pub(super) fn new<B>(body: B, patience: Duration, tasks: &TaskTracker) -> Self
    where
        B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
    {
        // The next part is ready when the one before has gone.
        let (sender, parts) = mpsc::channel(1);
        tasks.spawn(async move {
            let mut body = pin!(body);
            loop {
                let mut frame = tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    frame = body.frame() => frame,
                };
                while let Some(piece) = cut(&mut frame) {
                    if !sent(&sender, Part::Frame(Ok(Frame::data(piece))), patience).await {
                        return;
                    }
                }
                let last = !matches!(frame, Some(Ok(_)));
                let sent = sent(&sender, frame.map_or(Part::End, Part::Frame), patience).await;
                if last || !sent {
                    return;
                }
            }
        });
        Self { parts, over: false }
    }
}

/// Cuts a piece off a frame that is too long.
fn cut(frame: &mut Option<Result<Frame<Bytes>, io::Error>>) -> Option<Bytes> {
    let data = frame.as_mut()?.as_mut().ok()?.data_mut()?;
    (data.len() > LONGEST).then(|| data.split_to(LONGEST))
}

async fn sent(parts: &mpsc::Sender<Part>, part: Part, patience: Duration) -> bool {
    matches!(timeout(patience, parts.send(part)).await, Ok(Ok(())))
}

impl Body for Paced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        self.parts.poll_recv(cx).map(|part| match part {
            Some(Part::Frame(Ok(frame))) => Some(Ok(frame)),
            Some(Part::Frame(Err(error))) => {
                self.over = true;
                Some(Err(error))
            }
            Some(Part::End) => {
                self.over = true;
                None
            }
            None => {
                self.over = true;
                Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the client has not read its answer for too long")))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Full, StreamBody};
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Frames without end, as fast as they are taken; and how many were made.
    fn endless() -> (impl Body<Data = Bytes, Error = io::Error> + Send + 'static, Arc<AtomicUsize>) {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let frames = futures::stream::repeat_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Frame::data(Bytes::from_static(b"x")))
        });
        (StreamBody::new(frames), made)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_takes_is_let_go_and_never_looks_whole() {
        let (body, made) = endless();
        let tasks = TaskTracker::new();
        let mut paced = Paced::new(body, PATIENCE, &tasks);
        paced.frame().await.unwrap().unwrap();
        tokio::time::sleep(PATIENCE * 2).await;
        tasks.close();
        tasks.wait().await;
        assert_eq!(Arc::strong_count(&made), 1, "the body is gone");
        let error = loop {
            match paced.frame().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("it looks whole"),
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(paced.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_gets_all_of_it() {
        let tasks = TaskTracker::new();
        let whole = Full::new(Bytes::from_static(b"all")).map_err(|never| match never {});
        let mut paced = Paced::new(whole, PATIENCE, &tasks);
        tokio::time::sleep(PATIENCE / 2).await;
        assert_eq!(paced.frame().await.unwrap().unwrap().into_data().unwrap(), "all");
        tokio::time::sleep(PATIENCE * 2).await;
        assert!(paced.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_away_takes_the_body_along() {
        let tasks = TaskTracker::new();
        let silent = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, io::Error>>());
        drop(Paced::new(silent, PATIENCE, &tasks));
        tasks.close();
        tasks.wait().await;
    }
}
