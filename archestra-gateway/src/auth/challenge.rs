//! Refusals at the door and the `WWW-Authenticate` challenge that goes with them (RFC 6750, RFC 9728).

use crate::upstream::Stopping;
use http::HeaderValue;

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    /// It carries no credential.
    #[error("no bearer token: send `Authorization: Bearer <token>`")]
    Missing,
    /// It carries something that is no bearer token.
    #[error("the Authorization header is not one `Bearer <token>`")]
    Malformed,
    /// The token is unknown, expired or revoked; which of these is nobody's business.
    #[error("the token is not valid: it is unknown, has expired or was revoked")]
    Invalid,
    /// Identities cannot be checked now.
    #[error("credentials cannot be checked right now: try again")]
    Unavailable,
}

impl From<Stopping> for AuthError {
    fn from(_: Stopping) -> Self {
        Self::Unavailable
    }
}

/// The challenge of a 401 for the resource whose metadata is at this URL.
pub(crate) fn challenge(error: &AuthError, metadata_url: Option<&str>) -> HeaderValue {
    let mut parts = Vec::new();
    if let Some(url) = metadata_url {
        parts.push(format!("resource_metadata=\"{url}\""));
    }
    match error {
        AuthError::Missing | AuthError::Unavailable => {}
        AuthError::Malformed => parts.push("error=\"invalid_request\"".to_owned()),
        AuthError::Invalid => {
            parts.push("error=\"invalid_token\"".to_owned());
            parts.push(format!("error_description=\"{error}\""));
        }
    }
    let text = if parts.is_empty() { "Bearer".to_owned() } else { format!("Bearer {}", parts.join(", ")) };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Bearer"))
}
