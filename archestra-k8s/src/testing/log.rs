//! The log of one container, run by run, as `pods/log` reads it.

use super::time;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream, stream::BoxStream};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// What a container has written.
#[derive(Debug)]
pub(super) struct Log {
    runs: Mutex<Vec<Run>>,
    written: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Run {
    lines: Vec<(DateTime<Utc>, String)>,
    over: bool,
}

/// Which lines are wanted, and how.
#[derive(Debug, Default, Clone)]
pub(super) struct LogQuery {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) timestamps: bool,
    pub(super) tail: Option<usize>,
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) limit_bytes: Option<usize>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { runs: Mutex::default(), written: watch::Sender::new(0) }
    }

    fn runs(&self) -> MutexGuard<'_, Vec<Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.written.send_modify(|count| *count += 1);
    }

    /// Begins another run.
    pub(super) fn begin(&self) {
        self.runs().push(Run::default());
        self.wake();
    }

    /// Ends the present run, and whoever follows it.
    pub(super) fn end(&self) {
        if let Some(run) = self.runs().last_mut() {
            run.over = true;
        }
        self.wake();
    }

    pub(super) fn write(&self, text: &str) {
        if let Some(run) = self.runs().last_mut() {
            run.lines.push((Utc::now(), text.to_owned()));
        }
        self.wake();
    }

    /// How many runs there have been.
    pub(super) fn count(&self) -> usize {
        self.runs().len()
    }

    /// The lines of the present run, or of the one before it. `None`: there was no such run.
    pub(super) fn read(self: &Arc<Self>, query: &LogQuery) -> Option<BoxStream<'static, io::Result<Bytes>>> {
        let count = self.count();
        let run = if query.previous { count.checked_sub(2)? } else { count.checked_sub(1)? };
        let first = {
            let runs = self.runs();
            let lines = &runs[run].lines;
            let since = query.since.map_or(0, |since| lines.partition_point(|(at, _)| *at < since));
            query.tail.map_or(since, |tail| since.max(lines.len().saturating_sub(tail)))
        };
        let mut reader = Reader {
            log: Arc::clone(self),
            written: self.written.subscribe(),
            run,
            next: first,
            timestamps: query.timestamps,
            follow: query.follow && !query.previous,
            left: query.limit_bytes.unwrap_or(usize::MAX),
        };
        reader.written.mark_changed();
        Some(stream::unfold(reader, |mut reader| async move { Some((Ok(reader.next().await?), reader)) }).boxed())
    }
}

struct Reader {
    log: Arc<Log>,
    written: watch::Receiver<u64>,
    run: usize,
    next: usize,
    timestamps: bool,
    follow: bool,
    left: usize,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.written.mark_unchanged();
            let (line, over) = {
                let runs = self.log.runs();
                let run = runs.get(self.run)?;
                (run.lines.get(self.next).cloned(), run.over)
            };
            if let Some((at, text)) = line {
                self.next += 1;
                let mut line =
                    if self.timestamps { format!("{} {text}\n", time::text(at)) } else { format!("{text}\n") }
                        .into_bytes();
                line.truncate(self.left);
                self.left -= line.len();
                return if line.is_empty() { None } else { Some(line.into()) };
            }
            if over || !self.follow || self.written.changed().await.is_err() {
                return None;
            }
        }
    }
}
