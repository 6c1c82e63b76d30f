//! The `IdentityStore` trait: users, teams, roles, tokens, clients, identity providers, grants, consents and linked identities.

use super::{Client, Consent, Grant, IdentityProvider, LinkedIdentity, Role, Team, Token, TokenHash, TokenOwner, User};
use crate::{
    Result,
    feed::{ChangeSet, FeedEvent, Page, PageRequest, Readable, StoreRevision, Versioned, records, typed},
    id::{
        ClientId, ConsentId, ConsumerId, GrantId, IdentityProviderId, LinkedIdentityId, RoleId, TeamId, TokenId, UserId,
    },
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use std::fmt;

records! {
    /// Everything the identity store keeps.
    IdentityRecord,
    /// The key of an [`IdentityRecord`].
    IdentityKey,
    /// The kinds of [`IdentityRecord`].
    IdentityKind,
    /// A type that the identity store keeps.
    Document {
        User(UserId) = "user",
        Team(TeamId) = "team",
        Role(RoleId) = "role",
        Token(TokenId) = "token",
        Client(ClientId) = "client",
        IdentityProvider(IdentityProviderId) = "identity provider",
        Grant(GrantId) = "grant",
        Consent(ConsentId) = "consent",
        LinkedIdentity(LinkedIdentityId) = "linked identity",
    }
}

/// Operations on identities that happen together or not at all.
pub type IdentityChanges = ChangeSet<IdentityRecord, IdentityKey>;

/// A record that is found by something else than its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityLookup {
    /// The user with this address, in lower case.
    UserByEmail(String),
    /// The team of this name.
    TeamNamed(String),
    /// The role of this name.
    RoleNamed(String),
    /// The token with this hash.
    TokenByHash(TokenHash),
    /// The client with this `client_id`.
    ClientById(String),
    /// The identity provider of this name.
    ProviderNamed(String),
    /// The identity provider with this issuer.
    ProviderByIssuer(String),
    /// The grant whose refresh tokens are of the family with this hash, the current one and all before it.
    GrantByFamily(TokenHash),
    /// What a user has allowed a client at a consumer.
    ConsentOf {
        /// The user.
        user: UserId,
        /// The client.
        client: ClientId,
        /// The consumer.
        consumer: ConsumerId,
    },
    /// Who has this subject at a provider.
    IdentityAt {
        /// The provider.
        provider: IdentityProviderId,
        /// `sub`, byte for byte.
        subject: String,
    },
}

/// Which records to list. Fields that are `None` do not filter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is named after the field it filters by")]
pub enum IdentityQuery {
    /// Users; `search` matches a part of the address or name, ignoring case.
    Users { search: Option<String> },
    /// Teams.
    Teams { member: Option<UserId> },
    /// Roles.
    Roles,
    /// Tokens.
    Tokens { owner: Option<TokenOwner> },
    /// The tokens that came of grants; `expired` are those that ended no later than then.
    AccessTokens { grant: Option<GrantId>, expired: Option<DateTime<Utc>> },
    /// Clients.
    Clients,
    /// Identity providers.
    Providers,
    /// Grants; `expired` are those that ended no later than then, whatever is refreshed.
    Grants {
        user: Option<UserId>,
        client: Option<ClientId>,
        consumer: Option<ConsumerId>,
        expired: Option<DateTime<Utc>>,
    },
    /// Consents.
    Consents { user: Option<UserId>, client: Option<ClientId> },
    /// Linked identities.
    LinkedIdentities { user: Option<UserId>, provider: Option<IdentityProviderId> },
}

impl IdentityQuery {
    /// Every record of a kind.
    #[must_use]
    pub const fn all(kind: IdentityKind) -> Self {
        match kind {
            IdentityKind::User => Self::Users { search: None },
            IdentityKind::Team => Self::Teams { member: None },
            IdentityKind::Role => Self::Roles,
            IdentityKind::Token => Self::Tokens { owner: None },
            IdentityKind::Client => Self::Clients,
            IdentityKind::IdentityProvider => Self::Providers,
            IdentityKind::Grant => Self::Grants { user: None, client: None, consumer: None, expired: None },
            IdentityKind::Consent => Self::Consents { user: None, client: None },
            IdentityKind::LinkedIdentity => Self::LinkedIdentities { user: None, provider: None },
        }
    }

    /// What it lists.
    #[must_use]
    pub const fn kind(&self) -> IdentityKind {
        match self {
            Self::Users { .. } => IdentityKind::User,
            Self::Teams { .. } => IdentityKind::Team,
            Self::Roles => IdentityKind::Role,
            Self::Tokens { .. } | Self::AccessTokens { .. } => IdentityKind::Token,
            Self::Clients => IdentityKind::Client,
            Self::Providers => IdentityKind::IdentityProvider,
            Self::Grants { .. } => IdentityKind::Grant,
            Self::Consents { .. } => IdentityKind::Consent,
            Self::LinkedIdentities { .. } => IdentityKind::LinkedIdentity,
        }
    }
}

/// Where identities are kept.
///
/// # Contract
/// As [`CatalogStore`](crate::catalog::CatalogStore) in commits, versions, pages and the feed.
///
/// Unique, else [`AlreadyExists`](crate::Error::AlreadyExists): a user's address, a team's, role's and provider's name, a
/// provider's issuer, a token's hash, a client's `client_id`, the family of a grant's refresh tokens, a consent's user, client
/// and consumer together, a linked identity's provider and subject together.
///
/// References must exist, else [`Conflict`](crate::Error::Conflict): a team's members, a token's owner and grant, the client and
/// user of a grant or consent, the user and provider of a linked identity. Consumers are in another store and are not looked for.
///
/// What goes with what it names, in the same commit, and the feed names all that was touched:
/// * with a user, its tokens, grants, consents and linked identities; it is taken out of every team;
/// * with a team, its tokens;
/// * with a client, its tokens, grants and consents;
/// * with an identity provider, the identities that are linked to it;
/// * with a grant, however it goes, its access tokens.
///
/// What the same set writes or removes itself is left to the set: it is judged by its own expectation, and what is written so
/// that it still names what the set removes is a conflict.
#[async_trait]
pub trait IdentityStore: fmt::Debug + Send + Sync + 'static {
    /// Reads one record.
    async fn get(&self, key: IdentityKey) -> Result<Versioned<IdentityRecord>>;

    /// Reads the record that a unique value leads to, if there is one.
    async fn find(&self, lookup: &IdentityLookup) -> Result<Option<Versioned<IdentityRecord>>>;

    /// Reads one page of a list.
    async fn list(&self, query: &IdentityQuery, page: &PageRequest) -> Result<Page<Versioned<IdentityRecord>>>;

    /// The same, with what cannot be read in its place. Only to show: what nobody can read may be what denies.
    async fn list_each(
        &self,
        query: &IdentityQuery,
        page: &PageRequest,
    ) -> Result<Page<Readable<IdentityRecord, IdentityKey>>> {
        let Page { items, next } = self.list(query, page).await?;
        Ok(Page { items: items.into_iter().map(Ok).collect(), next })
    }

    /// Applies a set of changes whole.
    async fn commit(&self, changes: IdentityChanges) -> Result<StoreRevision>;

    /// Follows all commits after `since`.
    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<IdentityKey>>>;

    /// Whether the store answers, at the cost of one cheap request.
    async fn check(&self) -> Result<()>;
}

typed! {
    /// What is convenient on top of an [`IdentityStore`].
    IdentityStoreExt: IdentityStore { Document, IdentityLookup, IdentityQuery }
}
