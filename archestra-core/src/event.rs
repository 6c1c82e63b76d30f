//! What is recorded about what happened: audit records.

use crate::id::AuditId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One thing that somebody did. It holds no secret and no payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// The identifier, ordered by time.
    pub id: AuditId,
    /// When it began.
    pub at: DateTime<Utc>,
    /// What was done: `tools/call`, `tools/list`, `initialize`, or `entry.create` and the like for the control plane.
    pub action: String,
    /// Who did it.
    pub actor: Actor,
    /// Whether it worked.
    pub outcome: Outcome,
    /// Why not, in words that hold no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// Of a call: where it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallRecord>,
    /// Of a change: what was changed, as `kind` and id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Whatever else explains it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl AuditRecord {
    /// The action of a call, of which there are far more than of all others.
    pub const CALL: &str = "tools/call";
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// `user`, `team`, `organization`, `client`, or `system`.
    pub kind: String,
    /// The id, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The name at that time.
    pub name: String,
    /// How they authenticated: `token`, `oauth`, `idp`, `embedded`.
    pub method: String,
    /// The address the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It worked.
    Success,
    /// It failed.
    Error,
    /// A rule or a missing permission forbade it.
    Denied,
    /// The caller went away, or took it back.
    Cancelled,
}

/// Where a tool call went, and on whose behalf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CallRecord {
    /// The consumer's slug.
    pub consumer: String,
    /// The entry's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// The tool's raw name, or the exposed one that no route was found for.
    pub tool: String,
    /// The installation that served it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installation: Option<String>,
    /// Whose installation that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Why this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// The rule that decided, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
}
