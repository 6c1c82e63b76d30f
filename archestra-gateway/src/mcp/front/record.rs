//! What is noted of a call while it goes through, and written down once when it ends, however it ends.

use crate::{
    auth::Place,
    mcp::outcome::{BodyFormat, Outcome, OutcomeScanner},
    observe::{CallNote, CallStatus, Slot},
    route::{ConsumerRoute, ToolRoute},
};
use archestra_core::{credential::Resolved, event::Outcome as Recorded, id::PolicyId, identity::Principal};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

/// A call under way. Dropped without an end it counts as cancelled.
#[derive(Debug)]
pub(crate) struct CallLog {
    noted: Option<(Slot, CallNote)>,
    /// Given back when the call has ended.
    place: Option<Place>,
}

impl CallLog {
    /// `begun` is when the request came, which may have waited for its slot.
    pub(crate) fn begin(
        audit: Slot,
        begun: Instant,
        principal: Arc<Principal>,
        consumer: Arc<ConsumerRoute>,
        address: Option<IpAddr>,
        request_bytes: usize,
    ) -> Self {
        let note = CallNote {
            begun,
            took: Duration::ZERO,
            principal,
            address,
            consumer,
            unknown: None,
            route: None,
            served_by: None,
            policy: None,
            request_bytes: request_bytes as u64,
            response_bytes: 0,
            outcome: Recorded::Cancelled,
            error: None,
        };
        Self { noted: Some((audit, note)), place: None }
    }

    /// Counts the call among its caller's.
    pub(crate) fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Notes a name that no route was found for.
    pub(crate) fn unknown(&mut self, tool: &str) {
        self.note(|note| note.unknown = Some(tool.chars().take(128).collect::<String>().into()));
    }

    pub(crate) fn routed(&mut self, route: &Arc<ToolRoute>) {
        self.note(|note| note.route = Some(Arc::clone(route)));
    }

    pub(crate) fn judged(&mut self, policy: Option<PolicyId>) {
        self.note(|note| note.policy = policy);
    }

    pub(crate) fn resolved(&mut self, resolved: &Resolved) {
        let served_by = (resolved.installation, resolved.owner, resolved.reason.label());
        self.note(|note| note.served_by = Some(served_by));
    }

    fn note(&mut self, change: impl FnOnce(&mut CallNote)) {
        if let Some((_, note)) = &mut self.noted {
            change(note);
        }
    }

    /// Ends the call by what its answer's body said.
    pub(crate) fn finish_by(self, outcome: Outcome, bytes: u64) {
        match outcome {
            Outcome::Success => self.finish(Recorded::Success, None, bytes),
            Outcome::ToolError => self.finish(Recorded::Error, Some("the tool reported an error"), bytes),
            Outcome::ProtocolError => {
                self.finish(Recorded::Error, Some("the server answered with a protocol error"), bytes)
            }
            Outcome::Missing => {
                self.finish(Recorded::Error, Some("the server ended its answer without a response"), bytes)
            }
        }
    }

    /// Ends the call by what its whole response says.
    pub(crate) fn finish_message(self, message: &[u8]) {
        let mut scanner = OutcomeScanner::new(BodyFormat::Json);
        scanner.push(message);
        self.finish_by(scanner.finish(), message.len() as u64);
    }

    /// Ends the call.
    pub(crate) fn finish(mut self, outcome: Recorded, error: Option<&str>, bytes: u64) {
        self.note(|note| {
            note.outcome = outcome;
            note.error = error.map(Box::from);
            note.response_bytes = bytes;
        });
    }
}

impl Drop for CallLog {
    fn drop(&mut self) {
        let Some((slot, mut note)) = self.noted.take() else { return };
        note.took = note.begun.elapsed();
        let unknown = note.unknown.is_some().then_some(&note.consumer.unknown);
        if let Some(meters) = note.route.as_ref().map(|route| &route.meters).or(unknown) {
            let status = if note.outcome == Recorded::Success { CallStatus::Success } else { CallStatus::Error };
            meters.record(status, note.took, note.request_bytes, note.response_bytes);
        }
        slot.write(note);
    }
}
