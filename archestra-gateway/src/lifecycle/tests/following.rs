//! The reconciler on a catalog that changes: it reads what changed, and everything only from time to time.

use super::*;
use archestra_core::{
    catalog::{CatalogChanges, CatalogStore, Lookup, Record, RecordKey},
    feed::{FeedEvent, Page, PageRequest, StoreRevision},
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::sync::Mutex;

/// Notes which kinds of records are listed whole.
#[derive(Debug, Clone)]
struct Watched {
    inner: MemoryCatalog,
    whole: Arc<Mutex<Vec<Kind>>>,
}

impl Watched {
    fn take(&self) -> Vec<Kind> {
        std::mem::take(&mut *self.whole.lock().unwrap())
    }
}

#[async_trait]
impl CatalogStore for Watched {
    async fn get(&self, key: RecordKey) -> Result<Versioned<Record>> {
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<Versioned<Record>>>> {
        self.inner.get_many(keys).await
    }

    async fn find(&self, lookup: &Lookup) -> Result<Option<Versioned<Record>>> {
        self.inner.find(lookup).await
    }

    async fn list(&self, query: &Query, page: &PageRequest) -> Result<Page<Versioned<Record>>> {
        if *query == Query::all(query.kind()) {
            self.whole.lock().unwrap().push(query.kind());
        }
        self.inner.list(query, page).await
    }

    async fn commit(&self, changes: CatalogChanges) -> Result<StoreRevision> {
        self.inner.commit(changes).await
    }

    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<RecordKey>>> {
        self.inner.changes(since)
    }

    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_followed_without_reading_everything() {
    let rig = Rig::new();
    let watched = Watched { inner: rig.catalog.clone(), whole: Arc::default() };
    let reconciler = Lifecycle::new(LifecycleParts {
        catalog: Arc::new(watched.clone()),
        secrets: Arc::new(rig.secrets.clone()),
        runtime: Some(Arc::new(rig.runtime.clone())),
        discover: Arc::new(rig.discover.clone()),
        options: LifecycleOptions::default(),
    });
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (reconciler, stop) = (reconciler.clone(), stop.clone());
        async move { reconciler.run(stop).await }
    });
    let mut spec = hosted("files");
    spec.labels.insert("a", "b");
    let files = rig.save(spec).await;
    let gateway = rig.save_consumer(automatic("g", "a", "b")).await.unwrap().value.id;
    settle().await;
    let at_start = watched.take();
    assert!(at_start.contains(&Kind::Installation) && at_start.contains(&Kind::Revision), "{at_start:?}");

    // Another replica installs it; this one takes what is missing, lists it, and removes what goes.
    let id = rig.install(&files, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    let workload = rig.ready(id).await.workload.unwrap();
    settle().await;
    rig.lifecycle.reinstall(id, values(&[("REGION", "us")]), None).await.unwrap();
    rig.ready(id).await;
    settle().await;
    rig.runtime.remove(&workload).await.unwrap();
    let lost = rig.all::<Assignment>().await.remove(0);
    rig.lifecycle.commit(CatalogChanges::new().delete(lost.id, Expect::Any)).await.unwrap();
    rig.resave(&files, |spec| spec.description = Some("else".to_owned())).await;
    settle().await;
    assert_eq!(rig.names(gateway).await.len(), 2);
    assert_eq!(rig.runtime.only().revision.0, 2, "it is applied again as it was stored last");
    rig.lifecycle.remove(id).await.unwrap();
    settle().await;
    assert!(rig.runtime.applied().is_empty());
    let followed = watched.take();
    assert!(
        !followed.iter().any(|kind| matches!(kind, Kind::Installation | Kind::Revision | Kind::Tool)),
        "{followed:?}"
    );

    tokio::time::sleep(Duration::from_secs(70)).await;
    let at_times = watched.take();
    assert!(at_times.contains(&Kind::Installation) && at_times.contains(&Kind::Revision), "{at_times:?}");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_two_commits_missed_is_made_around_what_changed() {
    let rig = Rig::new();
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (lifecycle, stop) = (rig.lifecycle.clone(), stop.clone());
        async move { lifecycle.run(stop).await }
    });
    let mut spec = remote("tracker");
    spec.labels.insert("a", "b");
    let entry = rig.save(spec).await;
    let by_labels = rig.save_consumer(automatic("g", "a", "b")).await.unwrap().value;
    let bystander = rig.save_consumer(automatic("h", "a", "b")).await.unwrap().value;
    rig.install(&entry, owner(), &[("token", "t")]).await.unwrap();
    settle().await;
    for touched in ["the consumer", "the entry", "a tool"] {
        let lost = rig.all::<Assignment>().await.into_iter().find(|one| one.consumer == by_labels.id).unwrap();
        let mut changes = CatalogChanges::new().delete(lost.id, Expect::Any);
        match touched {
            "the consumer" => changes.push_put(by_labels.clone(), Expect::Any),
            "the entry" => changes.push_put(rig.lifecycle.entry(entry.value.id).await.unwrap().value, Expect::Any),
            _ => changes.push_put(rig.all::<Tool>().await.remove(0), Expect::Any),
        }
        rig.lifecycle.commit(changes).await.unwrap();
        settle().await;
        for consumer in [by_labels.id, bystander.id] {
            assert_eq!(rig.names(consumer).await.len(), 2, "{touched}");
        }
    }
    stop.cancel();
    running.await.unwrap();
}
