//! Whose turn it is at a process that serves one session at a time: its channel stays with the session between two calls. Who
//! comes first has the next turn, and nobody keeps the process for long while others wait.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use archestra_core::id::ConsumerId;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{Line, NoLine};
use crate::auth::caller_key;
use crate::upstream::exchange::Turn;
use crate::upstream::flight::locked;

/// How many requests may wait for one process.
const MAX_WAITING: usize = 256;

/// For how long a session that goes on calling keeps a process while others wait.
const TENURE: Duration = Duration::from_secs(60);

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
                let (kind, id) = caller_key(principal);
                Self::Caller { kind, id, consumer }
            }
        }
    }
}

/// The turns at one process, as far as this replica takes them.
pub(super) struct Turns {
    state: Mutex<State>,
    /// Tells those who wait to look again.
    moved: Notify,
    /// How long a session that calls nothing keeps the process.
    idle: Duration,
}

#[derive(Default)]
struct State {
    holder: Option<Holder>,
    /// The requests that wait, the next one first.
    queue: VecDeque<Waiter>,
    tickets: u64,
}

struct Holder {
    /// Absent when nothing is kept for anybody once the request is over.
    key: Option<TurnKey>,
    /// There between two calls.
    line: Option<Line>,
    /// When its first request began.
    began: Option<Instant>,
    /// The session has ended: there is no next call.
    ended: bool,
}

struct Waiter {
    ticket: u64,
    key: Option<TurnKey>,
}

impl State {
    /// Whether a request waits that is of nobody who has this key.
    fn others_wait(&self, key: Option<&TurnKey>) -> bool {
        self.queue.iter().any(|waiter| waiter.key.is_none() || waiter.key.as_ref() != key)
    }

    /// Whether a request comes before all that wait, or before those of its own session.
    fn is_first(&self, ticket: Option<u64>, mut among: impl FnMut(&Waiter) -> bool) -> bool {
        self.queue.iter().find(|waiter| among(waiter)).map(|first| first.ticket) == ticket
    }

    /// The place of a request in the queue, at the end of it for a new one.
    fn queue_up(&mut self, ticket: Option<u64>, key: Option<&TurnKey>) -> Result<u64, NoLine> {
        if let Some(ticket) = ticket {
            return Ok(ticket);
        }
        if self.queue.len() >= MAX_WAITING {
            return Err(NoLine::Busy);
        }
        self.tickets += 1;
        self.queue.push_back(Waiter { ticket: self.tickets, key: key.cloned() });
        Ok(self.tickets)
    }

    /// Whether the request was still waiting.
    fn leave_queue(&mut self, ticket: Option<u64>) -> bool {
        let before = self.queue.len();
        self.queue.retain(|waiter| Some(waiter.ticket) != ticket);
        self.queue.len() < before
    }

    /// Ends a turn for the sake of those who wait: what else its session wants comes after them.
    fn pass_on(&mut self) -> Option<Holder> {
        let held = self.holder.take()?;
        self.queue.make_contiguous().sort_by_key(|waiter| waiter.key.is_some() && waiter.key == held.key);
        Some(held)
    }
}

/// What whoever wants the process may do.
enum Next {
    /// Use the channel that the session has.
    Use(Line),
    /// Open one: the process is free.
    Open,
    /// Wait under this number, and look again at this time.
    Wait(u64, Option<Instant>),
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
        if let Some(held) = &mut locked(&self.turns.state).holder {
            held.began.get_or_insert_with(Instant::now);
        }
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
        Self { state: Mutex::default(), moved: Notify::new(), idle }
    }

    /// Waits for the turn of `key`; the channel that its last call left, if there is one. The caller's deadline bounds it.
    pub(super) async fn enter(&self, key: Option<TurnKey>) -> Result<(Held<'_>, Option<Line>), NoLine> {
        let mut waiting: Option<Waiting<'_>> = None;
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            // Before the look: what moves in between is not missed.
            moved.as_mut().enable();
            let until = match self.next(key.as_ref(), waiting.as_ref().map(|waiting| waiting.ticket))? {
                Next::Use(line) => return Ok((Held { turns: self, kept: false }, Some(line))),
                Next::Open => return Ok((Held { turns: self, kept: false }, None)),
                Next::Wait(ticket, until) => {
                    waiting.get_or_insert_with(|| Waiting { turns: self, ticket });
                    until
                }
            };
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

    fn next(&self, key: Option<&TurnKey>, ticket: Option<u64>) -> Result<Next, NoLine> {
        let mut state = locked(&self.state);
        let freed = match &state.holder {
            None => None,
            Some(held) => {
                let is_its = key.is_some() && held.key.as_ref() == key;
                let wanted = !is_its || state.others_wait(held.key.as_ref());
                let Some(over) = self.over(held) else { return Ok(Next::Wait(state.queue_up(ticket, key)?, None)) };
                if Instant::now() < over || !wanted {
                    if !is_its {
                        return Ok(Next::Wait(state.queue_up(ticket, key)?, Some(over)));
                    }
                    if !state.is_first(ticket, |waiter| waiter.key.as_ref() == key) {
                        return Ok(Next::Wait(state.queue_up(ticket, key)?, None));
                    }
                    if let Some(line) = state.holder.as_mut().and_then(|held| held.line.take()) {
                        state.leave_queue(ticket);
                        return Ok(Next::Use(line));
                    }
                }
                // The end of its channel is the end of the turn at the process, too.
                state.pass_on()
            }
        };
        let next = if state.is_first(ticket, |_| true) {
            state.leave_queue(ticket);
            state.holder = Some(Holder { key: key.cloned(), line: None, began: None, ended: false });
            Ok(Next::Open)
        } else {
            state.queue_up(ticket, key).map(|ticket| Next::Wait(ticket, None))
        };
        drop(state);
        if freed.is_some() {
            drop(freed);
            self.moved.notify_waiters();
        }
        next
    }

    /// When the turn of a session ends that calls nothing now, if anybody else wants it; nothing during a call.
    fn over(&self, held: &Holder) -> Option<Instant> {
        let idle = held.line.as_ref()?.since + self.idle;
        Some(held.began.map_or(idle, |began| idle.min(began + TENURE)))
    }

    /// Gives the channel back after a request, for the next one of the same session.
    pub(super) fn put(&self, line: Line) {
        let mut state = locked(&self.state);
        let others_wait = state.holder.as_ref().is_some_and(|held| state.others_wait(held.key.as_ref()));
        let ended = match state.holder.as_mut() {
            Some(held) if held.key.is_some() && !held.ended => {
                let long = held.began.is_some_and(|began| began.elapsed() >= TENURE);
                held.line = Some(line);
                (others_wait && long).then(|| state.pass_on()).flatten()
            }
            _ => {
                drop(line);
                state.holder.take()
            }
        };
        drop(state);
        drop(ended);
        self.moved.notify_waiters();
    }

    /// The request that had the turn ended without giving its channel back.
    pub(super) fn leave(&self) {
        let held = locked(&self.state).holder.take();
        drop(held);
        self.moved.notify_waiters();
    }

    /// Ends the turn of a session that has ended, at once or when its request is over.
    pub(super) fn end(&self, session: u128) {
        let is_its = |held: &mut Holder| {
            held.ended |= held.key == Some(TurnKey::Session(session));
            held.ended && held.line.is_some()
        };
        let ended = locked(&self.state).holder.take_if(is_its);
        if ended.is_some() {
            drop(ended);
            self.moved.notify_waiters();
        }
    }

    /// Ends the turn of a session that calls nothing, for those who wait elsewhere.
    pub(super) fn trim(&self) {
        let is_over = |held: &mut Holder| {
            held.line.as_mut().is_some_and(|line| line.since.elapsed() >= self.idle || !line.is_usable())
        };
        let over = locked(&self.state).holder.take_if(is_over);
        if over.is_some() {
            drop(over);
            self.moved.notify_waiters();
        }
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = locked(&self.state);
        f.debug_struct("Turns")
            .field("held", &state.holder.is_some())
            .field("waiting", &state.queue.len())
            .finish_non_exhaustive()
    }
}

/// A request in the queue. Dropped before its turn came, it leaves it, and the next one may be first now.
struct Waiting<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waited = locked(&self.turns.state).leave_queue(Some(self.ticket));
        if waited {
            self.turns.moved.notify_waiters();
        }
    }
}
