//! Entries: the templates of the private registry.

use super::{AdditionalHeader, CredentialModel, Labels, SelfHosted, Transport};
use crate::{
    id::{EntryId, TeamId, UserId},
    secret::SecretRef,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// Who sees an entry, or may use a consumer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Everybody in the organization.
    #[default]
    Organization,
    /// The members of these teams.
    Teams(BTreeSet<TeamId>),
    /// One user.
    User(UserId),
}

/// A template in the private registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its identifier.
    pub id: EntryId,
    /// What a person filled in.
    #[serde(flatten)]
    pub spec: EntrySpec,
    /// Who sees it.
    pub scope: Scope,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<UserId>,
    /// Where its fixed secret values are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretRef>,
    /// The `apply` set that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_set: Option<String>,
    /// The deployment YAML as it was given, where a change of variables has taken something out of it since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_yaml: Option<String>,
    /// Whether a registry admin saved it last: only then may its URL name a private host that the operator lists.
    #[serde(default)]
    pub saved_by_admin: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a person fills in for an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntrySpec {
    /// Its name, unique in the registry: 1 to 128 printable characters.
    pub name: String,
    /// What it is, in a line or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How to use it, for people who install it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Where its documentation is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs_url: Option<String>,
    /// Where its source is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// An emoji or an `https:` or `data:` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// Its version, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A server outside the platform. Exactly one of `remote` and `selfHosted` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteServer>,
    /// A server that the platform runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_hosted: Option<SelfHosted>,
    /// How an installation authenticates.
    #[serde(default)]
    pub credential: CredentialModel,
    /// Headers that go with every request and are no credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_headers: Vec<AdditionalHeader>,
    /// Labels, which also select the entry for consumers in automatic mode.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// One workload for all installations; their credentials go with each request. `streamable-http` only.
    #[serde(default)]
    pub shared_deployment: bool,
    /// Whether one process serves many sessions at once.
    #[serde(default)]
    pub tool_concurrency: ToolConcurrency,
    /// How long a call may take, in seconds; absent: the consumer's, then the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_timeout: Option<u32>,
}

/// A server that runs elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoteServer {
    /// Its streamable-http endpoint.
    pub url: String,
}

/// Whether one process serves many sessions at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum ToolConcurrency {
    /// Yes; the process is offered no client capabilities.
    #[default]
    Shared,
    /// One session at a time has the process, with its own client's capabilities.
    Exclusive,
}

/// Which kind of server an entry describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server<'a> {
    /// One that runs elsewhere.
    Remote(&'a RemoteServer),
    /// One that the platform runs.
    SelfHosted(&'a SelfHosted),
}

impl EntrySpec {
    /// The server; `None` only for a specification that does not validate.
    #[must_use]
    pub fn server(&self) -> Option<Server<'_>> {
        match (&self.remote, &self.self_hosted) {
            (Some(remote), None) => Some(Server::Remote(remote)),
            (None, Some(hosted)) => Some(Server::SelfHosted(hosted)),
            _ => None,
        }
    }

    /// How long a call may take.
    #[must_use]
    pub fn call_timeout(&self) -> Option<Duration> {
        self.call_timeout.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Whether requests to this server can carry headers.
    #[must_use]
    pub fn speaks_http(&self) -> bool {
        match self.server() {
            Some(Server::Remote(_)) => true,
            Some(Server::SelfHosted(hosted)) => hosted.transport == Transport::StreamableHttp,
            None => false,
        }
    }
}
