//! Gateways and agents as they are sent and answered.

use super::super::{
    AdminState, Problem,
    refs::{CredentialRef, InstallationRef, Named, ScopeRef},
    resolve::{Directory, optional},
};
use archestra_core::{
    catalog::{CatalogStoreExt as _, Labels},
    consumer::{
        Consumer, ConsumerKind, ConsumerSpec, CredentialChoice, ToolAssignment, ToolExposure, ToolNames, ToolSelector,
    },
    feed::Versioned,
    identity::{IdentityProvider, IdentityStoreExt as _},
    installation::Installation,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What a person fills in for a gateway or an agent.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsumerWrite {
    /// Its place in the endpoint's URL; unique over gateways and agents, and never changed.
    pub slug: String,
    /// Its name for people; the slug if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeRef>,
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
    /// Headers of the client's request that are passed on to servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passthrough_headers: Vec<String>,
    /// The identity provider whose tokens it accepts, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<String>,
    /// Which tools it is given, where people decide. Absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<SelectorWrite>>,
}

/// One tool of an entry, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SelectorWrite {
    /// The entry, by name or id.
    pub entry: String,
    /// The raw name of a tool; `*` for all tools, those to come included.
    pub tool: String,
    /// Whose installation serves it; the one that the caller's identity leads to if absent.
    #[serde(default)]
    pub credential: CredentialRef,
}

impl ConsumerWrite {
    /// What of it is stored as it is.
    pub(crate) fn into_spec(self) -> ConsumerSpec {
        ConsumerSpec {
            slug: self.slug,
            name: self.name,
            description: self.description,
            labels: self.labels,
            tool_assignment: self.tool_assignment,
            tool_names: self.tool_names,
            tool_exposure: self.tool_exposure,
            call_timeout: self.call_timeout,
            passthrough_headers: self
                .passthrough_headers
                .into_iter()
                .map(|header| header.to_ascii_lowercase())
                .collect(),
        }
    }
}

/// A gateway or an agent.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Consumer)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConsumerView {
    id: String,
    resource_version: u64,
    kind: ConsumerKind,
    #[serde(flatten)]
    spec: ConsumerWrite,
    /// Where MCP clients connect.
    url: String,
    /// Who may use it, with ids and names.
    owners: Vec<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apply_set: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// A consumer as it is answered.
pub(super) async fn view(
    state: &AdminState,
    directory: &mut Directory,
    Versioned { version, value }: Versioned<Consumer>,
) -> Result<ConsumerView, Problem> {
    let Consumer { id, kind, spec, scope, tools, identity_provider, author, apply_set, created_at, updated_at } = value;
    let (scope, owners) = directory.scope_view(&scope).await?;
    let mut selectors = Vec::new();
    for selector in tools {
        selectors.push(selector_view(state, directory, selector).await?);
    }
    let identity_provider = match identity_provider {
        Some(id) => Some(
            optional(state.identity.get_one::<IdentityProvider>(id).await)?
                .map_or_else(|| id.to_string(), |provider| provider.value.name),
        ),
        None => None,
    };
    let url = format!("{}/v1/mcp/{}", state.public_url.trim_end_matches('/'), spec.slug);
    let tools = (spec.tool_assignment == ToolAssignment::Manual).then_some(selectors);
    let spec = ConsumerWrite {
        slug: spec.slug,
        name: spec.name,
        description: spec.description,
        scope: Some(scope),
        labels: spec.labels,
        tool_assignment: spec.tool_assignment,
        tool_names: spec.tool_names,
        tool_exposure: spec.tool_exposure,
        call_timeout: spec.call_timeout,
        passthrough_headers: spec.passthrough_headers,
        identity_provider,
        tools,
    };
    let author = directory.author(author).await?;
    Ok(ConsumerView {
        id: id.to_string(),
        resource_version: version.0,
        kind,
        spec,
        url,
        owners,
        author,
        apply_set,
        created_at,
        updated_at,
    })
}

async fn selector_view(
    state: &AdminState,
    directory: &mut Directory,
    selector: ToolSelector,
) -> Result<SelectorWrite, Problem> {
    let credential = credential_view(state, directory, selector.credential).await?;
    Ok(SelectorWrite { entry: directory.entry_name(selector.entry).await?, tool: selector.tool, credential })
}

/// A pin, by the owner of the installation.
pub(super) async fn credential_view(
    state: &AdminState,
    directory: &mut Directory,
    choice: CredentialChoice,
) -> Result<CredentialRef, Problem> {
    let CredentialChoice::Pinned(id) = choice else { return Ok(CredentialRef::ResolveAtCallTime) };
    Ok(CredentialRef::Installation(match optional(state.catalog.get_one::<Installation>(id).await)? {
        Some(installation) => InstallationRef::Of(directory.owner_view(installation.value.owner).await?.0),
        None => InstallationRef::Id(id.to_string()),
    }))
}
