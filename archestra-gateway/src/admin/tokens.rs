//! `/tokens`: bearer tokens. A static one is made here and shown once; access tokens of OAuth are listed and revoked here.

use super::{
    AdminState, Problem,
    access::{self, require},
    body::Document,
    caller::{Who, as_asked, audited},
    page::{Listed, PageParams, Params, Resource, collect},
    refs::{Named, ScopeRef},
    resolve::{Directory, optional},
    users,
};
use archestra_core::{
    Validate as _,
    feed::Versioned,
    id::{ClientId, ConsumerId, TokenId},
    identity::{
        Action, Client, IdentityChanges, IdentityLookup, IdentityQuery, IdentityStoreExt as _, PlainToken, Principal,
        Resource as On, Token, TokenOwner, User,
    },
    installation::Owner,
};
use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa_axum::{router::OpenApiRouter, routes};

/// A token, without the token itself.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Token)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenView {
    id: String,
    resource_version: u64,
    name: String,
    /// Whom it stands for, unless that is a machine client.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<ScopeRef>,
    /// The `client_id` of the machine client that it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    /// Whom it stands for, with id and name.
    owner: Named,
    /// The slug of the only gateway or agent that it opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<String>,
    /// What it is good for; everything that its owner may do there if absent.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    scopes: BTreeSet<String>,
    /// The grant that an access token came of; absent for a static token.
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<String>,
    /// Whether every start sets it from its configuration.
    bootstrap: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

/// A new token: the only answer that holds it.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewToken {
    /// The token itself. It is not stored and cannot be shown again.
    token: String,
    #[serde(flatten)]
    view: TokenView,
}

/// What a person fills in for a token.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TokenWrite {
    /// For people.
    name: String,
    /// Whom it stands for; the caller if absent.
    scope: Option<ScopeRef>,
    /// In place of `scope`: the machine client that it stands for, by `client_id` or id. `consumer` is then one that this client
    /// may use.
    client: Option<String>,
    /// The only gateway or agent that it opens, by slug or id; absent: every one that its owner may use, and this API.
    consumer: Option<String>,
    /// After how long it is no longer accepted: seconds, or a text such as `30d`, `12h`, `90m`. Never if absent.
    expires_in: Option<Lifetime>,
}

/// How long a token is accepted.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(crate) enum Lifetime {
    /// In seconds.
    Seconds(i64),
    /// A number and `s`, `m`, `h`, `d` or `w`.
    Text(String),
}

const MAX_LIFETIME: i64 = 10 * 366 * 24 * 3600;

impl Lifetime {
    fn seconds(&self) -> Option<i64> {
        let seconds = match self {
            Self::Seconds(seconds) => *seconds,
            Self::Text(text) => {
                let unit = text.chars().last()?;
                let factor = match unit {
                    's' => 1,
                    'm' => 60,
                    'h' => 3600,
                    'd' => 24 * 3600,
                    'w' => 7 * 24 * 3600,
                    _ => return None,
                };
                text.strip_suffix(unit)?.parse::<i64>().ok()?.checked_mul(factor)?
            }
        };
        (1..=MAX_LIFETIME).contains(&seconds).then_some(seconds)
    }
}

pub(crate) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(read, remove))
}

fn sees(who: &Principal, token: &Token) -> bool {
    let own = matches!(token.owner, TokenOwner::User(user) if who.user() == Some(user));
    who.permissions.allow(On::Token, Action::Admin) || (own && who.permissions.allow(On::Token, Action::Read))
}

/// Lists one's own tokens, or all of them for admins.
#[utoipa::path(get, path = "/tokens", tag = "tokens", params(PageParams), responses((status = 200, body = Listed<TokenView>)))]
async fn list(
    State(state): State<AdminState>,
    who: Who,
    Params(params): Params<PageParams>,
) -> Result<Json<Listed<TokenView>>, Problem> {
    let owner = if who.permissions.allow(On::Token, Action::Admin) { None } else { who.user().map(TokenOwner::User) };
    let read = |page| state.identity.list_page::<Token>(IdentityQuery::Tokens { owner }, page);
    let page = collect(params.limit, params.cursor, |token: &Versioned<Token>| sees(&who, &token.value), read).await?;
    let mut directory = Directory::new(&state);
    let mut items = Vec::new();
    for token in page.items {
        items.push(view(&mut directory, token).await?);
    }
    Ok(Json(Listed { items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

/// Makes a static token. Users make their own; those of teams, of the organization, of machine clients and of other users need
/// `token:admin`.
#[utoipa::path(post, path = "/tokens", tag = "tokens", request_body = TokenWrite, responses((status = 201, body = NewToken)))]
async fn create(State(state): State<AdminState>, who: Who, body: Document) -> Result<Resource<NewToken>, Problem> {
    require(&who, On::Token, Action::Create, "making a token")?;
    let (write, _) = body.decode_write::<TokenWrite>(&[])?;
    let (owner, client) = match &write.client {
        None => (owner(&state, &who, write.scope.as_ref()).await?, None),
        Some(_) if write.scope.is_some() => {
            return Err(Problem::finding("client", "it stands for a client or for a scope", "leave one of them out"));
        }
        Some(text) => {
            let client = client(&state, &who, text).await?;
            (TokenOwner::Client(client.id), Some(client))
        }
    };
    let expires_at = match &write.expires_in {
        None => None,
        Some(lifetime) => {
            let seconds = lifetime.seconds().ok_or_else(|| {
                Problem::finding(
                    "expiresIn",
                    "not a time from 1 second to 10 years",
                    "use seconds, or a text such as `30d` or `12h`",
                )
            })?;
            Utc::now().checked_add_signed(TimeDelta::seconds(seconds))
        }
    };
    let consumer = match &write.consumer {
        None => None,
        Some(text) => Some(consumer(&state, &who, text).await?),
    };
    if let (Some(client), Some(at)) = (client, consumer)
        && !client.may_use(at)
    {
        return Err(Problem::finding(
            "consumer",
            format!("client {} may not use it with its own credentials", client.client_id),
            "use one of the client's `consumers`, or change the client",
        ));
    }
    let plain = PlainToken::generate()?;
    let token = Token {
        id: TokenId::new(),
        name: write.name,
        hash: plain.hash(),
        owner,
        consumer,
        scopes: BTreeSet::new(),
        grant: None,
        bootstrap: false,
        expires_at,
        created_at: Utc::now(),
    };
    token.validate()?;
    let (store, id) = (state.clone(), token.id);
    let change = async move {
        store.identity.commit(IdentityChanges::new().create(token)).await?;
        Ok(store.identity.get_one::<Token>(id).await?)
    };
    let token = audited(&state, &who, "token.create", format!("token {id}"), as_asked, change).await?;
    let view = view(&mut Directory::new(&state), token).await?;
    Ok(Resource::new(view.resource_version, NewToken { token: plain.expose().to_owned(), view })
        .created(format!("/api/v1/tokens/{id}")))
}

/// Reads a token's name, owner and times.
#[utoipa::path(get, path = "/tokens/{token}", tag = "tokens", params(("token" = String, Path)), responses((status = 200, body = TokenView)))]
async fn read(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
) -> Result<Resource<TokenView>, Problem> {
    let token = find(&state, &who, &key).await?;
    Ok(Resource::new(token.version.0, view(&mut Directory::new(&state), token).await?))
}

/// Revokes a token.
#[utoipa::path(delete, path = "/tokens/{token}", tag = "tokens", params(("token" = String, Path)), responses((status = 204)))]
async fn remove(State(state): State<AdminState>, who: Who, Path(key): Path<String>) -> Result<StatusCode, Problem> {
    let token = find(&state, &who, &key).await?;
    require(&who, On::Token, Action::Delete, "revoking a token")?;
    if token.value.bootstrap {
        return Err(Problem::conflict("every start sets this token from its configuration; change it there"));
    }
    let store = state.clone();
    let (id, expect) = (token.value.id, token.expect());
    let change = async move { Ok(store.identity.commit(IdentityChanges::new().delete(id, expect)).await?) };
    audited(&state, &who, "token.delete", format!("token {id}"), as_asked, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn owner(state: &AdminState, who: &Who, scope: Option<&ScopeRef>) -> Result<TokenOwner, Problem> {
    let owner = match (scope, who.user()) {
        (None, Some(user)) => Owner::User(user),
        (None, None) => {
            return Err(Problem::finding(
                "scope",
                "whom the token stands for is not said, and no user asks",
                "add `scope`",
            ));
        }
        (Some(scope), _) => Directory::new(state).owner(who, "scope", scope).await?,
    };
    if let Owner::User(user) = owner
        && who.user() == Some(user)
    {
        return Ok(TokenOwner::User(user));
    }
    require(who, On::Token, Action::Admin, "making a token that stands for somebody else")?;
    Ok(match owner {
        Owner::User(id) => {
            let user = state.identity.get_one::<User>(id).await?;
            users::may_grant(state.identity.as_ref(), who, &user.value.role, "scope").await?;
            TokenOwner::User(id)
        }
        Owner::Team(team) => TokenOwner::Team(team),
        Owner::Organization => TokenOwner::Organization,
    })
}

/// The client with this id or `client_id`, for a caller who may make tokens that stand for it.
async fn client(state: &AdminState, who: &Who, text: &str) -> Result<Client, Problem> {
    require(who, On::Token, Action::Admin, "making a token that stands for a client")?;
    let mut found = match text.parse::<ClientId>() {
        Ok(id) => optional(state.identity.get_one::<Client>(id).await)?,
        Err(_) => None,
    };
    if found.is_none() {
        found = state.identity.find_one(IdentityLookup::ClientById(text.to_owned())).await?;
    }
    found.filter(|_| who.permissions.allow(On::Client, Action::Read)).map(|found| found.value).ok_or_else(|| {
        Problem::finding(
            "client",
            format!("there is no client {text} that you may see"),
            "use the `client_id` of one, or register it first",
        )
    })
}

/// The consumer with this id or slug, for a caller who may see it.
async fn consumer(state: &AdminState, who: &Who, text: &str) -> Result<ConsumerId, Problem> {
    let found = Directory::new(state)
        .find_consumer(text)
        .await?
        .filter(|found| access::sees(who, super::consumers::resource(found.value.kind), &found.value.scope));
    found.map(|found| found.value.id).ok_or_else(|| {
        Problem::finding(
            "consumer",
            format!("there is no gateway or agent {text} that you may see"),
            "use the slug of one, or leave it out",
        )
    })
}

async fn find(state: &AdminState, who: &Who, key: &str) -> Result<Versioned<Token>, Problem> {
    let found = match key.parse::<TokenId>() {
        Ok(id) => optional(state.identity.get_one::<Token>(id).await)?,
        Err(_) => None,
    };
    // The key is not repeated: it may be a token that was pasted in place of its id.
    found.filter(|token| sees(who, &token.value)).ok_or_else(|| Problem::not_found("token", "with this id"))
}

async fn view(
    directory: &mut Directory,
    Versioned { version, value: token }: Versioned<Token>,
) -> Result<TokenView, Problem> {
    let (scope, client, owner) = match token.owner {
        TokenOwner::Client(client) => {
            let (client, owner) = directory.client_view(client).await?;
            (None, Some(client), owner)
        }
        TokenOwner::User(user) => scoped(directory, Owner::User(user)).await?,
        TokenOwner::Team(team) => scoped(directory, Owner::Team(team)).await?,
        TokenOwner::Organization => scoped(directory, Owner::Organization).await?,
    };
    let consumer = match token.consumer {
        None => None,
        Some(consumer) => Some(directory.consumer_slug(consumer).await?),
    };
    Ok(TokenView {
        id: token.id.to_string(),
        resource_version: version.0,
        name: token.name,
        scope,
        client,
        owner,
        consumer,
        scopes: token.scopes,
        grant: token.grant.map(|grant| grant.to_string()),
        bootstrap: token.bootstrap,
        expires_at: token.expires_at,
        created_at: token.created_at,
    })
}

async fn scoped(directory: &mut Directory, owner: Owner) -> Result<(Option<ScopeRef>, Option<String>, Named), Problem> {
    let (scope, owner) = directory.owner_view(owner).await?;
    Ok((Some(scope), None, owner))
}
