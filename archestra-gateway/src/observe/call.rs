//! What is noted of one call, as it travels to the audit task: shared parts and numbers, made into a record only there.

use crate::route::{ConsumerRoute, ToolRoute};
use archestra_core::{
    event::{Actor, AuditRecord, CallRecord, Outcome},
    id::{AuditId, InstallationId, PolicyId},
    identity::Principal,
    installation::Owner,
};
use chrono::{TimeDelta, Utc};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

/// A call that has ended.
#[derive(Debug)]
pub(crate) struct CallNote {
    pub(crate) begun: Instant,
    pub(crate) took: Duration,
    pub(crate) principal: Arc<Principal>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) consumer: Arc<ConsumerRoute>,
    /// The name that no route was found for.
    pub(crate) unknown: Option<Box<str>>,
    pub(crate) route: Option<Arc<ToolRoute>>,
    pub(crate) served_by: Option<(InstallationId, Owner, &'static str)>,
    pub(crate) policy: Option<PolicyId>,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) outcome: Outcome,
    pub(crate) error: Option<Box<str>>,
}

impl CallNote {
    /// The record of it.
    pub(super) fn into_record(self) -> AuditRecord {
        let age = TimeDelta::from_std(self.begun.elapsed()).unwrap_or_default();
        let tool = self.route.as_ref().map(|route| route.tool.name.as_str()).or(self.unknown.as_deref());
        AuditRecord {
            id: AuditId::new(),
            at: Utc::now() - age,
            action: AuditRecord::CALL.to_owned(),
            actor: actor(&self.principal, self.address),
            outcome: self.outcome,
            error: self.error.map(String::from),
            duration_us: u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            call: Some(CallRecord {
                consumer: self.consumer.consumer.spec.slug.clone(),
                entry: self.route.as_ref().map(|route| route.entry.spec.name.clone()),
                tool: tool.unwrap_or_default().to_owned(),
                installation: self.served_by.map(|(installation, ..)| installation.to_string()),
                owner: self.served_by.map(|(_, owner, _)| owner.to_string()),
                resolution: self.served_by.map(|(.., reason)| reason.to_owned()),
                policy: self.policy.map(|policy| policy.to_string()),
                request_bytes: self.request_bytes,
                response_bytes: self.response_bytes,
            }),
            subject: None,
            details: BTreeMap::new(),
        }
    }
}

/// A principal as the audit log names it.
fn actor(principal: &Principal, address: Option<IpAddr>) -> Actor {
    Actor {
        kind: principal.caller.kind().to_owned(),
        id: principal.caller.id(),
        name: (*principal.name).to_owned(),
        method: principal.method.kind().to_owned(),
        address: address.map(|address| address.to_string()),
    }
}
