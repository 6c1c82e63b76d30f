//! The `IdentityStore` trait: users, teams, roles, tokens, clients and identity providers.

use super::{Client, IdentityProvider, Role, Team, Token, TokenHash, TokenOwner, User};
use crate::{
    Error, Result,
    feed::{ChangeSet, FeedEvent, Page, PageRequest, StoreRevision, Versioned, records},
    id::{ClientId, IdentityProviderId, RoleId, TeamId, TokenId, UserId},
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::{fmt, future::Future};

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
/// [`AlreadyExists`](Error::AlreadyExists): a user's address, a team's, role's and provider's name, a provider's issuer, a
/// token's hash, a client's `client_id`. References must exist, else [`Conflict`](Error::Conflict): a team's members, a
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

/// What is convenient on top of an [`IdentityStore`].
pub trait IdentityStoreExt: IdentityStore {
    /// Reads one record as its type.
    fn get_one<T: Document>(&self, id: T::Id) -> impl Future<Output = Result<Versioned<T>>> + Send {
        async move {
            let Versioned { version, value } = self.get(T::key(id)).await?;
            let value = T::from_record(value).ok_or_else(|| Error::not_found(T::KIND.label(), id))?;
            Ok(Versioned { version, value })
        }
    }

    /// Finds one record as its type.
    fn find_one<T: Document>(
        &self,
        lookup: IdentityLookup,
    ) -> impl Future<Output = Result<Option<Versioned<T>>>> + Send {
        async move {
            let found = self.find(&lookup).await?;
            Ok(found.and_then(|Versioned { version, value }| {
                T::from_record(value).map(|value| Versioned { version, value })
            }))
        }
    }

    /// Reads one page as its type.
    fn list_page<T: Document>(
        &self,
        query: IdentityQuery,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<Versioned<T>>>> + Send {
        async move {
            let Page { items, next } = self.list(&query, &page).await?;
            let items = items
                .into_iter()
                .filter_map(|Versioned { version, value }| {
                    T::from_record(value).map(|value| Versioned { version, value })
                })
                .collect();
            Ok(Page { items, next })
        }
    }

    /// Reads all pages.
    fn list_all<T: Document>(&self, query: IdentityQuery) -> impl Future<Output = Result<Vec<Versioned<T>>>> + Send {
        async move {
            let mut all = Vec::new();
            let mut request = PageRequest { limit: crate::feed::MAX_PAGE, cursor: None };
            loop {
                let page = self.list_page::<T>(query.clone(), request.clone()).await?;
                all.extend(page.items);
                match page.next {
                    Some(cursor) => request.cursor = Some(cursor),
                    None => return Ok(all),
                }
            }
        }
    }
}

impl<S: IdentityStore + ?Sized> IdentityStoreExt for S {}
