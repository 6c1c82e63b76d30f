//! The change feed: over two handles, over connections that are cut, and from a database that went back.

use crate::support::{Fresh, pair};
use archestra_core::{
    Result,
    catalog::{CatalogStore, RecordKey},
    feed::{ChangeSet, FeedEvent, StoreRevision},
    testing::fixtures,
};
use archestra_store::SqlStore;
use futures::{StreamExt as _, stream::BoxStream};
use sea_orm::ConnectionTrait as _;
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

type Events = BoxStream<'static, Result<FeedEvent<RecordKey>>>;

async fn create(store: &SqlStore, name: &str) -> (RecordKey, StoreRevision) {
    let entry = fixtures::remote_entry(name);
    let key = entry.id.into();
    (key, CatalogStore::commit(store, ChangeSet::new().create(entry)).await.unwrap())
}

/// Waits for the next change; trouble on the way is overlooked.
async fn changed(events: &mut Events, limit: Duration) -> (StoreRevision, Vec<RecordKey>) {
    let change = async {
        loop {
            if let Ok(FeedEvent::Changed { revision, keys }) = events.next().await.unwrap() {
                return (revision, keys);
            }
        }
    };
    timeout(limit, change).await.expect("the change arrives in time")
}

/// A feed that has begun.
async fn follow(store: &SqlStore) -> Events {
    let mut events = CatalogStore::changes(store, None);
    assert!(matches!(events.next().await.unwrap().unwrap(), FeedEvent::Resync { .. }));
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn another_process_is_followed() {
    let (near, far) = pair().await;
    let mut events = follow(&near).await;
    for n in 0..20 {
        let (key, revision) = create(&far, &format!("far {n}")).await;
        assert_eq!(changed(&mut events, SOON).await, (revision, vec![key]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn a_feed_outlives_its_connections() {
    let fresh = Fresh::new().await;
    let (near, far) = (fresh.open().await, fresh.open().await);
    let raw = fresh.raw().await;
    let mut events = follow(&near).await;
    for n in 0..8 {
        let (key, revision) = create(&far, &format!("before {n}")).await;
        assert_eq!(changed(&mut events, SOON).await, (revision, vec![key]));
        assert!(fresh.cut(&raw).await >= 4);
        // A commit needs no second attempt: what finds its connection closed takes another one.
        let (key, revision) = create(&far, &format!("after {n}")).await;
        assert_eq!(changed(&mut events, SOON * 3).await, (revision, vec![key]));
    }
    // It also listens again.
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let both = async {
        while crate::support::number(&raw, listening).await != 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON * 2, both).await.unwrap();
    raw.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn trouble_is_reported_and_passes() {
    let fresh = Fresh::new().await;
    let store = fresh.open().await;
    let (_, first) = create(&store, "before").await;
    let mut events = CatalogStore::changes(&store, Some(first));
    let raw = fresh.raw().await;
    raw.execute_unprepared("ALTER TABLE feed_head RENAME TO away").await.unwrap();
    let mut errors = 0;
    while errors < 2 {
        errors += u32::from(timeout(SOON * 4, events.next()).await.unwrap().unwrap().is_err());
    }
    assert!(CatalogStore::check(&store).await.is_err());
    raw.execute_unprepared("ALTER TABLE away RENAME TO feed_head").await.unwrap();
    let (key, last) = create(&store, "after").await;
    assert_eq!(changed(&mut events, SOON * 4).await, (last, vec![key]));
    raw.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn a_database_that_went_back_is_read_anew() {
    let fresh = Fresh::new().await;
    let store = fresh.open().await;
    for n in 0..5 {
        create(&store, &format!("entry {n}")).await;
    }
    let mut events = CatalogStore::changes(&store, Some(StoreRevision(5)));
    assert!(matches!(events.next().await.unwrap().unwrap(), FeedEvent::Confirmed { .. }));
    let raw = fresh.raw().await;
    raw.execute_unprepared("UPDATE feed_head SET revision = 3; DELETE FROM changes WHERE revision > 3").await.unwrap();
    let resynced = async {
        while !matches!(events.next().await.unwrap().unwrap(), FeedEvent::Resync { revision } if revision.0 == 3) {}
    };
    timeout(SOON * 2, resynced).await.unwrap();
    let (key, revision) = create(&store, "next").await;
    assert_eq!(changed(&mut events, SOON).await, (revision, vec![key]));
    raw.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn a_database_that_has_other_commits_of_the_same_numbers_is_read_anew() {
    let fresh = Fresh::new().await;
    let store = fresh.open().await;
    for n in 0..5 {
        create(&store, &format!("entry {n}")).await;
    }
    let mut events = CatalogStore::changes(&store, Some(StoreRevision(5)));
    assert!(matches!(events.next().await.unwrap().unwrap(), FeedEvent::Confirmed { .. }));
    let raw = fresh.raw().await;
    // As a standby has it that took over without the last commits and made others: here one as the last one, there two.
    let other = "UPDATE changes SET id = gen_random_uuid() WHERE position = -1 AND revision = 5";
    for further in [
        "",
        "; UPDATE feed_head SET revision = revision + 1; INSERT INTO changes (revision, position, store, kind, id) VALUES (6, -1, 'commit', 'commit', gen_random_uuid())",
    ] {
        raw.execute_unprepared(&format!("{other}{further}")).await.unwrap();
        let resynced = async { while !matches!(events.next().await.unwrap().unwrap(), FeedEvent::Resync { .. }) {} };
        timeout(SOON, resynced).await.unwrap();
    }
    let (key, revision) = create(&store, "next").await;
    assert_eq!(changed(&mut events, SOON).await, (revision, vec![key]));
    raw.close().await.unwrap();
}
