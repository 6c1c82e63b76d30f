//! Refresh tokens: opaque, of a family, each made of the one before.

use super::{TokenHash, token::random};
use crate::{
    Error, Finding, Result,
    secret::{Derived, KeyId},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::fmt;
use zeroize::Zeroizing;

const PREFIX: &str = "archr_";
/// 32 bytes in base64.
const PART: usize = 43;

/// A refresh token as its client holds it: `archr_`, what it has in common with all tokens of its family, a dot, and what is
/// its own. Either part has 256 bits that nobody can guess.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken(Zeroizing<String>);

impl RefreshToken {
    /// The first token of a new family.
    ///
    /// # Errors
    /// [`Error::Backend`] when the operating system gives no random bytes.
    pub fn begin() -> Result<Self> {
        let (family, own) = (random()?, random()?);
        Ok(Self(Zeroizing::new(format!("{PREFIX}{}.{}", &*family, &*own))))
    }

    /// Takes what a client sent.
    ///
    /// # Errors
    /// [`Error::Invalid`], without the token, for what cannot be one.
    pub fn parse(text: &str) -> Result<Self> {
        let part = |part: &str| {
            part.len() == PART && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        let parts = text.strip_prefix(PREFIX).and_then(|parts| parts.split_once('.'));
        match parts {
            Some((family, own)) if part(family) && part(own) => Ok(Self(Zeroizing::new(text.to_owned()))),
            _ => Err(Error::Invalid(vec![Finding::new(
                "refresh_token",
                "not a refresh token",
                "use the one that came with the newest access token",
            )])),
        }
    }

    /// The token that replaces this one. It follows from this one and the key ring: a client that missed the answer is given
    /// the same one again, although nothing but hashes is kept.
    #[must_use]
    pub fn successor(&self, keys: &Derived) -> Self {
        let (_, own) = keys.sign(self.0.as_bytes());
        self.sibling(&own)
    }

    /// What may have replaced this one, whichever key of the ring was the newest then.
    pub(super) fn successors(&self, keys: &Derived) -> impl Iterator<Item = Self> {
        let under = move |key: &KeyId| keys.sign_under(key, self.0.as_bytes());
        keys.keys().filter_map(under).map(move |own| self.sibling(&own))
    }

    fn sibling(&self, own: &[u8]) -> Self {
        let own = Zeroizing::new(URL_SAFE_NO_PAD.encode(own));
        Self(Zeroizing::new(format!("{PREFIX}{}.{}", self.shared(), &*own)))
    }

    fn shared(&self) -> &str {
        &self.0[PREFIX.len()..PREFIX.len() + PART]
    }

    /// The token itself, to be shown once to its client.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }

    /// What is stored of its family.
    #[must_use]
    pub fn family(&self) -> TokenHash {
        TokenHash::of(self.shared())
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{KeyRing, Purpose};
    use proptest::prelude::*;

    #[test]
    fn tokens_differ_and_parse_and_show_nothing() {
        let (one, other) = (RefreshToken::begin().unwrap(), RefreshToken::begin().unwrap());
        assert!(one.hash() != other.hash() && one.family() != other.family() && one.hash() != one.family());
        assert!(RefreshToken::parse(one.expose()).unwrap() == one);
        assert!(!format!("{one:?}").contains(&one.expose()[6..]));
        let error = RefreshToken::parse("archr_s3cret").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }

    #[test]
    fn a_successor_is_the_same_each_time_and_cannot_be_made_without_the_key() {
        let ring = || KeyRing::generate().unwrap().derive(Purpose::RefreshTokens);
        let (keys, token) = (ring(), RefreshToken::begin().unwrap());
        let next = token.successor(&keys);
        assert!(next == token.successor(&keys) && next != token.successor(&ring()));
        assert!(next.family() == token.family() && next.hash() != token.hash());
        assert!(RefreshToken::parse(next.expose()).unwrap() == next && next.successor(&keys) != next);
    }

    proptest! {
        #[test]
        fn a_text_is_a_token_exactly_when_it_has_the_form(text in prop_oneof!["archr_[A-Za-z0-9_-]{42,44}\\.[A-Za-z0-9_-]{42,44}", "(archr_)?[ -~]{0,90}", any::<String>()]) {
            let part = |part: &str| part.len() == 43 && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            let fits = text.strip_prefix("archr_").and_then(|parts| parts.split_once('.')).is_some_and(|(a, b)| part(a) && part(b));
            prop_assert_eq!(RefreshToken::parse(&text).is_ok(), fits);
        }
    }
}
