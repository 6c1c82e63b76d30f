//! Principals: who calls, as established at the door.

use super::Permissions;
use crate::{
    id::{ClientId, ConsumerId, IdentityProviderId, TeamId, TokenId, UserId},
    secret::SecretValue,
};
use chrono::{DateTime, Utc};
use std::{collections::BTreeSet, sync::Arc};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Caller {
    /// A user.
    User(UserId),
    /// Whoever holds a team's token.
    Team(TeamId),
    /// Whoever holds the organization's token.
    Organization,
    /// A program with client credentials.
    Client(ClientId),
}

impl Caller {
    /// `user`, `team`, `organization` or `client`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Team(_) => "team",
            Self::Organization => "organization",
            Self::Client(_) => "client",
        }
    }

    /// The id, where it has one.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        match self {
            Self::User(id) => Some(id.to_string()),
            Self::Team(id) => Some(id.to_string()),
            Self::Client(id) => Some(id.to_string()),
            Self::Organization => None,
        }
    }
}

/// How a caller authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthMethod {
    /// A static bearer token.
    Token(TokenId),
    /// An OAuth access token of our own.
    OAuth,
    /// A token of an identity provider.
    IdentityProvider(IdentityProviderId),
    /// The embedding program itself.
    Embedded,
}

impl AuthMethod {
    /// `token`, `oauth`, `idp` or `embedded`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::OAuth => "oauth",
            Self::IdentityProvider(_) => "idp",
            Self::Embedded => "embedded",
        }
    }
}

/// Who calls, what they may do, and how they authenticated. Built once per credential and shared by its calls.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Who.
    pub caller: Caller,
    /// A name for people and the audit log.
    pub name: Arc<str>,
    /// The caller's teams, the one with the highest priority first, then by id. For a team token, that team.
    pub teams: Arc<[TeamId]>,
    /// What the caller may do in the control plane.
    pub permissions: Arc<Permissions>,
    /// How they authenticated.
    pub method: AuthMethod,
    /// The caller's own IdP token, where there is one.
    pub idp_token: Option<SecretValue>,
    /// The only consumer that the credential opens: the audience of an access token (RFC 8707).
    pub consumer: Option<ConsumerId>,
    /// What the credential was granted (RFC 6749 section 3.3); `None` where it knows no scopes.
    pub scopes: Option<Arc<BTreeSet<String>>>,
    /// When the credential stops being accepted.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Principal {
    /// The user, if a user calls.
    #[must_use]
    pub const fn user(&self) -> Option<UserId> {
        match self.caller {
            Caller::User(id) => Some(id),
            Caller::Team(_) | Caller::Organization | Caller::Client(_) => None,
        }
    }

    /// Whether the credential opens this consumer. What the caller may use at all is another question.
    #[must_use]
    pub fn opens(&self, consumer: ConsumerId) -> bool {
        self.consumer.is_none_or(|only| only == consumer)
    }

    /// Whether the caller is, or is in, this team.
    #[must_use]
    pub fn is_in(&self, team: TeamId) -> bool {
        self.teams.contains(&team)
    }
}
