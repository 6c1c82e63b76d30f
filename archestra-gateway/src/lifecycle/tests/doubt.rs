//! A write whose answer is lost may yet happen: what it needs is left alone until that is known.

use super::*;
use archestra_core::{
    Error,
    catalog::{CatalogChanges, CatalogStore, Entry, Lookup, Query, Record, RecordKey},
    feed::{FeedEvent, Page, PageRequest, StoreRevision},
    secret::{SecretRef, SecretStore as _},
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// Answers the first commit with a timeout, and makes it a moment later.
#[derive(Debug)]
struct Late {
    catalog: MemoryCatalog,
    late: AtomicBool,
}

#[async_trait]
impl CatalogStore for Late {
    async fn get(&self, key: RecordKey) -> Result<Versioned<Record>> {
        self.catalog.get(key).await
    }

    async fn find(&self, lookup: &Lookup) -> Result<Option<Versioned<Record>>> {
        self.catalog.find(lookup).await
    }

    async fn list(&self, query: &Query, page: &PageRequest) -> Result<Page<Versioned<Record>>> {
        self.catalog.list(query, page).await
    }

    async fn commit(&self, changes: CatalogChanges) -> Result<StoreRevision> {
        if self.late.swap(false, Ordering::SeqCst) {
            let catalog = self.catalog.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                catalog.commit(changes).await
            });
            return Err(Error::Timeout { operation: "committing", after: Duration::from_secs(30) });
        }
        self.catalog.commit(changes).await
    }

    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<RecordKey>>> {
        self.catalog.changes(since)
    }

    async fn check(&self) -> Result<()> {
        self.catalog.check().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_stays_while_the_row_that_names_it_may_still_come() {
    let mut rig = Rig::new();
    rig.lifecycle = Lifecycle::new(LifecycleParts {
        catalog: Arc::new(Late { catalog: rig.catalog.clone(), late: AtomicBool::new(true) }),
        secrets: Arc::new(rig.secrets.clone()),
        runtime: Some(Arc::new(rig.runtime.clone())),
        discover: Arc::new(rig.discover.clone()),
        options: LifecycleOptions::default(),
    });
    rig.lifecycle.save_entry(None, draft(hosted("files")), Expect::Any).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let entry = rig.all::<Entry>().await.remove(0);
    rig.secrets.get(&entry.secrets.unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_is_forgotten_once_no_operation_can_ask_for_it() {
    let options = LifecycleOptions { sweep_grace: Duration::ZERO, ..LifecycleOptions::default() };
    let rig = Rig::on(MemoryCatalog::new(), MemorySecrets::new(), options);
    let lost = Error::Timeout { operation: "committing", after: Duration::from_secs(30) };
    let reference = SecretRef::unique("entries", "any").unwrap();
    rig.lifecycle.inner.doubts.note(&lost, [reference.clone()].into());
    rig.lifecycle.sweep().await.unwrap();
    assert!(!rig.lifecycle.inner.doubts.take(&reference));
}
