//! The change feed: what it begins with, what it delivers, and what it confirms.

use super::{Key, Records, create};
use crate::{
    Result,
    feed::{ChangeSet, Expect, FeedEvent, StoreKey, StoreRecord as _, StoreRevision, Version},
    secret::Expect as GenericExpect,
    testing::conformance::{LIMIT, RACERS, race, works},
};
use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// For so long somebody who follows works off what came, in which several commits are made.
const BUSY: Duration = Duration::from_millis(50);

/// A feed whose order and progress are checked as it is read.
pub(in super::super) struct Feed<K> {
    events: BoxStream<'static, Result<FeedEvent<K>>>,
    newest: Option<StoreRevision>,
}

impl<K: StoreKey> Feed<K> {
    pub(in super::super) fn new(events: BoxStream<'static, Result<FeedEvent<K>>>) -> Self {
        Self { events, newest: None }
    }

    pub(in super::super) async fn next(&mut self) -> FeedEvent<K> {
        let event = match timeout(LIMIT, self.events.next()).await {
            Ok(Some(event)) => works(event, "the feed of a reachable store sends no errors"),
            Ok(None) => panic!("a feed does not end"),
            Err(_) => panic!("a feed confirms at least once a second, but nothing came within {LIMIT:?}"),
        };
        if let Some(newest) = self.newest {
            assert!(event.revision() >= newest, "a feed delivers in commit order: {event:?} came after {newest}");
        }
        self.newest = Some(event.revision());
        event
    }

    /// Reads until everything up to a revision is confirmed; returns what was delivered on the way.
    pub(in super::super) async fn until_confirmed(&mut self, revision: StoreRevision) -> Vec<FeedEvent<K>> {
        let mut delivered = Vec::new();
        let read = async {
            loop {
                match self.next().await {
                    FeedEvent::Confirmed { revision: confirmed } if confirmed >= revision => return,
                    FeedEvent::Confirmed { .. } => {}
                    event => delivered.push(event),
                }
            }
        };
        assert!(
            timeout(LIMIT, read).await.is_ok(),
            "a feed delivers and confirms a commit: {revision} was not confirmed within {LIMIT:?}"
        );
        delivered
    }

    /// Reads until a revision is confirmed; returns the keys that were named, and fails at a `Resync`.
    pub(in super::super) async fn keys_until(&mut self, revision: StoreRevision) -> BTreeSet<K> {
        let mut keys = BTreeSet::new();
        for event in self.until_confirmed(revision).await {
            match event {
                FeedEvent::Changed { keys: changed, .. } => keys.extend(changed),
                other => panic!("a feed that has missed nothing sends changes only, not {other:?}"),
            }
        }
        keys
    }
}

async fn present<S: Records>(store: &S) -> StoreRevision {
    works(store.apply(ChangeSet::new()).await, "an empty set returns the present revision")
}

pub(in super::super) async fn a_feed_without_a_position_begins_with_resync<S: Records>(store: &S) {
    create(store, &["earlier"]).await;
    let written = present(store).await;
    let mut feed = Feed::new(store.follow(None));
    match feed.next().await {
        FeedEvent::Resync { revision } => {
            assert!(revision >= written, "a resync stands at the present revision or after it: {revision} < {written}")
        }
        other => panic!("a feed without a position begins with a resync, not with {other:?}"),
    }
    let record = S::sample("later");
    let revision = works(store.apply(ChangeSet::new().create(record.clone())).await, "a new record can be written");
    assert!(feed.keys_until(revision).await.contains(&record.key()), "a commit after the resync is delivered");
}

pub(in super::super) async fn a_feed_names_all_changes_since_its_position<S: Records>(store: &S) {
    create(store, &["earlier"]).await;
    let since = present(store).await;
    let records = create(store, &["created", "changed", "removed"]).await;
    works(
        store.apply(ChangeSet::new().put(S::changed(&records[1], "other"), Expect::Version(Version(1)))).await,
        "a record can be changed",
    );
    let last = works(
        store.apply(ChangeSet::new().delete(records[2].key(), GenericExpect::Any)).await,
        "a record can be removed",
    );

    let expected: BTreeSet<_> = records.iter().map(|record| record.key()).collect();
    let mut feed = Feed::new(store.follow(Some(since)));
    assert_eq!(
        feed.keys_until(last).await,
        expected,
        "a feed names what was written and removed since its position, and nothing else"
    );

    let mut feed = Feed::new(store.follow(Some(last)));
    let live = S::sample("live");
    let revision = works(store.apply(ChangeSet::new().create(live.clone())).await, "a new record can be written");
    assert_eq!(
        feed.keys_until(revision).await,
        BTreeSet::from([live.key()]),
        "a feed from the newest position names what comes after it"
    );
}

pub(in super::super) async fn a_feed_from_an_unknown_position_begins_with_resync<S: Records>(store: &S) {
    create(store, &["earlier"]).await;
    let unknown = StoreRevision(present(store).await.0 + 1_000_000);
    let mut events = store.follow(Some(unknown));
    let first = timeout(LIMIT, events.next()).await;
    match first {
        Ok(Some(Ok(FeedEvent::Resync { revision }))) => {
            assert!(revision < unknown, "a resync stands at a revision of this store")
        }
        other => panic!("a feed from a position that this store never had begins with a resync, not with {other:?}"),
    }
}

pub(in super::super) async fn a_quiet_feed_goes_on_confirming<S: Records>(store: &S) {
    create(store, &["only"]).await;
    let revision = present(store).await;
    let mut feed = Feed::new(store.follow(Some(revision)));
    for _ in 0..3 {
        match feed.next().await {
            FeedEvent::Confirmed { revision: confirmed } => {
                assert_eq!(confirmed, revision, "a feed confirms the newest commit")
            }
            other => panic!("a quiet feed only confirms, but it sent {other:?}"),
        }
    }
}

pub(in super::super) async fn a_feed_goes_on_confirming_while_somebody_writes<S: Records>(store: &S) {
    let record = create(store, &["busy"]).await.remove(0);
    let mut confirmed = present(store).await;
    let mut feed = Feed::new(store.follow(Some(confirmed)));
    let writer = AbortOnDropHandle::new(tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0_u64.. {
                let change = S::changed(&record, &format!("content {n}"));
                works(
                    store.apply(ChangeSet::new().put(change, GenericExpect::Any)).await,
                    "a record can be written over",
                );
                // So that readers get their turn on one thread, too.
                tokio::task::yield_now().await;
            }
        }
    }));
    for _ in 0..3 {
        let newer = async {
            loop {
                let mut event = Some(feed.next().await);
                // Whoever follows takes what is there together, and then is busy with it while more is written.
                for _ in 0..1000 {
                    match event.take() {
                        Some(FeedEvent::Confirmed { revision }) if revision > confirmed => return revision,
                        Some(_) => event = feed.next().now_or_never(),
                        None => break,
                    }
                }
                sleep(BUSY).await;
            }
        };
        confirmed = match timeout(LIMIT, newer).await {
            Ok(newer) => newer,
            Err(_) => {
                panic!("a feed confirms at least once a second while others write, too, but did not within {LIMIT:?}")
            }
        };
    }
    assert!(!writer.is_finished(), "the writer writes all the time");
}

pub(in super::super) async fn a_feed_does_not_name_what_failed<S: Records>(store: &S) {
    let taken = create(store, &["taken"]).await.remove(0);
    let since = present(store).await;
    let refused = S::sample("refused");
    let outcome = store.apply(ChangeSet::new().create(refused.clone()).create(S::sample("taken"))).await;
    assert!(outcome.is_err(), "a taken name fails the set");
    let revision = works(
        store.apply(ChangeSet::new().put(S::changed(&taken, "other"), GenericExpect::Any)).await,
        "a record can be changed",
    );
    let keys = Feed::new(store.follow(Some(since))).keys_until(revision).await;
    assert_eq!(keys, BTreeSet::from([taken.key()]), "a feed does not name what a failed set would have changed");
}

pub(in super::super) async fn feeds_are_independent<S: Records>(store: &S) {
    let since = present(store).await;
    // This one is opened and never read, which must hold up nobody.
    let mut stalled = store.follow(Some(since));
    let first = timeout(LIMIT, stalled.next()).await;
    assert!(first.is_ok(), "a feed confirms at least once a second");
    let mut feeds: Vec<_> = (0..8).map(|_| Feed::new(store.follow(Some(since)))).collect();
    let names: Vec<_> = (0..50).map(|n| format!("busy-{n}")).collect();
    let records = create(store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let revision = present(store).await;
    let expected: BTreeSet<_> = records.iter().map(|record| record.key()).collect();
    for feed in &mut feeds {
        assert_eq!(feed.keys_until(revision).await, expected, "every feed names every change");
    }
    drop(stalled);
}

pub(in super::super) async fn a_feed_loses_nothing_while_many_write<S: Records>(store: &S) {
    let since = present(store).await;
    let mut feed = Feed::new(store.follow(Some(since)));
    let outcomes = race((0..RACERS).map(|n| {
        let store = store.clone();
        async move {
            let mut written: Vec<(StoreRevision, Key<S>)> = Vec::new();
            for m in 0..3 {
                let record = S::sample(&format!("parallel-{n}-{m}"));
                let key = record.key();
                written
                    .push((works(store.apply(ChangeSet::new().create(record)).await, "parallel commits succeed"), key));
            }
            written
        }
    }))
    .await;
    let written: Vec<_> = outcomes.into_iter().flatten().collect();
    let last = written.iter().map(|(revision, _)| *revision).max().expect("something was written");
    let keys = feed.keys_until(last).await;
    for (revision, key) in written {
        assert!(keys.contains(&key), "a feed that confirms {last} has delivered {revision}, which wrote {key}");
    }
}

pub(in super::super) async fn another_handle_sees_commits<S: Records>(first: &S, second: &S) {
    let since = present(second).await;
    let mut feed = Feed::new(second.follow(Some(since)));
    let mut fresh = Feed::new(second.follow(None));
    assert!(matches!(fresh.next().await, FeedEvent::Resync { .. }), "a feed without a position begins with a resync");
    let record = S::sample("far");
    let revision = works(first.apply(ChangeSet::new().create(record.clone())).await, "a new record can be written");
    let read = works(
        second.read(record.key()).await,
        "what was committed through one handle can be read through another at once",
    );
    assert_eq!(read.value, record, "both handles read the same");
    assert!(
        feed.keys_until(revision).await.contains(&record.key()),
        "a feed delivers what was committed through another handle"
    );
    assert!(
        fresh.keys_until(revision).await.contains(&record.key()),
        "a feed delivers what was committed through another handle"
    );
}

pub(in super::super) async fn writers_on_both_handles_race<S: Records>(first: &S, second: &S) {
    let record = create(first, &["shared"]).await.remove(0);
    let outcomes = race((0..RACERS).map(|n| {
        let store = if n % 2 == 0 { first.clone() } else { second.clone() };
        let change = S::changed(&record, &format!("writer {n}"));
        async move { store.apply(ChangeSet::new().put(change, Expect::Version(Version(1)))).await }
    }))
    .await;
    super::commit::one_wins(
        outcomes,
        crate::ErrorKind::Conflict,
        "of several writers with the same expectation exactly one succeeds, whatever handle they use",
    );
}
