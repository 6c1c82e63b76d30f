//! `MemoryIdentity`: identities, and what they are granted, in memory.

use super::HISTORY;
use crate::{
    Result,
    feed::{FeedEvent, Page, PageRequest, StoreRevision, Versioned},
    id::{ClientId, ConsumerId, IdentityProviderId, UserId},
    identity::{
        Consent, IdentityChanges, IdentityKey, IdentityLookup, IdentityQuery, IdentityRecord, IdentityStore,
        LinkedIdentity, Team, TokenOwner,
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
const GRANT_FAMILY: &str = "grant.family";
const CONSENT: &str = "consent";
const LINKED_IDENTITY: &str = "linked identity";

fn consent_of(user: UserId, client: ClientId, consumer: ConsumerId) -> Unique {
    Unique::new(CONSENT, format_args!("{user} to {client} at {consumer}"))
}

fn identity_at(provider: IdentityProviderId, subject: &str) -> Unique {
    Unique::new(LINKED_IDENTITY, format_args!("{subject} at {provider}"))
}

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
            IdentityRecord::Grant(grant) => {
                grant.refresh.iter().map(|refresh| Unique::new(GRANT_FAMILY, refresh.family)).collect()
            }
            IdentityRecord::Consent(Consent { user, client, consumer, .. }) => {
                vec![consent_of(*user, *client, *consumer)]
            }
            IdentityRecord::LinkedIdentity(LinkedIdentity { provider, subject, .. }) => {
                vec![identity_at(*provider, subject)]
            }
        }
    }

    fn references(record: &IdentityRecord) -> Vec<IdentityKey> {
        match record {
            IdentityRecord::Team(team) => team.members.iter().map(|user| (*user).into()).collect(),
            IdentityRecord::Token(token) => {
                owner_key(token.owner).into_iter().chain(token.grant.map(IdentityKey::from)).collect()
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

    fn cascade(record: &IdentityRecord, removed: &BTreeSet<IdentityKey>) -> Cascade<IdentityRecord> {
        match record {
            IdentityRecord::Team(team) if team.members.iter().any(|user| removed.contains(&(*user).into())) => {
                let members = team.members.iter().copied().filter(|user| !removed.contains(&(*user).into())).collect();
                Cascade::Change(Team { members, ..team.clone() }.into())
            }
            IdentityRecord::Token(_)
            | IdentityRecord::Grant(_)
            | IdentityRecord::Consent(_)
            | IdentityRecord::LinkedIdentity(_)
                if Self::references(record).iter().any(|key| removed.contains(key)) =>
            {
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
        TokenOwner::Client(client) => Some(client.into()),
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
        (IdentityQuery::AccessTokens { grant, expired }, IdentityRecord::Token(token)) => {
            token.grant.is_some()
                && grant.is_none_or(|grant| token.grant == Some(grant))
                && expired.is_none_or(|by| token.expires_at.is_some_and(|at| at <= by))
        }
        (IdentityQuery::Grants { user, client, consumer, expired }, IdentityRecord::Grant(grant)) => {
            user.is_none_or(|user| grant.user == Some(user))
                && client.is_none_or(|client| grant.client == client)
                && consumer.is_none_or(|consumer| grant.consumer == consumer)
                && expired.is_none_or(|by| grant.is_over(by))
        }
        (IdentityQuery::Consents { user, client }, IdentityRecord::Consent(consent)) => {
            user.is_none_or(|user| consent.user == user) && client.is_none_or(|client| consent.client == client)
        }
        (IdentityQuery::LinkedIdentities { user, provider }, IdentityRecord::LinkedIdentity(linked)) => {
            user.is_none_or(|user| linked.user == user) && provider.is_none_or(|provider| linked.provider == provider)
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
            IdentityLookup::GrantByFamily(family) => Unique::new(GRANT_FAMILY, family),
            IdentityLookup::ConsentOf { user, client, consumer } => consent_of(*user, *client, *consumer),
            IdentityLookup::IdentityAt { provider, subject } => identity_at(*provider, subject),
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
