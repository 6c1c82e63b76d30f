//! One session at a time: turns in the order they are asked for, and the process's own requests for the one that has it.

use super::{
    mailbox::Mailbox,
    raw_id::{Digits, RawId},
    shared::{Shared, lock},
    wire::{self, Part},
};
use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout_at},
};

/// How many requests of the process one session may owe an answer to.
const MAX_RELAYED: usize = 64;

/// Who has an exclusive process.
#[derive(Debug)]
pub(super) struct Exclusive {
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    holder: Mutex<Option<Holder>>,
    leaving: mpsc::Sender<Leaving>,
}

#[derive(Debug)]
struct Holder {
    mailbox: Arc<Mailbox>,
    permit: OwnedSemaphorePermit,
    /// What its `initialize` declared; absent before it has said it.
    declared: Option<Declared>,
    /// What the process asked it, by the number that it was told.
    relayed: HashMap<u64, RawId>,
    next: u64,
}

/// A session that left something under way: its turn ends when that is done.
#[derive(Debug)]
pub(super) struct Leaving {
    mailbox: Arc<Mailbox>,
    permit: OwnedSemaphorePermit,
}

/// Why a session does not get its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    Closed,
    Busy { waiting: usize },
}

/// The client capabilities that a process can use by asking.
#[derive(Debug, Default, Clone, Deserialize)]
struct Declared {
    sampling: Option<IgnoredAny>,
    elicitation: Option<IgnoredAny>,
    roots: Option<IgnoredAny>,
}

impl Declared {
    fn allows(&self, method: &str) -> bool {
        match method.split_once('/').map_or(method, |(group, _)| group) {
            "sampling" => self.sampling.is_some(),
            "elicitation" => self.elicitation.is_some(),
            "roots" => self.roots.is_some(),
            _ => true,
        }
    }
}

/// What becomes of a request of the process.
#[derive(Debug)]
pub(super) enum Relay {
    /// The session that has the process was asked.
    Asked,
    /// There is no session, or it declared no such capability.
    NotOffered,
    /// It is too far behind.
    Behind,
}

impl Exclusive {
    pub(super) fn new(max_waiting: usize) -> (Self, mpsc::Receiver<Leaving>) {
        // There is one turn, so there is at most one session that leaves.
        let (leaving, left) = mpsc::channel(1);
        let exclusive = Self {
            turn: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
            max_waiting,
            holder: Mutex::new(None),
            leaving,
        };
        (exclusive, left)
    }

    /// Waits until the session has the process.
    pub(super) async fn enter(&self, mailbox: &Arc<Mailbox>) -> Result<(), Entered> {
        let permit = if let Ok(permit) = Arc::clone(&self.turn).try_acquire_owned() {
            permit
        } else {
            let _waiting = Waiting::new(&self.waiting, self.max_waiting)?;
            Arc::clone(&self.turn).acquire_owned().await.map_err(|_| Entered::Closed)?
        };
        let mut holder = lock(&self.holder);
        if mailbox.has_ended() {
            return Err(Entered::Closed);
        }
        *holder =
            Some(Holder { mailbox: Arc::clone(mailbox), permit, declared: None, relayed: HashMap::new(), next: 1 });
        Ok(())
    }

    /// The session is gone. What the process had asked it is answered for it; its turn ends when what it left under way has.
    pub(super) fn leave(&self, shared: &Shared, mailbox: &Arc<Mailbox>) {
        let Some(holder) = lock(&self.holder).take_if(|holder| Arc::ptr_eq(&holder.mailbox, mailbox)) else {
            return;
        };
        for asked in holder.relayed.values() {
            let text = "the client is gone";
            shared.outbox.push_now(&wire::error_response(asked.as_bytes(), wire::SERVER_ERROR, text));
        }
        let idle = lock(&shared.pending).is_idle(mailbox);
        if !idle {
            let leaving = Leaving { mailbox: Arc::clone(mailbox), permit: holder.permit };
            // When this fails the multiplexer is ending, and nobody gets a turn any more.
            drop(self.leaving.try_send(leaving));
        }
    }

    /// Ends the turns of sessions that left something under way, until the multiplexer ends.
    pub(super) async fn keep_turns(shared: Arc<Shared>, mut left: mpsc::Receiver<Leaving>, grace: Duration) {
        loop {
            let leaving = tokio::select! {
                () = shared.cancel.cancelled() => return,
                leaving = left.recv() => leaving,
            };
            let Some(Leaving { mailbox, permit }) = leaving else { return };
            let deadline = Instant::now() + grace;
            while !lock(&shared.pending).is_idle(&mailbox) {
                let waited = tokio::select! {
                    () = shared.cancel.cancelled() => return,
                    waited = timeout_at(deadline, mailbox.drained.notified()) => waited,
                };
                if waited.is_err() {
                    let mut pending = lock(&shared.pending);
                    for number in pending.numbers_of(&mailbox) {
                        drop(pending.remove(number));
                    }
                }
            }
            drop(permit);
        }
    }

    pub(super) fn close(&self) {
        self.turn.close();
    }

    pub(super) fn has_turn(&self, mailbox: &Arc<Mailbox>) -> bool {
        lock(&self.holder).as_ref().is_some_and(|holder| Arc::ptr_eq(&holder.mailbox, mailbox))
    }

    /// Notes which capabilities a session's `initialize` declares.
    pub(super) fn declare(&self, mailbox: &Arc<Mailbox>, initialize: &[u8]) {
        #[derive(Deserialize, Default)]
        struct Params {
            #[serde(default)]
            capabilities: Declared,
        }
        #[derive(Deserialize, Default)]
        struct Initialize {
            #[serde(default)]
            params: Params,
        }
        let initialize: Initialize = serde_json::from_slice(initialize).unwrap_or_default();
        self.with_holder(mailbox, |holder| holder.declared = Some(initialize.params.capabilities));
    }

    /// Whether the session has the process and has initialized it for itself.
    pub(super) fn is_initializing(&self, mailbox: &Arc<Mailbox>) -> bool {
        self.with_holder(mailbox, |holder| holder.declared.is_some()).unwrap_or(false)
    }

    /// Asks the session that has the process what the process wants to know.
    pub(super) fn relay(&self, line: &[u8], id: &Part<'_>, method: &str) -> Relay {
        let mut holder = lock(&self.holder);
        let Some(holder) = holder.as_mut() else {
            return Relay::NotOffered;
        };
        if !holder.declared.as_ref().is_some_and(|declared| declared.allows(method)) {
            return Relay::NotOffered;
        }
        if holder.relayed.len() >= MAX_RELAYED {
            return Relay::Behind;
        }
        let number = holder.next;
        let digits = Digits::new(number);
        if holder.mailbox.push_other(wire::splice(line, [Some((id.range(), digits.as_bytes()))])).is_err() {
            return Relay::Behind;
        }
        holder.next += 1;
        holder.relayed.insert(number, id.to_raw_id());
        Relay::Asked
    }

    /// Passes a notification on to the session that has the process; `cancels` names the request of the process that it is
    /// about.
    pub(super) fn notify(&self, line: &[u8], cancels: Option<&Part<'_>>) {
        let mut holder = lock(&self.holder);
        let Some(holder) = holder.as_mut() else {
            return;
        };
        let frame = match cancels {
            Some(cancelled) => {
                let number = holder.relayed.iter().find(|(_, id)| id.is(cancelled.as_str())).map(|(number, _)| *number);
                let Some(number) = number else { return };
                holder.relayed.remove(&number);
                wire::splice(line, [Some((cancelled.range(), Digits::new(number).as_bytes()))])
            }
            None => Bytes::copy_from_slice(line),
        };
        // A reader that is behind misses notifications; the mailbox counts them.
        let _delivered = holder.mailbox.push_other(frame);
    }

    /// What the process called the request that the session answers; once.
    pub(super) fn take_relayed(&self, mailbox: &Arc<Mailbox>, id: &Part<'_>) -> Option<RawId> {
        let number = id.to_number()?;
        self.with_holder(mailbox, |holder| holder.relayed.remove(&number))?
    }

    fn with_holder<T>(&self, mailbox: &Arc<Mailbox>, act: impl FnOnce(&mut Holder) -> T) -> Option<T> {
        let mut holder = lock(&self.holder);
        holder.as_mut().filter(|holder| Arc::ptr_eq(&holder.mailbox, mailbox)).map(act)
    }
}

/// Counts a session that waits for its turn.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize, max: usize) -> Result<Self, Entered> {
        let waiting = count.fetch_add(1, Ordering::Relaxed);
        let this = Self(count);
        if waiting >= max { Err(Entered::Busy { waiting }) } else { Ok(this) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
