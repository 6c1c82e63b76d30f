//! `Stalling`: an accepted stream whose writes fail once the client has not taken a byte for too long.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// A stream whose writes have a deadline. As long as they make progress, no timer runs.
#[derive(Debug)]
pub(super) struct Stalling<S> {
    stream: S,
    patience: Duration,
    /// Made when a write has to wait for the first time, and kept for the next.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl<S> Stalling<S> {
    pub(super) const fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, timer: None, waiting: false }
    }

    /// What a write came to, unless it has been waiting for too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = false;
            return outcome;
        }
        let deadline = || Instant::now() + self.patience;
        let timer = match &mut self.timer {
            Some(timer) => {
                if !self.waiting {
                    timer.as_mut().reset(deadline());
                }
                timer
            }
            None => self.timer.insert(Box::pin(sleep_until(deadline()))),
        };
        self.waiting = true;
        timer.as_mut().poll(cx).map(|()| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the client has not read what it is sent for too long"))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut stream = Stalling::new(ours, PATIENCE);
        let begun = Instant::now();
        let error = stream.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_that_goes_on_reading_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut stream = Stalling::new(ours, PATIENCE);
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            for _ in 0..64 {
                tokio::time::sleep(PATIENCE * 9 / 10).await;
                theirs.read_exact(&mut byte).await.unwrap();
            }
            theirs
        });
        stream.write_all(&[0; 64]).await.unwrap();
        drop(reader.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_with_nothing_to_write_is_no_stall() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut stream = Stalling::new(ours, PATIENCE);
        for _ in 0..3 {
            stream.write_all(&[0; 24][..16]).await.unwrap();
            let mut read = [0; 16];
            theirs.read_exact(&mut read).await.unwrap();
            tokio::time::sleep(PATIENCE * 2).await;
        }
    }
}
