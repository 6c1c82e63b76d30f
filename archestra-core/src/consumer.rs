//! Consumers: the gateways and agents that are given tools, and the assignments that give them.

mod reconcile;

pub use reconcile::{ReconcileInput, Reconciled, reconcile};

use crate::{
    Finding, Validate,
    catalog::{Labels, Scope, header_name_finding},
    id::{AssignmentId, ConsumerId, EntryId, IdentityProviderId, InstallationId, ToolId, UserId},
    tool::ExposedName,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which kind of consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum ConsumerKind {
    /// For external MCP clients.
    Gateway,
    /// For a program.
    Agent,
}

/// Who is given tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    /// Its identifier.
    pub id: ConsumerId,
    /// Gateway or agent.
    pub kind: ConsumerKind,
    /// What a person filled in.
    #[serde(flatten)]
    pub spec: ConsumerSpec,
    /// Who may use it.
    pub scope: Scope,
    /// Which tools it is given, in manual mode. In automatic mode labels decide, and this is empty.
    #[serde(default)]
    pub tools: Vec<ToolSelector>,
    /// The identity provider whose tokens it accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<IdentityProviderId>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<UserId>,
    /// The `apply` set that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_set: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a person fills in for a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsumerSpec {
    /// Its place in the endpoint's URL; unique over gateways and agents, and never changed.
    pub slug: String,
    /// Its name for people; the slug if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels; in automatic mode they select entries.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Who decides which tools it is given.
    #[serde(default)]
    pub tool_assignment: ToolAssignment,
    /// What its tools are called.
    #[serde(default)]
    pub tool_names: ToolNames,
    /// Whether it lists all its tools, or two that search and run them.
    #[serde(default)]
    pub tool_exposure: ToolExposure,
    /// How long a call may take, in seconds; absent: the platform's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_timeout: Option<u32>,
    /// Headers of the client's request that are passed on to servers, lower-case. Never over a credential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passthrough_headers: Vec<String>,
}

/// Who decides which tools a consumer is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum ToolAssignment {
    /// People.
    #[default]
    Manual,
    /// Labels: every tool of every entry that shares at least one `key: value` with the consumer and that everybody who may
    /// use the consumer sees.
    Automatic,
}

/// What the tools of a consumer are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum ToolNames {
    /// `server__tool`.
    #[default]
    Prefixed,
    /// As the server calls them; for a consumer of one server.
    Bare,
}

/// How a consumer shows its tools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum ToolExposure {
    /// All of them.
    #[default]
    Full,
    /// Two tools that search them and run them.
    Search,
}

/// A person's word that a consumer is given one tool of an entry, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ToolSelector {
    /// The entry.
    pub entry: EntryId,
    /// The raw name of a tool; `*` for all tools, those to come included.
    pub tool: String,
    /// Whose installation serves it.
    pub credential: CredentialChoice,
}

impl ToolSelector {
    /// Matches all tools.
    pub const ALL: &'static str = "*";

    /// Whether it selects the tool with this raw name.
    #[must_use]
    pub fn selects(&self, tool: &str) -> bool {
        self.tool == Self::ALL || self.tool == tool
    }
}

/// Whose installation serves an assigned tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum CredentialChoice {
    /// This one, whoever calls.
    Pinned(InstallationId),
    /// The one that the caller's identity leads to.
    ResolveAtCallTime,
}

/// A tool that a consumer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Its identifier.
    pub id: AssignmentId,
    /// Who has it. (consumer, tool) is unique.
    pub consumer: ConsumerId,
    /// The tool's entry.
    pub entry: EntryId,
    /// The tool.
    pub tool: ToolId,
    /// What its clients call it, fixed when it was first assigned. (consumer, exposed name) is unique.
    pub exposed_name: ExposedName,
    /// Whose installation serves it.
    pub credential: CredentialChoice,
}

impl Consumer {
    /// Its name for people.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.spec.name.as_deref().unwrap_or(&self.spec.slug)
    }

    /// How long a call may take.
    #[must_use]
    pub fn call_timeout(&self) -> Option<Duration> {
        self.spec.call_timeout.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

impl Validate for ConsumerSpec {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let slug = self.slug.as_bytes();
        let fits = (1..=63).contains(&slug.len())
            && slug.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            && slug.first() != Some(&b'-')
            && slug.last() != Some(&b'-');
        if !fits {
            findings.push(Finding::new(
                "slug",
                format!("{:?} cannot be part of the endpoint's URL", self.slug),
                "use 1 to 63 lower-case letters, digits and '-', with a letter or digit at both ends",
            ));
        } else if uuid::Uuid::parse_str(&self.slug).is_ok() {
            findings.push(Finding::new("slug", "a slug cannot look like an id", "choose a name"));
        }
        if self
            .name
            .as_ref()
            .is_some_and(|name| name.trim().is_empty() || name.len() > 256 || name.chars().any(char::is_control))
        {
            findings.push(Finding::new(
                "name",
                "a name has 1 to 256 printable characters",
                "choose another, or leave it out",
            ));
        }
        if self.call_timeout == Some(0) {
            findings.push(Finding::new(
                "callTimeout",
                "a call cannot take no time",
                "use seconds from 1, or leave it out",
            ));
        }
        if self.tool_assignment == ToolAssignment::Automatic && self.labels.is_empty() {
            findings.push(Finding::new(
                "labels",
                "automatic assignment without labels selects nothing",
                "add labels, or set `toolAssignment: manual`",
            ));
        }
        for (n, header) in self.passthrough_headers.iter().enumerate() {
            let at = format!("passthroughHeaders[{n}]");
            if header.eq_ignore_ascii_case("authorization") {
                findings.push(Finding::new(
                    at,
                    "a client's credential for the gateway goes to no server",
                    "remove it; `credential: jwtPassthrough` in an entry passes on the token of an identity provider",
                ));
                continue;
            }
            if self.passthrough_headers[..n].iter().any(|other| other.eq_ignore_ascii_case(header)) {
                findings.push(Finding::new(at.as_str(), format!("{header} is there twice"), "keep one"));
            }
            findings.extend(header_name_finding(&at, header));
        }
        findings.extend(self.labels.findings().into_iter().map(|finding| finding.under("labels")));
        findings
    }
}

#[cfg(test)]
mod tests;
