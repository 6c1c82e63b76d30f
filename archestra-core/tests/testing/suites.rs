//! The suites fail where a contract is broken: each store here breaks one promise.

use archestra_core::{
    Error, Result,
    catalog::{CatalogChanges, CatalogStore, Lookup, Query, Record, RecordKey},
    credential::{CallContext, CredentialError, CredentialResolver, DefaultResolver, Explanation, Resolved, plan},
    feed::{ChangeSet, FeedEvent, Operation, Page, PageRequest, StoreRevision, Versioned},
    secret::{Expect, SecretBundle, SecretRef, SecretStore, SecretVersion, StoredBundle},
    state::{StateKey, StateStore},
    testing::{MemoryCatalog, MemorySecrets, MemoryState, conformance},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use std::{future::Future, sync::Arc, time::Duration};

/// The text a case panics with.
fn complaint<F: Future<Output = ()>>(case: impl FnOnce() -> F + Send + 'static) -> String {
    let outcome = std::thread::spawn(|| conformance::run(case())).join();
    let panic = outcome.expect_err("a suite notices a broken promise");
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    IgnoresExpectations,
    OpensWhenAbsent,
    TellsTheValue,
}

#[derive(Debug)]
struct FlawedSecrets(MemorySecrets, Flaw);

#[async_trait]
impl SecretStore for FlawedSecrets {
    async fn get(&self, reference: &SecretRef) -> Result<StoredBundle> {
        match self.0.get(reference).await {
            Err(Error::NotFound { .. }) if self.1 == Flaw::OpensWhenAbsent => {
                Ok(StoredBundle { bundle: SecretBundle::new(), version: SecretVersion(0) })
            }
            read => read,
        }
    }

    async fn put(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        let expect = if self.1 == Flaw::IgnoresExpectations { Expect::Any } else { expect };
        self.0.put(reference, bundle, expect).await.map_err(|error| match error {
            Error::Conflict { kind, id, .. } if self.1 == Flaw::TellsTheValue => {
                let values: Vec<_> = bundle.iter().map(|(_, value)| value.expose()).collect();
                Error::conflict(kind, id, format!("would have written {}", values.concat()))
            }
            other => other,
        })
    }

    async fn remove(&self, reference: &SecretRef) -> Result<()> {
        self.0.remove(reference).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<SecretRef>> {
        self.0.list(prefix).await
    }

    async fn check(&self) -> Result<()> {
        self.0.check().await
    }
}

fn secrets_complaint(flaw: Flaw) -> String {
    complaint(move || {
        conformance::secret_store::all(move || async move {
            Arc::new(FlawedSecrets(MemorySecrets::new(), flaw)) as Arc<dyn SecretStore>
        })
    })
}

#[test]
fn a_secret_store_that_ignores_expectations_is_noticed() {
    let said = secrets_complaint(Flaw::IgnoresExpectations);
    assert!(said.contains("a write that expects nothing conflicts with what is there"), "{said}");
}

#[test]
fn a_secret_store_that_fails_open_is_noticed() {
    let said = secrets_complaint(Flaw::OpensWhenAbsent);
    assert!(said.contains("an absent reference is not found"), "{said}");
}

#[test]
fn a_secret_store_that_tells_a_value_is_noticed_without_telling_it() {
    let said = secrets_complaint(Flaw::TellsTheValue);
    assert!(said.contains("holds a value") && !said.contains("canary"), "{said}");
}

/// Reads and removes in two steps.
#[derive(Debug)]
struct TornState(MemoryState);

#[async_trait]
impl StateStore for TornState {
    async fn get(&self, key: &StateKey) -> Result<Option<Bytes>> {
        self.0.get(key).await
    }

    async fn put(&self, key: &StateKey, value: Bytes, ttl: Duration) -> Result<()> {
        self.0.put(key, value, ttl).await
    }

    async fn put_if_absent(&self, key: &StateKey, value: Bytes, ttl: Duration) -> Result<bool> {
        self.0.put_if_absent(key, value, ttl).await
    }

    async fn compare_and_set(&self, key: &StateKey, expected: &[u8], value: Bytes, ttl: Duration) -> Result<bool> {
        self.0.compare_and_set(key, expected, value, ttl).await
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Bytes>> {
        let value = self.0.get(key).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.0.remove(key).await?;
        Ok(value)
    }

    async fn remove(&self, key: &StateKey) -> Result<()> {
        self.0.remove(key).await
    }

    async fn add(&self, key: &StateKey, amount: i64, ttl: Duration) -> Result<i64> {
        self.0.add(key, amount, ttl).await
    }

    async fn scan(&self, space: &'static str, prefix: &str) -> Result<Vec<(String, Bytes)>> {
        self.0.scan(space, prefix).await
    }

    async fn check(&self) -> Result<()> {
        self.0.check().await
    }
}

#[test]
fn a_state_store_that_takes_in_two_steps_is_noticed() {
    let said = complaint(move || {
        conformance::state_store::all(|| async { Arc::new(TornState(MemoryState::new())) as Arc<dyn StateStore> })
    });
    assert!(said.contains("of several takers exactly one gets the value"), "{said}");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CatalogFlaw {
    CommitsOneByOne,
    ForgetsRemovals,
}

#[derive(Debug)]
struct FlawedCatalog(MemoryCatalog, CatalogFlaw);

#[async_trait]
impl CatalogStore for FlawedCatalog {
    async fn get(&self, key: RecordKey) -> Result<Versioned<Record>> {
        self.0.get(key).await
    }

    async fn find(&self, lookup: &Lookup) -> Result<Option<Versioned<Record>>> {
        self.0.find(lookup).await
    }

    async fn list(&self, query: &Query, page: &PageRequest) -> Result<Page<Versioned<Record>>> {
        self.0.list(query, page).await
    }

    async fn commit(&self, changes: CatalogChanges) -> Result<StoreRevision> {
        if self.1 != CatalogFlaw::CommitsOneByOne {
            return self.0.commit(changes).await;
        }
        changes.check()?;
        let mut revision = self.0.commit(ChangeSet::new()).await?;
        for operation in changes.into_operations() {
            let mut one = ChangeSet::new();
            match operation {
                Operation::Put { record, expect } => one.push_put(record, expect),
                Operation::Delete { key, expect } => one.push_delete(key, expect),
                Operation::Require { key, expect } => one = one.require(key, expect),
            }
            revision = self.0.commit(one).await?;
        }
        Ok(revision)
    }

    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<RecordKey>>> {
        if self.1 != CatalogFlaw::ForgetsRemovals {
            return self.0.changes(since);
        }
        let store = self.0.clone();
        let feed = self.0.changes(since).then(move |event| {
            let store = store.clone();
            async move {
                let Ok(FeedEvent::Changed { revision, keys }) = event else { return event };
                let mut kept = Vec::new();
                for key in keys {
                    if store.get(key).await.is_ok() {
                        kept.push(key);
                    }
                }
                Ok(FeedEvent::Changed { revision, keys: kept })
            }
        });
        feed.boxed()
    }

    async fn check(&self) -> Result<()> {
        self.0.check().await
    }
}

fn catalog_complaint(flaw: CatalogFlaw) -> String {
    complaint(move || {
        conformance::catalog_store::all(move || async move {
            Arc::new(FlawedCatalog(MemoryCatalog::new(), flaw)) as Arc<dyn CatalogStore>
        })
    })
}

#[test]
fn a_catalog_that_forgets_removals_in_its_feed_is_noticed() {
    let said = catalog_complaint(CatalogFlaw::ForgetsRemovals);
    assert!(said.contains("a feed names what was written and removed since its position"), "{said}");
}

#[test]
fn a_catalog_that_commits_one_by_one_is_noticed() {
    let said = complaint(|| async {
        let store: Arc<dyn CatalogStore> = Arc::new(FlawedCatalog(MemoryCatalog::new(), CatalogFlaw::CommitsOneByOne));
        conformance::catalog_store::a_failing_operation_undoes_the_whole_set(&store).await;
    });
    assert!(said.contains("a set that fails changes nothing"), "{said}");
}

/// Takes whatever installation comes first.
#[derive(Debug)]
struct GreedyResolver;

#[async_trait]
impl CredentialResolver for GreedyResolver {
    async fn resolve(&self, call: &CallContext<'_>) -> Result<Resolved, CredentialError> {
        let Some(first) = call.candidates.first() else { return DefaultResolver.resolve(call).await };
        Ok(Resolved {
            installation: first.installation,
            owner: first.owner,
            reason: archestra_core::credential::ResolutionReason::Custom,
            plan: plan(call.entry, first)?,
        })
    }

    async fn explain(&self, call: &CallContext<'_>) -> Explanation {
        DefaultResolver.explain(call).await
    }
}

#[test]
fn a_resolver_that_borrows_from_strangers_is_noticed() {
    let said = complaint(|| async {
        let resolver: Arc<dyn CredentialResolver> = Arc::new(GreedyResolver);
        conformance::credential_resolver::never_answers_with_a_strangers_installation(&resolver).await;
    });
    assert!(said.contains("never answers with another user's personal installation"), "{said}");
}
