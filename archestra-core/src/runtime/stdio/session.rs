//! One channel's sending side: what it says is checked, answered here or spliced and queued for the process.

use super::{
    channel::ChannelClosed,
    exclusive::{Entered, Exclusive},
    mailbox::Mailbox,
    negotiate::{Era, Negotiated},
    pending::{Call, CallKind, Refused},
    raw_id::{Digits, RawId},
    shared::{Shared, lock},
    wire::{self, ClientMessage, Part},
};
use bytes::Bytes;
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::{OnceCell, SemaphorePermit};

/// A longer cancellation is passed on in our own words, because cancellations do not wait for room.
const MAX_CANCELLATION: usize = 4096;

/// Who speaks through a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A channel that was handed out.
    Caller,
    /// The multiplexer itself, when it negotiates: nothing is answered on behalf of the process.
    Negotiation,
}

/// A channel's use of the process.
#[derive(Debug)]
pub(super) struct Session {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    origin: Origin,
    turn: OnceCell<()>,
}

impl Session {
    /// A new one, in the books of the process; `None` when that has ended.
    pub(super) fn open(shared: &Arc<Shared>, mailbox: Mailbox, origin: Origin) -> Option<Self> {
        let mailbox = Arc::new(mailbox);
        let mut pending = lock(&shared.pending);
        if pending.is_closed() {
            return None;
        }
        pending.channels.insert(mailbox.number, Arc::clone(&mailbox));
        drop(pending);
        Some(Self { shared: Arc::clone(shared), mailbox, origin, turn: OnceCell::new() })
    }

    pub(super) async fn send(&self, message: Bytes) -> Result<(), ChannelClosed> {
        if self.mailbox.has_ended() {
            return Err(ChannelClosed);
        }
        match wire::parse_client(&message) {
            Ok(ClientMessage::Request { id, method, progress_token }) => {
                self.request(&message, &method, &id, progress_token.as_ref()).await
            }
            Ok(ClientMessage::Notification { method, request_id }) => {
                self.notification(&message, &method, request_id.as_ref()).await
            }
            Ok(ClientMessage::Response { id }) => self.response(&message, &id).await,
            Err(malformed) => {
                self.slot().await?.forget();
                self.mailbox.push_answer(malformed.to_response());
                Ok(())
            }
        }
    }

    pub(super) fn poll_recv(&self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        self.mailbox.poll_recv(context)
    }

    /// Runs a task that ends with the multiplexer.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancelled = self.shared.cancel.clone().cancelled_owned();
        let task = async move {
            tokio::select! {
                () = cancelled => {}
                () = task => {}
            }
        };
        drop(self.shared.tasks.spawn_on(task, &self.shared.runtime));
    }

    /// The receiving side is gone: cancels what is under way and forgets it.
    pub(super) fn end(&self) {
        let mut pending = lock(&self.shared.pending);
        if self.mailbox.end() {
            return;
        }
        self.shared.forget(&mut pending, &self.mailbox);
        let mut cancelled = pending.numbers_of(&self.mailbox);
        cancelled.retain(|number| pending.get(*number).is_some_and(|call| call.kind != CallKind::Initialize));
        if self.shared.exclusive.is_none() {
            for number in pending.numbers_of(&self.mailbox) {
                drop(pending.remove(number));
            }
        }
        drop(pending);
        self.mailbox.discard();
        for number in cancelled {
            self.shared.outbox.push_now(&cancellation(number, "the caller is gone"));
        }
        if let Some(exclusive) = &self.shared.exclusive {
            exclusive.leave(&self.shared, &self.mailbox);
        }
    }

    async fn slot(&self) -> Result<SemaphorePermit<'_>, ChannelClosed> {
        self.mailbox.slots.acquire().await.map_err(|_| ChannelClosed)
    }

    async fn request(
        &self,
        message: &[u8],
        method: &str,
        id: &Part<'_>,
        token: Option<&Part<'_>>,
    ) -> Result<(), ChannelClosed> {
        let slot = self.slot().await?;
        let mut kind = CallKind::Plain;
        if self.origin == Origin::Caller {
            if let Some(answer) = self.answer_itself(method, id) {
                slot.forget();
                self.mailbox.push_answer(answer);
                return Ok(());
            }
            if let Some(exclusive) = &self.shared.exclusive
                && let Some(refusal) = self.enter(exclusive, id).await?
            {
                slot.forget();
                self.mailbox.push_answer(refusal);
                return Ok(());
            }
        }
        match method {
            "subscriptions/listen" => kind = CallKind::Listen,
            "initialize" if self.origin == Origin::Caller => {
                kind = CallKind::Initialize;
                if let Some(exclusive) = &self.shared.exclusive {
                    exclusive.declare(&self.mailbox, message);
                }
            }
            _ => {}
        }
        let room = self.shared.outbox.reserve(message.len()).await.map_err(|_| ChannelClosed)?;
        let call =
            Call { owner: Arc::clone(&self.mailbox), id: id.to_raw_id(), token: token.map(Part::to_raw_id), kind };
        let registered = lock(&self.shared.pending).insert(call);
        let number = match registered {
            Ok(number) => number,
            Err(Refused::Closed) => return Err(ChannelClosed),
            Err(Refused::Full) => {
                slot.forget();
                let text = "the server has too many calls under way; try again later";
                self.mailbox.push_answer(wire::error_response(id.as_str().as_bytes(), wire::SERVER_ERROR, text));
                return Ok(());
            }
        };
        slot.forget();
        let digits = Digits::new(number);
        let digits = digits.as_bytes();
        room.push(
            wire::pieces(message, [Some((id.range(), digits)), token.map(|token| (token.range(), digits))])
                .as_flattened(),
        );
        Ok(())
    }

    /// What needs no process to be answered.
    fn answer_itself(&self, method: &str, id: &Part<'_>) -> Option<Bytes> {
        let id = id.as_str().as_bytes();
        let negotiated = self.shared.negotiated.get()?;
        match method {
            "ping" => Some(wire::response(id, "{}")),
            "server/discover" => Some(negotiated.discover_response(id)),
            "initialize" if self.shared.exclusive.is_none() || negotiated.era == Era::Modern => {
                Some(negotiated.initialize_response(id))
            }
            _ => None,
        }
    }

    /// Waits for this session's turn; gives the answer to a request that cannot wait.
    async fn enter(&self, exclusive: &Exclusive, id: &Part<'_>) -> Result<Option<Bytes>, ChannelClosed> {
        match self.turn.get_or_try_init(|| exclusive.enter(&self.mailbox)).await {
            Ok(()) => Ok(None),
            Err(Entered::Closed) => Err(ChannelClosed),
            Err(Entered::Busy { waiting }) => {
                let text = format!(
                    "the server serves one session at a time, and {waiting} wait already; try again later, or set `toolConcurrency: shared` where the server allows it"
                );
                Ok(Some(wire::error_response(id.as_str().as_bytes(), wire::SERVER_ERROR, &text)))
            }
        }
    }

    async fn notification(
        &self,
        message: &[u8],
        method: &str,
        request_id: Option<&Part<'_>>,
    ) -> Result<(), ChannelClosed> {
        if method == "notifications/cancelled" {
            if let Some(request_id) = request_id {
                self.cancel(message, request_id);
            }
            return Ok(());
        }
        if self.origin == Origin::Caller && !self.may_notify(method) {
            return Ok(());
        }
        let room = self.shared.outbox.reserve(message.len()).await.map_err(|_| ChannelClosed)?;
        room.push(&[message]);
        Ok(())
    }

    /// Whether a caller's notification reaches the process: what is about the state of the one client that the process knows
    /// only does while that client is this session.
    fn may_notify(&self, method: &str) -> bool {
        let of_the_client = matches!(
            method,
            "notifications/initialized" | "notifications/roots/list_changed" | "notifications/progress"
        );
        match (&self.shared.exclusive, self.shared.negotiated.get().map(|negotiated| negotiated.era)) {
            (Some(exclusive), Some(Era::Legacy)) if method == "notifications/initialized" => {
                exclusive.is_initializing(&self.mailbox)
            }
            (Some(exclusive), _) => exclusive.has_turn(&self.mailbox),
            (None, _) => !of_the_client,
        }
    }

    /// Passes a cancellation on, with the process's number, and forgets the call: it needs no answer any more.
    fn cancel(&self, message: &[u8], request_id: &Part<'_>) {
        let mut pending = lock(&self.shared.pending);
        let Some(number) = pending.find(&self.mailbox, request_id.as_str()) else {
            return;
        };
        let Some(call) = pending.remove(number) else {
            return;
        };
        drop(pending);
        drop(call);
        self.mailbox.slots.add_permits(1);
        if message.len() > MAX_CANCELLATION {
            return self.shared.outbox.push_now(&cancellation(number, "cancelled by the caller"));
        }
        let digits = Digits::new(number);
        let spliced = wire::splice(message, [Some((request_id.range(), digits.as_bytes()))]);
        self.shared.outbox.push_now(&spliced);
    }

    /// A caller's answer to what the process asked it.
    async fn response(&self, message: &[u8], id: &Part<'_>) -> Result<(), ChannelClosed> {
        let Some(exclusive) = &self.shared.exclusive else {
            return Ok(());
        };
        let room = self.shared.outbox.reserve(message.len()).await.map_err(|_| ChannelClosed)?;
        if let Some(asked) = exclusive.take_relayed(&self.mailbox, id) {
            room.push(wire::pieces(message, [Some((id.range(), asked.as_bytes()))]).as_flattened());
        }
        Ok(())
    }
}

/// A cancellation in the multiplexer's own words.
pub(super) fn cancellation(number: u64, reason: &str) -> Vec<u8> {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{number},\"reason\":\"{reason}\"}}}}"
    )
    .into_bytes()
}

/// The answer to an `initialize` that an exclusive process refused.
pub(super) fn first_initialize(negotiated: Option<&Arc<Negotiated>>, id: &RawId) -> Option<Bytes> {
    negotiated.map(|negotiated| negotiated.initialize_response(id.as_bytes()))
}
