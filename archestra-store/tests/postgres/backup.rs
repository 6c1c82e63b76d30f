//! A backup goes from one kind of database to the other and back, and is as of one moment.

use crate::support::{Fresh, number};
use archestra_core::{
    ErrorKind,
    catalog::CatalogStore,
    feed::ChangeSet,
    id::ConsumerId,
    identity::{IdentityStore, TokenOwner},
    installation::Owner,
    secret::{Expect, KeyRing, SecretStore},
    testing::fixtures,
};
use archestra_store::{SqlConfig, SqlSecrets, SqlStore};
use sea_orm::ConnectionTrait as _;
use std::sync::Arc;

async fn backup(store: &SqlStore) -> String {
    let mut bytes = Vec::new();
    store.backup(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The rows, whatever their order: databases sort text differently.
fn rows(backup: &str) -> Vec<&str> {
    let mut rows: Vec<&str> = backup.lines().skip(1).collect();
    rows.sort_unstable();
    rows
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn a_backup_goes_to_the_other_kind_of_database_and_back() {
    let (first, server, back) = (
        SqlStore::connect(SqlConfig::new("sqlite::memory:")).await.unwrap(),
        Fresh::new().await,
        SqlStore::connect(SqlConfig::new("sqlite::memory:")).await.unwrap(),
    );
    let ring = Arc::new(KeyRing::generate().unwrap());
    for n in 0..250 {
        let mut entry = fixtures::remote_entry(&format!("entry {n} \u{e4}\u{1F511}"));
        entry.spec.labels.insert("department", "finance");
        let tool = fixtures::tool(&entry, "echo");
        let (gateway, installation) =
            (fixtures::gateway(&format!("gateway-{n}")), fixtures::installation(&entry, Owner::Organization));
        let assignment = fixtures::assignment(&gateway, &entry, &tool);
        let changes = ChangeSet::new().create(entry).create(tool).create(gateway).create(installation);
        CatalogStore::commit(&first, changes.create(assignment)).await.unwrap();
    }
    let (_, token) = fixtures::token("ci", TokenOwner::Organization);
    IdentityStore::commit(&first, ChangeSet::new().create(token)).await.unwrap();
    let (user, provider) = (fixtures::user("alice@example.com"), fixtures::identity_provider("okta"));
    let client = fixtures::machine_client("machine", [ConsumerId::new()]);
    let (_, grant) = fixtures::grant(&user, &client, ConsumerId::new());
    let changes = ChangeSet::new()
        .create(fixtures::access_token(&grant).1)
        .create(fixtures::machine_grant(&client, ConsumerId::new()))
        .create(fixtures::consent(&user, &client, ConsumerId::new()))
        .create(fixtures::linked_identity(&user, &provider, "00u1"));
    let changes = changes.create(grant).create(user).create(client).create(provider);
    IdentityStore::commit(&first, changes).await.unwrap();
    let secrets = SqlSecrets::new(&first, Arc::clone(&ring));
    let reference = fixtures::secret_ref("entries/one");
    secrets.put(&reference, &fixtures::bundle(&[("token", "t0k")]), Expect::Any).await.unwrap();

    let made = backup(&first).await;
    let second = server.open().await;
    second.restore(&mut made.as_bytes()).await.unwrap();
    let there = backup(&second).await;
    assert_eq!(rows(&there), rows(&made));
    assert_eq!(second.instance().await.unwrap(), first.instance().await.unwrap());
    let stored = SqlSecrets::new(&second, ring).get(&reference).await.unwrap();
    assert_eq!(stored.bundle, fixtures::bundle(&[("token", "t0k")]));
    assert!(second.restore(&mut made.as_bytes()).await.unwrap_err().to_string().contains("empty database"));
    back.restore(&mut there.as_bytes()).await.unwrap();
    assert_eq!(rows(&backup(&back).await), rows(&made));
    second.close().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL and PgBouncer"]
async fn a_backup_changes_nothing_and_refuses_an_older_schema() {
    let fresh = Fresh::new().await;
    let store = fresh.open().await;
    CatalogStore::commit(&store, ChangeSet::new().create(fixtures::remote_entry("entry"))).await.unwrap();
    let raw = fresh.raw().await;
    let steps = number(&raw, "SELECT COUNT(*) FROM seaql_migrations").await;
    for url in [fresh.url(), fresh.pooled_url()] {
        let reading = SqlStore::open_read_only(SqlConfig::new(&url)).await.unwrap();
        assert_eq!(rows(&backup(&reading).await), rows(&backup(&store).await));
        let change = ChangeSet::new().create(fixtures::remote_entry("other"));
        let error = CatalogStore::commit(&reading, change).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Backend && error.to_string().contains("cannot be written"), "{error:?}");
        reading.close().await;

        let removed = "DELETE FROM seaql_migrations WHERE version = 'm20261120_000004_audit'";
        raw.execute_unprepared(removed).await.unwrap();
        let error = SqlStore::open_read_only(SqlConfig::new(&url)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("000004_audit"), "{error:?}");
        assert_eq!(
            number(&raw, "SELECT COUNT(*) FROM seaql_migrations").await,
            steps - 1,
            "it is no newer than before"
        );
        let again = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20261120_000004_audit', 0)";
        raw.execute_unprepared(again).await.unwrap();
    }
    store.close().await;
    raw.close().await.unwrap();
}
