//! Many at once, and much at once.

use crate::support::{file, fresh_path, open};
use archestra_core::{
    Error,
    catalog::{CatalogStore, CatalogStoreExt as _, Entry, Query, RecordKey},
    feed::{ChangeSet, Expect, FeedEvent, StoreRevision},
    testing::fixtures,
    tool::Tool,
};
use archestra_store::SqlStore;
use futures::StreamExt as _;
use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

/// Adds one to the number in an entry's description, whoever else does so too.
async fn increment(store: &SqlStore, key: RecordKey) -> archestra_core::Result<u64> {
    let mut lost = 0;
    loop {
        let read = store.get(key).await?;
        let expect = read.expect();
        let archestra_core::catalog::Record::Entry(mut entry) = read.value else {
            panic!("an entry has become something else")
        };
        let number: u64 = entry.spec.description.as_deref().unwrap_or("0").parse().unwrap();
        assert_eq!(number + 1, read.version.0, "a version counts all writes");
        entry.spec.description = Some((number + 1).to_string());
        match store.commit(ChangeSet::new().put(entry, expect)).await {
            Ok(_) => return Ok(lost),
            Err(Error::Conflict { .. }) => lost += 1,
            Err(error) => return Err(error),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_writers_and_readers_on_two_handles_lose_nothing() {
    const ROUNDS: usize = 12;
    let path = fresh_path();
    let handles = [open(&path).await, open(&path).await];
    let entries: Vec<Entry> = (0..4).map(|n| fixtures::remote_entry(&format!("entry {n}"))).collect();
    handles[0].commit(entries.iter().cloned().fold(ChangeSet::new(), ChangeSet::create)).await.unwrap();
    let keys: Vec<RecordKey> = entries.iter().map(|entry| entry.id.into()).collect();
    let mut tasks = JoinSet::new();
    for n in 0..16 {
        let (store, keys) = (handles[n % 2].clone(), keys.clone());
        tasks.spawn(async move {
            for round in 0..ROUNDS {
                increment(&store, keys[(n / 2 + round) % keys.len()]).await.unwrap();
            }
        });
        let store = handles[n % 2].clone();
        tasks.spawn(async move {
            for _ in 0..ROUNDS * 4 {
                let page =
                    store.list(&Query::Entries { search: None, labels: None }, &Default::default()).await.unwrap();
                assert_eq!(page.items.len(), 4);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let mut sum = 0;
    for key in keys {
        sum += handles[0].get(key).await.unwrap().version.0 - 1;
    }
    assert_eq!(sum, 16 * ROUNDS as u64);
    // And the feed of either handle names every commit in order.
    let mut events = handles[1].changes(Some(StoreRevision(0)));
    let mut seen = Vec::new();
    while seen.len() < 1 + 16 * ROUNDS {
        if let FeedEvent::Changed { revision, .. } =
            timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap().unwrap()
        {
            seen.push(revision);
        }
    }
    assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] < pair[1]));
}

fn tools(entry: &Entry, count: usize) -> Vec<Tool> {
    (0..count).map(|n| fixtures::tool(entry, &format!("tool_{n:06}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tools_are_stored_at_once() {
    let store = file().await;
    let entry = fixtures::remote_entry("big");
    store.commit(ChangeSet::new().create(entry.clone())).await.unwrap();
    let tools = tools(&entry, 1000);
    let begin = Instant::now();
    store.commit(tools.iter().cloned().fold(ChangeSet::new(), ChangeSet::create)).await.unwrap();
    let created = begin.elapsed();
    let begin = Instant::now();
    store
        .commit(tools.into_iter().fold(ChangeSet::new(), |changes, tool| changes.put(tool, Expect::Any)))
        .await
        .unwrap();
    println!("1000 tools: created in {created:?}, replaced in {:?}", begin.elapsed());
    assert!(created < Duration::from_secs(3), "{created:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute; prints how long a catalog of full size takes"]
async fn a_hundred_thousand_tools_are_listed_by_pages() {
    let store = file().await;
    let begin = Instant::now();
    for n in 0..100 {
        let entry = fixtures::remote_entry(&format!("entry {n}"));
        let tools = tools(&entry, 1000);
        store.commit(tools.into_iter().fold(ChangeSet::new().create(entry), ChangeSet::create)).await.unwrap();
    }
    println!("100,000 tools: stored in {:?}", begin.elapsed());
    let begin = Instant::now();
    let all = store.list_all::<Tool>(Query::Tools { entry: None }).await.unwrap();
    println!("listed in {:?}", begin.elapsed());
    assert_eq!(all.len(), 100_000);
}
