//! `VaultReadOnly`: secrets that people put into Vault themselves; we keep where they are, and read them when they are used.

use super::{
    cache::Cache,
    config::VaultConfig,
    kv::{Field, Found, Kv},
    trouble::{BACKEND, Trouble},
};
use archestra_core::{
    Error, Finding, Result,
    secret::{
        Accepts, Expect, ExternalRef, SecretBundle, SecretRef, SecretStore, SecretValue, SecretVersion, StoredBundle,
    },
};
use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Paths that are read at once for one bundle.
const READS_AT_ONCE: usize = 8;

/// Secrets that are read from Vault or OpenBao and never written there ("bring your own secrets").
///
/// A bundle that is put holds references, `path#key`, with the path within the mount and below the prefix. They are looked up
/// once when they are put, so that a wrong one is refused then, stored in another store, and resolved at each
/// [`get`](SecretStore::get); [`written`](SecretStore::written) gives the references themselves. The login needs nothing but to
/// read below the prefix. Whoever may give references can name any path below it: mount and prefix say what that is. As with
/// [`VaultStore`](super::VaultStore), what the HTTP client below copied of a value is not wiped.
#[derive(Debug, Clone)]
pub struct VaultReadOnly {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kv: Kv,
    cache: Cache<String, Arc<Found>>,
    references: Arc<dyn SecretStore>,
}

impl VaultReadOnly {
    /// Connects, logs in, and makes sure of the mount. Where the values are is kept in `references`, a store that accepts these
    /// and gives them back as they were written: [`SqlSecrets::of_references`](super::super::SqlSecrets::of_references).
    ///
    /// # Errors
    /// [`Error::Invalid`] when `references` does not accept references, and else as
    /// [`VaultStore::connect`](super::VaultStore::connect).
    pub async fn connect(config: &VaultConfig, references: Arc<dyn SecretStore>) -> Result<Self> {
        if references.accepts() != Accepts::References {
            return Err(Error::invalid(
                "references",
                "this store keeps values",
                "give one that keeps references, as `of_references` makes it",
            ));
        }
        let kv = Kv::connect(config).await?;
        let cache = Cache::new(config.cache_for, config.cache_entries);
        Ok(Self { inner: Arc::new(Inner { kv, cache, references }) })
    }

    /// Revokes our login, as [`VaultStore::close`](super::VaultStore::close) does. The store of references is left alone.
    pub async fn close(&self) {
        self.inner.kv.close().await;
    }
}

/// Which part of a reference leads to no value.
enum Dead {
    Key,
    Kind,
    Path,
}

impl Dead {
    fn reason(&self, reference: &ExternalRef) -> String {
        let (path, key) = (reference.path(), reference.key());
        match self {
            Self::Key => format!("there is no key {key} at {path} in Vault"),
            Self::Kind => format!("{key} at {path} in Vault is not a text"),
            Self::Path => format!("there is nothing at {path} in Vault"),
        }
    }
}

impl Inner {
    /// What is at all these paths; nothing where there is nothing.
    async fn read_all(&self, paths: BTreeSet<&str>) -> Result<BTreeMap<String, Option<Arc<Found>>>> {
        let reads = paths.into_iter().map(|path| async move { Ok((path.to_owned(), self.read(path).await?)) });
        stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(READS_AT_ONCE).try_collect().await
    }

    async fn read(&self, path: &str) -> Result<Option<Arc<Found>>> {
        let key = path.to_owned();
        if let Some(kept) = self.cache.get(&key) {
            return Ok(Some(kept));
        }
        let mark = self.cache.mark();
        let outlived = self.cache.outlived(&key);
        let read = async {
            if let Some(outlived) = outlived
                && self.kv.is_current(path, outlived.written.as_ref()).await?
            {
                return Ok(Some(outlived));
            }
            match self.kv.read(path).await {
                Ok(found) => Ok(Some(Arc::new(found))),
                Err(Trouble::Absent) => Ok(None),
                Err(trouble) => Err(trouble),
            }
        };
        let found = self.kv.session.within("reading", path, read).await?;
        if let Some(found) = &found {
            self.cache.keep(key, found, found.bytes(), mark);
        }
        Ok(found)
    }

    fn is_ours(&self, reference: &ExternalRef) -> bool {
        match self.kv.prefix() {
            "" => true,
            prefix => reference.path().strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')),
        }
    }

    /// The bundle of references, as the other store has it.
    async fn stored(&self, reference: &SecretRef) -> Result<(Vec<(String, ExternalRef)>, SecretVersion)> {
        let stored = self.references.written(reference).await?;
        let parsed = stored.bundle.iter().map(|(key, value)| {
            value.external().map(|at| (key.to_owned(), at.clone())).ok_or_else(|| Error::Backend {
                backend: BACKEND,
                reason: format!(
                    "{key} of secret {reference} was stored as a value, before secrets were read from Vault: give where it is there"
                ),
                source: None,
            })
        });
        Ok((parsed.collect::<Result<_>>()?, stored.version))
    }

    /// The value that a reference leads to.
    async fn resolve(&self, wanted: &[(String, ExternalRef)]) -> Result<Vec<Result<SecretValue, Dead>>> {
        let found = self.read_all(wanted.iter().map(|(_, reference)| reference.path()).collect()).await?;
        let value = |reference: &ExternalRef| {
            // What was stored under another prefix is not ours any more.
            let found = found.get(reference.path()).cloned().flatten().filter(|_| self.is_ours(reference));
            let found = found.ok_or(Dead::Path)?;
            match found.fields.get(reference.key()) {
                Some(Field::Text(value)) => Ok(value.clone()),
                Some(Field::Number(_) | Field::Other) => Err(Dead::Kind),
                None => Err(Dead::Key),
            }
        };
        Ok(wanted.iter().map(|(_, reference)| value(reference)).collect())
    }
}

#[async_trait]
impl SecretStore for VaultReadOnly {
    fn accepts(&self) -> Accepts {
        Accepts::References
    }

    async fn written(&self, reference: &SecretRef) -> Result<StoredBundle> {
        self.inner.references.written(reference).await
    }

    async fn get(&self, reference: &SecretRef) -> Result<StoredBundle> {
        let (wanted, version) = self.inner.stored(reference).await?;
        let values = self.inner.resolve(&wanted).await?;
        let mut bundle = SecretBundle::new();
        for ((key, at), value) in wanted.into_iter().zip(values) {
            let value = value.map_err(|dead| Error::Backend {
                backend: BACKEND,
                reason: format!("{}, where {key} of secret {reference} is read from", dead.reason(&at)),
                source: None,
            })?;
            bundle.insert(key, value);
        }
        Ok(StoredBundle { bundle, version })
    }

    async fn put(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        Accepts::References.check(bundle)?;
        let wanted: Vec<(String, ExternalRef)> =
            bundle.iter().filter_map(|(key, value)| Some((key.to_owned(), value.external()?.clone()))).collect();
        let foreign = wanted.iter().filter(|(_, at)| !self.inner.is_ours(at)).map(|(key, at)| {
            Finding::new(
                key,
                format!("{} is not below {}", at.path(), self.inner.kv.prefix()),
                "name a path below it, or have the server started with another prefix",
            )
        });
        let foreign: Vec<_> = foreign.collect();
        if !foreign.is_empty() {
            return Err(Error::Invalid(foreign));
        }
        let values = self.inner.resolve(&wanted).await?;
        let dead = wanted.iter().zip(values).filter_map(|((key, at), value)| {
            let dead = value.err()?;
            Some(Finding::new(key, dead.reason(at), "put it there first, or name where it is"))
        });
        let dead: Vec<_> = dead.collect();
        if !dead.is_empty() {
            return Err(Error::Invalid(dead));
        }
        self.inner.references.put(reference, bundle, expect).await
    }

    async fn rewrite(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        self.inner.references.rewrite(reference, bundle, expect).await
    }

    async fn remove(&self, reference: &SecretRef) -> Result<()> {
        self.inner.references.remove(reference).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<SecretRef>> {
        self.inner.references.list(prefix).await
    }

    async fn check(&self) -> Result<()> {
        self.inner.references.check().await?;
        self.inner.kv.check().await
    }
}
