//! What the process says: each line goes to the channel it is for, or to nobody.

use super::{
    exclusive::Relay,
    line::Line,
    options::Output,
    pending::{Call, CallKind},
    session::first_initialize,
    shared::{Shared, lock},
    wire::{self, Part, Reference, ServerLine},
};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::sync::atomic::Ordering;

impl Shared {
    /// Takes one line of the process's stdout. Never waits.
    pub(super) fn on_line(&self, line: Line<'_>) {
        let line = match line {
            Line::Whole(line) => line,
            Line::TooLong { head, tail, length } => return self.on_overlong(head, tail, length),
        };
        match wire::parse_server_line(line) {
            ServerLine::Blank => {}
            ServerLine::NotJson => {
                self.counters.not_json.fetch_add(1, Ordering::Relaxed);
                if self.may_note() {
                    tracing::debug!(bytes = line.len(), "the server wrote a line that is not JSON");
                }
                self.emit(Output::Text(line));
            }
            ServerLine::Unrecognized => self.ignore("a line that is not a message"),
            ServerLine::Response { id, result } => self.on_response(line, &id, result),
            ServerLine::Request { id, method } => self.on_request(line, &id, &method),
            ServerLine::Notification { method, refers_to } => self.on_notification(line, &method, &refers_to),
        }
    }

    fn ignore(&self, what: &'static str) {
        self.counters.ignored.fetch_add(1, Ordering::Relaxed);
        if self.may_note() {
            tracing::debug!("the server wrote {what}");
        }
    }

    fn on_overlong(&self, head: &[u8], tail: &[u8], length: u64) {
        self.counters.too_long.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(length, limit = self.max_line, "the server wrote a line that is too long; it was discarded");
        self.emit(Output::TooLong { length });
        let call = wire::id_of_overlong(head, tail).and_then(|number| lock(&self.pending).remove(number));
        if let Some(call) = call {
            let limit = self.max_line;
            let text =
                format!("the server's answer has {length} bytes, more than the limit of {limit} for one message");
            let answer = wire::error_response(call.id.as_bytes(), wire::SERVER_ERROR, &text);
            deliver(&call, answer);
        }
    }

    fn on_response(&self, line: &[u8], id: &Part<'_>, result: Option<&RawValue>) {
        let call = id.to_number().and_then(|number| lock(&self.pending).remove(number));
        let Some(call) = call else {
            return self.ignore("an answer to nothing that is under way");
        };
        let own_id = (id.range(), call.id.as_bytes());
        let answer = match (call.kind, result) {
            (CallKind::Listen, Some(result)) => {
                let subscription = wire::subscription_id(line, result).map(|part| (part.range(), call.id.as_bytes()));
                wire::splice(line, [Some(own_id), subscription])
            }
            (CallKind::Initialize, None) => {
                first_initialize(self.negotiated.get(), &call.id).unwrap_or_else(|| wire::splice(line, [Some(own_id)]))
            }
            _ => wire::splice(line, [Some(own_id)]),
        };
        deliver(&call, answer);
    }

    /// The process asks its client something.
    fn on_request(&self, line: &[u8], id: &Part<'_>, method: &str) {
        let id_text = id.as_str().as_bytes();
        if method == "ping" {
            return self.outbox.push_reply(&wire::response(id_text, "{}"));
        }
        let relayed = self.exclusive.as_ref().map_or(Relay::NotOffered, |exclusive| exclusive.relay(line, id, method));
        let refusal = match relayed {
            Relay::Asked => return,
            Relay::NotOffered => {
                wire::error_response(id_text, wire::METHOD_NOT_FOUND, "the client did not offer this capability")
            }
            Relay::Behind => wire::error_response(id_text, wire::SERVER_ERROR, "the client does not answer"),
        };
        self.outbox.push_reply(&refusal);
    }

    fn on_notification(&self, line: &[u8], method: &str, refers_to: &Reference<'_>) {
        if method == "notifications/tools/list_changed" {
            self.tools_changed.send_modify(|count| *count += 1);
        }
        if method == "notifications/progress" {
            return self.on_progress(line, refers_to.progress_token.as_ref());
        }
        if let Some(subscription) = &refers_to.subscription_id {
            return self.on_subscribed(line, subscription);
        }
        if let Some(exclusive) = &self.exclusive {
            let cancels = refers_to.request_id.as_ref().filter(|_| method == "notifications/cancelled");
            exclusive.notify(line, cancels);
        }
        if method != "notifications/cancelled" {
            self.emit(Output::Notification { method, message: line });
        }
    }

    fn on_progress(&self, line: &[u8], token: Option<&Part<'_>>) {
        let Some(token) = token else {
            return self.ignore("progress without a token");
        };
        let target = token.to_number().and_then(|number| {
            let pending = lock(&self.pending);
            let call = pending.get(number)?;
            Some((std::sync::Arc::clone(&call.owner), call.token.clone()?))
        });
        let Some((owner, own_token)) = target else {
            return self.ignore("progress of nothing that is under way");
        };
        let frame = wire::splice(line, [Some((token.range(), own_token.as_bytes()))]);
        // A reader that is behind misses progress; the mailbox counts it.
        let _delivered = owner.push_other(frame);
    }

    fn on_subscribed(&self, line: &[u8], subscription: &Part<'_>) {
        let target = subscription.to_number().and_then(|number| {
            let pending = lock(&self.pending);
            let call = pending.get(number).filter(|call| call.kind == CallKind::Listen)?;
            Some((std::sync::Arc::clone(&call.owner), call.id.clone()))
        });
        let Some((owner, own_id)) = target else {
            return self.ignore("a notification of a subscription that does not exist");
        };
        let frame = wire::splice(line, [Some((subscription.range(), own_id.as_bytes()))]);
        // As with progress.
        let _delivered = owner.push_other(frame);
    }
}

fn deliver(call: &Call, answer: Bytes) {
    call.owner.push_answer(answer);
    if call.owner.has_ended() {
        call.owner.drained.notify_one();
    }
}
