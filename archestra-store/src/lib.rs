//! SQL storage behind the traits of `archestra-core`: catalog, identities, shared state, audit records and encrypted secrets.
//!
//! [`SqlStore`] is one database. It implements [`CatalogStore`], [`IdentityStore`], [`StateStore`] and [`AuditSink`];
//! [`SqlSecrets`] keeps secrets in the same database, sealed under a [`KeyRing`]. The contracts are those of the traits; this
//! crate adds how they are met:
//!
//! * **Records** are rows of `id`, `version`, the columns they are found by, and their JSON document. A commit is one
//!   transaction that checks every expectation, unique value and reference itself, so that its errors name records and not
//!   constraints; the constraints in the schema are the net below.
//! * **Order.** Every commit increments the one row of `feed_head` first. That row serialises commits, so that revisions become
//!   visible in their order, on any database. `changes` keeps what the latest commits touched. A commit whose answer is lost with
//!   the connection is looked up there by a mark of its own; where that cannot be done, the error says that nobody knows.
//! * **Reading** is whole or not at all: a document of which this version does not know everything is an error that names the
//!   record, and is told apart where records are read each by itself. Whoever went by the rest of it could allow what it
//!   forbids, and whoever wrote it back would lose what a newer version said.
//! * **The feed** has one poller for each store and any number of followers. A commit in this process wakes the poller;
//!   commits of other processes are noticed within a fraction of a second, on PostgreSQL at once where its notifications get
//!   through. A follower reads `changes` from its own position,
//!   so that a slow one costs no memory; one that fell behind what is kept is told to resync.
//! * **Secrets** are sealed with AES-256-GCM under keys derived from the ring; the seal binds reference and version, so that
//!   no row can stand in for another one or for its own past.
//! * **Vault.** [`VaultStore`] keeps secrets in the KV engine of Vault or OpenBao instead, and [`VaultReadOnly`] reads those that
//!   people put there. One login serves all requests, is renewed before it ends, and made anew once for everybody; a server that
//!   is sealed, a standby, refuses or does not answer is told apart, and never worked around. [`VaultTransit`] opens a key ring
//!   whose keys are wrapped by a key that never leaves Vault.
//!   The HTTP client below copies what is sent to Vault and what it answers into buffers of its own, which are not wiped.
//!
//! Nothing but `sql/dialect` knows which database it is.
//!
//! # Example
//! ```
//! use archestra_core::{catalog::{CatalogStore, Query}, feed::PageRequest};
//! use archestra_store::{SqlConfig, SqlStore};
//!
//! # #[tokio::main]
//! # async fn main() -> archestra_core::Result<()> {
//! let store = SqlStore::connect(SqlConfig::new("sqlite::memory:")).await?;
//! let entries = CatalogStore::list(&store, &Query::Entries { search: None, labels: None }, &PageRequest::default()).await?;
//! assert!(entries.items.is_empty());
//! store.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`CatalogStore`]: archestra_core::catalog::CatalogStore
//! [`IdentityStore`]: archestra_core::identity::IdentityStore
//! [`StateStore`]: archestra_core::state::StateStore
//! [`AuditSink`]: archestra_core::state::AuditSink
//! [`KeyRing`]: archestra_core::secret::KeyRing

mod backup;
mod migrations;
mod secret;
mod sql;

pub use backup::BackupCounts;
#[cfg(feature = "vault-aws")]
pub use secret::{AwsCredentialSource, AwsCredentials, AwsCredentialsFile};
pub use secret::{
    KvVersion, Resealed, RingClaim, SqlSecrets, VaultAuth, VaultConfig, VaultReadOnly, VaultStore, VaultTransit,
};
pub use sql::{SqlConfig, SqlStore};
