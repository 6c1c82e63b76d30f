//! Behind PgBouncer, which lends a connection to the server for one transaction: the conformance suites, and what a session would
//! be needed for.

use crate::{
    hammer::{hammer, seconds},
    support::{Fresh, mixed_pair, number, pooled_secrets, pooled_store},
};
use archestra_core::{
    ErrorKind,
    catalog::{CatalogStore, CatalogStoreExt as _, Entry, Kind, Query},
    feed::{ChangeSet, FeedEvent},
    testing::fixtures,
};
use archestra_store::{SqlConfig, SqlStore};
use futures::StreamExt as _;
use sea_orm::{
    ConnectionTrait as _,
    sqlx::{self, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions},
};
use std::time::Duration;
use tokio::time::{Instant, timeout};

archestra_core::catalog_store_conformance!(
    #[ignore = "needs PostgreSQL and PgBouncer"]
    catalog,
    async { pooled_store().await }
);
archestra_core::catalog_store_pair_conformance!(
    #[ignore = "needs PostgreSQL and PgBouncer"]
    catalog_pair,
    async {
        let (first, second) = mixed_pair().await;
        (first as _, second as _)
    }
);
archestra_core::identity_store_conformance!(
    #[ignore = "needs PostgreSQL and PgBouncer"]
    identity,
    async { pooled_store().await }
);
archestra_core::identity_store_pair_conformance!(
    #[ignore = "needs PostgreSQL and PgBouncer"]
    identity_pair,
    async {
        let (first, second) = mixed_pair().await;
        (first as _, second as _)
    }
);
archestra_core::state_store_conformance!(
    #[ignore = "needs PostgreSQL and PgBouncer"]
    state,
    async { pooled_store().await }
);
archestra_core::state_store_pair_conformance!(
    #[ignore = "needs PostgreSQL and PgBouncer"]
    state_pair,
    async {
        let (first, second) = mixed_pair().await;
        (first as _, second as _)
    }
);
archestra_core::audit_sink_conformance!(
    #[ignore = "needs PostgreSQL and PgBouncer"]
    audit,
    async { pooled_store().await }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs PostgreSQL and PgBouncer"]
    secrets,
    async { pooled_secrets().await }
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and PgBouncer"]
async fn changes_are_followed_in_either_direction() {
    let fresh = Fresh::new().await;
    let (pooled, direct) = (fresh.open_pooled().await, fresh.open().await);
    for (near, far) in [(&pooled, &direct), (&direct, &pooled)] {
        let mut events = CatalogStore::changes(near, None);
        assert!(matches!(events.next().await.unwrap().unwrap(), FeedEvent::Resync { .. }));
        for _ in 0..10 {
            let name = uuid::Uuid::now_v7().to_string();
            let revision = far.commit(ChangeSet::new().create(fixtures::remote_entry(&name))).await.unwrap();
            let seen = async {
                loop {
                    if let FeedEvent::Changed { revision, .. } = events.next().await.unwrap().unwrap() {
                        return revision;
                    }
                }
            };
            assert_eq!(timeout(Duration::from_secs(30), seen).await.unwrap(), revision);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL and PgBouncer"]
async fn many_may_open_a_new_database_at_once() {
    let fresh = Fresh::new().await;
    let urls = [fresh.pooled_url(), fresh.url()];
    let opening: Vec<_> =
        (0..12).map(|n| tokio::spawn(SqlStore::connect(SqlConfig::new(&urls[usize::from(n % 3 == 2)])))).collect();
    let mut open = Vec::new();
    for (n, opened) in opening.into_iter().enumerate() {
        let store = opened.await.unwrap().unwrap();
        store.commit(ChangeSet::new().create(fixtures::remote_entry(&format!("entry {n}")))).await.unwrap();
        open.push(store);
    }
    assert_eq!(open[0].list_all::<Entry>(Query::all(Kind::Entry)).await.unwrap().len(), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL and PgBouncer"]
async fn sixteen_writers_and_readers_lose_nothing() {
    let fresh = Fresh::new().await;
    hammer([fresh.open_pooled().await, fresh.open().await], seconds(3)).await;
    let raw = fresh.raw().await;
    let deadlocks =
        "SELECT coalesce(sum(deadlocks), 0)::bigint FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(number(&raw, deadlocks).await, 0);
    raw.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and PgBouncer"]
async fn the_servers_limits_hold_for_writes_and_reads_and_for_nobody_else() {
    let fresh = Fresh::new().await;
    let config = SqlConfig::new(fresh.pooled_url()).lock_timeout(Duration::from_millis(300));
    let store = SqlStore::connect(config).await.unwrap();
    let entry = fixtures::remote_entry("before");
    store.commit(ChangeSet::new().create(entry.clone())).await.unwrap();
    let raw = fresh.raw().await;
    let blocker = sea_orm::TransactionTrait::begin(&raw).await.unwrap();
    blocker.execute_unprepared("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let begun = Instant::now();
    let written = store.commit(ChangeSet::new().create(fixtures::remote_entry("blocked"))).await.unwrap_err();
    let read = store.get(entry.id.into()).await.unwrap_err();
    for error in [written, read] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.to_string().contains("holds a transaction open"), "{error}");
    }
    // Long before they would have given up by themselves.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    blocker.rollback().await.unwrap();
    assert!(store.get(entry.id.into()).await.is_ok());
    // What others are lent afterwards is as they left it.
    let options: PgConnectOptions = fresh.pooled_url().parse().unwrap();
    let mut other = PgConnection::connect_with(&options.extra_float_digits(None)).await.unwrap();
    for _ in 0..10 {
        let query = "SELECT COUNT(*)::text FROM pg_settings WHERE name IN ('lock_timeout', 'statement_timeout') AND setting = '0'";
        let row = sqlx::raw_sql(query).fetch_one(&mut other).await.unwrap();
        assert_eq!(row.get::<String, _>(0), "2");
    }
    other.close().await.unwrap();
    raw.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and PgBouncer"]
async fn it_goes_on_when_the_poolers_connections_to_the_server_are_cut() {
    let fresh = Fresh::new().await;
    let store = fresh.open_pooled().await;
    let raw = fresh.raw().await;
    for n in 0..6 {
        let entry = fixtures::remote_entry(&format!("entry {n}"));
        store.commit(ChangeSet::new().create(entry.clone())).await.unwrap();
        assert!(fresh.cut(&raw).await >= 1);
        let begun = Instant::now();
        while store.get(entry.id.into()).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "no recovery");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    raw.close().await.unwrap();
}
