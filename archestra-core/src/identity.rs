//! Who there is and who calls: users, teams, roles, tokens, clients, identity providers, principals; and where they are kept.

mod permission;
mod principal;
mod store;
mod token;

pub use permission::{Action, Permission, Permissions, Resource, Role, RoleName};
pub use principal::{AuthMethod, Caller, Principal};
pub use store::{
    Document, IdentityChanges, IdentityKey, IdentityKind, IdentityLookup, IdentityQuery, IdentityRecord, IdentityStore,
    IdentityStoreExt,
};
pub use token::{PlainToken, Token, TokenHash, TokenOwner};

use crate::{
    Finding, Validate,
    id::{ClientId, IdentityProviderId, TeamId, UserId},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The identifier.
    pub id: UserId,
    /// Unique, lower-case.
    pub email: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the user may do.
    pub role: RoleName,
    /// The `apply` set that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_set: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

impl Validate for User {
    fn findings(&self) -> Vec<Finding> {
        let parts = self.email.split_once('@');
        let fits = self.email.len() <= 254
            && !self.email.chars().any(|c| c.is_whitespace() || c.is_control() || c.is_uppercase())
            && parts.is_some_and(|(local, host)| !local.is_empty() && !host.is_empty() && !host.contains('@'));
        if fits {
            Vec::new()
        } else {
            vec![Finding::new("email", format!("{:?} is not an address", self.email), "use `name@host`, in lower case")]
        }
    }
}

/// Users that share installations and consumers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Team {
    /// The identifier.
    pub id: TeamId,
    /// Unique.
    pub name: String,
    /// The team with the higher priority serves a user who is in several.
    #[serde(default)]
    pub priority: i32,
    /// Its members.
    #[serde(default)]
    pub members: BTreeSet<UserId>,
    /// The `apply` set that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_set: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

impl Validate for Team {
    fn findings(&self) -> Vec<Finding> {
        let bad = self.name.trim().is_empty()
            || self.name.trim().len() != self.name.len()
            || self.name.len() > 128
            || self.name.chars().any(char::is_control);
        if bad {
            vec![Finding::new(
                "name",
                "a team needs a name of 1 to 128 printable bytes without blanks around it",
                "choose another",
            )]
        } else {
            Vec::new()
        }
    }
}

/// A registered OAuth client of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// The identifier.
    pub id: ClientId,
    /// `client_id`: unique; the URL of its metadata document where it has one.
    pub client_id: String,
    /// For people.
    pub name: String,
    /// The SHA-256 of its secret, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_hash: Option<TokenHash>,
    /// Its public keys, as a JWK set, for `private_key_jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Where codes may be sent.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// The grants it may use.
    #[serde(default)]
    pub grant_types: BTreeSet<String>,
    /// For client credentials: the consumers it may use.
    #[serde(default)]
    pub consumers: BTreeSet<crate::id::ConsumerId>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// An OpenID provider whose users and tokens the platform trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct IdentityProvider {
    /// The identifier.
    pub id: IdentityProviderId,
    /// Unique; part of the login URL.
    pub name: String,
    /// Its issuer, byte for byte as in its tokens. Unique.
    pub issuer: String,
    /// Our client there.
    pub client_id: String,
    /// Where our client secret is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<crate::secret::SecretRef>,
    /// Its keys; absent: discovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// Which claim holds the address of a user; `email` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_claim: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests;
