//! A backup comes back whole, only into an empty database, and only if it is whole itself.

use crate::support::{file, fresh_path, holds, memory, open, ring};
use archestra_core::{
    ErrorKind,
    catalog::{CatalogStore, Lookup, Query},
    feed::{ChangeSet, FeedEvent, PageRequest},
    id::ConsumerId,
    identity::{IdentityQuery, IdentityStore, TokenOwner},
    secret::{Expect, SecretStore},
    testing::fixtures,
};
use archestra_store::{SqlSecrets, SqlStore};
use futures::StreamExt as _;
use std::sync::Arc;

const CANARY: &str = "canary-5up3r-s3cr3t-value";

async fn filled(store: &SqlStore, secrets: &SqlSecrets, entries: usize) {
    for n in 0..entries {
        let mut entry = fixtures::remote_entry(&format!("entry {n}"));
        entry.spec.labels.insert("department", "finance");
        let tool = fixtures::tool(&entry, "echo");
        CatalogStore::commit(store, ChangeSet::new().create(entry).create(tool)).await.unwrap();
    }
    let (_, token) = fixtures::token("ci", TokenOwner::Organization);
    IdentityStore::commit(store, ChangeSet::new().create(token)).await.unwrap();
    let (user, provider) = (fixtures::user("alice@example.com"), fixtures::identity_provider("okta"));
    let machine = fixtures::machine_client("machine", [ConsumerId::new()]);
    let grants = [
        fixtures::grant(&user, &machine, ConsumerId::new()).1,
        fixtures::machine_grant(&machine, machine.consumers.first().copied().unwrap()),
    ];
    let mut changes = ChangeSet::new()
        .create(fixtures::consent(&user, &machine, ConsumerId::new()))
        .create(fixtures::linked_identity(&user, &provider, "00u1"));
    for grant in grants {
        changes = changes.create(fixtures::access_token(&grant).1).create(grant);
    }
    IdentityStore::commit(store, changes.create(user).create(provider).create(machine)).await.unwrap();
    for version in 0..3 {
        let bundle = fixtures::bundle(&[("token", CANARY), ("n", &version.to_string())]);
        secrets.put(&fixtures::secret_ref("entries/one"), &bundle, Expect::Any).await.unwrap();
    }
}

async fn backup(store: &SqlStore) -> String {
    let mut bytes = Vec::new();
    store.backup(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// All lines but the first, which says when it was made.
fn rows(backup: &str) -> &str {
    backup.split_once('\n').unwrap().1
}

#[tokio::test]
async fn everything_comes_back_with_its_versions_and_sealed_secrets() {
    let (store, ring) = (file().await, ring());
    filled(&store, &SqlSecrets::new(&store, Arc::clone(&ring)), 450).await;
    let made = backup(&store).await;
    assert!(!holds(made.as_bytes(), CANARY) && holds(made.as_bytes(), "entries/one"));

    let path = fresh_path();
    let restored = open(&path).await;
    let counts = restored.restore(&mut made.as_bytes()).await.unwrap();
    assert_eq!((counts.0["grants"], counts.0["access_tokens"], counts.0["linked_identities"]), (2, 2, 1));
    assert_eq!((counts.0["entries"], counts.0["tools"], counts.0["entry_labels"]), (450, 450, 450));
    assert_eq!(counts.rows(), rows(&made).lines().count() as u64 - 1);
    assert_eq!(rows(&backup(&restored).await), rows(&made));
    let secrets = SqlSecrets::new(&restored, ring);
    secrets.verify_ring().await.unwrap();
    let stored = secrets.get(&fixtures::secret_ref("entries/one")).await.unwrap();
    assert_eq!((stored.version.0, stored.bundle.get("token").unwrap().expose()), (3, CANARY));
    let all = Query::Entries { search: None, labels: None };
    assert!(CatalogStore::list(&restored, &all, &PageRequest::default()).await.unwrap().next.is_some());
    let named = CatalogStore::find(&restored, &Lookup::EntryNamed("entry 7".to_owned())).await.unwrap();
    let again = CatalogStore::commit(&restored, ChangeSet::new().create(fixtures::remote_entry("entry 7"))).await;
    assert!(named.is_some() && again.unwrap_err().kind() == ErrorKind::AlreadyExists);
    assert_eq!(
        SqlSecrets::new(&restored, crate::support::ring()).verify_ring().await.unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
}

#[tokio::test]
async fn a_backup_without_tables_that_came_later_is_restored() {
    let store = memory().await;
    let (_, token) = fixtures::token("ci", TokenOwner::Organization);
    IdentityStore::commit(&store, ChangeSet::new().create(token)).await.unwrap();
    let made = backup(&store).await;
    let mut lines: Vec<String> = made.lines().map(str::to_owned).collect();
    let mut end: serde_json::Value = serde_json::from_str(&lines.pop().unwrap()).unwrap();
    let later = ["grants", "consents", "linked_identities", "access_tokens"];
    end["end"].as_object_mut().unwrap().retain(|table, _| !later.contains(&table.as_str()));
    lines.push(end.to_string());
    let restored = memory().await;
    restored.restore(&mut lines.join("\n").as_bytes()).await.unwrap();
    let tokens =
        IdentityStore::list(&restored, &IdentityQuery::Tokens { owner: None }, &PageRequest::default()).await.unwrap();
    assert_eq!(tokens.items.len(), 1);
    assert_eq!(rows(&backup(&restored).await), rows(&made));
}

#[tokio::test]
async fn a_database_that_holds_anything_is_left_as_it_is() {
    let (store, ring) = (memory().await, ring());
    filled(&store, &SqlSecrets::new(&store, ring), 2).await;
    let made = backup(&store).await;
    let error = store.restore(&mut made.as_bytes()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("only into an empty database"), "{error}");
    assert_eq!(rows(&backup(&store).await), rows(&made));
}

#[tokio::test]
async fn what_is_no_whole_backup_is_refused_and_leaves_nothing() {
    let (store, ring) = (memory().await, ring());
    filled(&store, &SqlSecrets::new(&store, ring), 3).await;
    let made = backup(&store).await;
    let empty = memory().await;
    let nothing = backup(&empty).await;
    let lines: Vec<&str> = made.lines().collect();
    let mut broken: Vec<String> = (0..lines.len()).map(|count| lines[..count].join("\n")).collect();
    broken.push(made.replace("\"archestraBackup\":1", "\"archestraBackup\":2"));
    broken.push(format!("{made}{made}"));
    broken.push(made.replacen("\"entries\",\"row\":[\"", "\"entries\",\"row\":[\"x", 1));
    broken.push(made.replacen("\"table\":\"entries\"", "\"table\":\"others\"", 1));
    broken.push([&lines[..1], &lines[2..]].concat().join("\n"));
    broken.push("not a backup".to_owned());
    for text in broken {
        let error = empty.restore(&mut text.as_bytes()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Conflict | ErrorKind::Backend), "{error:?}");
        assert!(!error.to_string().contains(CANARY));
        assert_eq!(rows(&backup(&empty).await), rows(&nothing), "nothing is left of {:?}", text.len());
    }
    empty.restore(&mut made.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn whoever_follows_reads_everything_anew() {
    let (store, ring) = (memory().await, ring());
    filled(&store, &SqlSecrets::new(&store, ring), 2).await;
    let made = backup(&store).await;
    let empty = memory().await;
    let mut feed = CatalogStore::changes(&empty, Some(archestra_core::feed::StoreRevision(0)));
    empty.restore(&mut made.as_bytes()).await.unwrap();
    let resynced = async {
        while let Some(event) = feed.next().await {
            if matches!(event.unwrap(), FeedEvent::Resync { .. }) {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(std::time::Duration::from_secs(30), resynced).await.unwrap());
}
