//! The log of one scripted workload: a ring of lines that any number of readers follow from their own position.

use crate::{
    Result,
    runtime::{LogLine, LogOptions, LogSource},
};
use chrono::Utc;
use futures::{StreamExt as _, stream, stream::BoxStream};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

const KEPT: usize = 10_000;
const MAX_LINE: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Log {
    lines: Mutex<Lines>,
    /// How many lines there were; closed with the workload.
    written: watch::Sender<Written>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Written {
    lines: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<(u32, LogLine)>,
    /// The number of the first line that is kept.
    first: u64,
    run: u32,
}

impl Log {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { lines: Mutex::default(), written: watch::Sender::new(Written::default()) })
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, source: LogSource, text: &str) {
        let mut end = text.len().min(MAX_LINE);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let line = LogLine { at: Utc::now(), source, text: text[..end].to_owned() };
        let mut lines = self.lines();
        let run = lines.run;
        lines.kept.push_back((run, line));
        if lines.kept.len() > KEPT {
            lines.kept.pop_front();
            lines.first += 1;
        }
        let count = lines.first + lines.kept.len() as u64;
        self.written.send_modify(|written| written.lines = count);
    }

    /// What comes from now on belongs to another run of the server.
    pub(super) fn next_run(&self) {
        self.lines().run += 1;
    }

    /// Ends whoever follows.
    pub(super) fn close(&self) {
        self.written.send_modify(|written| written.closed = true);
    }

    pub(super) fn read(self: &Arc<Self>, options: LogOptions) -> BoxStream<'static, Result<LogLine>> {
        let (mut chosen, next) = {
            let lines = self.lines();
            let wanted = if options.previous { lines.run.checked_sub(1) } else { None };
            let fits = |(run, line): &&(u32, LogLine)| {
                (if options.previous { Some(*run) == wanted } else { true })
                    && options.since.is_none_or(|since| line.at >= since)
            };
            let chosen: VecDeque<_> = lines.kept.iter().filter(fits).map(|(_, line)| line.clone()).collect();
            (chosen, lines.first + lines.kept.len() as u64)
        };
        if let Some(tail) = options.tail {
            chosen.drain(..chosen.len().saturating_sub(tail));
        }
        let past = stream::iter(chosen.into_iter().map(Ok));
        if !options.follow || options.previous {
            return past.boxed();
        }
        let follower = (Arc::clone(self), self.written.subscribe(), next);
        let live = stream::unfold(follower, |(log, mut written, mut next)| async move {
            loop {
                let seen = *written.borrow_and_update();
                let line = {
                    let lines = log.lines();
                    next = next.max(lines.first);
                    usize::try_from(next - lines.first)
                        .ok()
                        .and_then(|n| lines.kept.get(n))
                        .map(|(_, line)| line.clone())
                };
                if let Some(line) = line {
                    return Some((Ok(line), (log, written, next + 1)));
                }
                if seen.closed || written.changed().await.is_err() {
                    return None;
                }
            }
        });
        past.chain(live).boxed()
    }
}
