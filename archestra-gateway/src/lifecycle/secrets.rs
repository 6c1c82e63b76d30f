//! Secrets of entries and installations: written before the row that names them, removed after it, and swept when nobody does.

use super::Lifecycle;
use archestra_core::{
    Error, ErrorKind, Result,
    catalog::{CatalogChanges, CatalogStoreExt, Entry, Kind, Query, Record, RecordKey},
    feed::Operation,
    installation::{Installation, Owner},
    runtime::{Revision, WorkloadId},
    secret::{Accepts, Expect, SecretBundle, SecretRef, SecretVersion},
};
use std::{
    collections::{BTreeSet, HashMap},
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Where the fixed secrets of entries are.
pub(super) const ENTRIES: &str = "entries";
/// Where the secrets that installations were given are.
pub(super) const INSTALLATIONS: &str = "installations";

/// The references in rows whose write was not answered. It may yet happen, and then they are needed.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<BTreeSet<SecretRef>>);

impl Doubts {
    /// Notes what such a write would have named.
    pub(super) fn note(&self, error: &Error, named: BTreeSet<SecretRef>) {
        if !matches!(error.kind(), ErrorKind::Conflict | ErrorKind::AlreadyExists | ErrorKind::Invalid) {
            self.references().extend(named);
        }
    }

    /// Whether this is one of them. Whoever asks leaves it to the sweep.
    pub(super) fn take(&self, reference: &SecretRef) -> bool {
        self.references().remove(reference)
    }

    /// Forgets those that are older than any operation that may still ask for them. Rows name others besides those that an
    /// operation made, and nobody asks for these.
    fn forget_older(&self, than: Duration) {
        self.references().retain(|reference| age(reference).is_some_and(|age| age < than));
    }

    fn references(&self) -> MutexGuard<'_, BTreeSet<SecretRef>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The secrets that the rows of a change name.
pub(super) fn named_by(changes: &CatalogChanges) -> BTreeSet<SecretRef> {
    let named = changes.operations().iter().filter_map(|operation| match operation {
        Operation::Put { record: Record::Entry(entry), .. } => entry.secrets.clone(),
        Operation::Put { record: Record::Installation(installation), .. } => installation.secrets.clone(),
        _ => None,
    });
    named.collect()
}

impl Lifecycle {
    /// What a reference leads to; nothing when there is none.
    pub(super) async fn bundle(&self, reference: Option<&SecretRef>) -> Result<SecretBundle> {
        match reference {
            None => Ok(SecretBundle::new()),
            Some(reference) => Ok(self.inner.secrets.get(reference).await?.bundle),
        }
    }

    /// What was stored under a reference, without what is kept elsewhere; nothing when there is none.
    pub(super) async fn written(&self, reference: Option<&SecretRef>) -> Result<SecretBundle> {
        match reference {
            None => Ok(SecretBundle::new()),
            Some(reference) => Ok(self.inner.secrets.written(reference).await?.bundle),
        }
    }

    /// Refuses secrets of an installation that the store does not take.
    pub(super) fn check_secrets(&self, owner: Owner, bundle: &SecretBundle) -> Result<()> {
        if bundle.is_empty() {
            return Ok(());
        }
        let accepts = self.inner.secrets.accepts();
        if accepts == Accepts::References && !matches!(owner, Owner::Team(_)) {
            return Err(Error::invalid(
                "scope",
                "secrets are read from Vault, where those of teams are",
                "install it for a team",
            ));
        }
        accepts.check(bundle).map_err(|error| under("values", error))
    }

    /// Stores a bundle under a reference of its own, unless it is empty.
    pub(super) async fn keep(
        &self,
        kind: &str,
        owner: impl Display + Send,
        bundle: &SecretBundle,
    ) -> Result<Option<SecretRef>> {
        if bundle.is_empty() {
            return Ok(None);
        }
        self.inner.secrets.accepts().check(bundle).map_err(|error| under("secrets", error))?;
        let reference = SecretRef::unique(kind, owner)?;
        let kept = self.inner.secrets.put(&reference, bundle, Expect::Absent).await;
        self.kept(reference, kept).await
    }

    /// Stores what is left of a bundle that was [`written`](Self::written) under a reference of its own, unless that is nothing.
    pub(super) async fn keep_again(
        &self,
        kind: &str,
        owner: impl Display + Send,
        bundle: &SecretBundle,
    ) -> Result<Option<SecretRef>> {
        if bundle.is_empty() {
            return Ok(None);
        }
        let reference = SecretRef::unique(kind, owner)?;
        let kept = self.inner.secrets.rewrite(&reference, bundle, Expect::Absent).await;
        self.kept(reference, kept).await
    }

    async fn kept(&self, reference: SecretRef, kept: Result<SecretVersion>) -> Result<Option<SecretRef>> {
        match kept {
            Ok(_) => Ok(Some(reference)),
            Err(error) => {
                self.discard(Some(&reference)).await;
                Err(error)
            }
        }
    }

    /// Removes what no row names any more. What cannot be removed now, the sweep removes later.
    pub(super) async fn discard(&self, reference: Option<&SecretRef>) {
        if let Some(reference) = reference
            && let Err(error) = self.inner.secrets.remove(reference).await
        {
            tracing::warn!(%reference, %error, "a secret that is no longer named could not be removed; the sweep will do it");
        }
    }

    /// Removes what was stored for a write that failed, unless the write happened after all, or may still happen.
    pub(super) async fn abandon(&self, reference: Option<&SecretRef>, key: RecordKey) {
        let Some(reference) = reference else { return };
        if self.inner.doubts.take(reference) {
            tracing::warn!(%reference, "whether a secret is named is not known, since the write of the row was not answered; the sweep will find out");
            return;
        }
        let named = match self.catalog().get(key).await {
            Ok(record) => match record.value {
                Record::Entry(entry) => entry.secrets.as_ref() == Some(reference),
                Record::Installation(installation) => installation.secrets.as_ref() == Some(reference),
                _ => false,
            },
            Err(Error::NotFound { .. }) => false,
            // Whether the row names it cannot be known now: the sweep decides once it can.
            Err(_) => true,
        };
        if !named {
            self.discard(Some(reference)).await;
        }
    }

    /// Removes references that no row names and that are older than any operation that may still be under way.
    pub(super) async fn sweep(&self) -> Result<usize> {
        self.inner.doubts.forget_older(self.options().sweep_grace);
        // References first: what is listed now and named by no row read afterwards was not about to be named, but for
        // operations under way, which the grace covers.
        let mut references = self.inner.secrets.list(ENTRIES).await?;
        references.extend(self.inner.secrets.list(INSTALLATIONS).await?);
        if references.is_empty() {
            return Ok(0);
        }
        let named = self.named_references().await?;
        let mut removed = 0;
        for reference in references {
            let old = age(&reference).is_some_and(|age| age >= self.options().sweep_grace);
            if old && !named.contains(&reference) {
                self.inner.secrets.remove(&reference).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The secrets that rows name.
    pub(super) async fn named_references(&self) -> Result<BTreeSet<SecretRef>> {
        let catalog = self.catalog();
        let mut named = BTreeSet::new();
        for entry in catalog.list_all::<Entry>(Query::all(Kind::Entry)).await? {
            named.extend(entry.value.secrets);
        }
        for installation in catalog.list_all::<Installation>(Query::all(Kind::Installation)).await? {
            named.extend(installation.value.secrets);
        }
        let mut newest: HashMap<WorkloadId, Revision> = HashMap::new();
        for revision in catalog.list_all::<Revision>(Query::all(Kind::Revision)).await? {
            let revision = revision.value;
            if newest.get(&revision.workload).is_none_or(|known| known.number <= revision.number) {
                newest.insert(revision.workload.clone(), revision);
            }
        }
        named.extend(newest.into_values().flat_map(|revision| revision.secrets));
        Ok(named)
    }
}

/// Places findings about the keys of a bundle.
fn under(parent: &str, error: Error) -> Error {
    match error {
        Error::Invalid(findings) => Error::Invalid(findings.into_iter().map(|finding| finding.under(parent)).collect()),
        error => error,
    }
}

/// How long ago a reference was made, by the time-ordered identifier at its end.
fn age(reference: &SecretRef) -> Option<Duration> {
    let unique = reference.as_str().rsplit('/').next()?;
    let (seconds, nanos) = uuid::Uuid::parse_str(unique).ok()?.get_timestamp()?.to_unix();
    let made = UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))?;
    SystemTime::now().duration_since(made).ok()
}
