//! What is noted of a call while it goes through, and written down once when it ends, however it ends.

use crate::{
    mcp::outcome::{BodyFormat, Outcome, OutcomeScanner},
    observe::{CallStatus, Slot},
    route::{ConsumerRoute, ToolRoute},
};
use archestra_core::{
    credential::Resolved,
    event::{Actor, AuditRecord, CallRecord, Outcome as Recorded},
    id::{AuditId, InstallationId, PolicyId},
    identity::Principal,
    installation::Owner,
};
use chrono::Utc;
use std::{net::IpAddr, sync::Arc};
use tokio::time::Instant;

/// A call under way. Dropped without an end it counts as cancelled.
#[derive(Debug)]
pub(crate) struct CallLog {
    audit: Slot,
    begun: Instant,
    principal: Arc<Principal>,
    address: Option<IpAddr>,
    consumer: Arc<ConsumerRoute>,
    /// The raw name once a route is known, the exposed one before.
    tool: Option<Box<str>>,
    route: Option<Arc<ToolRoute>>,
    served_by: Option<(InstallationId, Owner, &'static str)>,
    policy: Option<PolicyId>,
    request_bytes: u64,
    ended: bool,
}

impl CallLog {
    pub(crate) fn begin(
        audit: Slot,
        principal: Arc<Principal>,
        consumer: Arc<ConsumerRoute>,
        address: Option<IpAddr>,
        request_bytes: usize,
    ) -> Self {
        Self {
            audit,
            begun: Instant::now(),
            principal,
            address,
            consumer,
            tool: None,
            route: None,
            served_by: None,
            policy: None,
            request_bytes: request_bytes as u64,
            ended: false,
        }
    }

    /// Notes a name that no route was found for.
    pub(crate) fn unknown(&mut self, tool: &str) {
        self.tool = Some(tool.chars().take(128).collect::<String>().into());
    }

    pub(crate) fn routed(&mut self, route: &Arc<ToolRoute>) {
        self.route = Some(Arc::clone(route));
    }

    pub(crate) const fn judged(&mut self, policy: Option<PolicyId>) {
        self.policy = policy;
    }

    pub(crate) const fn resolved(&mut self, resolved: &Resolved) {
        self.served_by = Some((resolved.installation, resolved.owner, resolved.reason.label()));
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
        self.write(outcome, error, bytes);
    }

    fn write(&mut self, outcome: Recorded, error: Option<&str>, response_bytes: u64) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.begun.elapsed();
        if let Some(route) = &self.route {
            let status = if outcome == Recorded::Success { CallStatus::Success } else { CallStatus::Error };
            route.meters.record(status, took, self.request_bytes, response_bytes);
        }
        let tool = self.route.as_ref().map(|route| route.tool.name.as_str()).or(self.tool.as_deref());
        let record = AuditRecord {
            id: AuditId::new(),
            at: Utc::now() - took,
            action: "tools/call".to_owned(),
            actor: actor(&self.principal, self.address),
            outcome,
            error: error.map(str::to_owned),
            duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            call: Some(CallRecord {
                consumer: self.consumer.consumer.spec.slug.clone(),
                entry: self.route.as_ref().map(|route| route.entry.spec.name.clone()),
                tool: tool.unwrap_or_default().to_owned(),
                installation: self.served_by.map(|(installation, ..)| installation.to_string()),
                owner: self.served_by.map(|(_, owner, _)| owner.to_string()),
                resolution: self.served_by.map(|(.., reason)| reason.to_owned()),
                policy: self.policy.map(|policy| policy.to_string()),
                request_bytes: self.request_bytes,
                response_bytes,
            }),
            subject: None,
            details: std::collections::BTreeMap::new(),
        };
        self.audit.write(record);
    }
}

impl Drop for CallLog {
    fn drop(&mut self) {
        self.write(Recorded::Cancelled, None, 0);
    }
}

/// A principal as the audit log names it.
pub(crate) fn actor(principal: &Principal, address: Option<IpAddr>) -> Actor {
    Actor {
        kind: principal.caller.kind().to_owned(),
        id: principal.caller.id(),
        name: (*principal.name).to_owned(),
        method: principal.method.kind().to_owned(),
        address: address.map(|address| address.to_string()),
    }
}
