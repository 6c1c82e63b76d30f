//! Records: what one set may do in any order, and what errors name.

use crate::{
    support::{file, fresh_path, memory, open},
    unreadable,
};
use archestra_core::{
    Error,
    catalog::{CatalogStore, Entry, Kind, Query},
    feed::{ChangeSet, Expect, MAX_PAGE, PageRequest, Version},
    installation::Owner,
    testing::fixtures,
};

#[tokio::test]
async fn names_may_change_hands_within_a_set() {
    let store = file().await;
    let (mut one, mut other) = (fixtures::remote_entry("one"), fixtures::remote_entry("other"));
    store.commit(ChangeSet::new().create(one.clone()).create(other.clone())).await.unwrap();
    std::mem::swap(&mut one.spec.name, &mut other.spec.name);
    let first = Expect::Version(Version(1));
    store.commit(ChangeSet::new().put(one.clone(), first).put(other, first)).await.unwrap();
    assert_eq!(store.get(one.id.into()).await.unwrap().version, Version(2));
}

#[tokio::test]
async fn an_entry_that_is_rewritten_keeps_what_refers_to_it() {
    let store = file().await;
    let mut entry = fixtures::remote_entry("entry");
    let tool = fixtures::tool(&entry, "echo");
    let installation = fixtures::installation(&entry, Owner::Organization);
    store
        .commit(ChangeSet::new().create(installation.clone()).create(tool.clone()).create(entry.clone()))
        .await
        .unwrap();
    entry.spec.name = "renamed".to_owned();
    store.commit(ChangeSet::new().put(entry.clone(), Expect::Version(Version(1)))).await.unwrap();
    assert!(store.get(tool.id.into()).await.is_ok() && store.get(installation.id.into()).await.is_ok());
    match store.commit(ChangeSet::new().delete(entry.id, Expect::Any)).await.unwrap_err() {
        Error::Conflict { kind, id, reason } => {
            assert_eq!((kind, id), ("entry", entry.id.to_string()));
            assert!(reason.contains(&installation.id.to_string()), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_taken_value_is_named() {
    let store = memory().await;
    let entry = fixtures::remote_entry("taken");
    store.commit(ChangeSet::new().create(entry)).await.unwrap();
    let error = store.commit(ChangeSet::new().create(fixtures::remote_entry("taken"))).await.unwrap_err();
    assert_eq!(error.to_string(), "entry taken exists already");
}

#[tokio::test]
async fn pages_are_capped() {
    let store = memory().await;
    let entries = (0..MAX_PAGE + 1).map(|n| fixtures::remote_entry(&format!("entry {n}")));
    let changes = entries.fold(ChangeSet::new(), |changes, entry: Entry| changes.create(entry));
    store.commit(changes).await.unwrap();
    let page = store.list(&Query::all(Kind::Entry), &PageRequest { limit: usize::MAX, cursor: None }).await.unwrap();
    assert_eq!(page.items.len(), MAX_PAGE);
    let rest = store.list(&Query::all(Kind::Entry), &PageRequest { limit: 0, cursor: page.next }).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
}

#[tokio::test]
async fn records_that_cannot_be_read_are_told_apart() {
    let path = fresh_path();
    let store = open(&path).await;
    let raw = sea_orm::Database::connect(format!("sqlite://{}", path.display())).await.unwrap();
    unreadable::records_that_cannot_be_read_are_told_apart(&store, &raw).await;
    raw.close().await.unwrap();
}
