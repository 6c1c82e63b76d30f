//! Many at once, and much at once.

use crate::{
    hammer::{hammer, seconds},
    support::{Fresh, number, ring},
};
use archestra_core::{
    catalog::{CatalogStore, CatalogStoreExt as _, Query},
    feed::ChangeSet,
    secret::{Expect, SecretStore as _},
    state::{AuditQuery, AuditSink, StateKey, StateStore},
    testing::fixtures,
    tool::Tool,
};
use archestra_store::SqlSecrets;
use bytes::Bytes;
use chrono::TimeDelta;
use sea_orm::ConnectionTrait as _;
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a PostgreSQL server"]
async fn sixteen_writers_and_readers_on_two_handles_lose_nothing() {
    let fresh = Fresh::new().await;
    hammer([fresh.open().await, fresh.open().await], seconds(3)).await;
    let raw = fresh.raw().await;
    let deadlocks = number(
        &raw,
        "SELECT coalesce(sum(deadlocks), 0)::bigint FROM pg_stat_database WHERE datname = current_database()",
    )
    .await;
    assert_eq!(deadlocks, 0);
    raw.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a PostgreSQL server"]
async fn writes_of_all_kinds_at_once_do_not_stop_each_other() {
    let fresh = Fresh::new().await;
    let handles = [fresh.open().await, fresh.open().await];
    let ring = ring();
    let end = Instant::now() + seconds(3);
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let store = handles[n % 2].clone();
        let secrets = SqlSecrets::new(&store, std::sync::Arc::clone(&ring));
        tasks.spawn(async move {
            let mut round = 0;
            while Instant::now() < end {
                round += 1;
                let record = fixtures::call_record("finance", "echo", fixtures::now() - TimeDelta::days(400));
                AuditSink::write(&store, &vec![record; 3]).await.unwrap();
                AuditSink::prune(&store, fixtures::now() - TimeDelta::days(90)).await.unwrap();
                let key = StateKey::new("limit", format!("{}", round % 5));
                store.add(&key, 1, Duration::from_millis(5)).await.unwrap();
                let key = StateKey::new("code", format!("{n}-{round}"));
                StateStore::put(&store, &key, Bytes::from_static(b"x"), Duration::from_millis(1)).await.unwrap();
                let reference = fixtures::secret_ref(&format!("entry/{}", round % 3));
                secrets.put(&reference, &fixtures::bundle(&[("k", "v")]), Expect::Any).await.unwrap();
                secrets.reseal(None, 10).await.unwrap();
                CatalogStore::commit(&store, ChangeSet::new().create(fixtures::remote_entry(&format!("{n} {round}"))))
                    .await
                    .unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn commits_that_wait_leave_a_connection_to_other_writes() {
    let fresh = Fresh::new().await;
    let store = fresh.open().await;
    let (raw, other) = (fresh.raw().await, fresh.raw().await);
    let blocker = sea_orm::TransactionTrait::begin(&raw).await.unwrap();
    blocker.execute_unprepared("SELECT revision FROM feed_head FOR UPDATE").await.unwrap();
    let mut commits = JoinSet::new();
    for n in 0..8 {
        let store = store.clone();
        commits.spawn(async move {
            let entry = fixtures::remote_entry(&format!("waits {n}"));
            CatalogStore::commit(&store, ChangeSet::new().create(entry)).await.unwrap();
        });
    }
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while number(&other, waiting).await < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let key = StateKey::new("limit", "meanwhile".to_owned());
    store.add(&key, 1, Duration::from_secs(60)).await.unwrap();
    assert_eq!(number(&other, waiting).await, 3, "the others wait without a connection");
    blocker.rollback().await.unwrap();
    while let Some(done) = commits.join_next().await {
        done.unwrap();
    }
    raw.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn a_thousand_tools_are_stored_at_once() {
    let fresh = Fresh::new().await;
    let store = fresh.open().await;
    let entry = fixtures::remote_entry("big");
    CatalogStore::commit(&store, ChangeSet::new().create(entry.clone())).await.unwrap();
    let tools = (0..1000).map(|n| fixtures::tool(&entry, &format!("tool_{n:06}")));
    CatalogStore::commit(&store, tools.fold(ChangeSet::new(), ChangeSet::create)).await.unwrap();
    assert_eq!(store.list_all::<Tool>(Query::Tools { entry: Some(entry.id) }).await.unwrap().len(), 1000);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn audit_records_come_in_pages_and_go_with_age() {
    let fresh = Fresh::new().await;
    let store = fresh.open().await;
    let now = fixtures::now();
    let records: Vec<_> =
        (0..12_000).map(|n| fixtures::call_record("finance", "echo", now - TimeDelta::seconds(n / 3))).collect();
    for batch in records.chunks(1000) {
        AuditSink::write(&store, batch).await.unwrap();
    }
    AuditSink::write(&store, &records[..100]).await.unwrap();
    let mut query = AuditQuery { consumer: Some("finance".to_owned()), limit: 999, ..AuditQuery::default() };
    let mut seen = Vec::new();
    loop {
        let page = AuditSink::list(&store, &query).await.unwrap();
        seen.extend(page.items);
        match page.next {
            Some(cursor) => query.cursor = Some(cursor),
            None => break,
        }
    }
    assert_eq!(seen.len(), records.len());
    assert!(seen.windows(2).all(|pair| pair[0].at >= pair[1].at));
    assert_eq!(AuditSink::prune(&store, now - TimeDelta::seconds(40)).await.unwrap(), 12_000 - 3 * 41);
    assert_eq!(AuditSink::prune(&store, now - TimeDelta::seconds(40)).await.unwrap(), 0);
}
