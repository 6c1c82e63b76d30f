//! How people name things in documents: users by address, teams and entries by name, consumers by slug, anything by id.

use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Who owns or shares something: `organization`, `{user: alice@example.com}`, `{team: finance}` or `{teams: [finance, sales]}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ScopeRef {
    /// Everybody.
    Organization,
    /// One user, by address or id.
    User(String),
    /// One team, by name or id.
    Team(String),
    /// Several teams, by name or id.
    Teams(Vec<String>),
}

impl fmt::Display for ScopeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organization => f.write_str("organization"),
            Self::User(user) => write!(f, "user {user}"),
            Self::Team(team) => write!(f, "team {team}"),
            Self::Teams(teams) => write!(f, "teams {}", teams.join(", ")),
        }
    }
}

/// Whose installation serves a tool: `resolveAtCallTime`, or `{installation: …}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum CredentialRef {
    /// The one that the caller's identity leads to.
    #[default]
    ResolveAtCallTime,
    /// This one, whoever calls.
    Installation(InstallationRef),
}

/// An installation of a known entry: the one that an owner has made, or the one with an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum InstallationRef {
    /// The owner's: `organization`, `{user: …}` or `{team: …}`.
    Of(ScopeRef),
    /// The id.
    Id(String),
}

/// Callers that a rule is about: `{user: …}`, `{team: …}`, `organization` or `clients`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum CallerRef {
    /// This user, by address or id.
    User(String),
    /// Members of this team, by name or id, and its tokens.
    Team(String),
    /// Organization tokens.
    Organization,
    /// Machine clients.
    Clients,
}

/// A user, a team or the organization, with id and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Named {
    /// `user`, `team` or `organization`.
    pub kind: String,
    /// The id; the organization has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A user's address, a team's name.
    pub name: String,
}
