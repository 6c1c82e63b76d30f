//! Identifiers: time-ordered UUIDs, one type per kind of thing, so that none can stand in for another.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident => $kind:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// What this identifies, as a person would call it.
            pub const KIND: &'static str = $kind;

            /// A new identifier; later ones sort after earlier ones.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "an identifier that is different each time is no default")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The identifier with this value.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The value.
            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = crate::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self).map_err(|_| {
                    crate::Error::invalid("id", format!("{text:?} is not the id of a {}", $kind), "use the UUID that the API returned")
                })
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    )+};
}

ids! {
    /// Of a catalog [`Entry`](crate::catalog::Entry).
    EntryId => "entry";
    /// Of an [`Installation`](crate::installation::Installation).
    InstallationId => "installation";
    /// Of a [`Tool`](crate::tool::Tool).
    ToolId => "tool";
    /// Of a [`Consumer`](crate::consumer::Consumer), gateway or agent.
    ConsumerId => "consumer";
    /// Of an [`Assignment`](crate::consumer::Assignment).
    AssignmentId => "assignment";
    /// Of a stored [`Revision`](crate::runtime::Revision) of a workload.
    RevisionId => "revision";
    /// Of a tool [`Policy`](crate::policy::Policy).
    PolicyId => "policy";
    /// Of a [`Limit`](crate::policy::Limit).
    LimitId => "limit";
    /// Of a [`User`](crate::identity::User).
    UserId => "user";
    /// Of a [`Team`](crate::identity::Team).
    TeamId => "team";
    /// Of a [`Role`](crate::identity::Role).
    RoleId => "role";
    /// Of a static bearer [`Token`](crate::identity::Token).
    TokenId => "token";
    /// Of a registered OAuth [`Client`](crate::identity::Client).
    ClientId => "client";
    /// Of an [`IdentityProvider`](crate::identity::IdentityProvider).
    IdentityProviderId => "identity provider";
    /// Of a [`Grant`](crate::identity::Grant).
    GrantId => "grant";
    /// Of a [`Consent`](crate::identity::Consent).
    ConsentId => "consent";
    /// Of a [`LinkedIdentity`](crate::identity::LinkedIdentity).
    LinkedIdentityId => "linked identity";
    /// Of one [`AuditRecord`](crate::event::AuditRecord).
    AuditId => "audit record";
}
