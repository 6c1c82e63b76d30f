//! What tests are made of: in-memory backends, a scripted runtime, backends that fail on demand, valid values of every type,
//! and one conformance suite per trait.
//!
//! Behind the feature `testing`, for `[dev-dependencies]`:
//!
//! ```toml
//! archestra-core = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # To test a program that embeds the platform
//!
//! Give it [`MemoryCatalog`], [`MemoryIdentity`], [`MemorySecrets`], [`MemoryState`] and [`MemoryAudit`] in place of a
//! database, and a [`ScriptedRuntime`] in place of a cluster. They keep every promise of their traits, share nothing, and end
//! with the test. Wrap one in [`Faulty`] to see what your program does when it is slow, gone, or loses an answer.
//!
//! ```
//! use archestra_core::{
//!     catalog::{CatalogStore, CatalogStoreExt, Entry, Lookup},
//!     feed::ChangeSet,
//!     testing::{Faulty, MemoryCatalog, fixtures},
//! };
//! use std::sync::Arc;
//!
//! /// What is to be tested: it registers an entry unless one of this name is there.
//! async fn register(catalog: &dyn CatalogStore, name: &str) -> archestra_core::Result<()> {
//!     if catalog.find_one::<Entry>(Lookup::EntryNamed(name.to_owned())).await?.is_none() {
//!         catalog.commit(ChangeSet::new().create(fixtures::remote_entry(name))).await?;
//!     }
//!     Ok(())
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let catalog = Faulty::new(Arc::new(MemoryCatalog::new()));
//! register(&catalog, "tracker").await.unwrap();
//! register(&catalog, "tracker").await.unwrap();
//!
//! // The commit is done, but its answer gets lost: trying again must not fail.
//! catalog.faults().lose_answers(2);
//! assert!(register(&catalog, "other").await.is_err());
//! catalog.faults().heal();
//! register(&catalog, "other").await.unwrap();
//! # });
//! ```
//!
//! # To test a backend of your own
//!
//! [`conformance`] holds the contract of each trait as code. In a test file of your crate one line runs all of it, one
//! `#[test]` for each sentence:
//!
//! ```
//! use archestra_core::{
//!     Error, Result,
//!     secret::{Accepts, Expect, SecretBundle, SecretRef, SecretStore, SecretVersion, StoredBundle},
//! };
//! use async_trait::async_trait;
//! use std::{collections::BTreeMap, sync::{Arc, Mutex}};
//!
//! /// A store of your own.
//! #[derive(Debug, Default)]
//! struct MyStore {
//!     bundles: Mutex<BTreeMap<SecretRef, (u64, SecretBundle)>>,
//! }
//!
//! #[async_trait]
//! impl SecretStore for MyStore {
//!     async fn get(&self, reference: &SecretRef) -> Result<StoredBundle> {
//!         let bundles = self.bundles.lock().unwrap();
//!         let (version, bundle) = bundles.get(reference).ok_or_else(|| Error::not_found("secret", reference))?;
//!         Ok(StoredBundle { bundle: bundle.clone(), version: SecretVersion(*version) })
//!     }
//!
//!     async fn put(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
//!         Accepts::Values.check(bundle)?;
//!         let mut bundles = self.bundles.lock().unwrap();
//!         let present = bundles.get(reference).map(|(version, _)| *version);
//!         let holds = match expect {
//!             Expect::Any => true,
//!             Expect::Absent => present.is_none(),
//!             Expect::Version(SecretVersion(version)) => present == Some(version),
//!         };
//!         if !holds {
//!             return Err(Error::conflict("secret", reference, "somebody else wrote it first"));
//!         }
//!         let version = present.unwrap_or(0) + 1;
//!         bundles.insert(reference.clone(), (version, bundle.clone()));
//!         Ok(SecretVersion(version))
//!     }
//!
//!     async fn remove(&self, reference: &SecretRef) -> Result<()> {
//!         self.bundles.lock().unwrap().remove(reference);
//!         Ok(())
//!     }
//!
//!     async fn list(&self, prefix: &str) -> Result<Vec<SecretRef>> {
//!         let below = |path: &str| prefix.is_empty() || path == prefix || path.starts_with(&format!("{prefix}/"));
//!         Ok(self.bundles.lock().unwrap().keys().filter(|reference| below(reference.as_str())).cloned().collect())
//!     }
//!
//!     async fn check(&self) -> Result<()> {
//!         Ok(())
//!     }
//! }
//!
//! // In `tests/conformance.rs` of your crate:
//! archestra_core::secret_store_conformance!(my_store, async { Arc::new(MyStore::default()) });
//! # fn main() {
//! # // A documentation test runs no `#[test]`: this is the same suite, run by hand.
//! # archestra_core::testing::conformance::run(archestra_core::testing::conformance::secret_store::all(|| async {
//! #     Arc::new(MyStore::default()) as Arc<dyn SecretStore>
//! # }));
//! # }
//! ```

pub mod conformance;
mod faulty;
pub mod fixtures;
mod memory;
mod scripted;
mod table;

pub use faulty::{Faults, Faulty};
pub use memory::{MemoryAudit, MemoryCatalog, MemoryIdentity, MemorySecrets, MemoryState};
pub use scripted::{Answer, Eras, RecordedCall, Script, ScriptedRuntime, ScriptedServer};
