//! Authentication at the door: from a request's credential to its principal.

mod bearer;
mod challenge;
mod changes;
mod principal;
#[cfg(test)]
mod tests;
mod usage;

pub(crate) use bearer::{Authenticated, Authenticator, IdentityFollower};
pub(crate) use challenge::{AuthError, challenge};
pub(crate) use usage::{Bounds, Place, Usage, caller_key};
