//! `/users`: the people who may call, and their roles.

use super::{
    AdminState, Problem,
    access::require,
    body::Document,
    caller::{Precondition, Who, as_asked, audited},
    named,
    page::{Listed, Params, Resource, collect},
    resolve::Directory,
};
use archestra_core::{
    Validate,
    feed::Versioned,
    id::UserId,
    identity::{
        Action, IdentityChanges, IdentityLookup, IdentityQuery, IdentityStore, IdentityStoreExt as _, Permissions,
        Resource as On, Role, RoleName, User,
    },
    installation::Owner,
};
use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

/// A user.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = User)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserView {
    id: String,
    resource_version: u64,
    /// Unique.
    email: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// `admin`, `editor`, `member`, or the name of a role that an admin made.
    role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    apply_set: Option<String>,
    created_at: DateTime<Utc>,
}

impl From<Versioned<User>> for UserView {
    fn from(Versioned { version, value: user }: Versioned<User>) -> Self {
        Self {
            id: user.id.to_string(),
            resource_version: version.0,
            email: user.email,
            name: user.name,
            role: user.role.0,
            apply_set: user.apply_set,
            created_at: user.created_at,
        }
    }
}

/// What a person fills in for a user.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UserWrite {
    /// `name@host`; kept in lower case.
    email: String,
    name: Option<String>,
    /// `member` if absent.
    role: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UserParams {
    /// Only users with this in their address or name.
    search: Option<String>,
    /// At most this many items; 100 if absent, at most 1000.
    limit: Option<usize>,
    /// Where the page before ended.
    cursor: Option<String>,
}

pub(crate) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(read, replace, remove))
}

/// Lists users.
#[utoipa::path(get, path = "/users", tag = "users", params(UserParams), responses((status = 200, body = Listed<UserView>)))]
async fn list(
    State(state): State<AdminState>,
    who: Who,
    Params(params): Params<UserParams>,
) -> Result<Json<Listed<UserView>>, Problem> {
    require(&who, On::User, Action::Read, "listing users")?;
    let query = IdentityQuery::Users { search: params.search };
    let page =
        collect(params.limit, params.cursor, |_| true, |page| state.identity.list_page::<User>(query.clone(), page))
            .await?;
    Ok(Json(Listed {
        items: page.items.into_iter().map(UserView::from).collect(),
        next_cursor: page.next.map(|cursor| cursor.0),
    }))
}

/// Creates a user.
#[utoipa::path(post, path = "/users", tag = "users", request_body = UserWrite, responses((status = 201, body = UserView)))]
async fn create(State(state): State<AdminState>, who: Who, body: Document) -> Result<Resource<UserView>, Problem> {
    require(&who, On::User, Action::Create, "creating a user")?;
    let (write, _) = body.decode_write::<UserWrite>(&[])?;
    let user = User {
        id: UserId::new(),
        email: write.email.to_lowercase(),
        name: write.name,
        role: RoleName(write.role.unwrap_or_else(|| RoleName::MEMBER.to_owned())),
        apply_set: None,
        created_at: Utc::now(),
    };
    user.validate()?;
    may_grant(state.identity.as_ref(), &who, &user.role, "role").await?;
    let store = state.clone();
    let change = async move {
        store.identity.commit(IdentityChanges::new().create(user.clone())).await?;
        Ok(store.identity.get_one::<User>(user.id).await?)
    };
    let subject = |user: &Versioned<User>| Some(format!("user {}", user.value.id));
    let user = audited(&state, &who, "user.create", "user".to_owned(), subject, change).await?;
    let location = format!("/api/v1/users/{}", user.value.id);
    Ok(Resource::new(user.version.0, user.into()).created(location))
}

/// Reads a user, by id or address.
#[utoipa::path(get, path = "/users/{user}", tag = "users", params(("user" = String, Path)), responses((status = 200, body = UserView)))]
async fn read(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
) -> Result<Resource<UserView>, Problem> {
    let user = find(&state, &who, &key).await?;
    Ok(Resource::new(user.version.0, user.into()))
}

/// Replaces what a person fills in for a user.
#[utoipa::path(put, path = "/users/{user}", tag = "users", params(("user" = String, Path)), request_body = UserWrite, responses((status = 200, body = UserView)))]
async fn replace(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    precondition: Precondition,
    body: Document,
) -> Result<Resource<UserView>, Problem> {
    let before = find(&state, &who, &key).await?;
    require(&who, On::User, Action::Update, "changing a user")?;
    let (write, version) = body.decode_write::<UserWrite>(&[])?;
    precondition.or_body(version)?.check("user", &key, before.version)?;
    let expect = before.expect();
    let role = write.role.map_or_else(|| before.value.role.clone(), RoleName);
    if role != before.value.role {
        if who.user() == Some(before.value.id) {
            return Err(Problem::conflict("you cannot change your own role; ask another admin"));
        }
        may_grant(state.identity.as_ref(), &who, &before.value.role, "role").await?;
    }
    may_grant(state.identity.as_ref(), &who, &role, "role").await?;
    let user = User { email: write.email.to_lowercase(), name: write.name, role, ..before.value };
    user.validate()?;
    let subject = format!("user {}", user.id);
    let store = state.clone();
    let change = async move {
        store.identity.commit(IdentityChanges::new().put(user.clone(), expect)).await?;
        Ok(store.identity.get_one::<User>(user.id).await?)
    };
    let user = audited(&state, &who, "user.update", subject, as_asked, change).await?;
    Ok(Resource::new(user.version.0, user.into()))
}

/// Removes a user: out of every team, with all tokens, and all that the user allowed to clients.
#[utoipa::path(delete, path = "/users/{user}", tag = "users", params(("user" = String, Path)), responses((status = 204)))]
async fn remove(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    precondition: Precondition,
) -> Result<StatusCode, Problem> {
    let user = find(&state, &who, &key).await?;
    require(&who, On::User, Action::Delete, "removing a user")?;
    precondition.check("user", &key, user.version)?;
    if who.user() == Some(user.value.id) {
        return Err(Problem::conflict("you cannot remove yourself; ask another admin"));
    }
    may_grant(state.identity.as_ref(), &who, &user.value.role, "role").await?;
    named::by_nothing(&state, Owner::User(user.value.id), &format!("user {}", user.value.email)).await?;
    let store = state.clone();
    let (id, expect) = (user.value.id, user.expect());
    let change = async move { Ok(store.identity.commit(IdentityChanges::new().delete(id, expect)).await?) };
    audited(&state, &who, "user.delete", format!("user {id}"), as_asked, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(state: &AdminState, who: &Who, key: &str) -> Result<Versioned<User>, Problem> {
    let sees =
        |user: &Versioned<User>| who.user() == Some(user.value.id) || who.permissions.allow(On::User, Action::Read);
    Directory::new(state).find_user(key).await?.filter(sees).ok_or_else(|| Problem::not_found("user", key))
}

/// What a role allows.
///
/// # Errors
/// A finding for `field` when there is no such role.
pub(crate) async fn role_permissions(
    identity: &dyn IdentityStore,
    role: &RoleName,
    field: &str,
) -> Result<Permissions, Problem> {
    if let Some(permissions) = role.built_in() {
        return Ok(permissions);
    }
    let found = identity.find_one::<Role>(IdentityLookup::RoleNamed(role.0.clone())).await?;
    found.map(|role| role.value.permissions).ok_or_else(|| {
        let built_in = [RoleName::ADMIN, RoleName::EDITOR, RoleName::MEMBER].join(", ");
        Problem::finding(
            field,
            format!("there is no role {role}"),
            format!("use {built_in}, or a role that an admin made"),
        )
    })
}

/// Nobody gives, takes or stands in for what they do not hold themselves.
///
/// # Errors
/// A 403; a finding for `field` when there is no such role.
pub(crate) async fn may_grant(
    identity: &dyn IdentityStore,
    who: &Who,
    role: &RoleName,
    field: &str,
) -> Result<(), Problem> {
    if who.permissions.include(&role_permissions(identity, role, field).await?) {
        return Ok(());
    }
    Err(Problem::refused(format!("the role {role} allows more than you may do yourself; ask somebody who holds it")))
}
