//! What the reader, the writer and the channels of one process share.

use super::{
    exclusive::Exclusive,
    mailbox::Mailbox,
    negotiate::Negotiated,
    options::{MultiplexerOptions, Output, OutputSink},
    outbox::Outbox,
    pending::{Call, Pending},
    wire,
};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tokio::{runtime::Handle, sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why a multiplexer has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The process closed its stdout, which it does when it ends.
    #[error("the server process ended")]
    ProcessEnded,
    /// Its stream failed.
    #[error("the server process ended: its stream cannot be read: {0}")]
    ReadFailed(String),
    /// It closed its stdin.
    #[error("the server process ended: its stream cannot be written: {0}")]
    WriteFailed(String),
    /// It could not be initialized.
    #[error("the server could not be initialized: {0}")]
    NotNegotiated(String),
    /// [`Multiplexer::shutdown`](super::Multiplexer::shutdown), or the multiplexer was dropped.
    #[error("the server is being stopped")]
    Shutdown,
}

/// The state of one process's multiplexer.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) pending: Mutex<Pending>,
    pub(super) outbox: Outbox,
    pub(super) negotiated: OnceLock<Arc<Negotiated>>,
    pub(super) exclusive: Option<Exclusive>,
    pub(super) tools_changed: watch::Sender<u64>,
    pub(super) closed: watch::Sender<Option<Closed>>,
    pub(super) cancel: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) runtime: Handle,
    pub(super) max_line: usize,
    pub(super) counters: Counters,
    output: Option<OutputSink>,
    last_note: Mutex<Option<Instant>>,
}

/// What is counted for [`Stats`](super::Stats).
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) dropped: AtomicU64,
    pub(super) not_json: AtomicU64,
    pub(super) ignored: AtomicU64,
    pub(super) too_long: AtomicU64,
}

impl Shared {
    pub(super) fn new(exclusive: Option<Exclusive>, options: &MultiplexerOptions) -> Self {
        Self {
            pending: Mutex::new(Pending::new(options.numbers_from)),
            outbox: Outbox::new(),
            negotiated: OnceLock::new(),
            exclusive,
            tools_changed: watch::Sender::new(0),
            closed: watch::Sender::new(None),
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            max_line: options.max_line,
            counters: Counters::default(),
            output: options.output.clone(),
            last_note: Mutex::new(None),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.pending).is_closed()
    }

    /// Ends everything: answers what is under way with an error, then ends the channels. The first reason counts.
    pub(super) fn close(&self, reason: Closed) {
        let (calls, mailboxes) = {
            let mut pending = lock(&self.pending);
            if pending.is_closed() {
                return;
            }
            pending.close()
        };
        self.outbox.close();
        if let Some(exclusive) = &self.exclusive {
            exclusive.close();
        }
        let text = format!("{reason} {}", wire::UNFINISHED);
        for Call { owner, id, .. } in calls {
            owner.push_answer(wire::error_response(id.as_bytes(), wire::SERVER_ERROR, &text));
            owner.drained.notify_one();
        }
        for mailbox in mailboxes {
            mailbox.close();
        }
        self.closed.send_replace(Some(reason));
        self.cancel.cancel();
    }

    /// Takes a channel out of the books.
    pub(super) fn forget(&self, pending: &mut Pending, mailbox: &Mailbox) {
        if pending.channels.remove(&mailbox.number).is_some() {
            self.counters.dropped.fetch_add(mailbox.dropped(), Ordering::Relaxed);
        }
    }

    pub(super) fn emit(&self, output: Output<'_>) {
        if let Some(sink) = &self.output {
            sink.emit(output);
        }
    }

    /// Whether a note about the process's output may be logged: not more than one each second.
    pub(super) fn may_note(&self) -> bool {
        const EVERY: std::time::Duration = std::time::Duration::from_secs(1);
        let mut last = lock(&self.last_note);
        let now = Instant::now();
        let may = last.is_none_or(|last| now.duration_since(last) >= EVERY);
        if may {
            *last = Some(now);
        }
        may
    }
}

/// Locks; what a panic elsewhere left behind is as consistent as anything, because no guarded section can panic halfway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
