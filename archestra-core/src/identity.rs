//! Who there is and who calls: users, teams, roles, tokens, clients and what they are granted, identity providers and who is who
//! there, principals; and where they are kept.

mod federation;
mod grant;
mod linked;
mod permission;
mod principal;
mod refresh;
mod store;
mod token;

pub use federation::{Client, GrantType, IdentityProvider};
pub use grant::{Consent, Grant, Presented, RefreshFamily, ReplacedToken};
pub use linked::LinkedIdentity;
pub use permission::{Action, Permission, Permissions, Resource, Role, RoleName};
pub use principal::{AuthMethod, Caller, Principal};
pub use refresh::RefreshToken;
pub use store::{
    Document, IdentityChanges, IdentityKey, IdentityKind, IdentityLookup, IdentityQuery, IdentityRecord, IdentityStore,
    IdentityStoreExt,
};
pub use token::{PlainToken, Token, TokenHash, TokenOwner};

use crate::{
    Finding, Validate,
    id::{TeamId, UserId},
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
        name_finding("a team", &self.name).into_iter().collect()
    }
}

/// What is wrong with the name of something that people tell apart by it.
fn name_finding(what: &str, name: &str) -> Option<Finding> {
    let bad = name.trim().is_empty()
        || name.trim().len() != name.len()
        || name.len() > 128
        || name.chars().any(char::is_control);
    bad.then(|| {
        Finding::new(
            "name",
            format!("{what} needs a name of 1 to 128 printable bytes without blanks around it"),
            "choose another",
        )
    })
}

#[cfg(test)]
mod tests;
