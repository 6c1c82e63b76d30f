//! The `SecretStore` trait: versioned bundles with compare-and-set, failing closed.

use super::{SecretBundle, SecretRef};
use crate::{Error, Finding, Result};
use async_trait::async_trait;
use std::fmt;

/// The version of a stored bundle; each successful write makes a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretVersion(pub u64);

/// What a writer believes is stored before its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect<V = SecretVersion> {
    /// Whatever is there, if anything.
    Any,
    /// Nothing.
    Absent,
    /// Exactly this version.
    Version(V),
}

/// What a store is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accepts {
    /// The values themselves.
    Values,
    /// References to values that people put elsewhere themselves.
    References,
}

/// How large a bundle may be, its keys and values together, in bytes: what every backend takes, whatever it adds.
pub const MAX_BUNDLE: usize = 256 * 1024;

impl Accepts {
    /// Refuses a bundle that holds anything else, or more than [`MAX_BUNDLE`].
    ///
    /// # Errors
    /// [`Error::Invalid`] with a finding for each key that must change.
    pub fn check(self, bundle: &SecretBundle) -> Result<()> {
        let wrong = |(key, value): (&str, &super::SecretValue)| match (self, value.external()) {
            (Self::Values, None) | (Self::References, Some(_)) => None,
            (Self::Values, Some(_)) => {
                Some(Finding::new(key, "secrets are stored here, and not read from elsewhere", "give the value itself"))
            }
            (Self::References, None) => Some(Finding::new(
                key,
                "secrets are read from Vault, and none is stored here",
                "put the value into Vault and give `{vault: \"path#key\"}`",
            )),
        };
        let mut findings: Vec<_> = bundle.iter().filter_map(wrong).collect();
        let size: usize = bundle.iter().map(|(key, value)| key.len() + value.expose().len()).sum();
        if size > MAX_BUNDLE
            && let Some((largest, _)) = bundle.iter().max_by_key(|(_, value)| value.expose().len())
        {
            findings.push(Finding::new(
                largest,
                format!("the secrets have {size} bytes together, and at most {MAX_BUNDLE} are kept for one owner"),
                "leave out what is no secret, or let the server read something large from where it is",
            ));
        }
        if findings.is_empty() { Ok(()) } else { Err(Error::Invalid(findings)) }
    }
}

/// A bundle with its version.
#[derive(Debug, Clone)]
pub struct StoredBundle {
    /// The secrets.
    pub bundle: SecretBundle,
    /// The version that was read.
    pub version: SecretVersion,
}

impl StoredBundle {
    /// This, if all of it is values: what a store that resolves no references gives.
    ///
    /// # Errors
    /// [`Error::Backend`] when some of it is kept elsewhere, with what and where.
    pub fn values(self, reference: &SecretRef) -> Result<Self> {
        let Some((key, at)) = self.bundle.external().next() else { return Ok(self) };
        Err(Error::Backend {
            backend: "secret store",
            reason: format!(
                "{key} of secret {reference} is kept in Vault, at {at}, and this server does not read it there: start it with `vault-readonly` again, or enter the value"
            ),
            source: None,
        })
    }
}

/// Where secrets are kept.
///
/// # Contract
/// * A write is atomic: a reader sees the bundle before or after it, never a mixture, and an acknowledged write survives.
/// * [`put`](Self::put) with [`Expect::Version`] or [`Expect::Absent`] fails with
///   [`Conflict`](crate::Error::Conflict) when the expectation does not hold, and then changes nothing; of several
///   concurrent writers with the same expectation exactly one succeeds.
/// * [`get`](Self::get) of an absent reference is [`NotFound`](crate::Error::NotFound); any trouble in the backend is
///   another error and never an empty bundle: a store fails closed.
/// * [`remove`](Self::remove) removes all versions; removing what is absent succeeds. A reference that is written again
///   later may start over with its versions.
/// * [`list`](Self::list) returns references only, sorted, complete at the time of the call.
/// * A bundle that holds anything that the store does not [accept](Self::accepts) is refused with
///   [`Invalid`](crate::Error::Invalid).
/// * So is one that is larger than [`MAX_BUNDLE`], before anything is written. What is larger already can still be read, moved and
///   removed.
/// * No error, log line or `Debug` output of an implementation holds a value.
/// * Dropping a future before it is done leaves the write either done or not done.
#[async_trait]
pub trait SecretStore: fmt::Debug + Send + Sync + 'static {
    /// What bundles may hold. Whoever keeps what it has read goes by this, too: a value that is changed behind the platform's back
    /// counts within a minute, and one that the store only refers to within seconds.
    fn accepts(&self) -> Accepts {
        Accepts::Values
    }

    /// Reads the newest version as it was written: references, and not what they lead to. It may hold what the store does not
    /// accept any more.
    async fn written(&self, reference: &SecretRef) -> Result<StoredBundle> {
        self.get(reference).await
    }

    /// Reads the newest version, all of it values. References that the store does not resolve are an error that names them.
    async fn get(&self, reference: &SecretRef) -> Result<StoredBundle>;

    /// Writes a bundle whole and returns its new version.
    async fn put(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion>;

    /// Writes what [`written`](Self::written) gave, or a part of it, under another reference. Neither is it refused for what the
    /// store no longer [accepts](Self::accepts), nor is looked at what references in it lead to: only the place changes.
    async fn rewrite(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        self.put(reference, bundle, expect).await
    }

    /// Removes the bundle and all its versions.
    async fn remove(&self, reference: &SecretRef) -> Result<()>;

    /// All references that are `prefix` or below it (`prefix` + `/`); an empty prefix lists everything.
    async fn list(&self, prefix: &str) -> Result<Vec<SecretRef>>;

    /// Whether the backend answers and accepts us, at the cost of one cheap request.
    async fn check(&self) -> Result<()>;
}
