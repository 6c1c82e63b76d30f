//! What a workload's processes wrote: a bounded ring of lines that any number of readers follow at their own pace.

use super::config::ProcessConfig;
use crate::{
    Result,
    runtime::{LogLine, LogOptions, LogSource},
};
use chrono::Utc;
use futures::{StreamExt, stream, stream::BoxStream};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
};

/// The longest line that is kept; the rest is cut.
const MAX_LINE: usize = 16 * 1024;
const CHUNK: usize = 8 * 1024;
/// How many lines a follower takes at once.
const BATCH: usize = 256;

/// The log of one workload over all its runs.
#[derive(Debug)]
pub(super) struct LogBuffer {
    ring: Mutex<Ring>,
    /// Rings when there is something new. Followers wait for it, and nobody ever waits for a follower.
    bell: watch::Sender<()>,
}

#[derive(Debug)]
struct Ring {
    lines: VecDeque<Kept>,
    /// The number of the oldest line that is kept.
    first: u64,
    bytes: usize,
    max_lines: usize,
    max_bytes: usize,
    run: u64,
    closed: bool,
}

#[derive(Debug)]
struct Kept {
    run: u64,
    line: LogLine,
}

impl LogBuffer {
    pub(super) fn new(config: &ProcessConfig) -> Self {
        let ring = Ring {
            lines: VecDeque::new(),
            first: 0,
            bytes: 0,
            max_lines: config.log_lines.max(1),
            max_bytes: config.log_bytes.max(MAX_LINE),
            run: 0,
            closed: false,
        };
        Self { ring: Mutex::new(ring), bell: watch::Sender::new(()) }
    }

    /// What comes from now on belongs to a new run.
    pub(super) fn begin_run(&self) {
        self.lock().run += 1;
    }

    /// A line of the platform about the server.
    pub(super) fn say(&self, text: impl Into<String>) {
        self.push(LogSource::Platform, text.into());
    }

    /// A line of the server itself, without its end.
    pub(super) fn line(&self, line: &[u8]) {
        self.push(LogSource::Server, text_of(&line[..line.len().min(MAX_LINE)]));
    }

    /// Ends every follower once it has read everything.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.bell.send_replace(());
    }

    /// The server's own last lines of this run, oldest first.
    pub(super) fn last_words(&self, lines: usize) -> Vec<String> {
        let ring = self.lock();
        let own = ring
            .lines
            .iter()
            .rev()
            .take_while(|kept| kept.run == ring.run)
            .filter(|kept| kept.line.source == LogSource::Server);
        let mut words: Vec<String> = own
            .filter(|kept| !kept.line.text.trim().is_empty())
            .take(lines)
            .map(|kept| kept.line.text.clone())
            .collect();
        words.reverse();
        words
    }

    /// Keeps every line of a stream until it ends.
    pub(super) async fn capture(self: Arc<Self>, mut from: impl AsyncRead + Unpin) {
        let mut chunk = vec![0_u8; CHUNK];
        let mut line = Vec::new();
        loop {
            let read = match from.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            let mut rest = &chunk[..read];
            while let Some(end) = memchr::memchr(b'\n', rest) {
                append(&mut line, &rest[..end]);
                self.push(LogSource::Server, text_of(&line));
                line.clear();
                rest = &rest[end + 1..];
            }
            append(&mut line, rest);
        }
        if !line.is_empty() {
            self.push(LogSource::Server, text_of(&line));
        }
    }

    /// The lines that are asked for, and with `follow` those to come.
    pub(super) fn read(self: &Arc<Self>, options: LogOptions) -> BoxStream<'static, Result<LogLine>> {
        let receiver = self.bell.subscribe();
        let (lines, next) = self.select(options);
        let kept = stream::iter(lines.into_iter().map(Ok));
        if !options.follow {
            return kept.boxed();
        }
        let follower = Follower { buffer: Arc::clone(self), receiver, next };
        let new = stream::unfold(follower, async |mut follower| {
            let batch = follower.batch().await?;
            Some((stream::iter(batch.into_iter().map(Ok)), follower))
        });
        kept.chain(new.flatten()).boxed()
    }

    fn select(&self, options: LogOptions) -> (Vec<LogLine>, u64) {
        let ring = self.lock();
        let fits = |kept: &&Kept| {
            (!options.previous || kept.run + 1 == ring.run) && options.since.is_none_or(|since| kept.line.at >= since)
        };
        let mut lines: Vec<LogLine> = ring
            .lines
            .iter()
            .rev()
            .filter(fits)
            .take(options.tail.unwrap_or(usize::MAX))
            .map(|kept| kept.line.clone())
            .collect();
        lines.reverse();
        (lines, ring.next())
    }

    fn push(&self, source: LogSource, text: String) {
        let mut ring = self.lock();
        let run = ring.run;
        ring.bytes += text.len();
        ring.lines.push_back(Kept { run, line: LogLine { at: Utc::now(), source, text } });
        while ring.lines.len() > ring.max_lines || (ring.bytes > ring.max_bytes && ring.lines.len() > 1) {
            if let Some(oldest) = ring.lines.pop_front() {
                ring.bytes -= oldest.line.text.len();
                ring.first += 1;
            }
        }
        drop(ring);
        self.bell.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn next(&self) -> u64 {
        self.first + self.lines.len() as u64
    }
}

struct Follower {
    buffer: Arc<LogBuffer>,
    receiver: watch::Receiver<()>,
    next: u64,
}

impl Follower {
    /// What is new, at least one line; `None` when there will be nothing any more.
    async fn batch(&mut self) -> Option<Vec<LogLine>> {
        loop {
            self.receiver.mark_unchanged();
            {
                let ring = self.buffer.lock();
                let mut batch = Vec::new();
                if self.next < ring.first {
                    let text = format!("… {} lines skipped", ring.first - self.next);
                    batch.push(LogLine { at: Utc::now(), source: LogSource::Platform, text });
                    self.next = ring.first;
                }
                let read = usize::try_from(self.next - ring.first).unwrap_or(usize::MAX);
                batch.extend(ring.lines.iter().skip(read).take(BATCH).map(|kept| kept.line.clone()));
                if !batch.is_empty() {
                    self.next = (self.next + BATCH as u64).min(ring.next());
                    return Some(batch);
                }
                if ring.closed {
                    return None;
                }
            }
            self.receiver.changed().await.ok()?;
        }
    }
}

/// Holds on to no more of a line than is kept.
fn append(line: &mut Vec<u8>, more: &[u8]) {
    let room = MAX_LINE.saturating_sub(line.len());
    line.extend_from_slice(&more[..more.len().min(room)]);
}

fn text_of(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut text = String::from_utf8_lossy(line).into_owned();
    text.truncate(text.floor_char_boundary(MAX_LINE));
    text
}

#[cfg(test)]
mod tests;
