//! Secrets that people keep in Vault themselves: references in, values out, and nothing of theirs changed.

use crate::{
    fake::{Fake, Told, healthy},
    support::{admin, mount, policy, root, unique},
};
use archestra_core::{
    ErrorKind,
    secret::{Accepts, Expect, SecretBundle, SecretStore, SecretValue},
    testing::{
        MemorySecrets,
        fixtures::{bundle, secret_ref},
    },
};
use archestra_store::{VaultAuth, VaultReadOnly};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const CANARY: &str = "canary-4711-do-not-print";

fn references(values: &[(&str, &str)]) -> SecretBundle {
    values.iter().map(|(key, at)| (*key, SecretValue::kept_at(at.parse().unwrap()))).collect()
}

/// A server with one path, `archestra/team`.
async fn fake(reads: Arc<AtomicUsize>) -> Fake {
    Fake::start(move |asked| {
        if let Some(told) = healthy(asked) {
            return told;
        }
        assert_eq!(asked.method, "GET", "nothing is written");
        match asked.path.strip_prefix("/v1/secret/data/") {
            Some("archestra/team") => {
                reads.fetch_add(1, Ordering::SeqCst);
                Told::ok(&json!({"data": {"token": CANARY, "number": 5, "two": "second"}, "metadata": {"version": 3}}))
            }
            _ => Told::text(404, r#"{"errors":[]}"#),
        }
    })
    .await
}

#[tokio::test]
async fn references_are_kept_and_resolved_when_they_are_used() {
    let reads = Arc::new(AtomicUsize::new(0));
    let fake = fake(Arc::clone(&reads)).await;
    let kept = MemorySecrets::new();
    let store = VaultReadOnly::connect(&fake.config(), Arc::new(kept.of_references())).await.unwrap();
    assert_eq!(store.accepts(), Accepts::References);
    let reference = secret_ref("installations/a/1");
    let given = references(&[("A", "archestra/team#token"), ("B", "archestra/team#two")]);
    let version = store.put(&reference, &given, Expect::Absent).await.unwrap();
    assert_eq!(reads.swap(0, Ordering::SeqCst), 1, "a path is read once for all its keys");
    assert_eq!(store.written(&reference).await.unwrap().bundle, given);
    assert_eq!(reads.load(Ordering::SeqCst), 0, "what was written is told without asking Vault");
    let stored = store.get(&reference).await.unwrap();
    assert_eq!((stored.bundle, stored.version), (bundle(&[("A", CANARY), ("B", "second")]), version));
    assert_eq!(kept.written(&reference).await.unwrap().bundle, given);
    // Under another backend it is no value, whatever it looks like.
    let error = kept.get(&reference).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert!(
        error.to_string().contains("A of secret installations/a/1 is kept in Vault, at archestra/team#token"),
        "{error}"
    );
    let refused = VaultReadOnly::connect(&fake.config(), Arc::new(kept)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    assert!(!format!("{store:?}").contains(CANARY));
    store.check().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_resolved_is_refused_when_it_is_put_and_named_when_it_is_used() {
    let fake = fake(Arc::default()).await;
    let kept = MemorySecrets::new();
    let store = VaultReadOnly::connect(&fake.config(), Arc::new(kept.of_references())).await.unwrap();
    let reference = secret_ref("installations/a/1");
    for (bundle, told) in [
        (bundle(&[("A", CANARY)]), "put the value into Vault"),
        (references(&[("A", "archestra/team#absent")]), "no key absent at archestra/team"),
        (references(&[("A", "archestra/team#number")]), "is not a text"),
        (references(&[("A", "archestra/nobody#token")]), "nothing at archestra/nobody"),
        (references(&[("A", "elsewhere/team#token")]), "elsewhere/team is not below archestra"),
        (references(&[("A", "archestra-2/team#token")]), "is not below archestra"),
        (references(&[("A", "archestra#token")]), "is not below archestra"),
    ] {
        let error = store.put(&reference, &bundle, Expect::Any).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(told) && !error.to_string().contains(CANARY), "{error}");
        assert!(store.list("").await.unwrap().is_empty());
    }
    for (stored, told) in [
        (references(&[("A", "archestra/team#gone")]), "no key gone at archestra/team in Vault, where A of secret"),
        (bundle(&[("A", CANARY)]), "was stored as a value"),
        (bundle(&[("A", "vault:archestra/team#token")]), "was stored as a value"),
    ] {
        // What was taken once is not judged again.
        store.rewrite(&reference, &stored, Expect::Any).await.unwrap();
        assert_eq!(store.written(&reference).await.unwrap().bundle, stored);
        let error = store.get(&reference).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend);
        assert!(error.to_string().contains(told) && !error.to_string().contains(CANARY), "{error}");
    }
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_login_that_may_only_read_is_enough_and_a_changed_value_is_seen() {
    for version in [1, 2] {
        let mount = mount(version).await;
        let (path, wrapped) = match version {
            2 => (format!("{mount}/data/archestra/team"), true),
            _ => (format!("{mount}/archestra/team"), false),
        };
        let write = |token: &str| {
            let data = json!({"token": token});
            let body = if wrapped { json!({"data": data}) } else { data };
            let path = path.clone();
            async move { admin("POST", &path, body).await }
        };
        write("first").await;
        let name = unique("reader");
        let rules = format!("path \"{mount}/*\" {{ capabilities = [\"read\"] }}");
        admin("POST", &format!("sys/policies/acl/{name}"), json!({"policy": rules})).await;
        let made = admin("POST", "auth/token/create", json!({"policies": [name]})).await.unwrap();
        let mut config = root(&mount);
        config.auth = VaultAuth::Token(made["auth"]["client_token"].as_str().unwrap().into());
        let store = VaultReadOnly::connect(&config, Arc::new(MemorySecrets::new().of_references())).await.unwrap();
        let reference = secret_ref("installations/a/1");
        store.put(&reference, &references(&[("A", "archestra/team#token")]), Expect::Absent).await.unwrap();
        assert_eq!(store.get(&reference).await.unwrap().bundle, bundle(&[("A", "first")]));
        write("second").await;
        assert_eq!(store.get(&reference).await.unwrap().bundle, bundle(&[("A", "second")]));
        store.remove(&reference).await.unwrap();
        admin("GET", &path, serde_json::Value::Null).await.unwrap();
        // A login that may not even see the mount is refused at once.
        let foreign = policy("nothing").await;
        let made = admin("POST", "auth/token/create", json!({"policies": [foreign]})).await.unwrap();
        config.auth = VaultAuth::Token(made["auth"]["client_token"].as_str().unwrap().into());
        config.deadline = Duration::from_secs(10);
        let error = VaultReadOnly::connect(&config, Arc::new(MemorySecrets::new().of_references())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
}
