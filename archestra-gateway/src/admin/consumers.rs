//! `/gateways` and `/agents`: who is given tools. Both are consumers and share their routes, mounted once for each kind.

mod assignments;
mod view;

pub(crate) use view::ConsumerView;
pub use view::{ConsumerWrite, SelectorWrite};

use super::{
    AdminState, Problem,
    access::{default_owner, may_change, may_pin, require, scope_of, sees},
    body::Document,
    caller::{Precondition, Who, as_asked, audited},
    page::{Listed, PageParams, Params, Resource, collect},
    refs::{CredentialRef, InstallationRef},
    resolve::{Directory, optional},
};
use crate::lifecycle::ConsumerDraft;
use archestra_core::{
    catalog::{CatalogStoreExt as _, Query, Scope},
    consumer::{Consumer, ConsumerKind, CredentialChoice, ToolAssignment, ToolSelector},
    feed::{Expect, Versioned},
    id::{EntryId, IdentityProviderId, TeamId},
    identity::{Action, IdentityLookup, IdentityProvider, IdentityQuery, IdentityStoreExt as _, Resource as On, Team},
    installation::Installation,
};
use axum::{
    Extension, Json,
    extract::{Path, State},
};
use http::StatusCode;
use std::collections::BTreeSet;
use utoipa_axum::{router::OpenApiRouter, routes};
use view::view;

/// What permissions about this kind are about.
pub(crate) const fn resource(kind: ConsumerKind) -> On {
    match kind {
        ConsumerKind::Gateway => On::Gateway,
        ConsumerKind::Agent => On::Agent,
    }
}

/// What a person calls this kind.
pub(crate) const fn label(kind: ConsumerKind) -> &'static str {
    match kind {
        ConsumerKind::Gateway => "gateway",
        ConsumerKind::Agent => "agent",
    }
}

pub(crate) fn routes(kind: ConsumerKind) -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, replace, remove))
        .merge(assignments::routes())
        .layer(Extension(kind))
}

/// Lists those that the caller may see.
#[utoipa::path(get, path = "/", params(PageParams), responses((status = 200, body = Listed<ConsumerView>)))]
async fn list(
    State(state): State<AdminState>,
    who: Who,
    Extension(kind): Extension<ConsumerKind>,
    Params(params): Params<PageParams>,
) -> Result<Json<Listed<ConsumerView>>, Problem> {
    let keep = |consumer: &Versioned<Consumer>| sees(&who, resource(kind), &consumer.value.scope);
    let read = |page| state.catalog.list_page::<Consumer>(Query::Consumers { kind: Some(kind) }, page);
    let page = collect(params.limit, params.cursor, keep, read).await?;
    let mut directory = Directory::new(&state);
    let mut items = Vec::new();
    for consumer in page.items {
        items.push(view(&state, &mut directory, consumer).await?);
    }
    Ok(Json(Listed { items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

/// Creates one. Without a scope it is the caller's own.
#[utoipa::path(post, path = "/", request_body = ConsumerWrite, responses((status = 201, body = ConsumerView)))]
async fn create(
    State(state): State<AdminState>,
    who: Who,
    Extension(kind): Extension<ConsumerKind>,
    body: Document,
) -> Result<Resource<ConsumerView>, Problem> {
    require(&who, resource(kind), Action::Create, "creating this")?;
    let (write, _) = body.decode_write::<ConsumerWrite>(&[])?;
    let draft = draft(&state, &who, kind, write, None).await?;
    may_change(&who, resource(kind), Action::Create, &draft.scope, &format!("creating this {}", label(kind)))?;
    let subject = format!("{} {}", label(kind), draft.spec.slug);
    let lifecycle = state.lifecycle.clone();
    let change = async move { Ok(lifecycle.save_consumer(None, draft, Expect::Absent).await?) };
    let found = |consumer: &Versioned<Consumer>| Some(format!("{} {}", label(consumer.value.kind), consumer.value.id));
    let consumer = audited(&state, &who, &format!("{}.create", label(kind)), subject, found, change).await?;
    let location = format!("/api/v1/{}s/{}", label(kind), consumer.value.id);
    Ok(Resource::new(consumer.version.0, view(&state, &mut Directory::new(&state), consumer).await?).created(location))
}

/// Reads one, by id or slug.
#[utoipa::path(get, path = "/{consumer}", params(("consumer" = String, Path)), responses((status = 200, body = ConsumerView)))]
async fn read(
    State(state): State<AdminState>,
    who: Who,
    Extension(kind): Extension<ConsumerKind>,
    Path(key): Path<String>,
) -> Result<Resource<ConsumerView>, Problem> {
    let mut directory = Directory::new(&state);
    let consumer = directory.consumer(&who, kind, &key).await?;
    Ok(Resource::new(consumer.version.0, view(&state, &mut directory, consumer).await?))
}

/// Replaces one. Absent `tools` and `scope` stay as they are; the slug never changes.
#[utoipa::path(put, path = "/{consumer}", params(("consumer" = String, Path)), request_body = ConsumerWrite, responses((status = 200, body = ConsumerView)))]
async fn replace(
    State(state): State<AdminState>,
    who: Who,
    Extension(kind): Extension<ConsumerKind>,
    Path(key): Path<String>,
    precondition: Precondition,
    body: Document,
) -> Result<Resource<ConsumerView>, Problem> {
    let before = Directory::new(&state).consumer(&who, kind, &key).await?;
    may_change(&who, resource(kind), Action::Update, &before.value.scope, &format!("changing this {}", label(kind)))?;
    let (write, version) = body.decode_write::<ConsumerWrite>(&["owners", "url", "kind"])?;
    precondition.or_body(version)?.check(label(kind), &key, before.version)?;
    let draft = draft(&state, &who, kind, write, Some(&before.value)).await?;
    may_change(&who, resource(kind), Action::Update, &draft.scope, &format!("giving a {} this scope", label(kind)))?;
    let consumer = save(&state, &who, before, draft).await?;
    Ok(Resource::new(consumer.version.0, view(&state, &mut Directory::new(&state), consumer).await?))
}

/// Deletes one with its assignments.
#[utoipa::path(delete, path = "/{consumer}", params(("consumer" = String, Path)), responses((status = 204)))]
async fn remove(
    State(state): State<AdminState>,
    who: Who,
    Extension(kind): Extension<ConsumerKind>,
    Path(key): Path<String>,
    precondition: Precondition,
) -> Result<StatusCode, Problem> {
    let consumer = Directory::new(&state).consumer(&who, kind, &key).await?;
    may_change(&who, resource(kind), Action::Delete, &consumer.value.scope, &format!("deleting this {}", label(kind)))?;
    precondition.check(label(kind), &key, consumer.version)?;
    let (id, expect) = (consumer.value.id, consumer.expect());
    let lifecycle = state.lifecycle.clone();
    let change = async move { Ok(lifecycle.delete_consumer(id, expect).await?) };
    audited(&state, &who, &format!("{}.delete", label(kind)), format!("{} {id}", label(kind)), as_asked, change)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn save(
    state: &AdminState,
    who: &Who,
    before: Versioned<Consumer>,
    draft: ConsumerDraft,
) -> Result<Versioned<Consumer>, Problem> {
    let (id, kind, expect) = (before.value.id, before.value.kind, before.expect());
    let lifecycle = state.lifecycle.clone();
    let change = async move { Ok(lifecycle.save_consumer(Some(id), draft, expect).await?) };
    audited(state, who, &format!("{}.update", label(kind)), format!("{} {id}", label(kind)), as_asked, change).await
}

/// What a consumer in a document means; `before` is what it is now.
///
/// # Errors
/// Findings for what is named and not there, or may not be used by the caller.
pub(crate) async fn draft(
    state: &AdminState,
    who: &Who,
    kind: ConsumerKind,
    write: ConsumerWrite,
    before: Option<&Consumer>,
) -> Result<ConsumerDraft, Problem> {
    let directory = Directory::new(state);
    let scope = match (&write.scope, before) {
        (Some(scope), _) => directory.scope(who, "scope", scope).await?,
        (None, Some(before)) => before.scope.clone(),
        (None, None) => default_owner(who).map(scope_of).ok_or_else(|| {
            Problem::finding("scope", "whose this is to be is not said, and no user asks", "add `scope`")
        })?,
    };
    let identity_provider = match &write.identity_provider {
        Some(text) => Some(provider(state, text).await?),
        None => None,
    };
    let known = before.map(|before| before.tools.as_slice()).unwrap_or_default();
    let tools = match &write.tools {
        None if write.tool_assignment == ToolAssignment::Automatic => Vec::new(),
        None => known.to_vec(),
        Some(selectors) => {
            let mut tools = Vec::new();
            for (n, selector) in selectors.iter().enumerate() {
                tools.push(
                    select(&directory, who, selector, known)
                        .await
                        .map_err(|problem| problem.under(&format!("tools[{n}]")))?,
                );
            }
            tools
        }
    };
    let user_teams = user_teams(state, &scope).await?;
    Ok(ConsumerDraft {
        kind,
        spec: write.into_spec(),
        scope,
        tools,
        identity_provider,
        author: who.author(),
        apply_set: None,
        user_teams,
    })
}

/// What a selector in a document means. What is there already may stay, whoever sends it.
async fn select(
    directory: &Directory,
    who: &Who,
    write: &SelectorWrite,
    known: &[ToolSelector],
) -> Result<ToolSelector, Problem> {
    let missing = || {
        Problem::finding(
            "entry",
            format!("there is no entry {} that you may see", write.entry),
            "use the name of one, or create the entry first",
        )
    };
    let entry = directory.find_entry(&write.entry).await?.ok_or_else(missing)?;
    let id = entry.value.id;
    if !sees(who, On::Entry, &entry.value.scope) && !known.iter().any(|selector| selector.entry == id) {
        return Err(missing());
    }
    let credential = match &write.credential {
        CredentialRef::ResolveAtCallTime => CredentialChoice::ResolveAtCallTime,
        CredentialRef::Installation(reference) => {
            let found = pinned(directory, who, id, reference).await?;
            let choice = found.as_ref().map(|installation| CredentialChoice::Pinned(installation.value.id));
            let kept = choice.is_some_and(|choice| {
                known.iter().any(|selector| selector.entry == id && selector.credential == choice)
            });
            let usable = found.is_some_and(|installation| may_pin(who, installation.value.owner));
            let missing = || {
                let reason = format!("{} has no such installation that you may use", entry.value.spec.name);
                Problem::finding(
                    "credential.installation",
                    reason,
                    "install the entry first, or use `resolveAtCallTime`",
                )
            };
            choice.filter(|_| usable || kept).ok_or_else(missing)?
        }
    };
    Ok(ToolSelector { entry: id, tool: write.tool.clone(), credential })
}

async fn pinned(
    directory: &Directory,
    who: &Who,
    entry: EntryId,
    reference: &InstallationRef,
) -> Result<Option<Versioned<Installation>>, Problem> {
    match reference {
        InstallationRef::Id(id) => {
            Ok(directory.find_installation(id).await?.filter(|installation| installation.value.entry == entry))
        }
        InstallationRef::Of(scope) => {
            let owner = directory.owner(who, "credential.installation", scope).await?;
            directory.installation_of(entry, owner).await
        }
    }
}

async fn provider(state: &AdminState, text: &str) -> Result<IdentityProviderId, Problem> {
    let found = match text.parse::<IdentityProviderId>() {
        Ok(id) => optional(state.identity.get_one::<IdentityProvider>(id).await)?,
        Err(_) => state.identity.find_one(IdentityLookup::ProviderNamed(text.to_owned())).await?,
    };
    let missing =
        || Problem::finding("identityProvider", format!("there is no identity provider {text}"), "use the name of one");
    Ok(found.ok_or_else(missing)?.value.id)
}

/// The teams of the user whose own a consumer is.
pub(crate) async fn user_teams(state: &AdminState, scope: &Scope) -> Result<BTreeSet<TeamId>, Problem> {
    let Scope::User(user) = scope else { return Ok(BTreeSet::new()) };
    let teams = state.identity.list_all::<Team>(IdentityQuery::Teams { member: Some(*user) }).await?;
    Ok(teams.into_iter().map(|team| team.value.id).collect())
}
