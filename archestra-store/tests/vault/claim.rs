//! A prefix belongs to one database: whoever comes with another one is refused before anything of it is touched.

use crate::{
    fake::{Asked, Fake, Told, healthy},
    support::{admin, mount, root},
};
use archestra_core::{
    ErrorKind,
    secret::{Expect, SecretStore, copy_secrets},
    testing::{
        MemorySecrets,
        fixtures::{bundle, secret_ref},
    },
};
use archestra_store::{VaultConfig, VaultStore};
use serde_json::{Value, json};
use std::sync::Mutex;
use uuid::Uuid;

/// A server that keeps what is at one path, with its version, and checks expectations.
fn keeper() -> impl Fn(&Asked) -> Told {
    let kept: Mutex<Option<Value>> = Mutex::default();
    move |asked| {
        let mut kept = kept.lock().unwrap();
        match (asked.method.as_str(), asked.path.as_str(), &*kept) {
            ("GET", "/v1/secret/data/archestra/~instance", Some(data)) => {
                Told::ok(&json!({"data": data, "metadata": {"version": 1}}))
            }
            ("GET", "/v1/secret/metadata/archestra/~instance", Some(_)) => Told::ok(&json!({"current_version": 1})),
            ("GET", _, _) => Told::text(404, r#"{"errors":[]}"#),
            ("POST", "/v1/secret/data/archestra/~instance", _) => {
                let body: Value = serde_json::from_str(&asked.body).unwrap();
                if kept.is_some() || body["options"]["cas"] != 0 {
                    return Told::error(400, "check-and-set parameter did not match the current version");
                }
                *kept = Some(body["data"].clone());
                Told::ok(&json!({"version": 1}))
            }
            ("LIST", "/v1/secret/metadata/archestra", Some(_)) => Told::ok(&json!({"keys": ["~instance"]})),
            _ => Told::error(400, "unexpected"),
        }
    }
}

#[tokio::test]
async fn a_prefix_is_taken_once_and_another_database_is_told_whose_it_is() {
    let keeper = keeper();
    let fake = Fake::start(move |asked| healthy(asked).unwrap_or_else(|| keeper(asked))).await;
    let store = VaultStore::connect(&fake.config()).await.unwrap();
    let (owner, other) = (Uuid::now_v7(), Uuid::now_v7());
    store.claim(owner).await.unwrap();
    store.claim(owner).await.unwrap();
    let refused = store.claim(other).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let told = refused.to_string();
    let parts = [owner.to_string(), other.to_string(), "secret/archestra".to_owned(), "another prefix".to_owned()];
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    assert_eq!(store.list("").await.unwrap(), [], "the mark is no secret");
}

async fn of_many_databases_one_owns_the_prefix(config: &VaultConfig) {
    let claims = (0..8).map(|_| {
        let config = config.clone();
        tokio::spawn(async move {
            let (store, instance) = (VaultStore::connect(&config).await.unwrap(), Uuid::now_v7());
            (store.claim(instance).await.is_ok(), instance)
        })
    });
    let mut owners = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        owners.extend(Some(claim.await.unwrap()).filter(|(owns, _)| *owns));
    }
    assert_eq!(owners.len(), 1);
    VaultStore::connect(config).await.unwrap().claim(owners[0].1).await.unwrap();
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn the_mark_is_neither_listed_nor_copied_and_may_be_removed_by_hand() {
    for version in [1, 2] {
        let mount = mount(version).await;
        let mut config = root(&mount);
        if version == 2 {
            of_many_databases_one_owns_the_prefix(&config).await;
            config.prefix = "second".to_owned();
        }
        let store = VaultStore::connect(&config).await.unwrap();
        let (owner, other) = (Uuid::now_v7(), Uuid::now_v7());
        store.claim(owner).await.unwrap();
        let reference = secret_ref("entries/a/1");
        store.put(&reference, &bundle(&[("k", "v")]), Expect::Absent).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), std::slice::from_ref(&reference));
        let copy = MemorySecrets::new();
        copy_secrets(&store, &copy).await.unwrap();
        assert_eq!(copy.list("").await.unwrap(), std::slice::from_ref(&reference));
        assert_eq!(store.claim(other).await.unwrap_err().kind(), ErrorKind::Conflict);
        let at = if version == 2 { format!("{mount}/data") } else { mount };
        admin("DELETE", &format!("{at}/{}/~instance", config.prefix), Value::Null).await;
        store.claim(other).await.unwrap();
        assert_eq!(store.claim(owner).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_lets_nobody_claim() {
    let fake = Fake::start(|asked| healthy(asked).unwrap_or_else(|| Told::error(500, "storage"))).await;
    let store = VaultStore::connect(&fake.config()).await.unwrap();
    assert_eq!(store.claim(Uuid::now_v7()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}
