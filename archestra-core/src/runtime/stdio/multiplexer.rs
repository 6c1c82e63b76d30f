//! Owns one process's stream: the reader, the writer, the negotiation, and the channels that are handed out.

use super::{
    channel::Channel,
    exclusive::Exclusive,
    line::LineSplitter,
    mailbox::Mailbox,
    negotiate::{Negotiated, NegotiationError, follow_tools, negotiate, publish},
    options::{Mode, MultiplexerOptions},
    outbox::Batch,
    session::{Origin, Session},
    shared::{Closed, Shared, lock},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::DropGuard;

/// How long closing the process's stdin may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a process that closed its stdin may go on answering.
const LAST_WORDS: Duration = Duration::from_secs(2);

type Outcome = Option<Result<Arc<Negotiated>, NegotiationError>>;

/// Many private [`Channel`]s over the stream of one server process.
///
/// It lives as long as the process's stdout is open. Dropping it closes the process's stdin and ends the channels;
/// [`shutdown`](Self::shutdown) does so too and waits for its tasks.
#[derive(Debug)]
pub struct Multiplexer {
    shared: Arc<Shared>,
    options: Arc<MultiplexerOptions>,
    outcome: watch::Receiver<Outcome>,
    next_channel: AtomicU64,
    _guard: DropGuard,
}

/// Why there is no channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The process has not been initialized yet: wait for [`Multiplexer::ready`].
    #[error("the server has not been initialized yet")]
    NotReady,
    /// The multiplexer has ended.
    #[error(transparent)]
    Closed(Closed),
}

/// What a multiplexer has at the moment, and what it had to drop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Open channels, the multiplexer's own subscription included.
    pub channels: usize,
    /// Requests that the process has not answered.
    pub under_way: usize,
    /// Notifications that closed channels missed because they did not read.
    pub dropped_notifications: u64,
    /// Lines of the process that were not JSON.
    pub not_json: u64,
    /// Lines that were no message, or belonged to nothing.
    pub ignored: u64,
    /// Lines beyond the limit.
    pub too_long: u64,
}

impl Multiplexer {
    /// Takes a process's stdout and stdin, and begins to negotiate. It must be called within a Tokio runtime.
    #[must_use]
    pub fn start<R, W>(stdout: R, stdin: W, options: MultiplexerOptions) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (exclusive, left) = match options.mode {
            Mode::Shared => (None, None),
            Mode::Exclusive => {
                let (exclusive, left) = Exclusive::new(options.max_waiting);
                (Some(exclusive), Some(left))
            }
        };
        let shared = Arc::new(Shared::new(exclusive, &options));
        let options = Arc::new(options);
        let (outcome_sender, outcome) = watch::channel(None);
        let spawn = Spawner(&shared);
        spawn.owned(read(Arc::clone(&shared), stdout));
        spawn.owned(write(Arc::clone(&shared), stdin));
        spawn.owned(initialize(Arc::clone(&shared), Arc::clone(&options), outcome_sender));
        if let Some(left) = left {
            spawn.owned(Exclusive::keep_turns(Arc::clone(&shared), left, options.turn_grace));
        }
        shared.tasks.close();
        Self { _guard: shared.cancel.clone().drop_guard(), shared, options, outcome, next_channel: AtomicU64::new(1) }
    }

    /// Waits until the process is initialized. It does not wait longer than the deadline of the options.
    ///
    /// # Errors
    /// [`NegotiationError`]; the multiplexer has then ended.
    pub async fn ready(&self) -> Result<Arc<Negotiated>, NegotiationError> {
        let mut outcome = self.outcome.clone();
        let ended = || NegotiationError::Ended(self.closed_now().unwrap_or(Closed::Shutdown));
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(ended())),
            Err(_) => Err(ended()),
        }
    }

    /// What the process said about itself, once it is ready.
    #[must_use]
    pub fn negotiated(&self) -> Option<Arc<Negotiated>> {
        self.shared.negotiated.get().map(Arc::clone)
    }

    /// A new private channel. There may be any number of them.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn channel(&self) -> Result<Channel, ChannelError> {
        if let Some(closed) = self.closed_now() {
            return Err(ChannelError::Closed(closed));
        }
        if self.shared.negotiated.get().is_none() {
            return Err(ChannelError::NotReady);
        }
        let number = self.next_channel.fetch_add(1, Ordering::Relaxed);
        let mailbox = Mailbox::new(number, self.options.queue, self.options.max_in_flight);
        let session = Session::open(&self.shared, mailbox, Origin::Caller);
        session.map(Channel::over).ok_or_else(|| ChannelError::Closed(self.closed_now().unwrap_or(Closed::Shutdown)))
    }

    /// Changes whenever the process announces that its list of tools has changed.
    #[must_use]
    pub fn tools_changed(&self) -> watch::Receiver<u64> {
        self.shared.tools_changed.subscribe()
    }

    /// Waits for the end, and tells why.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.shared.closed.subscribe();
        closed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone()).unwrap_or(Closed::Shutdown)
    }

    /// Why it has ended, if it has.
    #[must_use]
    pub fn closed_now(&self) -> Option<Closed> {
        self.shared.closed.borrow().clone()
    }

    /// Answers what is under way with an error, ends the channels, closes the process's stdin and waits for the tasks.
    pub async fn shutdown(&self) {
        self.shared.close(Closed::Shutdown);
        self.shared.tasks.wait().await;
    }

    /// Whether requests are under way that will be answered by themselves, which subscriptions are not.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        lock(&self.shared.pending).ending() > 0
    }

    /// What it has at the moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let pending = lock(&self.shared.pending);
        Stats {
            channels: pending.channels.len(),
            under_way: pending.len(),
            dropped_notifications: counters.dropped.load(Ordering::Relaxed),
            not_json: counters.not_json.load(Ordering::Relaxed),
            ignored: counters.ignored.load(Ordering::Relaxed),
            too_long: counters.too_long.load(Ordering::Relaxed),
        }
    }
}

/// Starts tasks that the multiplexer owns.
struct Spawner<'a>(&'a Arc<Shared>);

impl Spawner<'_> {
    fn owned(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.tasks.spawn(task));
    }
}

/// Reads the process's stdout to its end, and ends the multiplexer then.
async fn read<R: AsyncRead + Unpin>(shared: Arc<Shared>, mut stdout: R) {
    let mut lines = LineSplitter::new(shared.max_line);
    let reason = loop {
        let read = tokio::select! {
            biased;
            () = shared.cancel.cancelled() => break Closed::Shutdown,
            read = stdout.read_buf(lines.room()) => read,
        };
        match read {
            Ok(0) => break Closed::ProcessEnded,
            Ok(_) => {
                while let Some(line) = lines.next_line() {
                    shared.on_line(line);
                }
            }
            Err(error) => break Closed::ReadFailed(error.to_string()),
        }
    };
    if let Some(line) = lines.finish() {
        shared.on_line(line);
    }
    shared.close(reason);
}

/// Writes to the process's stdin what the channels queue, as much as there is at once.
async fn write<W: AsyncWrite + Unpin>(shared: Arc<Shared>, mut stdin: W) {
    let mut batch = Batch::default();
    let failure = loop {
        if !shared.outbox.take(&mut batch) {
            tokio::select! {
                () = shared.cancel.cancelled() => break None,
                () = shared.outbox.filled() => {}
            }
            if lock(&shared.pending).len() > 1 {
                // Callers that were woken together send together: one write for all of them.
                tokio::task::yield_now().await;
            }
            continue;
        }
        let written = tokio::select! {
            () = shared.cancel.cancelled() => break None,
            written = write_batch(&mut stdin, &batch) => written,
        };
        if let Err(error) = written {
            break Some(error);
        }
        shared.outbox.written(&mut batch);
    };
    if let Some(error) = failure {
        shared.outbox.close();
        tokio::select! {
            () = shared.cancel.cancelled() => {}
            () = sleep(LAST_WORDS) => shared.close(Closed::WriteFailed(error.to_string())),
        }
    }
    // The process is ending; whether it took notice of the end of its stdin is seen by whoever waits for it.
    let _closed = timeout(CLOSE_TIMEOUT, stdin.shutdown()).await;
}

async fn write_batch<W: AsyncWrite + Unpin>(stdin: &mut W, batch: &Batch) -> std::io::Result<()> {
    for full in &batch.full {
        stdin.write_all(full).await?;
    }
    stdin.write_all(&batch.tail).await?;
    stdin.flush().await
}

/// Negotiates, tells those who wait for it, and then follows what the process announces.
async fn initialize(shared: Arc<Shared>, options: Arc<MultiplexerOptions>, outcome: watch::Sender<Outcome>) {
    let mailbox = Mailbox::new(0, options.queue, options.max_in_flight);
    let Some(session) = Session::open(&shared, mailbox, Origin::Negotiation) else {
        return;
    };
    let mut channel = Channel::over(session);
    match negotiate(&shared, &mut channel, &options).await {
        Ok(negotiated) => {
            let negotiated = publish(&shared, negotiated);
            tracing::debug!(era = ?negotiated.era, version = %negotiated.protocol_version, "the server is initialized");
            outcome.send_replace(Some(Ok(Arc::clone(&negotiated))));
            follow_tools(&negotiated, &mut channel, &options).await;
        }
        Err(error) => {
            shared.close(Closed::NotNegotiated(error.to_string()));
            outcome.send_replace(Some(Err(error)));
        }
    }
}
