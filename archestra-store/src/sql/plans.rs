//! Every list is read along an index, in its order, on either database.

use super::{SqlConfig, SqlStore, audit, catalog, identity, state};
use archestra_core::{
    catalog::{Kind, Labels, Query},
    consumer::ConsumerKind,
    event::AuditRecord,
    id::{ClientId, ConsumerId, EntryId, GrantId, IdentityProviderId, InstallationId, TeamId, UserId},
    identity::{IdentityQuery, TokenOwner},
    installation::Owner,
    runtime::WorkloadId,
    state::AuditQuery,
};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement, TransactionTrait as _, sea_query::SelectStatement};
use uuid::Uuid;

/// One of the actions that have an index.
const ACTION: &str = "entry.create";

/// What is listed, and whether all of it is read along one index. Otherwise the matches are few and are sorted.
fn lists() -> Vec<(String, SelectStatement, Order)> {
    let entry = Some(EntryId::from_uuid(Uuid::now_v7()));
    let user = UserId::from_uuid(Uuid::now_v7());
    let installation = Some(InstallationId::from_uuid(Uuid::now_v7()));
    let consumer = Some(ConsumerId::from_uuid(Uuid::now_v7()));
    let labels: Labels = [("department", "finance"), ("region", "eu")].into_iter().collect();
    let mut queries: Vec<(Query, Order)> = Kind::ALL.iter().map(|kind| (Query::all(*kind), Order::Index)).collect();
    queries.extend([
        (Query::Entries { search: Some("text".to_owned()), labels: None }, Order::Index),
        (Query::Entries { search: None, labels: Some(labels) }, Order::Matches),
        (Query::Installations { entry, owner: None }, Order::Index),
        (Query::Installations { entry: None, owner: Some(Owner::User(user)) }, Order::Index),
        (
            Query::Installations { entry: None, owner: Some(Owner::Team(TeamId::from_uuid(Uuid::now_v7()))) },
            Order::Index,
        ),
        (Query::Tools { entry }, Order::Index),
        (Query::Consumers { kind: Some(ConsumerKind::Agent) }, Order::Index),
        (Query::Assignments { consumer, entry: None, installation: None }, Order::Index),
        (Query::Assignments { consumer: None, entry, installation: None }, Order::Index),
        (Query::Assignments { consumer: None, entry: None, installation }, Order::Index),
        (Query::Revisions { workload: Some(WorkloadId::of_entry(EntryId::from_uuid(Uuid::now_v7()))) }, Order::Index),
    ]);
    let client = ClientId::from_uuid(Uuid::now_v7());
    let grant = Some(GrantId::from_uuid(Uuid::now_v7()));
    let provider = Some(IdentityProviderId::from_uuid(Uuid::now_v7()));
    let expired = Some(chrono::Utc::now());
    let grants = |user, client, consumer, expired| IdentityQuery::Grants { user, client, consumer, expired };
    let identities = [
        (IdentityQuery::Users { search: None }, Order::Index),
        (IdentityQuery::Users { search: Some("text".to_owned()) }, Order::Index),
        (IdentityQuery::Teams { member: None }, Order::Index),
        (IdentityQuery::Teams { member: Some(user) }, Order::Matches),
        (IdentityQuery::Tokens { owner: None }, Order::Index),
        (IdentityQuery::Tokens { owner: Some(TokenOwner::User(user)) }, Order::Index),
        (IdentityQuery::Roles, Order::Index),
        (IdentityQuery::Clients, Order::Index),
        (IdentityQuery::Providers, Order::Index),
        (IdentityQuery::Tokens { owner: Some(TokenOwner::Client(client)) }, Order::Index),
        (IdentityQuery::AccessTokens { grant: None, expired: None }, Order::Matches),
        (IdentityQuery::AccessTokens { grant, expired: None }, Order::Matches),
        (IdentityQuery::AccessTokens { grant: None, expired }, Order::Matches),
        (grants(None, None, None, None), Order::Index),
        (grants(Some(user), None, None, None), Order::Index),
        (grants(None, Some(client), None, None), Order::Index),
        (grants(None, None, consumer, None), Order::Index),
        (grants(None, None, None, expired), Order::Matches),
        (IdentityQuery::Consents { user: None, client: None }, Order::Index),
        (IdentityQuery::Consents { user: Some(user), client: None }, Order::Index),
        (IdentityQuery::Consents { user: None, client: Some(client) }, Order::Index),
        (IdentityQuery::LinkedIdentities { user: None, provider: None }, Order::Index),
        (IdentityQuery::LinkedIdentities { user: Some(user), provider: None }, Order::Index),
        (IdentityQuery::LinkedIdentities { user: None, provider }, Order::Index),
    ];
    let audit = [
        AuditQuery::default(),
        AuditQuery { action: Some(AuditRecord::CALL.to_owned()), ..AuditQuery::default() },
        AuditQuery { action: Some(ACTION.to_owned()), ..AuditQuery::default() },
        AuditQuery { actor: Some("alice".to_owned()), ..AuditQuery::default() },
        AuditQuery { consumer: Some("finance".to_owned()), ..AuditQuery::default() },
        AuditQuery { from: Some(chrono::Utc::now()), until: Some(chrono::Utc::now()), ..AuditQuery::default() },
    ];
    let mut lists = Vec::new();
    for after in [None, Some(Uuid::now_v7())] {
        for (query, order) in &queries {
            lists.push((format!("{query:?}"), catalog::page_of(query, after), *order));
        }
        for (query, order) in &identities {
            lists.push((format!("{query:?}"), identity::page_of(query, after), *order));
        }
        for query in &audit {
            let cursor = after.map(|id| audit::cursor(0, id));
            let query = AuditQuery { cursor, ..query.clone() };
            lists.push((format!("{query:?}"), audit::page_of(&query, 100).unwrap(), Order::Index));
        }
    }
    lists
}

/// The space and the prefix that the plan of a scan is looked at for.
const SCAN: (&str, &str) = ("calls", "told/1/");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Index,
    Matches,
}

async fn explain(db: &impl sea_orm::ConnectionTrait, how: &str, list: &SelectStatement, column: &str) -> String {
    let backend = db.get_database_backend();
    let statement = backend.build(list);
    let explained =
        Statement::from_sql_and_values(backend, format!("{how} {}", statement.sql), statement.values.unwrap());
    let rows = db.query_all_raw(explained).await.unwrap();
    rows.iter().map(|row| row.try_get::<String>("", column).unwrap() + "\n").collect()
}

#[tokio::test]
async fn every_list_follows_an_index_on_sqlite() {
    let store = SqlStore::connect(SqlConfig::new("sqlite::memory:")).await.unwrap();
    let db: &DatabaseConnection = &store.db().reader.bare();
    for (what, list, order) in lists() {
        let plan = explain(db, "EXPLAIN QUERY PLAN", &list, "detail").await;
        let whole = plan.lines().any(|line| line.starts_with("SCAN ") && !line.contains(" USING "));
        assert!(!whole, "{what} reads a whole table:\n{plan}");
        assert!(order == Order::Matches || !plan.contains("TEMP B-TREE"), "{what} is sorted:\n{plan}");
        assert_eq!(plan.contains("audit_actions"), what.contains(ACTION), "{what}:\n{plan}");
    }
    let scan = state::scan(store.db(), SCAN.0, SCAN.1);
    let plan = explain(db, "EXPLAIN QUERY PLAN", &scan, "detail").await;
    assert!(plan.contains("(space=? AND name>? AND name<?)"), "{plan}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
#[expect(clippy::disallowed_methods, reason = "the environment says where the server is")]
async fn every_list_follows_an_index_on_postgresql() {
    let server = std::env::var("ARCHESTRA_TEST_POSTGRES_URL").expect("run .ci/postgres and do what it prints");
    let name = format!("archestra_plans_{}", Uuid::now_v7().simple());
    let root = sea_orm::Database::connect(&server).await.unwrap();
    root.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
    let (at, _) = server.rsplit_once('/').unwrap();
    let store = SqlStore::connect(SqlConfig::new(format!("{at}/{name}"))).await.unwrap();
    let tx = store.db().reader.bare().begin().await.unwrap();
    // Where there is an index to follow, it is followed, although the tables are empty.
    tx.execute_unprepared(
        "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off",
    )
    .await
    .unwrap();
    for (what, list, order) in lists() {
        let plan = explain(&tx, "EXPLAIN", &list, "QUERY PLAN").await;
        assert!(!plan.contains("Seq Scan"), "{what} reads a whole table:\n{plan}");
        assert!(order == Order::Matches || !plan.contains("Sort"), "{what} is sorted:\n{plan}");
        assert_eq!(plan.contains("audit_actions"), what.contains(ACTION), "{what}:\n{plan}");
    }
    let scan = state::scan(store.db(), SCAN.0, SCAN.1);
    let plan = explain(&tx, "EXPLAIN", &scan, "QUERY PLAN").await;
    let condition = plan.lines().find(|line| line.contains("Index Cond")).unwrap_or_default();
    assert!(condition.contains("~>=~") && condition.contains("~<~"), "{plan}");
    tx.rollback().await.unwrap();
    store.close().await;
    root.execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
}
