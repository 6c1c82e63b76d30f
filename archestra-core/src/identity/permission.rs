//! Permissions, and the roles that hold them.

use crate::{Finding, Validate, id::RoleId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// What a permission is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is named after the thing")]
pub enum Resource {
    Entry,
    Installation,
    /// Pull secrets and the like of self-hosted servers.
    McpServer,
    Gateway,
    Agent,
    Policy,
    Limit,
    User,
    Team,
    Role,
    Token,
    Client,
    IdentityProvider,
    AuditLog,
}

impl Resource {
    /// Every resource.
    pub const ALL: &'static [Self] = &[
        Self::Entry,
        Self::Installation,
        Self::McpServer,
        Self::Gateway,
        Self::Agent,
        Self::Policy,
        Self::Limit,
        Self::User,
        Self::Team,
        Self::Role,
        Self::Token,
        Self::Client,
        Self::IdentityProvider,
        Self::AuditLog,
    ];
}

/// What a permission allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "each says what it allows")]
pub enum Action {
    Read,
    Create,
    Update,
    Delete,
    /// What concerns one's own teams.
    TeamAdmin,
    /// What concerns everybody.
    Admin,
}

/// An action on a resource, written `entry:create`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission(pub Resource, pub Action);

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |value: serde_json::Result<String>| value.unwrap_or_default().trim_matches('"').to_owned();
        write!(f, "{}:{}", name(serde_json::to_string(&self.0)), name(serde_json::to_string(&self.1)))
    }
}

impl FromStr for Permission {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, crate::Error> {
        let parse = || {
            let (resource, action) = text.split_once(':')?;
            let resource = serde_json::from_value(resource.into()).ok()?;
            let action = serde_json::from_value(action.into()).ok()?;
            Some(Self(resource, action))
        };
        parse().ok_or_else(|| {
            crate::Error::invalid(
                "permission",
                format!("{text:?} is not a permission"),
                "write `resource:action`, as in `entry:create`",
            )
        })
    }
}

impl Serialize for Permission {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Permission {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Permission {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        String::schema()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Permission {}

/// A set of permissions. `admin` on a resource includes every other action on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Permissions(BTreeSet<Permission>);

impl Permissions {
    /// Whether it includes this one.
    #[must_use]
    pub fn allow(&self, resource: Resource, action: Action) -> bool {
        self.0.contains(&Permission(resource, action)) || self.0.contains(&Permission(resource, Action::Admin))
    }

    /// Whether it includes everything in another set.
    #[must_use]
    pub fn include(&self, other: &Self) -> bool {
        other.0.iter().all(|Permission(resource, action)| self.allow(*resource, *action))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Permission> {
        self.0.iter()
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

/// The name of a role: a built-in one, or one that an admin made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct RoleName(pub String);

impl RoleName {
    /// May do everything.
    pub const ADMIN: &'static str = "admin";
    /// Manages entries, installations and consumers; no users and roles.
    pub const EDITOR: &'static str = "editor";
    /// Reads the registry, installs for itself, makes personal consumers.
    pub const MEMBER: &'static str = "member";

    /// The permissions, if this is a built-in role.
    #[must_use]
    pub fn built_in(&self) -> Option<Permissions> {
        use Action::{Admin, Create, Delete, Read, TeamAdmin, Update};
        use Resource::{Agent, AuditLog, Entry, Gateway, Installation, Limit, McpServer, Policy, Team, Token};
        let every = |resources: &[Resource], actions: &[Action]| -> Vec<Permission> {
            resources.iter().flat_map(|r| actions.iter().map(|a| Permission(*r, *a))).collect()
        };
        match self.0.as_str() {
            Self::ADMIN => Some(every(Resource::ALL, &[Admin]).into_iter().collect()),
            Self::EDITOR => {
                let mut all =
                    every(&[Entry, Installation, Gateway, Agent, Policy, Limit], &[Read, Create, Update, Delete]);
                all.extend(every(&[Installation, Gateway, Agent], &[TeamAdmin]));
                all.extend(every(&[Team, McpServer, AuditLog], &[Read]));
                all.extend(every(&[Token], &[Read, Create, Delete]));
                Some(all.into_iter().collect())
            }
            Self::MEMBER => {
                let mut all = every(&[Entry, Policy, Team, McpServer], &[Read]);
                all.extend(every(&[Installation, Gateway, Agent], &[Read, Create, Update, Delete]));
                all.extend(every(&[Token], &[Read, Create, Delete]));
                Some(all.into_iter().collect())
            }
            _ => None,
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A role that an admin made. It grants only what its maker held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// The identifier.
    pub id: RoleId,
    /// Unique, and not the name of a built-in role.
    pub name: RoleName,
    /// What it allows.
    pub permissions: Permissions,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

impl Validate for Role {
    fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<_> = super::name_finding("a role", &self.name.0).into_iter().collect();
        if self.name.built_in().is_some() {
            findings.push(Finding::new("name", format!("{} is a built-in role", self.name), "choose another"));
        }
        findings
    }
}

#[cfg(test)]
mod tests;
