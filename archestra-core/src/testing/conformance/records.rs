//! What the catalog and the identity store promise alike, as cases over any store of versioned records.

mod commit;
mod feed;
mod list;

pub(super) use commit::*;
pub(super) use feed::*;
pub(super) use list::*;

use crate::{
    Result,
    catalog::{CatalogStore, Entry, Query, Record, RecordKey},
    feed::{ChangeSet, FeedEvent, Page, PageRequest, StoreRecord, StoreRevision, Versioned},
    identity::{IdentityKey, IdentityQuery, IdentityRecord, IdentityStore, User},
    testing::fixtures,
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::sync::Arc;

type Key<S> = <<S as Records>::Record as StoreRecord>::Key;
type Changes<S> = ChangeSet<<S as Records>::Record, Key<S>>;

/// A store of versioned records, seen through one kind of its records.
#[async_trait]
pub(super) trait Records: Clone + Send + Sync + 'static {
    type Record: StoreRecord;

    /// A new record with a unique name.
    fn sample(name: &str) -> Self::Record;
    /// The same record under another name.
    fn renamed(record: &Self::Record, name: &str) -> Self::Record;
    /// The same record with another content that is not unique.
    fn changed(record: &Self::Record, content: &str) -> Self::Record;

    async fn read(&self, key: Key<Self>) -> Result<Versioned<Self::Record>>;
    async fn named(&self, name: &str) -> Result<Option<Versioned<Self::Record>>>;
    async fn page(&self, page: &PageRequest) -> Result<Page<Versioned<Self::Record>>>;
    async fn apply(&self, changes: Changes<Self>) -> Result<StoreRevision>;
    fn follow(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<Key<Self>>>>;
}

#[async_trait]
impl Records for Arc<dyn CatalogStore> {
    type Record = Record;

    fn sample(name: &str) -> Record {
        fixtures::remote_entry(name).into()
    }

    fn renamed(record: &Record, name: &str) -> Record {
        let mut entry = entry(record);
        entry.spec.name = name.to_owned();
        entry.into()
    }

    fn changed(record: &Record, content: &str) -> Record {
        let mut entry = entry(record);
        entry.spec.description = Some(content.to_owned());
        entry.into()
    }

    async fn read(&self, key: RecordKey) -> Result<Versioned<Record>> {
        self.get(key).await
    }

    async fn named(&self, name: &str) -> Result<Option<Versioned<Record>>> {
        self.find(&crate::catalog::Lookup::EntryNamed(name.to_owned())).await
    }

    async fn page(&self, page: &PageRequest) -> Result<Page<Versioned<Record>>> {
        self.list(&Query::Entries { search: None, labels: None }, page).await
    }

    async fn apply(&self, changes: Changes<Self>) -> Result<StoreRevision> {
        self.commit(changes).await
    }

    fn follow(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<RecordKey>>> {
        self.changes(since)
    }
}

fn entry(record: &Record) -> Entry {
    match record {
        Record::Entry(entry) => entry.clone(),
        other => panic!("{:?} is not the entry that was written", other.key()),
    }
}

#[async_trait]
impl Records for Arc<dyn IdentityStore> {
    type Record = IdentityRecord;

    fn sample(name: &str) -> IdentityRecord {
        fixtures::user(&address(name)).into()
    }

    fn renamed(record: &IdentityRecord, name: &str) -> IdentityRecord {
        User { email: address(name), ..user(record) }.into()
    }

    fn changed(record: &IdentityRecord, content: &str) -> IdentityRecord {
        User { name: Some(content.to_owned()), ..user(record) }.into()
    }

    async fn read(&self, key: IdentityKey) -> Result<Versioned<IdentityRecord>> {
        self.get(key).await
    }

    async fn named(&self, name: &str) -> Result<Option<Versioned<IdentityRecord>>> {
        self.find(&crate::identity::IdentityLookup::UserByEmail(address(name))).await
    }

    async fn page(&self, page: &PageRequest) -> Result<Page<Versioned<IdentityRecord>>> {
        self.list(&IdentityQuery::Users { search: None }, page).await
    }

    async fn apply(&self, changes: Changes<Self>) -> Result<StoreRevision> {
        self.commit(changes).await
    }

    fn follow(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<IdentityKey>>> {
        self.changes(since)
    }
}

fn address(name: &str) -> String {
    format!("{name}@example.com")
}

fn user(record: &IdentityRecord) -> User {
    match record {
        IdentityRecord::User(user) => user.clone(),
        other => panic!("{:?} is not the user that was written", other.key()),
    }
}

/// Writes new records, one commit each, and returns them.
async fn create<S: Records>(store: &S, names: &[&str]) -> Vec<S::Record> {
    let mut records = Vec::new();
    for name in names {
        let record = S::sample(name);
        super::works(store.apply(ChangeSet::new().create(record.clone())).await, "a new record can be written");
        records.push(record);
    }
    records
}

/// Checks that a record is there as given, at this version.
async fn is_at<S: Records>(store: &S, record: &S::Record, version: u64, promise: &str) {
    let read = super::works(store.read(record.key()).await, promise);
    assert_eq!((read.version.0, &read.value), (version, record), "{promise}");
}
