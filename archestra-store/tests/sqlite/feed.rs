//! The change feed over two handles, from old positions, and when the store is closed.

use crate::support::{config, file, fresh_path, memory, open, pair};
use archestra_core::{
    Result,
    catalog::{CatalogStore, RecordKey},
    feed::{ChangeSet, FeedEvent, StoreRevision},
    identity::{IdentityStore, User},
    testing::fixtures,
};
use archestra_store::SqlStore;
use futures::{StreamExt as _, future::join_all, stream::BoxStream};
use sea_orm::ConnectionTrait as _;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

async fn create(store: &SqlStore, name: &str) -> (RecordKey, StoreRevision) {
    let entry = fixtures::remote_entry(name);
    let key = entry.id.into();
    (key, CatalogStore::commit(store, ChangeSet::new().create(entry)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_is_followed() {
    let (near, far) = pair().await;
    let mut events = CatalogStore::changes(&near, None);
    assert!(matches!(events.next().await.unwrap().unwrap(), FeedEvent::Resync { .. }));
    for n in 0..5 {
        let (key, revision) = create(&far, &format!("far {n}")).await;
        loop {
            match timeout(SOON, events.next()).await.unwrap().unwrap().unwrap() {
                FeedEvent::Changed { revision: at, keys } => {
                    assert_eq!((at, keys), (revision, vec![key]));
                    break;
                }
                FeedEvent::Confirmed { revision: at } => assert!(at < revision),
                other @ FeedEvent::Resync { .. } => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_commit_of_the_same_process_is_followed() {
    for store in [file().await, memory().await] {
        let mut events = CatalogStore::changes(&store, None);
        while !matches!(events.next().await.unwrap().unwrap(), FeedEvent::Confirmed { .. }) {}
        for n in 0..5 {
            let (key, revision) = create(&store, &format!("near {n}")).await;
            assert_eq!(news(&mut events).await, FeedEvent::Changed { revision, keys: vec![key] });
        }
    }
}

/// The first event that is no confirmation: the poller may not have seen the newest commits yet.
async fn news(events: &mut BoxStream<'static, Result<FeedEvent<RecordKey>>>) -> FeedEvent<RecordKey> {
    loop {
        match timeout(SOON, events.next()).await.unwrap().unwrap().unwrap() {
            FeedEvent::Confirmed { .. } => {}
            news => return news,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_is_no_longer_kept_begins_anew() {
    let store = SqlStore::connect(config(&fresh_path()).kept_revisions(8)).await.unwrap();
    let (_, first) = create(&store, "first").await;
    let mut stalled = CatalogStore::changes(&store, Some(first));
    assert!(matches!(stalled.next().await.unwrap().unwrap(), FeedEvent::Confirmed { .. }));
    let mut recent = first;
    for n in 0..40 {
        let (_, revision) = create(&store, &format!("entry {n}")).await;
        if n == 36 {
            recent = revision;
        }
    }
    let mut late = CatalogStore::changes(&store, Some(first));
    assert!(matches!(news(&mut late).await, FeedEvent::Resync { revision } if revision > first));
    let mut resumed = CatalogStore::changes(&store, Some(recent));
    assert!(matches!(news(&mut resumed).await, FeedEvent::Changed { revision, .. } if revision.0 == recent.0 + 1));
    // One that was open all the time and fell behind is told so, too.
    let resynced = async { while !matches!(stalled.next().await.unwrap().unwrap(), FeedEvent::Resync { .. }) {} };
    timeout(SOON, resynced).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_store_names_its_own_changes_only() {
    let store = file().await;
    let user: User = fixtures::user("alice@example.com");
    let mut entries = CatalogStore::changes(&store, Some(StoreRevision(0)));
    let mut users = IdentityStore::changes(&store, Some(StoreRevision(0)));
    let written = IdentityStore::commit(&store, ChangeSet::new().create(user.clone())).await.unwrap();
    let (key, last) = create(&store, "entry").await;
    assert!(last > written);
    let changed = async {
        loop {
            if let FeedEvent::Changed { revision, keys } = entries.next().await.unwrap().unwrap() {
                break (revision, keys);
            }
        }
    };
    assert_eq!(timeout(SOON, changed).await.unwrap(), (last, vec![key]));
    let changed = async {
        let mut all = Vec::new();
        loop {
            match users.next().await.unwrap().unwrap() {
                FeedEvent::Changed { revision, keys } => all.push((revision, keys)),
                FeedEvent::Confirmed { revision } if revision >= last => break all,
                _ => {}
            }
        }
    };
    assert_eq!(timeout(SOON, changed).await.unwrap(), [(written, vec![user.id.into()])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_larger_than_a_batch_arrives_whole() {
    let store = file().await;
    let mut changes = ChangeSet::new();
    for n in 0..4500 {
        changes = changes.create(fixtures::remote_entry(&format!("entry {n}")));
    }
    CatalogStore::commit(&store, changes).await.unwrap();
    let (_, last) = create(&store, "last").await;
    let mut events = CatalogStore::changes(&store, Some(StoreRevision(0)));
    let mut sizes = Vec::new();
    loop {
        match timeout(SOON * 5, events.next()).await.unwrap().unwrap().unwrap() {
            FeedEvent::Changed { keys, .. } => sizes.push(keys.into_iter().collect::<BTreeSet<_>>().len()),
            FeedEvent::Confirmed { revision } if revision >= last => break,
            _ => {}
        }
    }
    assert_eq!(sizes, [4500, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_is_reported_and_passes() {
    let path = fresh_path();
    let store = open(&path).await;
    let (_, first) = create(&store, "before").await;
    let mut events = CatalogStore::changes(&store, Some(first));
    assert!(matches!(events.next().await.unwrap().unwrap(), FeedEvent::Confirmed { .. }));
    let raw = sea_orm::Database::connect(format!("sqlite://{}", path.display())).await.unwrap();
    raw.execute_unprepared("ALTER TABLE feed_head RENAME TO away").await.unwrap();
    let mut errors = 0;
    while errors < 2 {
        errors += u32::from(timeout(SOON * 4, events.next()).await.unwrap().unwrap().is_err());
    }
    assert!(CatalogStore::check(&store).await.is_err());
    raw.execute_unprepared("ALTER TABLE away RENAME TO feed_head").await.unwrap();
    let (key, last) = create(&store, "after").await;
    loop {
        if let Ok(FeedEvent::Changed { revision, keys }) = timeout(SOON * 4, events.next()).await.unwrap().unwrap() {
            assert_eq!((revision, keys), (last, vec![key]));
            break;
        }
    }
    raw.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_with_the_store() {
    for store in [file().await, memory().await] {
        let mut open: Vec<_> = (0..3).map(|_| CatalogStore::changes(&store, None)).collect();
        for events in &mut open {
            assert!(events.next().await.unwrap().is_ok());
        }
        store.close().await;
        let ends = open
            .into_iter()
            .map(|events| async move { events.filter(|event| futures::future::ready(event.is_err())).count().await });
        assert_eq!(timeout(SOON * 3, join_all(ends)).await.unwrap(), [1, 1, 1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_commit_has_happened_or_not_and_blocks_nobody() {
    let path = fresh_path();
    let store = open(&path).await;
    for n in 0..40_u64 {
        let entry = fixtures::remote_entry(&format!("dropped {n}"));
        timeout(Duration::from_micros(n * 60), CatalogStore::commit(&store, ChangeSet::new().create(entry))).await.ok();
    }
    let (key, last) = create(&store, "after").await;
    let mut events = CatalogStore::changes(&store, Some(StoreRevision(last.0 - 1)));
    loop {
        match timeout(SOON, events.next()).await.unwrap().unwrap().unwrap() {
            FeedEvent::Confirmed { revision } => assert!(revision < last),
            event => break assert_eq!(event, FeedEvent::Changed { revision: last, keys: vec![key] }),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_newer_version_knows_hides_nothing_behind_it() {
    let path = fresh_path();
    let store = open(&path).await;
    let (_, first) = create(&store, "first").await;
    let raw = sea_orm::Database::connect(format!("sqlite://{}", path.display())).await.unwrap();
    // More commits of a kind that came later than are read at once, and then one that can be followed.
    raw.execute_unprepared(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) \
         INSERT INTO changes (revision, position, store, kind, id) \
         SELECT {first} + i, 0, 'catalog', 'newcomer', randomblob(16) FROM n; \
         UPDATE feed_head SET revision = revision + 2500"
    ))
    .await
    .unwrap();
    let (key, last) = create(&store, "last").await;
    assert_eq!(last.0, first.0 + 2501);
    let mut events = CatalogStore::changes(&store, Some(first));
    assert_eq!(news(&mut events).await, FeedEvent::Changed { revision: last, keys: vec![key] });
    raw.close().await.unwrap();
}
