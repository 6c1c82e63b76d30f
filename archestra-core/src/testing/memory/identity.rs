//! `MemoryIdentity`: users, teams, roles, tokens, clients and identity providers in memory.

use super::HISTORY;
use crate::{
    Result,
    feed::{FeedEvent, Page, PageRequest, StoreRevision, Versioned},
    identity::{
        IdentityChanges, IdentityKey, IdentityLookup, IdentityQuery, IdentityRecord, IdentityStore, Team, TokenOwner,
    },
    testing::table::{Cascade, Rules, Table, Unique},
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::collections::BTreeSet;

/// Identities in memory. Clones are handles on the same store.
#[derive(Debug, Clone)]
pub struct MemoryIdentity {
    table: Table<IdentityRules>,
}

impl Default for MemoryIdentity {
    fn default() -> Self {
        Self::with_history(HISTORY)
    }
}

impl MemoryIdentity {
    /// A store without anybody in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose feeds can look back so many commits; a position before them begins with `Resync`.
    #[must_use]
    pub fn with_history(commits: usize) -> Self {
        Self { table: Table::new(commits) }
    }
}

#[derive(Debug)]
struct IdentityRules;

const USER_EMAIL: &str = "user.email";
const TEAM_NAME: &str = "team.name";
const ROLE_NAME: &str = "role.name";
const TOKEN_HASH: &str = "token.hash";
const CLIENT_ID: &str = "client.id";
const PROVIDER_NAME: &str = "provider.name";
const PROVIDER_ISSUER: &str = "provider.issuer";

impl Rules for IdentityRules {
    type Record = IdentityRecord;

    fn uniques(record: &IdentityRecord) -> Vec<Unique> {
        match record {
            IdentityRecord::User(user) => vec![Unique::new(USER_EMAIL, &user.email)],
            IdentityRecord::Team(team) => vec![Unique::new(TEAM_NAME, &team.name)],
            IdentityRecord::Role(role) => vec![Unique::new(ROLE_NAME, &role.name)],
            IdentityRecord::Token(token) => vec![Unique::new(TOKEN_HASH, token.hash)],
            IdentityRecord::Client(client) => vec![Unique::new(CLIENT_ID, &client.client_id)],
            IdentityRecord::IdentityProvider(provider) => {
                vec![Unique::new(PROVIDER_NAME, &provider.name), Unique::new(PROVIDER_ISSUER, &provider.issuer)]
            }
        }
    }

    fn references(record: &IdentityRecord) -> Vec<IdentityKey> {
        match record {
            IdentityRecord::Team(team) => team.members.iter().map(|user| (*user).into()).collect(),
            IdentityRecord::Token(token) => owner_key(token.owner).into_iter().collect(),
            IdentityRecord::User(_)
            | IdentityRecord::Role(_)
            | IdentityRecord::Client(_)
            | IdentityRecord::IdentityProvider(_) => Vec::new(),
        }
    }

    fn cascade(record: &IdentityRecord, removed: &BTreeSet<IdentityKey>) -> Cascade<IdentityRecord> {
        match record {
            IdentityRecord::Team(team) if team.members.iter().any(|user| removed.contains(&(*user).into())) => {
                let members = team.members.iter().copied().filter(|user| !removed.contains(&(*user).into())).collect();
                Cascade::Change(Team { members, ..team.clone() }.into())
            }
            IdentityRecord::Token(token) if owner_key(token.owner).is_some_and(|owner| removed.contains(&owner)) => {
                Cascade::Remove
            }
            _ => Cascade::Keep,
        }
    }
}

fn owner_key(owner: TokenOwner) -> Option<IdentityKey> {
    match owner {
        TokenOwner::User(user) => Some(user.into()),
        TokenOwner::Team(team) => Some(team.into()),
        TokenOwner::Organization => None,
    }
}

fn matches(query: &IdentityQuery, record: &IdentityRecord) -> bool {
    match (query, record) {
        (IdentityQuery::Users { search }, IdentityRecord::User(user)) => search.as_ref().is_none_or(|search| {
            let search = search.to_lowercase();
            [Some(&user.email), user.name.as_ref()]
                .into_iter()
                .flatten()
                .any(|text| text.to_lowercase().contains(&search))
        }),
        (IdentityQuery::Teams { member }, IdentityRecord::Team(team)) => {
            member.is_none_or(|user| team.members.contains(&user))
        }
        (IdentityQuery::Tokens { owner }, IdentityRecord::Token(token)) => {
            owner.is_none_or(|owner| token.owner == owner)
        }
        (IdentityQuery::Roles, IdentityRecord::Role(_))
        | (IdentityQuery::Clients, IdentityRecord::Client(_))
        | (IdentityQuery::Providers, IdentityRecord::IdentityProvider(_)) => true,
        _ => false,
    }
}

#[async_trait]
impl IdentityStore for MemoryIdentity {
    async fn get(&self, key: IdentityKey) -> Result<Versioned<IdentityRecord>> {
        self.table.get(key)
    }

    async fn find(&self, lookup: &IdentityLookup) -> Result<Option<Versioned<IdentityRecord>>> {
        Ok(self.table.find(&match lookup {
            IdentityLookup::UserByEmail(email) => Unique::new(USER_EMAIL, email),
            IdentityLookup::TeamNamed(name) => Unique::new(TEAM_NAME, name),
            IdentityLookup::RoleNamed(name) => Unique::new(ROLE_NAME, name),
            IdentityLookup::TokenByHash(hash) => Unique::new(TOKEN_HASH, hash),
            IdentityLookup::ClientById(id) => Unique::new(CLIENT_ID, id),
            IdentityLookup::ProviderNamed(name) => Unique::new(PROVIDER_NAME, name),
            IdentityLookup::ProviderByIssuer(issuer) => Unique::new(PROVIDER_ISSUER, issuer),
        }))
    }

    async fn list(&self, query: &IdentityQuery, page: &PageRequest) -> Result<Page<Versioned<IdentityRecord>>> {
        let kind = query.kind();
        self.table.list(|id| kind.key(id), page, |record| matches(query, record))
    }

    async fn commit(&self, changes: IdentityChanges) -> Result<StoreRevision> {
        self.table.commit(changes)
    }

    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<IdentityKey>>> {
        self.table.changes(since)
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}
