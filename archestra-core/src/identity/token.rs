//! Bearer tokens, static ones and access tokens of OAuth: opaque, random, stored as hashes.

use crate::{
    Error, Finding, Result, Validate,
    catalog::scope_findings,
    hash::hashes,
    id::{ClientId, ConsumerId, GrantId, TeamId, TokenId, UserId},
};
use aws_lc_rs::{digest, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};
use zeroize::Zeroizing;

const PREFIX: &str = "arch_";
const MIN_SECRET: usize = 32;
const MAX_NAME: usize = 256;

/// A token as its owner holds it: `arch_` and at least 32 characters.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainToken(Zeroizing<String>);

impl PlainToken {
    /// A new one with 256 random bits.
    ///
    /// # Errors
    /// [`Error::Backend`] when the operating system gives no random bytes.
    pub fn generate() -> Result<Self> {
        Ok(Self(Zeroizing::new(format!("{PREFIX}{}", &*random()?))))
    }

    /// Takes a token that somebody chose.
    ///
    /// # Errors
    /// [`Error::Invalid`], without the token, unless it is `arch_` and 32 to 256 of `[A-Za-z0-9_-]`.
    pub fn parse(text: &str) -> Result<Self> {
        let fits = |secret: &str| {
            (MIN_SECRET..=256).contains(&secret.len())
                && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        match text.strip_prefix(PREFIX) {
            Some(secret) if fits(secret) => Ok(Self(Zeroizing::new(text.to_owned()))),
            _ => Err(Error::Invalid(vec![Finding::new(
                "token",
                "not a static token",
                "use `arch_` followed by 32 to 256 letters, digits, '_' or '-'",
            )])),
        }
    }

    /// The token itself, to be shown once to its owner.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl fmt::Debug for PlainToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainToken(redacted)")
    }
}

/// 256 random bits as text.
pub(super) fn random() -> Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut bytes[..]).map_err(|_| Error::Backend {
        backend: "random",
        reason: "no random bytes from the operating system".to_owned(),
        source: None,
    })?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(&bytes[..])))
}

hashes! {
    /// The SHA-256 of a token. A token holds 256 random bits, so that no slow hash is needed.
    TokenHash;
}

impl TokenHash {
    /// The hash of what a client sent.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }
}

/// Whom a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum TokenOwner {
    /// A user, with all the user may do.
    User(UserId),
    /// A team.
    Team(TeamId),
    /// The organization.
    Organization,
    /// A machine client, at a consumer that it [may use](super::Client::may_use).
    Client(ClientId),
}

/// A bearer token: a static one, or an access token that a [`Grant`](super::Grant) gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// The identifier.
    pub id: TokenId,
    /// For people.
    pub name: String,
    /// The hash. Unique.
    pub hash: TokenHash,
    /// Whom it stands for.
    pub owner: TokenOwner,
    /// The only consumer it opens; absent: every one that its owner may use, and the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<ConsumerId>,
    /// What it is good for (RFC 6749 section 3.3); empty: all that its owner may do there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub scopes: BTreeSet<String>,
    /// The grant that an access token came of, and goes with; absent: a static token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// Marks the token that every start sets from its configuration.
    #[serde(default)]
    pub bootstrap: bool,
    /// When it stops being accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

impl Validate for Token {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let fits = !self.name.is_empty() && self.name.len() <= MAX_NAME && !self.name.chars().any(char::is_control);
        if !fits || self.name.trim() != self.name {
            findings.push(Finding::new(
                "name",
                "a token needs a name of 1 to 256 printable bytes without blanks around it",
                "leave out blanks at its ends and line breaks, or choose another",
            ));
        }
        if self.expires_at.is_some_and(|at| at <= self.created_at) {
            findings.push(Finding::new("expiresAt", "it would never be accepted", "use a later time, or leave it out"));
        }
        if self.bootstrap && self.consumer.is_some() {
            findings.push(Finding::new(
                "consumer",
                "the token of the first admin opens the control plane",
                "leave it out",
            ));
        }
        findings.extend(scope_findings("scopes", &self.scopes));
        let of_client = matches!(self.owner, TokenOwner::Client(_));
        if self.consumer.is_none() && (of_client || self.grant.is_some()) {
            let what = if of_client { "a token of a machine client" } else { "an access token" };
            findings.push(Finding::new("consumer", format!("{what} opens one gateway or agent"), "name it"));
        }
        if self.grant.is_some() {
            if self.expires_at.is_none() {
                findings.push(Finding::new("expiresAt", "an access token ends by itself", "say when"));
            }
            if matches!(self.owner, TokenOwner::Team(_) | TokenOwner::Organization) {
                findings.push(Finding::new(
                    "owner",
                    "an access token stands for a user or a machine client",
                    "use the one that its grant names",
                ));
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests;
