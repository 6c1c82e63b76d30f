//! `/installations`: the connections that users and teams make from entries.

mod logs;
mod operate;

use super::{
    AdminState, Problem,
    access::{default_owner, may_change, require, scope_of, sees},
    body::Document,
    caller::{Who, as_asked, audited},
    page::{Listed, Params, Resource, collect},
    refs::{Named, ScopeRef},
    resolve::Directory,
};
use crate::lifecycle::InstallRequest;
use archestra_core::{
    catalog::{CatalogStoreExt as _, Entry, Given, Query, ReinstallReason},
    feed::Versioned,
    identity::{Action, Resource as On},
    installation::{CredentialHealth, Installation, InstallationState},
    runtime::WorkloadId,
    secret::SecretValue,
};
use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa_axum::{router::OpenApiRouter, routes};

/// An installation. Secret values are never in it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Installation)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InstallationView {
    id: String,
    resource_version: u64,
    /// The entry's name.
    entry: String,
    entry_id: String,
    /// Whose it is.
    scope: ScopeRef,
    /// The same, with id and name.
    owner: Named,
    /// Plain values by field name.
    values: BTreeMap<String, String>,
    /// The names of the secret fields that have a value.
    secret_fields: BTreeSet<String>,
    /// How far it has come.
    state: InstallationState,
    /// Set when a change of the entry needs new input; what runs stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    reinstall_required: Option<ReinstallReason>,
    /// How its credential is, where the platform renews it.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<CredentialHealth>,
    /// What runs for it, if the platform runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<WorkloadId>,
    /// The raw names of the tools it listed last.
    tools: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apply_set: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// What a person fills in to install an entry.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallWrite {
    /// The entry, by name or id.
    pub entry: String,
    /// Whose it is to be: `organization`, `{user: …}` or `{team: …}`; the caller's own if absent.
    #[serde(default)]
    pub scope: Option<ScopeRef>,
    /// A value for each field that the entry asks for.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub values: BTreeMap<String, Given>,
}

impl InstallWrite {
    /// The values, as secrets until it is known which are not.
    pub(crate) fn values(values: BTreeMap<String, Given>) -> BTreeMap<String, SecretValue> {
        values.into_iter().map(|(name, Given(value))| (name, value)).collect()
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct InstallationParams {
    /// Only those of this entry, by name or id.
    entry: Option<String>,
    /// At most this many items; 100 if absent, at most 1000.
    limit: Option<usize>,
    /// Where the page before ended.
    cursor: Option<String>,
}

pub(crate) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, remove))
        .merge(operate::routes())
        .merge(logs::routes())
}

/// Lists the installations that the caller may see.
#[utoipa::path(get, path = "/installations", tag = "installations", params(InstallationParams), responses((status = 200, body = Listed<InstallationView>)))]
async fn list(
    State(state): State<AdminState>,
    who: Who,
    Params(params): Params<InstallationParams>,
) -> Result<Json<Listed<InstallationView>>, Problem> {
    let mut directory = Directory::new(&state);
    let entry = match &params.entry {
        Some(entry) => Some(directory.entry(&who, entry).await?.value.id),
        None => None,
    };
    let keep =
        |installation: &Versioned<Installation>| sees(&who, On::Installation, &scope_of(installation.value.owner));
    let read = |page| state.catalog.list_page::<Installation>(Query::Installations { entry, owner: None }, page);
    let page = collect(params.limit, params.cursor, keep, read).await?;
    let mut items = Vec::new();
    for installation in page.items {
        items.push(view(&mut directory, installation).await?);
    }
    Ok(Json(Listed { items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

/// Installs an entry. A remote server is connected to first; a self-hosted one starts in the background.
#[utoipa::path(post, path = "/installations", tag = "installations", request_body = InstallWrite, responses((status = 201, body = InstallationView)))]
async fn create(
    State(state): State<AdminState>,
    who: Who,
    body: Document,
) -> Result<Resource<InstallationView>, Problem> {
    require(&who, On::Installation, Action::Create, "installing an entry")?;
    let (write, _) = body.decode_write::<InstallWrite>(&[])?;
    let mut directory = Directory::new(&state);
    let entry = directory.known_entry(&who, "entry", &write.entry).await?;
    let owner = match &write.scope {
        Some(scope) => directory.owner(&who, "scope", scope).await?,
        None => default_owner(&who).ok_or_else(|| {
            Problem::finding("scope", "whose installation it is to be is not said, and no user asks", "add `scope`")
        })?,
    };
    may_change(&who, On::Installation, Action::Create, &scope_of(owner), "installing an entry for this owner")?;
    let values = InstallWrite::values(write.values);
    let request = InstallRequest { entry: entry.value.id, owner, values, author: who.author(), apply_set: None };
    let subject = format!("installation of {}", entry.value.spec.name);
    let lifecycle = state.lifecycle.clone();
    let change = async move { Ok(lifecycle.install(request).await?) };
    let installation = audited(&state, &who, "installation.create", subject, subject_of, change).await?;
    let location = format!("/api/v1/installations/{}", installation.value.id);
    Ok(Resource::new(installation.version.0, view(&mut directory, installation).await?).created(location))
}

/// Reads an installation.
#[utoipa::path(get, path = "/installations/{installation}", tag = "installations", params(("installation" = String, Path)), responses((status = 200, body = InstallationView)))]
async fn read(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
) -> Result<Resource<InstallationView>, Problem> {
    let mut directory = Directory::new(&state);
    let installation = directory.installation(&who, &key).await?;
    Ok(Resource::new(installation.version.0, view(&mut directory, installation).await?))
}

/// Removes an installation with all that runs for it and all its secrets.
#[utoipa::path(delete, path = "/installations/{installation}", tag = "installations", params(("installation" = String, Path)), responses((status = 204)))]
async fn remove(State(state): State<AdminState>, who: Who, Path(key): Path<String>) -> Result<StatusCode, Problem> {
    let id = changeable(&state, &who, &key, Action::Delete, "removing this installation").await?.value.id;
    let lifecycle = state.lifecycle.clone();
    let change = async move { Ok(lifecycle.remove(id).await?) };
    audited(&state, &who, "installation.delete", format!("installation {id}"), as_asked, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The installation with this id, for a caller who may do this to it.
async fn changeable(
    state: &AdminState,
    who: &Who,
    key: &str,
    action: Action,
    what: &str,
) -> Result<Versioned<Installation>, Problem> {
    let installation = Directory::new(state).installation(who, key).await?;
    may_change(who, On::Installation, action, &scope_of(installation.value.owner), what)?;
    Ok(installation)
}

/// The entry whose one workload serves this installation and all others of it.
async fn shared(state: &AdminState, installation: &Installation) -> Result<Option<Entry>, Problem> {
    if installation.workload != Some(WorkloadId::of_entry(installation.entry)) {
        return Ok(None);
    }
    Ok(Some(state.catalog.get_one::<Entry>(installation.entry).await?.value))
}

/// The installation with this id, for a caller who may operate what runs for it: a workload that serves everybody's
/// installations belongs to those who may change the entry.
async fn operable(state: &AdminState, who: &Who, key: &str, what: &str) -> Result<Versioned<Installation>, Problem> {
    let installation = changeable(state, who, key, Action::Update, what).await?;
    if let Some(entry) = shared(state, &installation.value).await? {
        may_change(who, On::Entry, Action::Update, &entry.scope, "operating a shared deployment")?;
    }
    Ok(installation)
}

/// The installation with this id, for a caller who may read what its workload wrote and ran: of a workload that serves
/// everybody's installations, those who may change the entry or manage all installations.
pub(super) async fn readable(
    state: &AdminState,
    who: &Who,
    key: &str,
    what: &str,
) -> Result<Versioned<Installation>, Problem> {
    let installation = Directory::new(state).installation(who, key).await?;
    if who.permissions.allow(On::Installation, Action::Admin) {
        return Ok(installation);
    }
    if let Some(entry) = shared(state, &installation.value).await? {
        may_change(who, On::Entry, Action::Update, &entry.scope, what)?;
    }
    Ok(installation)
}

#[expect(clippy::unnecessary_wraps, reason = "it is one of the ways to name what was changed")]
fn subject_of(installation: &Versioned<Installation>) -> Option<String> {
    Some(format!("installation {}", installation.value.id))
}

async fn view(
    directory: &mut Directory,
    Versioned { version, value }: Versioned<Installation>,
) -> Result<InstallationView, Problem> {
    let (scope, owner) = directory.owner_view(value.owner).await?;
    Ok(InstallationView {
        id: value.id.to_string(),
        resource_version: version.0,
        entry: directory.entry_name(value.entry).await?,
        entry_id: value.entry.to_string(),
        scope,
        owner,
        values: value.values,
        secret_fields: value.secret_fields,
        state: value.state,
        reinstall_required: value.reinstall_required,
        credential: value.credential,
        workload: value.workload,
        tools: value.tools.into_keys().collect(),
        author: directory.author(value.author).await?,
        apply_set: value.apply_set,
        created_at: value.created_at,
        updated_at: value.updated_at,
    })
}
