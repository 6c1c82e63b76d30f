//! Rows of a newer version, or damaged ones: they fail alone where they are read one by one, and are never taken for absent.

use archestra_core::{
    Error, ErrorKind,
    catalog::{CatalogStore, CatalogStoreExt, Entry, Kind, Query, RecordKey},
    feed::{ChangeSet, Expect, PageRequest, Version},
    identity::{IdentityKind, IdentityLookup, IdentityQuery, IdentityStore, IdentityStoreExt, User},
    policy::Policy,
    testing::fixtures,
};
use archestra_store::SqlStore;
use sea_orm::{ConnectionTrait as _, DatabaseConnection};

/// What a newer version may have added, and what nobody can read.
const CHANGES: [(&str, &str); 2] = [("{", "{\"newer\":\"canary\","), ("\"id\":\"", "\"id\":\"canary")];

/// Replaces the beginning of a document.
async fn spoil(raw: &DatabaseConnection, table: &str, id: &uuid::Uuid, (old, new): (&str, &str)) {
    let by = match raw.get_database_backend() {
        sea_orm::DbBackend::Postgres => format!("id = '{id}'"),
        _ => format!("id = x'{}'", id.simple()),
    };
    let changed = raw
        .execute_unprepared(&format!("UPDATE {table} SET doc = replace(doc, '{old}', '{new}') WHERE {by}"))
        .await
        .unwrap();
    assert_eq!(changed.rows_affected(), 1);
}

fn refuses(error: &Error, key: &impl ToString) {
    let text = format!("{error} {error:?}");
    assert_eq!(error.kind(), ErrorKind::Backend, "{text}");
    assert!(text.contains(&key.to_string()) && text.contains("may be of a newer version"), "{text}");
    assert!(!text.contains("canary"), "nothing that is stored is repeated: {text}");
}

/// `store` and `raw` are on the same, empty database.
pub(crate) async fn records_that_cannot_be_read_are_told_apart(store: &SqlStore, raw: &DatabaseConnection) {
    let entries: Vec<_> = (0..5).map(|n| fixtures::remote_entry(&format!("entry {n}"))).collect();
    let rule = fixtures::policy("rule");
    let changes = entries.iter().cloned().fold(ChangeSet::new(), ChangeSet::create).create(rule.clone());
    CatalogStore::commit(store, changes).await.unwrap();
    for (n, change) in CHANGES.into_iter().enumerate() {
        spoil(raw, "entries", entries[n].id.as_uuid(), change).await;
        let key = RecordKey::from(entries[n].id);
        refuses(&CatalogStore::get(store, key).await.unwrap_err(), &key);
    }
    // Whoever acts on all of them is refused, and whoever can do without some gets the others in their order.
    let keys: Vec<RecordKey> = entries.iter().map(|entry| entry.id.into()).collect();
    refuses(&store.get_many(&keys).await.unwrap_err(), &keys[0]);
    refuses(&CatalogStoreExt::list_all::<Entry>(store, Query::all(Kind::Entry)).await.unwrap_err(), &keys[0]);
    let each = CatalogStore::get_each(store, &keys).await.unwrap();
    let page = CatalogStore::list_each(store, &Query::all(Kind::Entry), &PageRequest::default()).await.unwrap();
    assert_eq!(each.into_iter().map(Option::unwrap).collect::<Vec<_>>(), page.items);
    for (n, item) in page.items.into_iter().enumerate() {
        match item {
            Err(unreadable) => {
                assert!(n < 2 && unreadable.key == keys[n] && !unreadable.reason.contains("canary"), "{unreadable:?}");
                assert_eq!(n == 0, unreadable.reason == "unknown field `newer`", "{unreadable:?}");
            }
            Ok(record) => assert_eq!((n >= 2, record.value.key()), (true, keys[n])),
        }
    }
    let request = PageRequest { limit: 1, cursor: None };
    let first = CatalogStoreExt::list_page::<Entry>(store, Query::all(Kind::Entry), request).await.unwrap();
    assert!(first.items.is_empty() && first.next.is_some(), "a page may show less than was asked for and goes on");
    let shown =
        CatalogStoreExt::list_page::<Entry>(store, Query::all(Kind::Entry), PageRequest::default()).await.unwrap();
    assert_eq!(shown.items.len(), 3);

    // They keep their names and versions, and go like all others.
    let taken = CatalogStore::commit(store, ChangeSet::new().create(fixtures::remote_entry("entry 0"))).await;
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let first = Expect::Version(Version(1));
    CatalogStore::commit(store, ChangeSet::new().put(entries[0].clone(), first).delete(keys[1], first)).await.unwrap();
    assert_eq!(CatalogStoreExt::list_all::<Entry>(store, Query::all(Kind::Entry)).await.unwrap().len(), 4);

    spoil(raw, "policies", rule.id.as_uuid(), CHANGES[0]).await;
    refuses(&CatalogStoreExt::list_all::<Policy>(store, Query::Policies).await.unwrap_err(), &RecordKey::from(rule.id));
    CatalogStore::commit(store, ChangeSet::new().delete(rule.id, Expect::Any)).await.unwrap();
    assert!(CatalogStoreExt::list_all::<Policy>(store, Query::Policies).await.unwrap().is_empty());

    let (alice, bob) = (fixtures::user("alice@example.com"), fixtures::user("bob@example.com"));
    IdentityStore::commit(store, ChangeSet::new().create(alice.clone()).create(bob.clone())).await.unwrap();
    spoil(raw, "users", alice.id.as_uuid(), CHANGES[0]).await;
    let key = archestra_core::identity::IdentityKey::from(alice.id);
    let lookup = IdentityLookup::UserByEmail(alice.email);
    refuses(&IdentityStore::find(store, &lookup).await.unwrap_err(), &key);
    let users = || IdentityQuery::all(IdentityKind::User);
    refuses(&IdentityStoreExt::list_all::<User>(store, users()).await.unwrap_err(), &key);
    let shown = IdentityStoreExt::list_page::<User>(store, users(), PageRequest::default()).await.unwrap();
    assert_eq!(shown.items.into_iter().map(|user| user.value).collect::<Vec<_>>(), [bob]);
}
