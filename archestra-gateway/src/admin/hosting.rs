//! What self-hosting adds to the API: who may save and name what, which pull secrets there are, and what a runtime would make of
//! it.

use super::{
    AdminState, Problem,
    access::require,
    body::Document,
    caller::Who,
    entries::EntryWrite,
    installations::readable,
    page::{Listed, PageParams, Params, cut},
};
use crate::lifecycle::WorkloadPreview;
use archestra_core::{
    Finding, Validate as _,
    catalog::{EntrySpec, EnvFrom, PullSecret as Chosen, Scope},
    identity::{Action, Permission, Resource as On},
    runtime::{Manifest, PullSecret},
};
use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What a runtime would make, secret values left out.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Manifest)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManifestView {
    /// Documents in the runtime's own form: YAML, on Kubernetes.
    documents: Vec<String>,
    /// What the deployment YAML would be refused for at the moment that it does not say itself, such as a quota that is used up. It
    /// does not hold up saving, and may be over when it is applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hindrances: Vec<Finding>,
    /// Why the deployment YAML was not tried where it would run; absent where it was, or where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_asked: Option<String>,
}

/// A pull secret that the caller may name.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PullSecretName)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PullSecretView {
    /// What `imagePullSecrets: [{existing: …}]` names.
    name: String,
    /// The registries it is for.
    servers: Vec<String>,
}

pub(crate) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(preview_entry)).routes(routes!(manifest)).routes(routes!(list_pull_secrets))
}

/// Shows what the runtime would make of an entry, with made-up values for what an installation is asked for.
#[utoipa::path(post, path = "/preview", tag = "entries", request_body = EntryWrite, responses((status = 200, body = ManifestView)))]
async fn preview_entry(
    State(state): State<AdminState>,
    who: Who,
    body: Document,
) -> Result<Json<ManifestView>, Problem> {
    require(&who, On::Entry, Action::Create, "previewing an entry")?;
    let (write, _) = EntryWrite::decode(body.0)?;
    may_host(&state, &who, &write.spec)?;
    let WorkloadPreview { manifest, hindrances, not_asked } = state.lifecycle.preview_workload(&write.spec).await?;
    Ok(Json(ManifestView { hindrances, not_asked, ..manifest.into() }))
}

/// Shows what the runtime is asked to run for an installation.
#[utoipa::path(get, path = "/installations/{installation}/manifest", tag = "installations", params(("installation" = String, Path)), responses((status = 200, body = ManifestView)))]
async fn manifest(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
) -> Result<Json<ManifestView>, Problem> {
    let id = readable(&state, &who, &key, "reading the manifest of a shared deployment").await?.value.id;
    Ok(Json(state.lifecycle.manifest(id).await?.into()))
}

/// Lists the image pull secrets that the caller may name in an entry.
#[utoipa::path(get, path = "/pull-secrets", tag = "entries", params(PageParams), responses((status = 200, body = Listed<PullSecretView>)))]
async fn list_pull_secrets(
    State(state): State<AdminState>,
    who: Who,
    Params(params): Params<PageParams>,
) -> Result<Json<Listed<PullSecretView>>, Problem> {
    let found = visible(&state, &who).await?;
    let view = |found: PullSecret| (found.name.clone(), PullSecretView { name: found.name, servers: found.servers });
    let page = cut(params, found.into_iter().map(view))?;
    Ok(Json(Listed { items: page.items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

impl From<Manifest> for ManifestView {
    fn from(Manifest { documents }: Manifest) -> Self {
        Self { documents, hindrances: Vec::new(), not_asked: None }
    }
}

/// Those that the caller may use.
async fn visible(state: &AdminState, who: &Who) -> Result<Vec<PullSecret>, Problem> {
    Ok(state.lifecycle.pull_secrets(&scope_of(who)).await?)
}

/// What the caller's teams may use; everything for whoever may change every entry.
fn scope_of(who: &Who) -> Scope {
    if who.permissions.allow(On::Entry, Action::Admin) {
        Scope::Organization
    } else {
        Scope::Teams(who.teams.iter().copied().collect())
    }
}

/// A runtime that isolates nothing runs what an entry says as our own user: only admins may say it.
///
/// # Errors
/// A 403 that names the permission.
pub(crate) fn may_host(state: &AdminState, who: &Who, spec: &EntrySpec) -> Result<(), Problem> {
    let unsafe_runtime = state.runtime.as_ref().is_some_and(|runtime| !runtime.capabilities().isolation);
    if spec.self_hosted.is_none() || !unsafe_runtime || who.permissions.allow(On::Entry, Action::Admin) {
        return Ok(());
    }
    let what = "saving a self-hosted server on a runtime that isolates nothing";
    Err(Problem::forbidden(Permission(On::Entry, Action::Admin), what))
}

/// Refuses pull secrets that the caller may not use, unless the entry names them already; and Secrets and ConfigMaps that
/// variables come from, unless the entry runs as before.
///
/// # Errors
/// A finding for each, or what the runtime answered.
pub(crate) async fn may_name(
    state: &AdminState,
    who: &Who,
    spec: &EntrySpec,
    before: Option<&EntrySpec>,
) -> Result<(), Problem> {
    let mut findings = unknown_pull_secrets(state, who, spec, before).await?;
    findings.extend(unknown_sources(state, who, spec, before).await?);
    if findings.is_empty() { Ok(()) } else { Err(Problem::invalid(findings)) }
}

async fn unknown_pull_secrets(
    state: &AdminState,
    who: &Who,
    spec: &EntrySpec,
    before: Option<&EntrySpec>,
) -> Result<Vec<Finding>, Problem> {
    let pulls = state.runtime.as_ref().is_some_and(|runtime| runtime.capabilities().pull_secrets);
    let kept: BTreeSet<&str> = before.into_iter().flat_map(named).map(|(_, name)| name).collect();
    let chosen: Vec<_> = named(spec).filter(|(_, name)| !kept.contains(name)).collect();
    if !pulls || chosen.is_empty() {
        return Ok(Vec::new());
    }
    let known: BTreeSet<String> = visible(state, who).await?.into_iter().map(|secret| secret.name).collect();
    let unknown = chosen.into_iter().filter(|(_, name)| !known.contains(*name));
    Ok(unknown
        .map(|(n, name)| {
            Finding::new(
                format!("selfHosted.imagePullSecrets[{n}].existing"),
                format!("there is no pull secret {name:?} that you may use"),
                "name one that `GET /api/v1/pull-secrets` lists; an operator adds one by labelling a kubernetes.io/dockerconfigjson secret `archestra.dev/pull-secret: \"true\"`",
            )
        })
        .collect())
}

async fn unknown_sources(
    state: &AdminState,
    who: &Who,
    spec: &EntrySpec,
    before: Option<&EntrySpec>,
) -> Result<Vec<Finding>, Problem> {
    // A container can read them, unlike pull secrets: whoever changes what runs must be let to read them too.
    let same = |before: &EntrySpec| {
        before.self_hosted == spec.self_hosted && before.shared_deployment == spec.shared_deployment
    };
    if before.is_some_and(same) {
        return Ok(Vec::new());
    }
    let malformed = spec.findings().iter().any(|finding| finding.field.starts_with("selfHosted.envFrom"));
    if malformed {
        // Saving says what is wrong with it.
        return Ok(Vec::new());
    }
    let sources: Vec<EnvFrom> = spec.self_hosted.iter().flat_map(|hosted| &hosted.env_from).cloned().collect();
    // What everybody shares runs for no team.
    let reader = if spec.shared_deployment { Scope::Teams(BTreeSet::new()) } else { scope_of(who) };
    let unknown = state.lifecycle.unknown_sources(&reader, &sources).await?;
    Ok(unknown.into_iter().map(|(n, finding)| finding.under(&format!("selfHosted.envFrom[{n}]"))).collect())
}

/// The existing pull secrets that an entry names, with their positions.
fn named(spec: &EntrySpec) -> impl Iterator<Item = (usize, &str)> {
    let all = spec.self_hosted.iter().flat_map(|hosted| hosted.image_pull_secrets.iter().enumerate());
    all.filter_map(|(n, pull)| match pull {
        Chosen::Existing { existing } => Some((n, existing.as_str())),
        Chosen::Credentials { .. } => None,
    })
}
