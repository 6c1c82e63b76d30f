//! Principals from what the identity store says about a token's owner.

use archestra_core::{
    Error, ErrorKind, Result,
    feed::Versioned,
    id::TeamId,
    identity::{
        AuthMethod, Caller, Client, IdentityLookup, IdentityQuery, IdentityStore, IdentityStoreExt as _, Permissions,
        Principal, Role, RoleName, Team, Token, TokenOwner, User,
    },
};
use std::sync::Arc;

/// The principal that a token stands for; `None` when its owner is gone, or is a machine client that may not, or not any more,
/// use what the token opens. The grant of an access token is not asked for: it takes its tokens along when it goes.
pub(super) async fn of_token(store: &dyn IdentityStore, token: &Token) -> Result<Option<Principal>> {
    let method = if token.grant.is_some() { AuthMethod::OAuth } else { AuthMethod::Token(token.id) };
    let scopes = (!token.scopes.is_empty()).then(|| Arc::new(token.scopes.clone()));
    let bare = |caller, name: &str, teams: Vec<TeamId>| Principal {
        caller,
        name: name.into(),
        teams: teams.into(),
        permissions: Arc::default(),
        method: method.clone(),
        idp_token: None,
        consumer: token.consumer,
        scopes: scopes.clone(),
        expires_at: token.expires_at,
    };
    match token.owner {
        TokenOwner::Organization => Ok(Some(bare(Caller::Organization, &token.name, Vec::new()))),
        TokenOwner::Team(id) => {
            let team = present(store.get_one::<Team>(id).await)?;
            Ok(team.map(|team| bare(Caller::Team(id), &team.value.name, vec![id])))
        }
        TokenOwner::Client(id) => {
            let client = present(store.get_one::<Client>(id).await)?;
            let client = client.filter(|client| token.consumer.is_some_and(|at| client.value.may_use(at)));
            Ok(client.map(|client| bare(Caller::Client(id), &client.value.name, Vec::new())))
        }
        TokenOwner::User(id) => {
            let Some(user) = present(store.get_one::<User>(id).await)? else { return Ok(None) };
            let mut teams = store.list_all::<Team>(IdentityQuery::Teams { member: Some(id) }).await?;
            teams.sort_by_key(|team| (std::cmp::Reverse(team.value.priority), team.value.id));
            let permissions = permissions(store, &user.value.role).await?;
            Ok(Some(Principal {
                caller: Caller::User(id),
                name: user.value.email.as_str().into(),
                teams: teams.into_iter().map(|team| team.value.id).collect(),
                permissions: Arc::new(permissions),
                method,
                idp_token: None,
                consumer: token.consumer,
                scopes,
                expires_at: token.expires_at,
            }))
        }
    }
}

async fn permissions(store: &dyn IdentityStore, role: &RoleName) -> Result<Permissions> {
    if let Some(permissions) = role.built_in() {
        return Ok(permissions);
    }
    let role = store.find_one::<Role>(IdentityLookup::RoleNamed(role.0.clone())).await?;
    // A role that was removed allows nothing.
    Ok(role.map(|role| role.value.permissions).unwrap_or_default())
}

fn present<T>(found: Result<Versioned<T>>) -> Result<Option<Versioned<T>>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
