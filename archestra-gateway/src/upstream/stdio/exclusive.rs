//! Whose turn it is at a process that serves one session at a time: its channel stays with the session between two calls.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use archestra_core::id::ConsumerId;
use archestra_core::identity::{AuthMethod, Principal};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{Line, NoLine};
use crate::upstream::exchange::Turn;
use crate::upstream::flight::locked;

/// How many requests may wait for one process.
const MAX_WAITING: usize = 256;

/// Who has a process between two calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TurnKey {
    Session(u128),
    Caller { kind: &'static str, id: String, consumer: ConsumerId },
}

impl TurnKey {
    pub(super) fn of(turn: Turn<'_>) -> Self {
        match turn {
            Turn::Session(id) => Self::Session(id),
            Turn::Caller { principal, consumer } => {
                Self::Caller { kind: principal.caller.kind(), id: caller_id(principal), consumer }
            }
        }
    }
}

/// Callers without an id of their own are told apart by their token.
fn caller_id(principal: &Principal) -> String {
    match (principal.caller.id(), &principal.method) {
        (Some(id), _) => id,
        (None, AuthMethod::Token(token)) => token.to_string(),
        (None, method) => method.kind().to_owned(),
    }
}

/// The turns at one process, as far as this replica takes them.
pub(super) struct Turns {
    holder: Mutex<Option<Holder>>,
    /// Tells those who wait to look again.
    moved: Notify,
    waiting: AtomicUsize,
    /// How long a session that calls nothing keeps the process.
    idle: Duration,
}

struct Holder {
    /// Absent when nothing is kept for anybody once the request is over.
    key: Option<TurnKey>,
    /// There between two calls.
    line: Option<Line>,
    /// The session has ended: there is no next call.
    ended: bool,
}

/// What whoever wants the process may do.
enum Next {
    /// Use the channel that the session has.
    Use(Line),
    /// Open one: the process is free.
    Open,
    /// Wait, and look again at this time.
    Wait(Option<Instant>),
}

/// The turn of one request. Dropped before its channel is given back, it ends.
pub(super) struct Held<'a> {
    turns: &'a Turns,
    kept: bool,
}

impl Held<'_> {
    /// The request has begun: its conversation ends the turn.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.turns.leave();
        }
    }
}

impl Turns {
    pub(super) fn new(idle: Duration) -> Self {
        Self { holder: Mutex::default(), moved: Notify::new(), waiting: AtomicUsize::new(0), idle }
    }

    /// Waits for the turn of `key`; the channel that its last call left, if there is one. The caller's deadline bounds it.
    pub(super) async fn enter(&self, key: Option<TurnKey>) -> Result<(Held<'_>, Option<Line>), NoLine> {
        let mut waiting = None;
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            // Before the look: what moves in between is not missed.
            moved.as_mut().enable();
            let until = match self.next(key.as_ref()) {
                Next::Use(line) => return Ok((Held { turns: self, kept: false }, Some(line))),
                Next::Open => return Ok((Held { turns: self, kept: false }, None)),
                Next::Wait(until) => until,
            };
            if waiting.is_none() {
                waiting = Some(Waiting::new(&self.waiting).ok_or(NoLine::Busy)?);
            }
            match until {
                None => moved.await,
                Some(until) => {
                    tokio::select! {
                        () = moved => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
        }
    }

    fn next(&self, key: Option<&TurnKey>) -> Next {
        let mut holder = locked(&self.holder);
        if let Some(held) = holder.as_mut() {
            let Some(line) = held.line.take() else { return Next::Wait(None) };
            if key.is_some() && held.key.as_ref() == key {
                return Next::Use(line);
            }
            let until = line.since + self.idle;
            if Instant::now() < until {
                held.line = Some(line);
                return Next::Wait(Some(until));
            }
            // Its end is the end of the turn at the process, too.
            drop(line);
        }
        *holder = Some(Holder { key: key.cloned(), line: None, ended: false });
        Next::Open
    }

    /// Gives the channel back after a request, for the next one of the same session.
    pub(super) fn put(&self, line: Line) {
        let mut holder = locked(&self.holder);
        match holder.as_mut() {
            Some(held) if held.key.is_some() && !held.ended => held.line = Some(line),
            _ => {
                drop(line);
                *holder = None;
            }
        }
        drop(holder);
        self.moved.notify_waiters();
    }

    /// The request that had the turn ended without giving its channel back.
    pub(super) fn leave(&self) {
        *locked(&self.holder) = None;
        self.moved.notify_waiters();
    }

    /// Ends the turn of a session that has ended, at once or when its request is over.
    pub(super) fn end(&self, session: u128) {
        let mut holder = locked(&self.holder);
        let Some(held) = holder.as_mut().filter(|held| held.key == Some(TurnKey::Session(session))) else { return };
        held.ended = true;
        if held.line.is_some() {
            *holder = None;
            drop(holder);
            self.moved.notify_waiters();
        }
    }

    /// Ends the turn of a session that calls nothing, for those who wait elsewhere.
    pub(super) fn trim(&self) {
        let mut holder = locked(&self.holder);
        let is_over = |held: &mut Holder| {
            held.line.as_mut().is_some_and(|line| line.since.elapsed() >= self.idle || !line.is_usable())
        };
        if holder.as_mut().is_some_and(is_over) {
            *holder = None;
            drop(holder);
            self.moved.notify_waiters();
        }
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = locked(&self.holder).is_some();
        f.debug_struct("Turns").field("held", &held).finish_non_exhaustive()
    }
}

/// Counts a request that waits for its turn.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Option<Self> {
        let this = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(this)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
