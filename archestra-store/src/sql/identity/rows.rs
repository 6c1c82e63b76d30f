//! How identities are laid out in tables, and what goes with a user or a team.

use crate::sql::{
    catalog::is,
    family::{Cascade, Family, Key, Satellite, Table},
    read,
};
use archestra_core::{
    Result,
    identity::{IdentityKey, IdentityKind, IdentityRecord, TokenOwner},
};
use sea_orm::{
    DatabaseTransaction, Value,
    sea_query::{Condition, Expr, ExprTrait as _, Query},
};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The records of the identity store.
#[derive(Debug)]
pub(super) struct Identity;

static USERS: Table = plain("users", IdentityKind::User, &["email", "search"], &[&[0]]);
static TEAMS: Table = Table {
    name: "teams",
    label: IdentityKind::Team.label(),
    columns: &["name"],
    uniques: &[&[0]],
    satellite: Some(Satellite { name: "team_members", columns: &["team", "member"] }),
    referrers: &[],
};
static ROLES: Table = plain("roles", IdentityKind::Role, &["name"], &[&[0]]);
static TOKENS: Table = plain("tokens", IdentityKind::Token, &["hash", "owner_kind", "owner_id"], &[&[0]]);
static CLIENTS: Table = plain("clients", IdentityKind::Client, &["client_id"], &[&[0]]);
static PROVIDERS: Table =
    plain("identity_providers", IdentityKind::IdentityProvider, &["name", "issuer"], &[&[0], &[1]]);

const fn plain(
    name: &'static str,
    kind: IdentityKind,
    columns: &'static [&'static str],
    uniques: &'static [&'static [usize]],
) -> Table {
    Table { name, label: kind.label(), columns, uniques, satellite: None, referrers: &[] }
}

/// The table of a kind.
pub(super) const fn table(kind: IdentityKind) -> &'static Table {
    match kind {
        IdentityKind::User => &USERS,
        IdentityKind::Team => &TEAMS,
        IdentityKind::Role => &ROLES,
        IdentityKind::Token => &TOKENS,
        IdentityKind::Client => &CLIENTS,
        IdentityKind::IdentityProvider => &PROVIDERS,
    }
}

/// How the owner of a token is stored: its kind, and its id or nothing.
pub(super) fn owner(owner: &TokenOwner) -> (&'static str, String) {
    match owner {
        TokenOwner::User(id) => ("user", id.to_string()),
        TokenOwner::Team(id) => ("team", id.to_string()),
        TokenOwner::Organization => ("organization", String::new()),
    }
}

impl Family for Identity {
    type Record = IdentityRecord;

    const STORE: &'static str = "identity";

    fn key(label: &str, id: Uuid) -> Option<IdentityKey> {
        IdentityKind::from_label(label).map(|kind| kind.key(id))
    }

    fn table(key: &IdentityKey) -> &'static Table {
        table(key.kind())
    }

    fn columns(record: &IdentityRecord) -> Vec<Value> {
        match record {
            IdentityRecord::User(user) => {
                let search = format!("{}\n{}", user.email, user.name.as_deref().unwrap_or_default()).to_lowercase();
                vec![user.email.as_str().into(), search.into()]
            }
            IdentityRecord::Team(team) => vec![team.name.as_str().into()],
            IdentityRecord::Role(role) => vec![role.name.to_string().into()],
            IdentityRecord::Token(token) => {
                let (kind, id) = owner(&token.owner);
                vec![token.hash.to_string().into(), kind.into(), id.into()]
            }
            IdentityRecord::Client(client) => vec![client.client_id.as_str().into()],
            IdentityRecord::IdentityProvider(provider) => {
                vec![provider.name.as_str().into(), provider.issuer.as_str().into()]
            }
        }
    }

    fn satellites(record: &IdentityRecord) -> Vec<Vec<Value>> {
        match record {
            IdentityRecord::Team(team) => team.members.iter().map(|user| vec![Uuid::from(*user).into()]).collect(),
            _ => Vec::new(),
        }
    }

    fn references(record: &IdentityRecord) -> Vec<IdentityKey> {
        match record {
            IdentityRecord::Team(team) => team.members.iter().map(|user| (*user).into()).collect(),
            IdentityRecord::Token(token) => match token.owner {
                TokenOwner::User(user) => vec![user.into()],
                TokenOwner::Team(team) => vec![team.into()],
                TokenOwner::Organization => Vec::new(),
            },
            IdentityRecord::User(_)
            | IdentityRecord::Role(_)
            | IdentityRecord::Client(_)
            | IdentityRecord::IdentityProvider(_) => Vec::new(),
        }
    }

    fn unique_value(record: &IdentityRecord, n: usize) -> String {
        match (record, n) {
            (IdentityRecord::User(user), _) => user.email.clone(),
            (IdentityRecord::Team(team), _) => team.name.clone(),
            (IdentityRecord::Role(role), _) => role.name.to_string(),
            (IdentityRecord::Token(token), _) => token.hash.to_string(),
            (IdentityRecord::Client(client), _) => client.client_id.clone(),
            (IdentityRecord::IdentityProvider(provider), 0) => provider.name.clone(),
            (IdentityRecord::IdentityProvider(provider), _) => provider.issuer.clone(),
        }
    }

    fn write(record: &IdentityRecord) -> serde_json::Result<String> {
        match record {
            IdentityRecord::User(value) => serde_json::to_string(value),
            IdentityRecord::Team(value) => serde_json::to_string(value),
            IdentityRecord::Role(value) => serde_json::to_string(value),
            IdentityRecord::Token(value) => serde_json::to_string(value),
            IdentityRecord::Client(value) => serde_json::to_string(value),
            IdentityRecord::IdentityProvider(value) => serde_json::to_string(value),
        }
    }

    fn read(key: &IdentityKey, doc: &str) -> serde_json::Result<IdentityRecord> {
        Ok(match key.kind() {
            IdentityKind::User => IdentityRecord::User(serde_json::from_str(doc)?),
            IdentityKind::Team => IdentityRecord::Team(serde_json::from_str(doc)?),
            IdentityKind::Role => IdentityRecord::Role(serde_json::from_str(doc)?),
            IdentityKind::Token => IdentityRecord::Token(serde_json::from_str(doc)?),
            IdentityKind::Client => IdentityRecord::Client(serde_json::from_str(doc)?),
            IdentityKind::IdentityProvider => IdentityRecord::IdentityProvider(serde_json::from_str(doc)?),
        })
    }

    async fn cascade(tx: &DatabaseTransaction, removed: &BTreeSet<Key<Self>>) -> Result<Vec<Cascade<Self>>> {
        let mut entailed = Vec::new();
        let mut owners = Condition::any();
        let mut users = Vec::new();
        for key in removed {
            let kind = match key {
                IdentityKey::User(user) => {
                    users.push(Uuid::from(*user));
                    "user"
                }
                IdentityKey::Team(_) => "team",
                _ => continue,
            };
            owners = owners.add(is("owner_kind", kind).add(Expr::col("owner_id").eq(key.uuid().to_string())));
        }
        if owners.is_empty() {
            return Ok(entailed);
        }
        let tokens = read::all_in::<Self, _>(tx, &TOKENS, owners).await?;
        entailed.extend(tokens.into_iter().map(|token| Cascade::Remove(token.value.key())));
        let joined =
            Query::select().column("team").from("team_members").and_where(Expr::col("member").is_in(users)).take();
        for team in read::all_in::<Self, _>(tx, &TEAMS, Expr::col("id").in_subquery(joined).into()).await? {
            if let IdentityRecord::Team(mut team) = team.value {
                team.members.retain(|user| !removed.contains(&(*user).into()));
                entailed.push(Cascade::Change(team.into()));
            }
        }
        Ok(entailed)
    }
}
