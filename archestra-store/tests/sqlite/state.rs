//! Shared state and audit records: expiry, limits, and the ends of counters.

use crate::support::{file, fresh_path, memory, open};
use archestra_core::{
    ErrorKind,
    state::{AuditQuery, AuditSink, StateKey, StateStore},
    testing::fixtures,
};
use bytes::Bytes;
use chrono::TimeDelta;
use sea_orm::{ConnectionTrait as _, Statement};
use std::time::Duration;
use tokio::time::sleep;

const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn expired_state_is_removed_as_others_write() {
    let path = fresh_path();
    let store = open(&path).await;
    for n in 0..300 {
        StateStore::put(
            &store,
            &StateKey::new("old", n.to_string()),
            Bytes::from_static(b"x"),
            Duration::from_millis(1),
        )
        .await
        .unwrap();
    }
    sleep(Duration::from_millis(20)).await;
    assert_eq!(store.scan("old", "").await.unwrap(), []);
    for n in 0..128 {
        store.add(&StateKey::new("new", n.to_string()), 1, TTL).await.unwrap();
    }
    let raw = sea_orm::Database::connect(format!("sqlite://{}", path.display())).await.unwrap();
    let left = Statement::from_string(raw.get_database_backend(), "SELECT count(*) FROM state");
    assert_eq!(raw.query_one_raw(left).await.unwrap().unwrap().try_get_by_index::<i64>(0).unwrap(), 0);
    raw.close().await.unwrap();
}

#[tokio::test]
async fn counters_stop_at_their_ends() {
    let store = memory().await;
    let key = StateKey::new("counter", "one");
    assert_eq!(store.add(&key, i64::MAX - 1, TTL).await.unwrap(), i64::MAX - 1);
    assert_eq!(store.add(&key, 5, TTL).await.unwrap(), i64::MAX);
    assert_eq!(store.add(&key, -1, TTL).await.unwrap(), i64::MAX - 1);
    assert_eq!(store.add(&key, i64::MIN, TTL).await.unwrap(), -2);
    assert_eq!(store.add(&key, i64::MIN, TTL).await.unwrap(), i64::MIN);
}

#[tokio::test]
async fn values_that_are_too_long_are_refused() {
    let store = file().await;
    let key = StateKey::new("space", "name");
    StateStore::put(&store, &key, vec![7; 64 * 1024].into(), Duration::MAX).await.unwrap();
    assert_eq!(
        StateStore::put(&store, &key, vec![7; 64 * 1024 + 1].into(), TTL).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(StateStore::get(&store, &key).await.unwrap().unwrap().len(), 64 * 1024);
    assert_eq!(store.scan("space", "na").await.unwrap().len(), 1);
    assert_eq!(store.scan("space", "%").await.unwrap(), []);
}

#[tokio::test]
async fn audit_records_come_in_pages_and_go_with_age() {
    let store = file().await;
    let now = fixtures::now();
    let records: Vec<_> =
        (0..250).map(|n| fixtures::call_record("finance", "echo", now - TimeDelta::seconds(n / 3))).collect();
    AuditSink::write(&store, &records).await.unwrap();
    AuditSink::write(&store, &records[..100]).await.unwrap();
    let mut query = AuditQuery { consumer: Some("finance".to_owned()), limit: 37, ..AuditQuery::default() };
    let mut seen = Vec::new();
    loop {
        let page = AuditSink::list(&store, &query).await.unwrap();
        seen.extend(page.items);
        match page.next {
            Some(cursor) => query.cursor = Some(cursor),
            None => break,
        }
    }
    assert_eq!(seen.len(), 250);
    assert!(seen.windows(2).all(|pair| pair[0].at >= pair[1].at));
    assert_eq!(AuditSink::prune(&store, now - TimeDelta::seconds(40)).await.unwrap(), 250 - 3 * 41);
    assert_eq!(AuditSink::get(&store, records[249].id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(AuditSink::get(&store, records[0].id).await.unwrap(), records[0]);
}
