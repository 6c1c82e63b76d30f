//! Commits that wait together are taken in together, and their records are read at once.

use super::{Feed, Routes, Snapshot, TOGETHER_READ, read};
use archestra_core::{
    Error, ErrorKind, Result,
    catalog::{CatalogStore, RecordKey},
    feed::{ChangeSet, FeedEvent, StoreRevision},
    testing::{Faulty, MemoryCatalog, fixtures},
};
use futures::{StreamExt as _, stream};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

mod unreadable;

fn key() -> RecordKey {
    fixtures::remote_entry("any").id.into()
}

fn changed(revision: u64, keys: &[RecordKey]) -> Result<FeedEvent<RecordKey>> {
    Ok(FeedEvent::Changed { revision: StoreRevision(revision), keys: keys.to_vec() })
}

fn confirmed(revision: u64) -> Result<FeedEvent<RecordKey>> {
    Ok(FeedEvent::Confirmed { revision: StoreRevision(revision) })
}

async fn next(feed: &mut Feed) -> (u64, Vec<RecordKey>) {
    match feed.next().await.unwrap().1.unwrap() {
        FeedEvent::Changed { revision, keys } => (revision.0, keys),
        event => (event.revision().0, Vec::new()),
    }
}

#[tokio::test]
async fn records_are_read_many_at_once_and_kept_in_order() {
    let store = Arc::new(Faulty::new(Arc::new(MemoryCatalog::new())));
    let entries: Vec<_> = (0..5 * TOGETHER_READ).map(|n| fixtures::remote_entry(&format!("entry {n}"))).collect();
    store.commit(entries.iter().skip(1).cloned().fold(ChangeSet::new(), ChangeSet::create)).await.unwrap();
    let catalog: Arc<dyn CatalogStore> = Arc::<Faulty<MemoryCatalog>>::clone(&store);
    let keys: Vec<RecordKey> = entries.iter().map(|entry| entry.id.into()).collect();
    let before = store.faults().calls();
    let found = read(&catalog, &keys).await.unwrap();
    assert_eq!(store.faults().calls() - before, 5);
    assert_eq!(found.iter().map(|read| read.key).collect::<Vec<_>>(), keys);
    assert!(found[0].record.is_none() && found[1..].iter().all(|read| read.record.is_some()));
    store.faults().fail_next(1);
    assert_eq!(read(&catalog, &keys).await.map(drop).unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_behind_commits_speaks_of_when_the_first_of_them_was_asked_for() {
    let a = key();
    let mut feed = Feed::new(
        stream::iter([
            Some(changed(1, &[a])),
            None,
            Some(changed(2, &[a])),
            None,
            Some(confirmed(2)),
            Some(confirmed(2)),
        ])
        // What is not there at once is not taken together with what came before.
        .then(|event| async move {
            if event.is_none() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            event
        })
        .filter_map(|event| async move { event })
        .boxed(),
    );
    let begun = Instant::now();
    for _ in 0..2 {
        assert!(matches!(feed.next().await, Some((_, Ok(FeedEvent::Changed { .. })))));
    }
    let (since, event) = feed.next().await.unwrap();
    assert!(matches!(event, Ok(FeedEvent::Confirmed { .. })));
    assert_eq!(since, begun);
    assert_eq!(feed.next().await.unwrap().0, begun + Duration::from_secs(2));
}

#[tokio::test]
async fn commits_that_wait_together_are_one_and_what_is_behind_them_stays_behind() {
    let (a, b, c) = (key(), key(), key());
    let trouble = || Err(Error::Unavailable { backend: "database", reason: "away".to_owned(), source: None });
    let events = [
        confirmed(1),
        changed(2, &[a, b]),
        changed(3, &[b]),
        changed(4, &[c, a]),
        confirmed(4),
        changed(5, &[a]),
        trouble(),
        changed(6, &[b]),
    ];
    let mut feed = Feed::new(stream::iter(events).boxed());
    assert_eq!(next(&mut feed).await, (1, vec![]));
    assert_eq!(next(&mut feed).await, (4, vec![a, b, c]));
    assert_eq!(next(&mut feed).await, (4, vec![]));
    assert_eq!(next(&mut feed).await, (5, vec![a]));
    assert!(feed.next().await.unwrap().1.is_err());
    assert_eq!(next(&mut feed).await, (6, vec![b]));
    assert!(feed.next().await.is_none(), "the end is told once the last commit was");
    assert!(feed.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_commit_does_not_wait_for_the_next_one() {
    let a = key();
    let mut feed = Feed::new(stream::iter([changed(1, &[a])]).chain(stream::pending()).boxed());
    assert_eq!(next(&mut feed).await, (1, vec![a]));
}

#[test]
fn a_snapshot_that_a_call_still_looks_at_is_freed_by_the_follower() {
    let routes = Routes::default();
    let looking = routes.load();
    let seen = Arc::downgrade(&looking);
    routes.show(Snapshot::default());
    drop(looking);
    assert!(seen.upgrade().is_some(), "the call was the last to look at it, and freed nothing");
    routes.free();
    assert!(seen.upgrade().is_none());
}
