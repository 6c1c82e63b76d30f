//! From each schema that there was, with rows of every kind in it, to the present one: by one that starts, and by many at once.

use super::File;
use crate::{SqlConfig, SqlSecrets, SqlStore, migrations::Migrator, sql::dialect::Dialect};
use archestra_core::{
    catalog::{CatalogStore, Kind, Query, Record},
    event::AuditRecord,
    feed::{ChangeSet, FeedEvent, PageRequest, StoreRevision},
    id::ConsumerId,
    identity::{IdentityKind, IdentityQuery, IdentityRecord, IdentityStore, TokenOwner},
    installation::Owner,
    secret::{Expect, KeyRing, SecretStore as _},
    state::{AuditQuery, AuditSink, StateKey, StateStore},
    testing::fixtures,
};
use futures::{StreamExt as _, future::try_join_all};
use sea_orm::ConnectionTrait as _;
use sea_orm_migration::MigratorTrait as _;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// How many start at once.
const STARTERS: usize = 8;
const HOUR: Duration = Duration::from_secs(3600);

/// What is in a database.
#[derive(Debug, PartialEq)]
struct Content {
    records: Vec<Record>,
    identities: Vec<IdentityRecord>,
    audit: Vec<AuditRecord>,
}

impl Content {
    async fn of(store: &SqlStore) -> Self {
        let mut content = Self { records: Vec::new(), identities: Vec::new(), audit: Vec::new() };
        let page = PageRequest::default();
        for kind in Kind::ALL {
            let found = CatalogStore::list(store, &Query::all(*kind), &page).await.unwrap().items;
            content.records.extend(found.into_iter().map(|found| found.value));
        }
        for kind in [
            IdentityKind::User,
            IdentityKind::Team,
            IdentityKind::Role,
            IdentityKind::Token,
            IdentityKind::Client,
            IdentityKind::IdentityProvider,
        ] {
            let found = IdentityStore::list(store, &IdentityQuery::all(kind), &page).await.unwrap().items;
            content.identities.extend(found.into_iter().map(|found| found.value));
        }
        content.audit = AuditSink::list(store, &AuditQuery::default()).await.unwrap().items;
        content
    }
}

/// Writes rows of every kind that there was in the first schema.
async fn fill(store: &SqlStore, ring: &Arc<KeyRing>) {
    let (entry, consumer) = (fixtures::remote_entry("tracker"), fixtures::gateway("main"));
    let (tool, installation) = (fixtures::tool(&entry, "search"), fixtures::installation(&entry, Owner::Organization));
    let assignment = fixtures::assignment(&consumer, &entry, &tool);
    let changes = ChangeSet::new()
        .create(fixtures::revision(&installation, 1))
        .create(entry)
        .create(consumer)
        .create(tool)
        .create(installation)
        .create(assignment)
        .create(fixtures::policy("rule"))
        .create(fixtures::limit("limit", 10));
    CatalogStore::commit(store, changes).await.unwrap();
    let user = fixtures::user("alice@example.com");
    let changes = ChangeSet::new()
        .create(fixtures::team("finance", [&user]))
        .create(fixtures::token("ci", TokenOwner::User(user.id)).1)
        .create(fixtures::role("auditor"))
        .create(fixtures::client("cli"))
        .create(fixtures::identity_provider("idp"))
        .create(user);
    IdentityStore::commit(store, changes).await.unwrap();
    let now = fixtures::now();
    let records = [fixtures::call_record("main", "search", now), fixtures::audit_record("entry.create", now)];
    AuditSink::write(store, &records).await.unwrap();
    StateStore::put(store, &StateKey::new("calls", "told/1"), "state".into(), HOUR).await.unwrap();
    store.add(&StateKey::new("window", "alice"), 7, HOUR).await.unwrap();
    let secrets = SqlSecrets::new(store, Arc::clone(ring));
    secrets.put(&fixtures::secret_ref("entry/a/1"), &fixtures::bundle(&[("k", "v")]), Expect::Absent).await.unwrap();
}

/// Brings a database from the schema after so many steps to the present one.
async fn upgrades(config: SqlConfig, steps: u32) {
    let ring = Arc::new(KeyRing::generate().unwrap());
    // This version does not use what came later for any of this.
    let older = SqlStore::over(Dialect::open(&config).await.unwrap(), &config);
    Migrator::up(&*older.db().writer_of_tests(), Some(steps)).await.unwrap();
    fill(&older, &ring).await;
    let before = Content::of(&older).await;
    assert!(before.records.len() == 8 && before.identities.len() == 6 && before.audit.len() == 2, "{before:?}");
    let instance = if steps < 3 { None } else { Some(older.instance().await.unwrap()) };
    older.close().await;

    let started = try_join_all((0..STARTERS).map(|_| SqlStore::connect(config.clone()))).await.unwrap();
    let instances = try_join_all(started.iter().map(SqlStore::instance)).await.unwrap();
    assert!(instances.iter().all(|one| *one == instance.unwrap_or(instances[0])), "{instances:?}");
    let store = &started[STARTERS - 1];
    assert_eq!(Content::of(store).await, before);
    for (action, count) in [(AuditRecord::CALL, 1), ("entry.create", 1), ("entry.remove", 0)] {
        let query = AuditQuery { action: Some(action.to_owned()), ..AuditQuery::default() };
        assert_eq!(AuditSink::list(store, &query).await.unwrap().items.len(), count, "{action}");
    }
    assert_eq!(store.scan("calls", "told/").await.unwrap().len(), 1);
    assert_eq!(store.add(&StateKey::new("window", "alice"), 1, HOUR).await.unwrap(), 8);
    let secrets = SqlSecrets::new(store, ring);
    secrets.verify_ring().await.unwrap();
    assert_eq!(secrets.get(&fixtures::secret_ref("entry/a/1")).await.unwrap().bundle, fixtures::bundle(&[("k", "v")]));

    // The feed goes on where it was, and everybody writes.
    let mut feed = CatalogStore::changes(store, Some(StoreRevision(1)));
    for (n, store) in started.iter().enumerate() {
        let client = fixtures::client(&format!("later-{n}"));
        let user = fixtures::user(&format!("later-{n}@example.com"));
        let grant = fixtures::grant(&user, &client, ConsumerId::new()).1;
        IdentityStore::commit(store, ChangeSet::new().create(client).create(user).create(grant)).await.unwrap();
        let entry = fixtures::remote_entry(&format!("later {n}"));
        CatalogStore::commit(store, ChangeSet::new().create(entry)).await.unwrap();
    }
    let mut changed = 0;
    while changed < STARTERS {
        match feed.next().await.unwrap().unwrap() {
            FeedEvent::Resync { .. } => panic!("the position was known"),
            FeedEvent::Changed { keys, .. } => changed += keys.len(),
            FeedEvent::Confirmed { .. } => {}
        }
    }
    for store in started {
        store.close().await;
    }
}

fn steps() -> impl Iterator<Item = u32> {
    1..u32::try_from(Migrator::migrations().len()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_older_schema_with_rows_becomes_the_present_one_on_sqlite() {
    for steps in steps() {
        let file = File::new();
        upgrades(file.config(), steps).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
#[expect(clippy::disallowed_methods, reason = "the environment says where the server is")]
async fn every_older_schema_with_rows_becomes_the_present_one_on_postgresql() {
    let server = std::env::var("ARCHESTRA_TEST_POSTGRES_URL").expect("run .ci/postgres and do what it prints");
    let (at, _) = server.rsplit_once('/').unwrap();
    let root = sea_orm::Database::connect(&server).await.unwrap();
    for steps in steps() {
        let name = format!("archestra_upgrade_{}", Uuid::now_v7().simple());
        root.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        // Each of them has a few connections, and the server takes a hundred.
        upgrades(SqlConfig::new(format!("{at}/{name}")).readers(1).writers(2), steps).await;
        root.execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    }
}
