//! Many at once, and much at once.

use crate::{
    hammer::{hammer, seconds},
    support::{file, fresh_path, open},
};
use archestra_core::{
    catalog::{CatalogStore, CatalogStoreExt as _, Entry, Query},
    feed::{ChangeSet, Version},
    secret::Expect,
    testing::fixtures,
    tool::Tool,
};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_writers_and_readers_on_two_handles_lose_nothing() {
    let path = fresh_path();
    hammer([open(&path).await, open(&path).await], seconds(2)).await;
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
    store.commit(tools.iter().cloned().fold(ChangeSet::new(), ChangeSet::create)).await.unwrap();
    store
        .commit(tools.into_iter().fold(ChangeSet::new(), |changes, tool| changes.put(tool, Expect::Any)))
        .await
        .unwrap();
    let stored = store.list_all::<Tool>(Query::Tools { entry: Some(entry.id) }).await.unwrap();
    assert_eq!(stored.len(), 1000);
    assert!(stored.iter().all(|tool| tool.version == Version(2)));
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
