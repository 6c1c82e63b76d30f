//! What everything in archestra means: the domain of a private MCP registry, the traits that carry it, and their test suites.
//!
//! A catalog [`Entry`](catalog::Entry) is a template of an MCP server; an [`Installation`](installation::Installation) is the
//! connection somebody made from it, with credentials; a [`Consumer`](consumer::Consumer) (gateway or agent) is given
//! [tools](tool::Tool) by assignments; a [`Principal`](identity::Principal) calls them.
//!
//! Four traits carry it: [`Runtime`](runtime::Runtime) runs self-hosted servers, [`SecretStore`](secret::SecretStore) keeps
//! secrets, [`CatalogStore`](catalog::CatalogStore) keeps the catalog, and
//! [`CredentialResolver`](credential::CredentialResolver) decides whose installation serves a call. Beside them stand
//! [`IdentityStore`](identity::IdentityStore), [`StateStore`](state::StateStore) and [`AuditSink`](state::AuditSink). Every
//! trait has a written contract, and a conformance suite in `testing` that is its executable form. What all stores of
//! records share (versions, change sets, the change feed) is in [`feed`].
//!
//! This crate does no I/O of its own, but for local child processes behind the feature `process`, and for the bridge
//! to a server in a container behind the feature `bridge`.
//!
//! | feature | what it adds |
//! |---|---|
//! | `process` | `runtime::process`: workloads as local child processes, and the supervisor that ends them with us; Unix only |
//! | `bridge` | `bridge`: a stdio server's channels over TCP, as a program for its container and as a client; Unix only |
//! | `testing` | `testing`: in-memory backends, a scripted runtime, conformance suites |
//! | `openapi` | `utoipa::ToSchema` on everything a person fills in |

#[cfg(feature = "bridge")]
pub mod bridge;
pub mod catalog;
pub mod consumer;
pub mod credential;
pub mod error;
pub mod event;
pub mod feed;
mod hash;
pub mod id;
pub mod identity;
pub mod installation;
pub mod policy;
pub mod runtime;
pub mod secret;
pub mod state;
pub mod tool;

#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Error, ErrorKind, Finding, Result, Validate};
