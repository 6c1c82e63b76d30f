//! What is done to an installation while it is there: status, restart, reinstall, new tools, revisions.

use super::{
    super::{
        AdminState, Problem,
        body::Document,
        caller::{Who, as_asked, audited},
        page::{Listed, PageParams, Params, Resource, collect},
        resolve::Directory,
    },
    InstallWrite, InstallationView, changeable, operable, readable, view,
};
use archestra_core::{
    catalog::{CatalogStoreExt as _, Given, Query},
    feed::Page,
    identity::Action,
    installation::InstallationState,
    runtime::{Revision, RevisionNumber, WorkloadStatus},
};
use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa_axum::{router::OpenApiRouter, routes};

/// How an installation is, and how what runs for it is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusView {
    /// How far the installation has come.
    state: InstallationState,
    /// What runs for it; absent for a remote server.
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<WorkloadStatus>,
    /// The revision that is to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    desired: Option<RevisionNumber>,
    /// Whether the platform would add something else to a revision that is made today; `update` does.
    outdated: bool,
    /// Why the runtime does not accept the desired revision; what ran before goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// How many tools it listed last.
    tools: usize,
}

/// New values; those that are not given again stay.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ReinstallWrite {
    /// By field name.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    values: BTreeMap<String, Given>,
}

/// Which revision to go back to.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RollbackWrite {
    /// Its number.
    revision: RevisionNumber,
}

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(restart))
        .routes(routes!(reinstall))
        .routes(routes!(refresh_tools))
        .routes(routes!(update))
        .routes(routes!(rollback))
        .routes(routes!(revisions))
}

/// Reads how an installation is, and how what runs for it is.
#[utoipa::path(get, path = "/installations/{installation}/status", tag = "installations", params(("installation" = String, Path)), responses((status = 200, body = StatusView)))]
async fn status(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
) -> Result<Json<StatusView>, Problem> {
    let id = Directory::new(&state).installation(&who, &key).await?.value.id;
    let status = state.lifecycle.status(id).await?;
    let installation = status.installation.value;
    Ok(Json(StatusView {
        state: installation.state,
        workload: status.workload,
        desired: status.desired,
        outdated: status.outdated,
        refused: status.refused,
        tools: installation.tools.len(),
    }))
}

/// Starts what runs for it anew.
#[utoipa::path(post, path = "/installations/{installation}/restart", tag = "installations", params(("installation" = String, Path)), responses((status = 202)))]
async fn restart(State(state): State<AdminState>, who: Who, Path(key): Path<String>) -> Result<StatusCode, Problem> {
    let id = operable(&state, &who, &key, "restarting this installation").await?.value.id;
    let lifecycle = state.lifecycle.clone();
    let change = async move { Ok(lifecycle.restart(id).await?) };
    audited(&state, &who, "installation.restart", format!("installation {id}"), as_asked, change).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Gives it new values and starts it anew. Tools and assignments stay.
#[utoipa::path(post, path = "/installations/{installation}/reinstall", tag = "installations", params(("installation" = String, Path)), request_body = Option<ReinstallWrite>, responses((status = 200, body = InstallationView)))]
async fn reinstall(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    body: Option<Document>,
) -> Result<Resource<InstallationView>, Problem> {
    let id = changeable(&state, &who, &key, Action::Update, "reinstalling this installation").await?.value.id;
    let write: ReinstallWrite = body.map(Document::decode).transpose()?.unwrap_or_default();
    let values = InstallWrite::values(write.values);
    let (lifecycle, author) = (state.lifecycle.clone(), who.author());
    let change = async move { Ok(lifecycle.reinstall(id, values, author).await?) };
    let installation =
        audited(&state, &who, "installation.reinstall", format!("installation {id}"), as_asked, change).await?;
    Ok(Resource::new(installation.version.0, view(&mut Directory::new(&state), installation).await?))
}

/// Lists its server's tools now.
#[utoipa::path(post, path = "/installations/{installation}/refresh-tools", tag = "installations", params(("installation" = String, Path)), responses((status = 200, body = InstallationView)))]
async fn refresh_tools(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
) -> Result<Resource<InstallationView>, Problem> {
    let id = changeable(&state, &who, &key, Action::Update, "listing the tools of this installation").await?.value.id;
    let lifecycle = state.lifecycle.clone();
    let change = async move { Ok(lifecycle.refresh_tools(id).await?) };
    let installation =
        audited(&state, &who, "installation.refreshTools", format!("installation {id}"), as_asked, change).await?;
    Ok(Resource::new(installation.version.0, view(&mut Directory::new(&state), installation).await?))
}

/// Makes a revision with what the platform adds today.
#[utoipa::path(post, path = "/installations/{installation}/update", tag = "installations", params(("installation" = String, Path)), responses((status = 200, body = InstallationView)))]
async fn update(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
) -> Result<Resource<InstallationView>, Problem> {
    let id = operable(&state, &who, &key, "updating this installation").await?.value.id;
    let (lifecycle, author) = (state.lifecycle.clone(), who.author());
    let change = async move { Ok(lifecycle.update(id, author).await?) };
    let installation =
        audited(&state, &who, "installation.update", format!("installation {id}"), as_asked, change).await?;
    Ok(Resource::new(installation.version.0, view(&mut Directory::new(&state), installation).await?))
}

/// Makes a revision that equals an earlier one.
#[utoipa::path(post, path = "/installations/{installation}/rollback", tag = "installations", params(("installation" = String, Path)), request_body = RollbackWrite, responses((status = 200, body = InstallationView)))]
async fn rollback(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    body: Document,
) -> Result<Resource<InstallationView>, Problem> {
    let id = operable(&state, &who, &key, "rolling this installation back").await?.value.id;
    let RollbackWrite { revision } = body.decode()?;
    let (lifecycle, author) = (state.lifecycle.clone(), who.author());
    let change = async move { Ok(lifecycle.rollback(id, revision, author).await?) };
    let installation =
        audited(&state, &who, "installation.rollback", format!("installation {id}"), as_asked, change).await?;
    Ok(Resource::new(installation.version.0, view(&mut Directory::new(&state), installation).await?))
}

/// Lists the revisions of what runs for it, oldest first; the last one of the last page is the desired one.
#[utoipa::path(get, path = "/installations/{installation}/revisions", tag = "installations", params(("installation" = String, Path), PageParams), responses((status = 200, body = Listed<Revision>)))]
async fn revisions(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    Params(params): Params<PageParams>,
) -> Result<Json<Listed<Revision>>, Problem> {
    let installation = readable(&state, &who, &key, "reading the revisions of a shared deployment").await?.value;
    let page = match installation.workload {
        Some(workload) => {
            let query = Query::Revisions { workload: Some(workload) };
            let read = |page| state.catalog.list_page::<Revision>(query.clone(), page);
            collect(params.limit, params.cursor, |_| true, read).await?
        }
        None => Page { items: Vec::new(), next: None },
    };
    let items = page.items.into_iter().map(|revision| revision.value).collect();
    Ok(Json(Listed { items, next_cursor: page.next.map(|cursor| cursor.0) }))
}
