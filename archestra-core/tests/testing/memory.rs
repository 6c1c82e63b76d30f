//! The in-memory backends: clocks that can be paused, feeds with a short memory.

use archestra_core::{
    catalog::CatalogStore,
    feed::{ChangeSet, FeedEvent, StoreRevision},
    state::{StateKey, StateStore},
    testing::{MemoryCatalog, MemoryState, fixtures},
};
use bytes::Bytes;
use futures::StreamExt as _;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn state_expires_by_the_paused_clock() {
    let (store, key) = (MemoryState::new(), StateKey::new("code", "1"));
    store.put(&key, Bytes::from_static(b"grant"), Duration::from_secs(600)).await.unwrap();
    store.add(&key, 3, Duration::from_secs(600)).await.unwrap();
    tokio::time::advance(Duration::from_secs(599)).await;
    assert!(store.get(&key).await.unwrap().is_some());
    assert_eq!(store.add(&key, 1, Duration::from_secs(600)).await.unwrap(), 4);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(store.get(&key).await.unwrap().is_none());
    assert_eq!(store.add(&key, 1, Duration::from_secs(600)).await.unwrap(), 1);
}

#[tokio::test]
async fn a_feed_resyncs_from_before_its_history() {
    let store = MemoryCatalog::with_history(2);
    for name in ["a", "b", "c"] {
        store.commit(ChangeSet::new().create(fixtures::remote_entry(name))).await.unwrap();
    }
    let first = store.changes(Some(StoreRevision(0))).next().await.unwrap().unwrap();
    assert_eq!(first, FeedEvent::Resync { revision: StoreRevision(3) });
    let mut feed = store.changes(Some(StoreRevision(1)));
    for revision in [2, 3] {
        assert!(
            matches!(feed.next().await.unwrap().unwrap(), FeedEvent::Changed { revision: StoreRevision(n), .. } if n == revision)
        );
    }
}

#[tokio::test]
async fn a_slow_subscriber_falls_back_to_resync() {
    let store = MemoryCatalog::with_history(2);
    let mut feed = store.changes(Some(StoreRevision(0)));
    assert!(matches!(feed.next().await.unwrap().unwrap(), FeedEvent::Confirmed { .. }));
    for name in ["a", "b", "c"] {
        store.commit(ChangeSet::new().create(fixtures::remote_entry(name))).await.unwrap();
    }
    assert_eq!(feed.next().await.unwrap().unwrap(), FeedEvent::Resync { revision: StoreRevision(3) });
}

#[tokio::test(start_paused = true)]
async fn a_feed_confirms_twice_a_second() {
    let store = MemoryCatalog::new();
    let mut feed = store.changes(Some(StoreRevision(0)));
    let start = tokio::time::Instant::now();
    for _ in 0..11 {
        assert!(matches!(feed.next().await.unwrap().unwrap(), FeedEvent::Confirmed { .. }));
    }
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[test]
fn a_feed_can_be_opened_outside_of_a_runtime() {
    let feed = MemoryCatalog::new().changes(None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime.block_on(feed.into_future()).0.unwrap().unwrap();
    assert_eq!(first, FeedEvent::Resync { revision: StoreRevision(0) });
}
