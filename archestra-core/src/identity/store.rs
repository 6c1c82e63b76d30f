//! The `IdentityStore` trait: users, teams, roles, tokens, clients and identity providers.

use super::{Client, IdentityProvider, Role, Team, Token, TokenHash, TokenOwner, User};
use crate::{
    Result,
    feed::{ChangeSet, FeedEvent, Page, PageRequest, StoreRevision, Versioned, records, typed},
    id::{ClientId, IdentityProviderId, RoleId, TeamId, TokenId, UserId},
};
use async_trait::async_trait;
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
    /// Clients.
    Clients,
    /// Identity providers.
    Providers,
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
        }
    }

    /// What it lists.
    #[must_use]
    pub const fn kind(&self) -> IdentityKind {
        match self {
            Self::Users { .. } => IdentityKind::User,
            Self::Teams { .. } => IdentityKind::Team,
            Self::Roles => IdentityKind::Role,
            Self::Tokens { .. } => IdentityKind::Token,
            Self::Clients => IdentityKind::Client,
            Self::Providers => IdentityKind::IdentityProvider,
        }
    }
}

/// Where identities are kept.
///
/// # Contract
/// As [`CatalogStore`](crate::catalog::CatalogStore) in commits, versions, pages and the feed. Unique, else
/// [`AlreadyExists`](crate::Error::AlreadyExists): a user's address, a team's, role's and provider's name, a provider's issuer, a
/// token's hash, a client's `client_id`. References must exist, else [`Conflict`](crate::Error::Conflict): a team's members, a
/// token's owner. Removing a user takes it out of every team and removes its tokens; removing a team removes its tokens; both
/// in the same commit, and the feed names all that was touched. What the same set writes or removes itself is left to the
/// set: it is judged by its own expectation, and a team or token written so that it still names what the set removes is a
/// conflict.
#[async_trait]
pub trait IdentityStore: fmt::Debug + Send + Sync + 'static {
    /// Reads one record.
    async fn get(&self, key: IdentityKey) -> Result<Versioned<IdentityRecord>>;

    /// Reads the record that a unique value leads to, if there is one.
    async fn find(&self, lookup: &IdentityLookup) -> Result<Option<Versioned<IdentityRecord>>>;

    /// Reads one page of a list.
    async fn list(&self, query: &IdentityQuery, page: &PageRequest) -> Result<Page<Versioned<IdentityRecord>>>;

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
