//! Decorators that make a working backend slow, unreachable or forgetful, to test what comes of it.
//!
//! ```
//! use archestra_core::{ErrorKind, secret::{Expect, SecretStore}, testing::{Faulty, MemorySecrets, fixtures}};
//! use std::sync::Arc;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let store = Faulty::new(Arc::new(MemorySecrets::new()));
//! let (reference, bundle) = (fixtures::secret_ref("entry/a/1"), fixtures::bundle(&[("token", "t0k")]));
//!
//! store.faults().fail_next(1);
//! let error = store.put(&reference, &bundle, Expect::Absent).await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Unavailable);
//! assert!(store.put(&reference, &bundle, Expect::Absent).await.is_ok());
//! # });
//! ```

use crate::{
    Error, Result,
    catalog::{CatalogChanges, CatalogStore, Lookup, Query, Record, RecordKey},
    feed::{FeedEvent, Page, PageRequest, Readable, StoreRevision, Unreadable, Versioned},
    identity::{IdentityChanges, IdentityKey, IdentityLookup, IdentityQuery, IdentityRecord, IdentityStore},
    secret::{Accepts, Expect, SecretBundle, SecretRef, SecretStore, SecretVersion, StoredBundle},
    state::{StateKey, StateStore},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::sleep;

/// A backend that misbehaves on demand.
#[derive(Debug)]
pub struct Faulty<T: ?Sized> {
    faults: Faults,
    inner: Arc<T>,
}

/// What a [`Faulty`] backend does wrong. Clones steer the same backend.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    latency: Duration,
    /// Calls that still succeed before an outage; `None`: no outage is planned.
    healthy: Option<u64>,
    failing: u64,
    forgetting: u64,
    calls: u64,
    /// Records of the catalog that cannot be read.
    spoiled: BTreeSet<RecordKey>,
}

/// What becomes of one call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    Fails,
    LosesAnswer,
}

impl Faults {
    /// Each call takes this much longer.
    pub fn delay(&self, latency: Duration) {
        self.plan().latency = latency;
    }

    /// The next calls fail as `Unavailable` and have no effect.
    pub fn fail_next(&self, calls: u64) {
        self.plan().failing = calls;
    }

    /// So many calls still work, then all fail as `Unavailable`, and feeds with them, until [`heal`](Self::heal). With 0 the
    /// backend is gone at once.
    pub fn fail_after(&self, calls: u64) {
        self.plan().healthy = Some(calls);
    }

    /// The next calls have their effect, but fail as `Unavailable`: the answer got lost.
    pub fn lose_answers(&self, calls: u64) {
        self.plan().forgetting = calls;
    }

    /// This record of the catalog is there and cannot be read, until [`heal`](Self::heal).
    pub fn spoil(&self, key: impl Into<RecordKey>) {
        self.plan().spoiled.insert(key.into());
    }

    /// Everything works again, without delay.
    pub fn heal(&self) {
        let mut plan = self.plan();
        *plan = Plan { calls: plan.calls, ..Plan::default() };
    }

    /// How many calls there were, whatever came of them. Opening a feed is none.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.plan().calls
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readable(&self, record: Versioned<Record>) -> Readable<Record, RecordKey> {
        let key = record.value.key();
        if self.plan().spoiled.contains(&key) {
            return Err(Unreadable { key, reason: "this test spoiled it".to_owned() });
        }
        Ok(record)
    }

    fn down(&self) -> bool {
        self.plan().healthy == Some(0)
    }

    async fn meet(&self) -> Fate {
        let (latency, fate) = {
            let mut plan = self.plan();
            plan.calls += 1;
            let fate = match plan.healthy {
                _ if plan.failing > 0 => Fate::Fails,
                Some(0) => Fate::Fails,
                _ if plan.forgetting > 0 => Fate::LosesAnswer,
                _ => Fate::Works,
            };
            plan.failing = plan.failing.saturating_sub(1);
            if fate == Fate::LosesAnswer {
                plan.forgetting -= 1;
            }
            if fate != Fate::Fails {
                plan.healthy = plan.healthy.map(|left| left.saturating_sub(1));
            }
            (plan.latency, fate)
        };
        if !latency.is_zero() {
            sleep(latency).await;
        }
        fate
    }

    async fn around<R: Send>(&self, call: impl Future<Output = Result<R>> + Send) -> Result<R> {
        match self.meet().await {
            Fate::Works => call.await,
            Fate::Fails => Err(unavailable()),
            Fate::LosesAnswer => {
                call.await?;
                Err(unavailable())
            }
        }
    }

    /// A feed that sends errors in place of events while the backend is down, and loses nothing.
    fn follow<K: Send + 'static>(
        &self,
        events: BoxStream<'static, Result<FeedEvent<K>>>,
    ) -> BoxStream<'static, Result<FeedEvent<K>>> {
        const RETRY: Duration = Duration::from_millis(100);
        let faults = self.clone();
        let feed = futures::stream::unfold((faults, events), |(faults, mut events)| async move {
            if !faults.down() {
                let event = tokio::select! {
                    event = events.next() => Some(event),
                    () = faults.went_down() => None,
                };
                if let Some(event) = event {
                    return event.map(|event| (event, (faults, events)));
                }
            }
            sleep(RETRY).await;
            Some((Err(unavailable()), (faults, events)))
        });
        feed.boxed()
    }

    async fn went_down(&self) {
        while !self.down() {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn unavailable() -> Error {
    Error::Unavailable { backend: "faulty", reason: "this test made it fail".to_owned(), source: None }
}

impl<T: ?Sized> Faulty<T> {
    /// A backend that works like `inner` until it is told otherwise.
    #[must_use]
    pub fn new(inner: Arc<T>) -> Self {
        Self { faults: Faults::default(), inner }
    }

    /// A backend that fails together with others: the calls of all of them count together.
    #[must_use]
    pub const fn sharing(inner: Arc<T>, faults: Faults) -> Self {
        Self { faults, inner }
    }

    /// What it does wrong, to be kept by the test.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// The backend behind it, which never fails.
    #[must_use]
    pub fn inner(&self) -> &Arc<T> {
        &self.inner
    }
}

#[async_trait]
impl<T: SecretStore + ?Sized> SecretStore for Faulty<T> {
    fn accepts(&self) -> Accepts {
        self.inner.accepts()
    }

    async fn written(&self, reference: &SecretRef) -> Result<StoredBundle> {
        self.faults.around(self.inner.written(reference)).await
    }

    async fn get(&self, reference: &SecretRef) -> Result<StoredBundle> {
        self.faults.around(self.inner.get(reference)).await
    }

    async fn put(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        self.faults.around(self.inner.put(reference, bundle, expect)).await
    }

    async fn rewrite(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        self.faults.around(self.inner.rewrite(reference, bundle, expect)).await
    }

    async fn remove(&self, reference: &SecretRef) -> Result<()> {
        self.faults.around(self.inner.remove(reference)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<SecretRef>> {
        self.faults.around(self.inner.list(prefix)).await
    }

    async fn check(&self) -> Result<()> {
        self.faults.around(self.inner.check()).await
    }
}

#[async_trait]
impl<T: CatalogStore + ?Sized> CatalogStore for Faulty<T> {
    async fn get(&self, key: RecordKey) -> Result<Versioned<Record>> {
        Ok(self.faults.readable(self.faults.around(self.inner.get(key)).await?)?)
    }

    async fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<Versioned<Record>>>> {
        let found = self.get_each(keys).await?;
        found.into_iter().map(|found| Ok(found.transpose()?)).collect()
    }

    async fn get_each(&self, keys: &[RecordKey]) -> Result<Vec<Option<Readable<Record, RecordKey>>>> {
        let found = self.faults.around(self.inner.get_many(keys)).await?;
        Ok(found.into_iter().map(|found| found.map(|record| self.faults.readable(record))).collect())
    }

    async fn find(&self, lookup: &Lookup) -> Result<Option<Versioned<Record>>> {
        let found = self.faults.around(self.inner.find(lookup)).await?;
        Ok(found.map(|record| self.faults.readable(record)).transpose()?)
    }

    async fn list(&self, query: &Query, page: &PageRequest) -> Result<Page<Versioned<Record>>> {
        let Page { items, next } = self.list_each(query, page).await?;
        Ok(Page { items: items.into_iter().collect::<Result<_, _>>()?, next })
    }

    async fn list_each(&self, query: &Query, page: &PageRequest) -> Result<Page<Readable<Record, RecordKey>>> {
        let Page { items, next } = self.faults.around(self.inner.list(query, page)).await?;
        Ok(Page { items: items.into_iter().map(|record| self.faults.readable(record)).collect(), next })
    }

    async fn commit(&self, changes: CatalogChanges) -> Result<StoreRevision> {
        self.faults.around(self.inner.commit(changes)).await
    }

    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<RecordKey>>> {
        self.faults.follow(self.inner.changes(since))
    }

    async fn check(&self) -> Result<()> {
        self.faults.around(self.inner.check()).await
    }
}

#[async_trait]
impl<T: IdentityStore + ?Sized> IdentityStore for Faulty<T> {
    async fn get(&self, key: IdentityKey) -> Result<Versioned<IdentityRecord>> {
        self.faults.around(self.inner.get(key)).await
    }

    async fn find(&self, lookup: &IdentityLookup) -> Result<Option<Versioned<IdentityRecord>>> {
        self.faults.around(self.inner.find(lookup)).await
    }

    async fn list(&self, query: &IdentityQuery, page: &PageRequest) -> Result<Page<Versioned<IdentityRecord>>> {
        self.faults.around(self.inner.list(query, page)).await
    }

    async fn commit(&self, changes: IdentityChanges) -> Result<StoreRevision> {
        self.faults.around(self.inner.commit(changes)).await
    }

    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<IdentityKey>>> {
        self.faults.follow(self.inner.changes(since))
    }

    async fn check(&self) -> Result<()> {
        self.faults.around(self.inner.check()).await
    }
}

#[async_trait]
impl<T: StateStore + ?Sized> StateStore for Faulty<T> {
    async fn get(&self, key: &StateKey) -> Result<Option<Bytes>> {
        self.faults.around(self.inner.get(key)).await
    }

    async fn put(&self, key: &StateKey, value: Bytes, ttl: Duration) -> Result<()> {
        self.faults.around(self.inner.put(key, value, ttl)).await
    }

    async fn put_if_absent(&self, key: &StateKey, value: Bytes, ttl: Duration) -> Result<bool> {
        self.faults.around(self.inner.put_if_absent(key, value, ttl)).await
    }

    async fn compare_and_set(&self, key: &StateKey, expected: &[u8], value: Bytes, ttl: Duration) -> Result<bool> {
        self.faults.around(self.inner.compare_and_set(key, expected, value, ttl)).await
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Bytes>> {
        self.faults.around(self.inner.take(key)).await
    }

    async fn remove(&self, key: &StateKey) -> Result<()> {
        self.faults.around(self.inner.remove(key)).await
    }

    async fn add(&self, key: &StateKey, amount: i64, ttl: Duration) -> Result<i64> {
        self.faults.around(self.inner.add(key, amount, ttl)).await
    }

    async fn scan(&self, space: &'static str, prefix: &str) -> Result<Vec<(String, Bytes)>> {
        self.faults.around(self.inner.scan(space, prefix)).await
    }

    async fn check(&self) -> Result<()> {
        self.faults.around(self.inner.check()).await
    }
}
