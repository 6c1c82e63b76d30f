//! A catalog that remembers the newest commit made through it, so that whoever made it can wait until calls are routed by it.

use archestra_core::{
    Result,
    catalog::{CatalogChanges, CatalogStore, Lookup, Query, Record, RecordKey},
    feed::{FeedEvent, Page, PageRequest, Readable, StoreRevision, Versioned},
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Passes everything on, and notes what was committed.
#[derive(Debug)]
pub(crate) struct Committed {
    catalog: Arc<dyn CatalogStore>,
    newest: AtomicU64,
}

impl Committed {
    pub(crate) fn new(catalog: Arc<dyn CatalogStore>) -> Self {
        Self { catalog, newest: AtomicU64::new(0) }
    }

    /// The newest commit that was made here.
    pub(crate) fn newest(&self) -> StoreRevision {
        StoreRevision(self.newest.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl CatalogStore for Committed {
    async fn get(&self, key: RecordKey) -> Result<Versioned<Record>> {
        self.catalog.get(key).await
    }

    async fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<Versioned<Record>>>> {
        self.catalog.get_many(keys).await
    }

    async fn get_each(&self, keys: &[RecordKey]) -> Result<Vec<Option<Readable<Record, RecordKey>>>> {
        self.catalog.get_each(keys).await
    }

    async fn find(&self, lookup: &Lookup) -> Result<Option<Versioned<Record>>> {
        self.catalog.find(lookup).await
    }

    async fn list(&self, query: &Query, page: &PageRequest) -> Result<Page<Versioned<Record>>> {
        self.catalog.list(query, page).await
    }

    async fn list_each(&self, query: &Query, page: &PageRequest) -> Result<Page<Readable<Record, RecordKey>>> {
        self.catalog.list_each(query, page).await
    }

    async fn commit(&self, changes: CatalogChanges) -> Result<StoreRevision> {
        let revision = self.catalog.commit(changes).await?;
        self.newest.fetch_max(revision.0, Ordering::Relaxed);
        Ok(revision)
    }

    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<RecordKey>>> {
        self.catalog.changes(since)
    }

    async fn check(&self) -> Result<()> {
        self.catalog.check().await
    }
}
