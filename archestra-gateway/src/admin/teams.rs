//! `/teams`: users that share installations and consumers, and their members.

use super::{
    AdminState, Problem,
    access::require,
    body::Document,
    caller::{Precondition, Who, as_asked, audited},
    named,
    page::{Listed, PageParams, Params, Resource, collect, cut},
    refs::Named,
    resolve::Directory,
};
use archestra_core::{
    Validate,
    feed::{Expect, Versioned},
    id::{TeamId, UserId},
    identity::{Action, IdentityChanges, IdentityQuery, IdentityStoreExt as _, Principal, Resource as On, Team},
    installation::Owner,
};
use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa_axum::{router::OpenApiRouter, routes};

/// A team.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Team)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TeamView {
    id: String,
    resource_version: u64,
    name: String,
    priority: i32,
    /// The addresses of its members.
    members: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apply_set: Option<String>,
    created_at: DateTime<Utc>,
}

/// What a person fills in for a team.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TeamWrite {
    /// Unique.
    name: String,
    /// Of a user's teams, the one with the highest priority serves first. 0 if absent.
    #[serde(default)]
    priority: i32,
    /// Users, by address or id.
    #[serde(default)]
    members: Vec<String>,
}

/// A new member.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MemberWrite {
    /// By address or id.
    user: String,
}

pub(crate) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, replace, remove))
        .routes(routes!(members, add_member))
        .routes(routes!(remove_member))
}

/// Whether a team exists for the caller: their own do, and all do for those who manage teams.
pub(crate) fn sees(principal: &Principal, team: TeamId) -> bool {
    let manages = [Action::Create, Action::Update, Action::Delete, Action::Admin]
        .into_iter()
        .any(|action| principal.permissions.allow(On::Team, action));
    principal.is_in(team) || manages
}

/// Lists the teams that the caller may see.
#[utoipa::path(get, path = "/teams", tag = "teams", params(PageParams), responses((status = 200, body = Listed<TeamView>)))]
async fn list(
    State(state): State<AdminState>,
    who: Who,
    Params(params): Params<PageParams>,
) -> Result<Json<Listed<TeamView>>, Problem> {
    let keep = |team: &Versioned<Team>| sees(&who, team.value.id);
    let read = |page| state.identity.list_page::<Team>(IdentityQuery::Teams { member: None }, page);
    let page = collect(params.limit, params.cursor, keep, read).await?;
    let mut directory = Directory::new(&state);
    let mut items = Vec::new();
    for team in page.items {
        items.push(view(&mut directory, team).await?);
    }
    Ok(Json(Listed { items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

/// Creates a team.
#[utoipa::path(post, path = "/teams", tag = "teams", request_body = TeamWrite, responses((status = 201, body = TeamView)))]
async fn create(State(state): State<AdminState>, who: Who, body: Document) -> Result<Resource<TeamView>, Problem> {
    require(&who, On::Team, Action::Create, "creating a team")?;
    let (write, _) = body.decode_write::<TeamWrite>(&[])?;
    let members = resolve_members(&state, &who, &write.members).await?;
    let team = Team {
        id: TeamId::new(),
        name: write.name,
        priority: write.priority,
        members,
        apply_set: None,
        created_at: Utc::now(),
    };
    let id = team.id;
    let team = save(&state, &who, "team.create", team, Expect::Absent).await?;
    Ok(team.created(format!("/api/v1/teams/{id}")))
}

/// Reads a team, by id or name.
#[utoipa::path(get, path = "/teams/{team}", tag = "teams", params(("team" = String, Path)), responses((status = 200, body = TeamView)))]
async fn read(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
) -> Result<Resource<TeamView>, Problem> {
    let team = find(&state, &who, &key).await?;
    Ok(Resource::new(team.version.0, view(&mut Directory::new(&state), team).await?))
}

/// Replaces what a person fills in for a team.
#[utoipa::path(put, path = "/teams/{team}", tag = "teams", params(("team" = String, Path)), request_body = TeamWrite, responses((status = 200, body = TeamView)))]
async fn replace(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    precondition: Precondition,
    body: Document,
) -> Result<Resource<TeamView>, Problem> {
    let before = find(&state, &who, &key).await?;
    require(&who, On::Team, Action::Update, "changing a team")?;
    let (write, version) = body.decode_write::<TeamWrite>(&[])?;
    precondition.or_body(version)?.check("team", &key, before.version)?;
    let members = resolve_members(&state, &who, &write.members).await?;
    let expect = before.expect();
    save(
        &state,
        &who,
        "team.update",
        Team { name: write.name, priority: write.priority, members, ..before.value },
        expect,
    )
    .await
}

/// Removes a team, with its tokens.
#[utoipa::path(delete, path = "/teams/{team}", tag = "teams", params(("team" = String, Path)), responses((status = 204)))]
async fn remove(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    precondition: Precondition,
) -> Result<StatusCode, Problem> {
    let team = find(&state, &who, &key).await?;
    require(&who, On::Team, Action::Delete, "removing a team")?;
    precondition.check("team", &key, team.version)?;
    named::by_nothing(&state, Owner::Team(team.value.id), &format!("team {}", team.value.name)).await?;
    let store = state.clone();
    let (id, expect) = (team.value.id, team.expect());
    let change = async move { Ok(store.identity.commit(IdentityChanges::new().delete(id, expect)).await?) };
    audited(&state, &who, "team.delete", format!("team {id}"), as_asked, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the members of a team.
#[utoipa::path(get, path = "/teams/{team}/members", tag = "teams", params(("team" = String, Path), PageParams), responses((status = 200, body = Listed<Named>)))]
async fn members(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    Params(params): Params<PageParams>,
) -> Result<Json<Listed<Named>>, Problem> {
    let team = find(&state, &who, &key).await?;
    let page = cut(params, team.value.members.into_iter().map(|member| (member, member)))?;
    let mut directory = Directory::new(&state);
    let mut items = Vec::new();
    for member in page.items {
        items.push(directory.named_user(member).await?);
    }
    Ok(Json(Listed { items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

/// Adds a member.
#[utoipa::path(post, path = "/teams/{team}/members", tag = "teams", params(("team" = String, Path)), request_body = MemberWrite, responses((status = 200, body = TeamView)))]
async fn add_member(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    body: Document,
) -> Result<Resource<TeamView>, Problem> {
    let mut team = find(&state, &who, &key).await?;
    require(&who, On::Team, Action::Update, "changing a team's members")?;
    let MemberWrite { user } = body.decode()?;
    let user = Directory::new(&state).known_user(&who, "user", &user).await?;
    if !team.value.members.insert(user.value.id) {
        return Ok(Resource::new(team.version.0, view(&mut Directory::new(&state), team).await?));
    }
    let expect = team.expect();
    save(&state, &who, "team.update", team.value, expect).await
}

/// Takes a member out.
#[utoipa::path(delete, path = "/teams/{team}/members/{user}", tag = "teams", params(("team" = String, Path), ("user" = String, Path)), responses((status = 204)))]
async fn remove_member(
    State(state): State<AdminState>,
    who: Who,
    Path((key, member)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let mut team = find(&state, &who, &key).await?;
    require(&who, On::Team, Action::Update, "changing a team's members")?;
    let user = Directory::new(&state).find_user(&member).await?;
    if !user.is_some_and(|user| team.value.members.remove(&user.value.id)) {
        return Err(Problem::not_found("member", member));
    }
    let expect = team.expect();
    save(&state, &who, "team.update", team.value, expect).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(state: &AdminState, who: &Who, key: &str) -> Result<Versioned<Team>, Problem> {
    let found = Directory::new(state).find_team(key).await?.filter(|team| sees(who, team.value.id));
    found.ok_or_else(|| Problem::not_found("team", key))
}

async fn resolve_members(state: &AdminState, who: &Who, members: &[String]) -> Result<BTreeSet<UserId>, Problem> {
    let directory = Directory::new(state);
    let mut ids = BTreeSet::new();
    for (n, member) in members.iter().enumerate() {
        ids.insert(directory.known_user(who, &format!("members[{n}]"), member).await?.value.id);
    }
    Ok(ids)
}

async fn save(
    state: &AdminState,
    who: &Who,
    action: &str,
    team: Team,
    expect: Expect,
) -> Result<Resource<TeamView>, Problem> {
    team.validate()?;
    let store = state.clone();
    let subject = format!("team {}", team.id);
    let change = async move {
        store.identity.commit(IdentityChanges::new().put(team.clone(), expect)).await?;
        Ok(store.identity.get_one::<Team>(team.id).await?)
    };
    let team = audited(state, who, action, subject, as_asked, change).await?;
    Ok(Resource::new(team.version.0, view(&mut Directory::new(state), team).await?))
}

async fn view(
    directory: &mut Directory,
    Versioned { version, value: team }: Versioned<Team>,
) -> Result<TeamView, Problem> {
    let mut members = Vec::new();
    for member in &team.members {
        members.push(directory.user_name(*member).await?);
    }
    Ok(TeamView {
        id: team.id.to_string(),
        resource_version: version.0,
        name: team.name,
        priority: team.priority,
        members,
        apply_set: team.apply_set,
        created_at: team.created_at,
    })
}
