//! Backends that fail on demand.

use archestra_core::{
    ErrorKind,
    catalog::CatalogStore,
    feed::{ChangeSet, FeedEvent, StoreRevision},
    secret::{Expect, SecretStore},
    testing::{Faulty, MemoryCatalog, MemorySecrets, fixtures},
};
use futures::StreamExt as _;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

#[tokio::test]
async fn the_next_calls_fail_without_effect() {
    let store = Faulty::new(Arc::new(MemorySecrets::new()));
    store.faults().fail_next(2);
    let (reference, bundle) = (fixtures::secret_ref("entry/a/1"), fixtures::bundle(&[("token", "t0k")]));
    for _ in 0..2 {
        let error = store.put(&reference, &bundle, Expect::Absent).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true));
    }
    assert!(store.inner().get(&reference).await.is_err());
    store.put(&reference, &bundle, Expect::Absent).await.unwrap();
    assert_eq!(store.faults().calls(), 3);
}

#[tokio::test]
async fn an_outage_begins_after_some_calls_and_ends_when_it_is_healed() {
    let store = Faulty::new(Arc::new(MemoryCatalog::new()));
    store.faults().fail_after(1);
    store.commit(ChangeSet::new().create(fixtures::remote_entry("first"))).await.unwrap();
    for _ in 0..3 {
        assert_eq!(
            store.commit(ChangeSet::new().create(fixtures::remote_entry("second"))).await.unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }
    store.faults().heal();
    assert_eq!(store.commit(ChangeSet::new()).await.unwrap(), StoreRevision(1));
}

#[tokio::test]
async fn a_lost_answer_has_its_effect() {
    let store = Faulty::new(Arc::new(MemoryCatalog::new()));
    store.faults().lose_answers(1);
    let entry = fixtures::remote_entry("lost");
    assert_eq!(store.commit(ChangeSet::new().create(entry.clone())).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.commit(ChangeSet::new().create(entry)).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn calls_are_delayed() {
    let store = Faulty::new(Arc::new(MemorySecrets::new()));
    store.faults().delay(Duration::from_secs(7));
    let start = Instant::now();
    store.list("").await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_feed_sends_errors_during_an_outage_and_loses_nothing() {
    let store = Faulty::new(Arc::new(MemoryCatalog::new()) as Arc<dyn CatalogStore>);
    let mut feed = store.changes(Some(StoreRevision(0)));
    assert!(matches!(feed.next().await.unwrap().unwrap(), FeedEvent::Confirmed { .. }));
    store.faults().fail_after(0);
    let entry = fixtures::remote_entry("meanwhile");
    store.inner().commit(ChangeSet::new().create(entry.clone())).await.unwrap();
    let mut errors = 0;
    loop {
        match feed.next().await.unwrap() {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                errors += 1;
                if errors == 3 {
                    store.faults().heal();
                }
            }
            Ok(FeedEvent::Changed { keys, .. }) => {
                assert_eq!(keys, [entry.id.into()]);
                break;
            }
            Ok(other) => assert!(matches!(other, FeedEvent::Confirmed { .. }), "{other:?}"),
        }
    }
}
