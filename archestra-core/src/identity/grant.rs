//! What users and machine clients let clients do: grants, with their families of refresh tokens, and remembered consents.

use super::{RefreshToken, TokenHash};
use crate::{
    Finding, Validate,
    catalog::scope_findings,
    id::{ClientId, ConsentId, ConsumerId, GrantId, UserId},
    secret::Derived,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a registered client may do at one consumer, for a user or for itself. Its access tokens are
/// [`Token`](super::Token)s that name it; whoever revokes it removes it, and they go with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The identifier.
    pub id: GrantId,
    /// Who may.
    pub client: ClientId,
    /// For whom; absent: a machine client acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// Where: every token that comes of it opens this consumer only (RFC 8707).
    pub consumer: ConsumerId,
    /// What; empty: all that the consumer offers.
    #[serde(default)]
    pub scopes: BTreeSet<String>,
    /// Its refresh tokens, if there are any. They are part of this record, so that a rotation is one write that expects the
    /// version that was read, and of two at once one fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<RefreshFamily>,
    /// When it ends, whatever is refreshed; absent: when it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// All refresh tokens of a grant, of which the newest is good (OAuth 2.1, rotation).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RefreshFamily {
    /// The hash of what all its tokens have in common. Unique: a token of any generation leads to its grant by it, so that an
    /// old one is known for what it is.
    pub family: TokenHash,
    /// The hash of the token that is good.
    pub current: TokenHash,
    /// The token before, which a client that missed the answer may send once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ReplacedToken>,
    /// How many tokens there were before the current one.
    #[serde(default)]
    pub generation: u64,
    /// When the current token stops being accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// A refresh token that another one has replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReplacedToken {
    /// Its hash.
    pub hash: TokenHash,
    /// When it was replaced.
    pub at: DateTime<Utc>,
}

/// What it means that a refresh token is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presented {
    /// It is good: the grant is [rotated](RefreshFamily::rotated).
    Current,
    /// It was replaced a moment ago, by an answer that may have been lost: whoever sends it gets
    /// [the same answer](RefreshFamily::answer_again), and nothing is written.
    Again,
    /// It was replaced before: somebody else has it, or had it. The grant is removed.
    Reused,
    /// It, or the grant, has ended.
    Expired,
    /// It is no token of this grant.
    Foreign,
}

impl Grant {
    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        is_past(self.expires_at, now)
    }

    /// Judges a refresh token. One that was replaced no longer than `grace` ago may be sent again.
    #[must_use]
    pub fn presented(&self, token: &RefreshToken, now: DateTime<Utc>, grace: TimeDelta) -> Presented {
        let Some(family) = self.refresh.as_ref().filter(|family| family.family == token.family()) else {
            return Presented::Foreign;
        };
        let hash = token.hash();
        let again = |previous: &ReplacedToken| previous.hash == hash && now - previous.at < grace;
        let judged = if hash == family.current {
            Presented::Current
        } else if family.previous.as_ref().is_some_and(again) {
            Presented::Again
        } else {
            // Also where all has ended: access tokens that came of it may not have.
            return Presented::Reused;
        };
        if self.is_over(now) || is_past(family.expires_at, now) { Presented::Expired } else { judged }
    }
}

impl RefreshFamily {
    /// A family of which this is the first token.
    #[must_use]
    pub fn of(first: &RefreshToken, expires_at: Option<DateTime<Utc>>) -> Self {
        Self { family: first.family(), current: first.hash(), previous: None, generation: 0, expires_at }
    }

    /// The family once `next` has replaced the current token.
    #[must_use]
    pub fn rotated(&self, next: &RefreshToken, now: DateTime<Utc>, expires_at: Option<DateTime<Utc>>) -> Self {
        Self {
            family: self.family,
            current: next.hash(),
            previous: Some(ReplacedToken { hash: self.current, at: now }),
            generation: self.generation.saturating_add(1),
            expires_at,
        }
    }

    /// The token that replaced this one, which is [presented again](Presented::Again); `None` where the key that it was made
    /// with is in the ring no longer, and the client has to begin anew.
    #[must_use]
    pub fn answer_again(&self, token: &RefreshToken, keys: &Derived) -> Option<RefreshToken> {
        token.successors(keys).find(|next| next.hash() == self.current)
    }
}

fn is_past(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    at.is_some_and(|at| at <= now)
}

impl Validate for Grant {
    fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<_> = scope_findings("scopes", &self.scopes).collect();
        let mut end = |field: &str, at: Option<DateTime<Utc>>| {
            if is_past(at, self.created_at) {
                findings.push(Finding::new(field, "it would never be accepted", "use a later time, or leave it out"));
            }
        };
        end("expiresAt", self.expires_at);
        end("refresh.expiresAt", self.refresh.as_ref().and_then(|refresh| refresh.expires_at));
        if self.user.is_none() && self.refresh.is_some() {
            findings.push(Finding::new(
                "refresh",
                "a machine client gets no refresh token",
                "leave it out: it asks with its own credentials again",
            ));
        }
        findings
    }
}

/// That a user has said yes to a client at a consumer, and is not asked again. Unique for these three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Consent {
    /// The identifier.
    pub id: ConsentId,
    /// Who said so.
    pub user: UserId,
    /// To whom.
    pub client: ClientId,
    /// Where.
    pub consumer: ConsumerId,
    /// To what; empty: to all that the consumer offers.
    #[serde(default)]
    pub scopes: BTreeSet<String>,
    /// When the user said so, the last time.
    pub given_at: DateTime<Utc>,
}

impl Consent {
    /// Whether the user need not be asked about these scopes; none at all asks for everything.
    #[must_use]
    pub fn covers(&self, scopes: &BTreeSet<String>) -> bool {
        self.scopes.is_empty() || (!scopes.is_empty() && scopes.is_subset(&self.scopes))
    }
}

impl Validate for Consent {
    fn findings(&self) -> Vec<Finding> {
        scope_findings("scopes", &self.scopes).collect()
    }
}

#[cfg(test)]
mod tests;
