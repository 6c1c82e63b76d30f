//! Opening a database: what is refused and how, and many processes that open a new one at once.

use crate::support::{Fresh, server};
use archestra_core::{
    Error, ErrorKind,
    catalog::{CatalogStore as _, CatalogStoreExt as _, Entry, Kind, Query},
    feed::ChangeSet,
    testing::fixtures,
};
use archestra_store::{SqlConfig, SqlStore};
use sea_orm::ConnectionTrait as _;
use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;

async fn refusal(url: &str) -> Error {
    let config = SqlConfig::new(url).connect_timeout(Duration::from_secs(3));
    let shown = format!("{config:?}");
    let error = SqlStore::connect(config).await.unwrap_err();
    assert!(!format!("{error} {error:?} {shown}").contains("canary"), "{error:?}");
    error
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn what_keeps_us_out_is_named_with_a_remedy() {
    let fresh = Fresh::new().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().map(|at| (at.port(), silent)).unwrap();
    for (url, kind, expected) in [
        (
            fresh.url_as("nobody", "canary", &fresh.name),
            ErrorKind::PermissionDenied,
            "does not let the user \"nobody\" in (password authentication failed",
        ),
        (
            fresh.url_as("archestra", "canary", &fresh.name),
            ErrorKind::PermissionDenied,
            "check the user and the password",
        ),
        (
            server().rsplit_once('/').unwrap().0.to_owned() + "/no_such_database",
            ErrorKind::Invalid,
            "CREATE DATABASE \"no_such_database\" OWNER \"archestra\"",
        ),
        (
            format!("postgres://u:canary@127.0.0.1:{closed}/a"),
            ErrorKind::Unavailable,
            "cannot be reached: Connection refused",
        ),
        (format!("postgres://u:canary@127.0.0.1:{}/a", silent.0), ErrorKind::Unavailable, "did not answer within 3s"),
        ("postgres://u:canary@no-such-host.invalid/a".to_owned(), ErrorKind::Unavailable, "cannot be reached"),
        (format!("{}?sslmode=require", fresh.url()), ErrorKind::Invalid, "check sslmode and sslrootcert"),
    ] {
        let error = refusal(&url).await;
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn a_user_without_rights_is_refused() {
    let fresh = Fresh::new().await;
    let raw = fresh.raw().await;
    let user = format!("u{}", uuid::Uuid::now_v7().simple());
    raw.execute_unprepared(&format!("CREATE ROLE {user} LOGIN PASSWORD 'canary'")).await.unwrap();
    let error = refusal(&fresh.url_as(&user, "canary", &fresh.name)).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.to_string().contains("grant it CREATE and USAGE"), "{error}");
    // With our tables made by somebody else it still may not write.
    fresh.open().await.close().await;
    raw.execute_unprepared(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}")).await.unwrap();
    let error = refusal(&fresh.url_as(&user, "canary", &fresh.name)).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    raw.execute_unprepared(&format!("DROP OWNED BY {user}; DROP ROLE {user}")).await.unwrap();
    raw.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn a_database_that_cannot_be_written_is_refused() {
    let fresh = Fresh::new().await;
    let raw = sea_orm::Database::connect(server()).await.unwrap();
    for open_before in [false, true] {
        if open_before {
            fresh.open().await.close().await;
        }
        let read_only =
            |value: &str| format!("ALTER DATABASE {} SET default_transaction_read_only = {value}", fresh.name);
        raw.execute_unprepared(&read_only("on")).await.unwrap();
        let error = refusal(&fresh.url()).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        assert!(error.to_string().contains("name the primary and not a standby"), "{error}");
        raw.execute_unprepared(&read_only("off")).await.unwrap();
    }
    raw.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn a_newer_schema_is_refused() {
    let fresh = Fresh::new().await;
    fresh.open().await.close().await;
    let raw = fresh.raw().await;
    raw.execute_unprepared("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20990101_000001_later', 0)")
        .await
        .unwrap();
    raw.close().await.unwrap();
    let error = refusal(&fresh.url()).await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    let text = error.to_string();
    assert!(text.contains("m20990101_000001_later") && text.contains("start the newer version"), "{text}");
    assert!(text.contains(&fresh.name), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a PostgreSQL server"]
async fn many_may_open_a_new_database_at_once() {
    for _ in 0..3 {
        let fresh = Fresh::new().await;
        let opening: Vec<_> = (0..12).map(|_| tokio::spawn(SqlStore::connect(fresh.config()))).collect();
        let mut open = Vec::new();
        for (n, opened) in opening.into_iter().enumerate() {
            let store = opened.await.unwrap().unwrap();
            store.commit(ChangeSet::new().create(fixtures::remote_entry(&format!("entry {n}")))).await.unwrap();
            open.push(store);
        }
        assert_eq!(open[0].list_all::<Entry>(Query::all(Kind::Entry)).await.unwrap().len(), 12);
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn the_server_knows_us_and_our_limits() {
    let fresh = Fresh::new().await;
    let config = fresh.config().lock_timeout(Duration::from_millis(300)).application_name("replica-7");
    let store = SqlStore::connect(config).await.unwrap();
    let entry = fixtures::remote_entry("before");
    store.commit(ChangeSet::new().create(entry.clone())).await.unwrap();
    let raw = fresh.raw().await;
    let ours =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'replica-7' AND datname = current_database()";
    let connections = crate::support::number(&raw, ours).await;
    assert!((2..=10).contains(&connections), "{connections}");
    // Somebody who holds the lock for long makes writes fail in time and not hang; reads go on.
    let blocker = sea_orm::TransactionTrait::begin(&raw).await.unwrap();
    blocker.execute_unprepared("UPDATE feed_head SET floor = floor").await.unwrap();
    let error = store.commit(ChangeSet::new().create(fixtures::remote_entry("blocked"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("holds a transaction open"), "{error}");
    assert!(store.get(entry.id.into()).await.is_ok());
    blocker.rollback().await.unwrap();
    store.commit(ChangeSet::new().create(fixtures::remote_entry("after"))).await.unwrap();
    raw.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn text_that_the_database_cannot_hold_is_refused_as_such() {
    let fresh = Fresh::new().await;
    let store = fresh.open().await;
    let error = store.commit(ChangeSet::new().create(fixtures::remote_entry("a\0b"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    store.commit(ChangeSet::new().create(fixtures::remote_entry("ab"))).await.unwrap();
}

#[derive(Debug, Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn no_password_is_in_logs_and_spans_of_any_level() {
    let fresh = Fresh::new().await;
    let printed = Printed::default();
    let writer = printed.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let store = fresh.open().await;
    store.commit(ChangeSet::new().create(fixtures::remote_entry("entry"))).await.unwrap();
    let shown = format!("{store:?}");
    store.close().await;
    refusal(&fresh.url_as("archestra", "canary", &fresh.name)).await;
    drop(guard);
    let printed = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap() + &shown;
    let url = server();
    let password = url.split_once("://").unwrap().1.split_once('@').unwrap().0.split_once(':').unwrap().1;
    assert!(!printed.contains(password) && !printed.contains("canary"), "{printed}");
}
