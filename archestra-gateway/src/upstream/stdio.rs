//! Workloads behind newline-delimited JSON: idle channels are kept, and each call has one to itself.

mod exclusive;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use archestra_core::catalog::ToolConcurrency;
use archestra_core::runtime::stdio::{Channel, wire::is_unfinished};
use archestra_core::runtime::{Connection, Runtime, WorkloadId};
use bytes::Bytes;
use futures::FutureExt;
use tokio::time::Instant;

use self::exclusive::{TurnKey, Turns};
use super::era::{discover_message, judge};
use super::error::UpstreamError;
use super::exchange::Turn;
use super::flight::locked;
use super::mapping::cancelled;
use super::options::UpstreamOptions;
use crate::mcp::envelope::{self, Message};
use crate::mcp::version::Era;

/// The id of our own question on a fresh channel, as JSON text.
const ERA_QUESTION: &str = "\"archestra-era\"";

/// One channel, and the era of the process behind it.
#[derive(Debug)]
pub(super) struct Line {
    channel: Channel,
    pub(super) era: Era,
    since: Instant,
}

impl Line {
    /// Asks a fresh channel for its era; the multiplexer behind it answers by itself.
    async fn open(mut channel: Channel, server: &Arc<str>) -> Result<Self, UpstreamError> {
        let ended = || UpstreamError::unreachable(server, "its process ended");
        channel.send(discover_message(ERA_QUESTION)).await.map_err(|_| ended())?;
        loop {
            let message = channel.recv().await.ok_or_else(ended)?;
            let answers = matches!(envelope::parse(&message), Ok(Message::Response(response))
                if response.id.is_some_and(|id| id.as_str() == ERA_QUESTION));
            if answers {
                return Ok(Self { channel, era: judge(&message).era, since: Instant::now() });
            }
        }
    }

    /// Throws away what came while nobody used it; false if it has ended.
    fn is_usable(&mut self) -> bool {
        loop {
            match self.channel.recv().now_or_never() {
                Some(Some(_)) => {}
                Some(None) => return false,
                None => return true,
            }
        }
    }
}

/// The channels of one workload that nobody uses at the moment.
pub(super) struct StdioPool {
    workload: WorkloadId,
    runtime: Arc<dyn Runtime>,
    server: Arc<str>,
    idle: Mutex<Vec<Line>>,
    most: usize,
    /// Where the process serves one session at a time.
    turns: Option<Turns>,
}

/// What a channel could not be had for.
#[derive(Debug)]
pub(super) enum NoLine {
    /// The workload is reached over HTTP now.
    Http,
    /// Too many wait for their turn.
    Busy,
    Failed(UpstreamError),
}

impl StdioPool {
    /// The pool of a workload, with the first channel that was opened to it.
    pub(super) async fn new(
        workload: WorkloadId,
        runtime: Arc<dyn Runtime>,
        server: Arc<str>,
        first: Channel,
        concurrency: ToolConcurrency,
        options: &UpstreamOptions,
    ) -> Result<Self, UpstreamError> {
        let turns = match concurrency {
            ToolConcurrency::Shared => None,
            ToolConcurrency::Exclusive => Some(Turns::new(options.exclusive_idle)),
        };
        let most = options.max_idle_channels;
        let pool = Self { workload, runtime, server, idle: Mutex::default(), most, turns };
        // A channel of nobody's to an exclusive process would keep everybody out.
        if most > 0 && pool.turns.is_none() {
            let line = Line::open(first, &pool.server).await?;
            pool.put(line);
        }
        Ok(pool)
    }

    /// A channel that nobody else uses. At an exclusive process it is the one that the session had before, once it is its turn.
    pub(super) async fn take(&self, turn: Option<Turn<'_>>) -> Result<Line, NoLine> {
        let Some(turns) = &self.turns else { return self.take_any().await };
        let (held, line) = turns.enter(turn.map(TurnKey::of)).await?;
        let kept = line.and_then(|mut line| line.is_usable().then_some(line));
        let line = match kept {
            Some(line) => line,
            None => self.open().await?,
        };
        held.keep();
        Ok(line)
    }

    async fn take_any(&self) -> Result<Line, NoLine> {
        while let Some(mut line) = self.pop() {
            if line.is_usable() {
                return Ok(line);
            }
        }
        self.open().await
    }

    async fn open(&self) -> Result<Line, NoLine> {
        match self.runtime.connect(&self.workload).await {
            Ok(Connection::Stdio(channel)) => Line::open(channel, &self.server).await.map_err(NoLine::Failed),
            Ok(Connection::Http(_)) => Err(NoLine::Http),
            Err(error) => Err(NoLine::Failed(UpstreamError::from_runtime(&self.server, &error))),
        }
    }

    /// Ends what a session that has ended kept for itself.
    pub(super) fn end_session(&self, session: u128) {
        if let Some(turns) = &self.turns {
            turns.end(session);
        }
    }

    /// Closes channels that have been unused for `idle`, or for as long as a session may keep an exclusive process.
    pub(super) fn trim(&self, idle: Duration) {
        if let Some(turns) = &self.turns {
            return turns.trim();
        }
        let mut old: Vec<Line> = Vec::new();
        {
            let mut lines = locked(&self.idle);
            let kept = lines.drain(..).filter_map(|mut line| {
                if line.since.elapsed() < idle && line.is_usable() {
                    return Some(line);
                }
                old.push(line);
                None
            });
            let kept = kept.collect();
            *lines = kept;
        }
        drop(old);
    }

    fn pop(&self) -> Option<Line> {
        locked(&self.idle).pop()
    }

    /// A request has ended that cannot give its channel back.
    fn lost(&self) {
        if let Some(turns) = &self.turns {
            turns.leave();
        }
    }

    /// Takes a channel back that is free.
    pub(super) fn put(&self, mut line: Line) {
        line.since = Instant::now();
        if let Some(turns) = &self.turns {
            return turns.put(line);
        }
        let mut idle = locked(&self.idle);
        if idle.len() < self.most {
            idle.push(line);
        }
    }
}

impl fmt::Debug for StdioPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdioPool")
            .field("workload", &self.workload)
            .field("idle", &locked(&self.idle).len())
            .finish_non_exhaustive()
    }
}

/// One request on a channel of its own. Dropping it before the response tells the server to stop, and gives the channel
/// up: what may still arrive on it belongs to nobody.
#[derive(Debug)]
pub(super) struct Conversation {
    pool: Arc<StdioPool>,
    line: Option<Line>,
    /// The id of the request, as JSON text.
    id: String,
}

impl Conversation {
    /// Sends `message` on `line`.
    ///
    /// # Errors
    /// The channel had ended before it took the message.
    pub(super) async fn start(pool: &Arc<StdioPool>, line: Line, id: String, message: Bytes) -> Result<Self, Ended> {
        let conversation = Self { pool: Arc::clone(pool), line: Some(line), id };
        match &conversation.line {
            Some(line) => line.channel.send(message).await.map_err(|_| Ended)?,
            None => return Err(Ended),
        }
        Ok(conversation)
    }

    /// The next message on the channel.
    pub(super) async fn next(&mut self) -> Result<Bytes, UpstreamError> {
        let next = match &mut self.line {
            Some(line) => line.channel.recv().await,
            None => None,
        };
        next.ok_or_else(|| self.gone())
    }

    /// Answers a request of the server's.
    pub(super) async fn reply(&self, answer: Bytes) {
        if let Some(line) = &self.line {
            // If the channel has ended, reading it will say so.
            line.channel.send(answer).await.ok();
        }
    }

    /// The response has been seen: the channel is free.
    pub(super) fn over(&mut self) {
        if let Some(line) = self.line.take() {
            self.pool.put(line);
        }
    }

    /// The response has been seen, and it is an error: that is also what a multiplexer says of every request that is under
    /// way when its process dies.
    ///
    /// # Errors
    /// The process has died.
    pub(super) fn failed(&mut self, response: &[u8]) -> Result<(), UpstreamError> {
        if is_unfinished(response) {
            return Err(self.gone());
        }
        self.over();
        Ok(())
    }

    fn gone(&self) -> UpstreamError {
        UpstreamError::Gone { server: Arc::clone(&self.pool.server) }
    }
}

/// A channel has ended.
#[derive(Debug)]
pub(super) struct Ended;

impl Drop for Conversation {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            // What cannot be sent at once needs no message: the end of the channel says the same.
            line.channel.send(cancelled(&self.id)).now_or_never();
            drop(line);
            self.pool.lost();
        }
    }
}
