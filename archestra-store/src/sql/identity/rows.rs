//! How identities are laid out in tables.

use super::cascade;
use crate::sql::{
    document,
    family::{Cascade, Family, Key, Satellite, Table},
};
use archestra_core::{
    Result,
    identity::{IdentityKey, IdentityKind, IdentityRecord, TokenOwner},
};
use chrono::{DateTime, Utc};
use sea_orm::{DatabaseTransaction, Value};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The records of the identity store.
#[derive(Debug)]
pub(super) struct Identity;

static USERS: Table = plain("users", IdentityKind::User, &["email", "search"], &[&[0]]);
pub(super) static TEAMS: Table = Table {
    satellite: Some(Satellite { name: "team_members", columns: &["team", "member"] }),
    ..plain("teams", IdentityKind::Team, &["name"], &[&[0]])
};
static ROLES: Table = plain("roles", IdentityKind::Role, &["name"], &[&[0]]);
pub(super) static TOKENS: Table = Table {
    satellite: Some(Satellite { name: "access_tokens", columns: &["token", "grant_id", "expires_at"] }),
    ..plain("tokens", IdentityKind::Token, &["hash", "owner_kind", "owner_id"], &[&[0]])
};
static CLIENTS: Table = plain("clients", IdentityKind::Client, &["client_id"], &[&[0]]);
static PROVIDERS: Table =
    plain("identity_providers", IdentityKind::IdentityProvider, &["name", "issuer"], &[&[0], &[1]]);
pub(super) static GRANTS: Table =
    plain("grants", IdentityKind::Grant, &["family", "client", "user_id", "consumer", "expires_at"], &[&[0]]);
pub(super) static CONSENTS: Table =
    plain("consents", IdentityKind::Consent, &["user_id", "client", "consumer"], &[&[0, 1, 2]]);
pub(super) static LINKED_IDENTITIES: Table =
    plain("linked_identities", IdentityKind::LinkedIdentity, &["user_id", "provider", "subject"], &[&[1, 2]]);

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
        IdentityKind::Grant => &GRANTS,
        IdentityKind::Consent => &CONSENTS,
        IdentityKind::LinkedIdentity => &LINKED_IDENTITIES,
    }
}

/// How the owner of a token is stored: its kind, and its id or nothing.
pub(super) fn owner(owner: &TokenOwner) -> (&'static str, String) {
    match owner {
        TokenOwner::User(id) => ("user", id.to_string()),
        TokenOwner::Team(id) => ("team", id.to_string()),
        TokenOwner::Organization => ("organization", String::new()),
        TokenOwner::Client(id) => ("client", id.to_string()),
    }
}

/// How the end of something is stored.
pub(super) fn end(at: DateTime<Utc>) -> i64 {
    at.timestamp_millis()
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
            IdentityRecord::Grant(grant) => vec![
                grant.refresh.as_ref().map(|refresh| refresh.family.to_string()).into(),
                Uuid::from(grant.client).into(),
                grant.user.map(Uuid::from).into(),
                Uuid::from(grant.consumer).into(),
                grant.expires_at.map(end).into(),
            ],
            IdentityRecord::Consent(consent) => vec![
                Uuid::from(consent.user).into(),
                Uuid::from(consent.client).into(),
                Uuid::from(consent.consumer).into(),
            ],
            IdentityRecord::LinkedIdentity(linked) => {
                vec![Uuid::from(linked.user).into(), Uuid::from(linked.provider).into(), linked.subject.as_str().into()]
            }
        }
    }

    fn satellites(record: &IdentityRecord) -> Vec<Vec<Value>> {
        match record {
            IdentityRecord::Team(team) => team.members.iter().map(|user| vec![Uuid::from(*user).into()]).collect(),
            IdentityRecord::Token(token) => {
                let row = |grant| vec![Uuid::from(grant).into(), token.expires_at.map(end).into()];
                token.grant.map(row).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn references(record: &IdentityRecord) -> Vec<IdentityKey> {
        match record {
            IdentityRecord::Team(team) => team.members.iter().map(|user| (*user).into()).collect(),
            IdentityRecord::Token(token) => {
                let owner = match token.owner {
                    TokenOwner::User(user) => Some(IdentityKey::from(user)),
                    TokenOwner::Team(team) => Some(team.into()),
                    TokenOwner::Client(client) => Some(client.into()),
                    TokenOwner::Organization => None,
                };
                owner.into_iter().chain(token.grant.map(IdentityKey::from)).collect()
            }
            IdentityRecord::Grant(grant) => {
                grant.user.map(IdentityKey::from).into_iter().chain([grant.client.into()]).collect()
            }
            IdentityRecord::Consent(consent) => vec![consent.user.into(), consent.client.into()],
            IdentityRecord::LinkedIdentity(linked) => vec![linked.user.into(), linked.provider.into()],
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
            // Where there is no family there is nothing that another grant could have, too.
            (IdentityRecord::Grant(grant), _) => {
                grant.refresh.as_ref().map_or_else(|| grant.id.to_string(), |refresh| refresh.family.to_string())
            }
            (IdentityRecord::Consent(consent), _) => {
                format!("of {} to {} at {}", consent.user, consent.client, consent.consumer)
            }
            (IdentityRecord::LinkedIdentity(linked), _) => format!("{} at {}", linked.subject, linked.provider),
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
            IdentityRecord::Grant(value) => serde_json::to_string(value),
            IdentityRecord::Consent(value) => serde_json::to_string(value),
            IdentityRecord::LinkedIdentity(value) => serde_json::to_string(value),
        }
    }

    fn read(key: &IdentityKey, doc: &str) -> serde_json::Result<IdentityRecord> {
        Ok(match key.kind() {
            IdentityKind::User => IdentityRecord::User(document::read(doc)?),
            IdentityKind::Team => IdentityRecord::Team(document::read(doc)?),
            IdentityKind::Role => IdentityRecord::Role(document::read(doc)?),
            IdentityKind::Token => IdentityRecord::Token(document::read(doc)?),
            IdentityKind::Client => IdentityRecord::Client(document::read(doc)?),
            IdentityKind::IdentityProvider => IdentityRecord::IdentityProvider(document::read(doc)?),
            IdentityKind::Grant => IdentityRecord::Grant(document::read(doc)?),
            IdentityKind::Consent => IdentityRecord::Consent(document::read(doc)?),
            IdentityKind::LinkedIdentity => IdentityRecord::LinkedIdentity(document::read(doc)?),
        })
    }

    async fn cascade(tx: &DatabaseTransaction, removed: &BTreeSet<Key<Self>>) -> Result<Vec<Cascade<Self>>> {
        cascade::of(tx, removed).await
    }
}
