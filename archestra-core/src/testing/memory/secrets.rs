//! `MemorySecrets`: secret bundles in memory.

use crate::{
    Error, Result,
    secret::{Accepts, Expect, SecretBundle, SecretRef, SecretStore, SecretVersion, StoredBundle},
};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Secret bundles in memory. Clones are handles on the same store.
#[derive(Debug, Clone)]
pub struct MemorySecrets {
    inner: Arc<Mutex<Bundles>>,
    accepts: Accepts,
}

impl Default for MemorySecrets {
    fn default() -> Self {
        Self { inner: Arc::default(), accepts: Accepts::Values }
    }
}

#[derive(Debug, Default)]
struct Bundles {
    stored: BTreeMap<SecretRef, StoredBundle>,
    /// Counts all writes, so that a reference that is written again never gets a version it had before.
    written: u64,
}

impl MemorySecrets {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same bundles for a store that resolves references: it writes these, and values are not what it is given.
    #[must_use]
    pub fn of_references(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), accepts: Accepts::References }
    }

    fn bundles(&self) -> MutexGuard<'_, Bundles> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SecretStore for MemorySecrets {
    fn accepts(&self) -> Accepts {
        self.accepts
    }

    async fn written(&self, reference: &SecretRef) -> Result<StoredBundle> {
        self.bundles().stored.get(reference).cloned().ok_or_else(|| Error::not_found("secret", reference))
    }

    async fn get(&self, reference: &SecretRef) -> Result<StoredBundle> {
        self.written(reference).await?.values(reference)
    }

    async fn put(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        self.accepts.check(bundle)?;
        self.rewrite(reference, bundle, expect).await
    }

    async fn rewrite(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        let mut bundles = self.bundles();
        let present = bundles.stored.get(reference).map(|stored| stored.version);
        let reason = match (expect, present) {
            (Expect::Any, _) | (Expect::Absent, None) => None,
            (Expect::Version(expected), Some(version)) if expected == version => None,
            (Expect::Absent, Some(_)) => Some("it is there already"),
            (Expect::Version(_), Some(_)) => Some("it has another version by now; read it again"),
            (Expect::Version(_), None) => Some("it is not there any more"),
        };
        if let Some(reason) = reason {
            return Err(Error::conflict("secret", reference, reason));
        }
        bundles.written += 1;
        let version = SecretVersion(bundles.written);
        bundles.stored.insert(reference.clone(), StoredBundle { bundle: bundle.clone(), version });
        Ok(version)
    }

    async fn remove(&self, reference: &SecretRef) -> Result<()> {
        self.bundles().stored.remove(reference);
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<SecretRef>> {
        let below = |path: &str| {
            prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        Ok(self.bundles().stored.keys().filter(|reference| below(reference.as_str())).cloned().collect())
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}
