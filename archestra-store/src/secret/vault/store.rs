//! `VaultStore`: bundles at paths of their own, read and written.

use super::{
    cache::Cache,
    config::{KvVersion, VaultConfig},
    kv::{Field, Found, Kv, WRITE_NUMBER, Written},
    trouble::{BACKEND, Trouble},
};
use archestra_core::{
    Error, Result,
    secret::{Accepts, Expect, SecretBundle, SecretRef, SecretStore, SecretValue, SecretVersion, StoredBundle},
};
use async_trait::async_trait;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// How often a write whose expectation is `Any` begins anew when another one came in between.
const TRIES: u32 = 16;
/// The largest bundle: what the integrated storage takes by default.
const LARGEST: usize = 1024 * 1024;
/// How many references of a version 1 mount are written at once at most.
const WRITERS: usize = 16;
/// What version 1 of the engine takes for the lifetime of a secret.
const LIFETIMES: [&str; 2] = ["ttl", "lease"];
/// Where it is written whose prefix this is. It is no reference, so that it is never listed, swept or copied as a secret.
const OWNER: &str = "~instance";
/// The key in it.
const INSTANCE: &str = "instance";

/// Secrets in Vault or OpenBao, one path for each reference: `<mount>/<prefix>/<reference>`, with the keys of the bundle as
/// its keys.
///
/// On version 2 of the KV secrets engine the versions are Vault's, and expectations are checked by it. Version 1 has neither:
/// there a bundle holds the number of its write under a key of ours, which is read before each write. Writes of one process
/// take turns, so that expectations hold among them; **of two processes that write the same reference at the same moment, both
/// may succeed, and one write is lost**. Use version 2 where several replicas write.
///
/// Removing a reference removes all its versions. What is read is kept for
/// [`cache_for`](VaultConfig::cache_for), which is not at all unless it is set. A [list](SecretStore::list) asks for each folder
/// by itself, eight at once, and each has the [`deadline`](VaultConfig::deadline) of an operation: the whole takes as long as
/// there are folders, and ends when it is dropped.
///
/// Values are wiped from memory when they are no longer needed, as far as this crate holds them: the HTTP client below copies the
/// bodies of requests and answers into buffers of its own, which it does not wipe.
#[derive(Debug, Clone)]
pub struct VaultStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kv: Kv,
    cache: Cache<SecretRef, Kept>,
    turns: Vec<Semaphore>,
}

impl VaultStore {
    /// Connects, logs in, and makes sure of the mount.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings that cannot work, also where no TLS provider is installed;
    /// [`Error::PermissionDenied`] when Vault refuses the login; [`Error::Unavailable`] and [`Error::Timeout`] when it does not
    /// answer, is sealed, or is a standby.
    pub async fn connect(config: &VaultConfig) -> Result<Self> {
        let kv = Kv::connect(config).await?;
        let cache = Cache::new(config.cache_for, config.cache_entries);
        let turns = (0..WRITERS).map(|_| Semaphore::new(1)).collect();
        Ok(Self { inner: Arc::new(Inner { kv, cache, turns }) })
    }

    /// Makes the prefix that of one database, whose [`instance`](crate::SqlStore::instance) this is, or makes sure that it is.
    /// Whoever removes secrets that its database does not name must call this first: under the prefix of another one that
    /// would be all of them. The first one to come writes a mark below the prefix; on version 1 of the engine two that come at
    /// the same moment may both succeed, and the loser is refused from the next time on.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the prefix belongs to another database, with both instances, and why Vault does not answer.
    pub async fn claim(&self, instance: Uuid) -> Result<()> {
        let kv = &self.inner.kv;
        let owner = kv.session.within("claiming the prefix", kv.prefix(), self.inner.claim(instance)).await?;
        if owner == instance.to_string() {
            return Ok(());
        }
        let reason = format!(
            "the secrets there are those of the database {owner}, and this is the database {instance}: use another prefix, or restore the database that owns this one"
        );
        Err(Error::conflict("prefix", kv.shown_prefix(), reason))
    }

    /// Revokes our login, unless somebody gave us its token, and makes no other one: nothing can be asked afterwards. It takes no
    /// longer than one request may, and where Vault does not answer the login ends by itself. A store that is dropped without
    /// it leaves its login to end by itself, too.
    pub async fn close(&self) {
        self.inner.kv.close().await;
    }

    /// Which version of the engine is mounted.
    #[must_use]
    pub fn kv_version(&self) -> KvVersion {
        self.inner.kv.version
    }
}

/// What was read, and the write that it came of.
#[derive(Clone)]
struct Kept {
    stored: StoredBundle,
    written: Option<Written>,
    bytes: usize,
}

/// What came of reading.
enum Read {
    /// What was read before is still there.
    Same(Kept),
    Anew(Found),
}

/// Forgets what was kept of a reference, also when the write is dropped half way.
struct Forgets<'a>(&'a Inner, &'a SecretRef);

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        self.0.cache.forget(self.1);
    }
}

impl Inner {
    fn path(&self, reference: &SecretRef) -> String {
        self.kv.path(reference.as_str())
    }

    async fn write(&self, path: &str, bundle: &SecretBundle, expect: Expect) -> Result<u64, Trouble> {
        match (self.kv.version, expect) {
            (KvVersion::V1, expect) => self.write_numbered(path, bundle, expect).await,
            (KvVersion::V2, Expect::Absent) => self.kv.write_versioned(path, bundle, Some(0)).await,
            // To Vault it would mean that nothing is there.
            (KvVersion::V2, Expect::Version(SecretVersion(0))) => Err(Trouble::Mismatch),
            (KvVersion::V2, Expect::Version(version)) => self.kv.write_versioned(path, bundle, Some(version.0)).await,
            (KvVersion::V2, Expect::Any) => match self.kv.write_versioned(path, bundle, None).await {
                Err(Trouble::CasRequired) => self.write_over(path, bundle).await,
                done => done,
            },
        }
    }

    /// Writes over whatever is there where the mount wants an expectation.
    async fn write_over(&self, path: &str, bundle: &SecretBundle) -> Result<u64, Trouble> {
        for _ in 0..TRIES {
            let present = self.kv.present(path).await?;
            match self.kv.write_versioned(path, bundle, Some(present)).await {
                Err(Trouble::Mismatch) => {}
                done => return done,
            }
        }
        Err(Trouble::CasRequired)
    }

    async fn write_numbered(&self, path: &str, bundle: &SecretBundle, expect: Expect) -> Result<u64, Trouble> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let turn = &self.turns[usize::try_from(hasher.finish() % WRITERS as u64).unwrap_or_default()];
        // Between reading and writing nobody else of this process may write: the engine checks nothing.
        let _turn = turn.acquire().await.map_err(|_| Trouble::Broken("the store is closed".to_owned()))?;
        let present = match self.kv.read(path).await {
            Ok(found) => Some(found.version()),
            Err(Trouble::Absent) => None,
            Err(trouble) => return Err(trouble),
        };
        let holds = match (expect, present) {
            (Expect::Any, _) | (Expect::Absent, None) => true,
            (Expect::Version(expected), Some(present)) => expected.0 == present,
            (Expect::Absent, Some(_)) | (Expect::Version(_), None) => false,
        };
        if !holds {
            return Err(Trouble::Mismatch);
        }
        let number = present.unwrap_or(0) + 1;
        self.kv.write_numbered(path, bundle, number).await?;
        Ok(number)
    }

    /// Whose prefix this is, which is ours if it was nobody's.
    async fn claim(&self, instance: Uuid) -> Result<String, Trouble> {
        let path = self.kv.path(OWNER);
        let ours: SecretBundle = [(INSTANCE, SecretValue::new(instance.to_string()))].into_iter().collect();
        for _ in 0..TRIES {
            // Before the look at what is there: what somebody writes in between makes our write fail.
            let present = match self.kv.version {
                KvVersion::V1 => 0,
                KvVersion::V2 => self.kv.present(&path).await?,
            };
            match self.kv.read(&path).await {
                Ok(found) => {
                    return match found.fields.get(INSTANCE) {
                        Some(Field::Text(owner)) => Ok(owner.expose().to_owned()),
                        _ => Err(Trouble::Strange(format!("something else than our mark at {path}"))),
                    };
                }
                Err(Trouble::Absent) => {}
                Err(trouble) => return Err(trouble),
            }
            let written = match self.kv.version {
                KvVersion::V1 => self.write_numbered(&path, &ours, Expect::Absent).await,
                KvVersion::V2 => self.kv.write_versioned(&path, &ours, Some(present)).await,
            };
            match written {
                Ok(_) | Err(Trouble::Mismatch) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Mismatch)
    }

    fn refuse(&self, reference: &SecretRef, bundle: &SecretBundle) -> Result<()> {
        let reserved = bundle
            .keys()
            .find(|key| *key == WRITE_NUMBER || (self.kv.version == KvVersion::V1 && LIFETIMES.contains(key)));
        if let Some(key) = reserved {
            return Err(Error::invalid(
                "secrets",
                format!("{key} has a meaning of its own in this secrets engine"),
                "use another name, or for `ttl` and `lease` version 2 of the KV secrets engine",
            ));
        }
        if bundle.to_plaintext().len() > LARGEST {
            return Err(Trouble::TooLarge.into_error("writing", reference.as_str()));
        }
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<SecretRef>> {
        let below = self.kv.path(prefix);
        let mut paths = self.kv.walk(&below).await?;
        if !prefix.is_empty() {
            let (folder, name) = below.rsplit_once('/').unwrap_or(("", &below));
            if self.kv.keys(folder).await?.iter().any(|key| key == name) {
                paths.push(below.clone());
            }
        }
        let root = match self.kv.prefix() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        // What is no reference is not ours.
        let mut references: Vec<SecretRef> =
            paths.iter().filter_map(|path| path.strip_prefix(&root)?.parse().ok()).collect();
        references.sort_unstable();
        references.dedup();
        Ok(references)
    }
}

fn bundle_of(found: Found) -> Option<StoredBundle> {
    let version = SecretVersion(found.version());
    let mut bundle = SecretBundle::new();
    for (key, field) in found.fields {
        match field {
            Field::Text(value) => drop(bundle.insert(key, value)),
            Field::Number(_) if key == WRITE_NUMBER => {}
            Field::Number(_) | Field::Other => return None,
        }
    }
    Some(StoredBundle { bundle, version })
}

#[async_trait]
impl SecretStore for VaultStore {
    async fn get(&self, reference: &SecretRef) -> Result<StoredBundle> {
        let inner = &self.inner;
        if let Some(kept) = inner.cache.get(reference) {
            return Ok(kept.stored);
        }
        let mark = inner.cache.mark();
        let path = inner.path(reference);
        let outlived = inner.cache.outlived(reference);
        let reading = async {
            if let Some(outlived) = outlived
                && inner.kv.is_current(&path, outlived.written.as_ref()).await?
            {
                return Ok(Read::Same(outlived));
            }
            inner.kv.read(&path).await.map(Read::Anew)
        };
        let found = match inner.kv.session.within("reading", reference.as_str(), reading).await? {
            Read::Same(kept) => {
                inner.cache.keep(reference.clone(), &kept, kept.bytes, mark);
                return Ok(kept.stored);
            }
            Read::Anew(found) => found,
        };
        let (written, bytes) = (found.written.clone(), found.bytes());
        let stored = bundle_of(found).ok_or_else(|| Error::Backend {
            backend: BACKEND,
            reason: format!("not everything at {path} is a text: somebody else wrote there"),
            source: None,
        })?;
        let kept = Kept { stored, written, bytes };
        inner.cache.keep(reference.clone(), &kept, bytes, mark);
        Ok(kept.stored)
    }

    async fn put(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        let inner = &self.inner;
        Accepts::Values.check(bundle)?;
        inner.refuse(reference, bundle)?;
        let _forgets = Forgets(inner, reference);
        let path = inner.path(reference);
        let written = inner.kv.session.within("writing", reference.as_str(), inner.write(&path, bundle, expect)).await;
        match written {
            Err(Error::Conflict { .. }) if expect == Expect::Absent => {
                Err(Error::conflict("secret", reference, "it is there already"))
            }
            done => done.map(SecretVersion),
        }
    }

    async fn remove(&self, reference: &SecretRef) -> Result<()> {
        let inner = &self.inner;
        let _forgets = Forgets(inner, reference);
        let path = inner.path(reference);
        inner.kv.session.within("removing", reference.as_str(), inner.kv.remove(&path)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<SecretRef>> {
        // Nothing can be below what is no reference.
        if !prefix.is_empty() && prefix.parse::<SecretRef>().is_err() {
            return Ok(Vec::new());
        }
        self.inner.list(prefix).await
    }

    async fn check(&self) -> Result<()> {
        self.inner.kv.check().await
    }
}
