//! Keys of a key ring that a transit key of Vault wraps: made, opened, rotated, and every reason why they cannot be.

use crate::{
    fake::{Fake, Told, healthy},
    support::{admin, config, root_token, unique},
};
use archestra_core::{
    ErrorKind, Result,
    secret::{KeyRing, Purpose},
};
use archestra_store::{VaultAuth, VaultConfig, VaultTransit};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const CANARY: &str = "canary-4711-do-not-print";

fn root() -> VaultConfig {
    config("unused", VaultAuth::Token(root_token().into()))
}

/// A new transit engine with the keys `ours` and `theirs`.
async fn engine() -> String {
    let mount = unique("transit");
    admin("POST", &format!("sys/mounts/{mount}"), json!({"type": "transit"})).await;
    for name in ["ours", "theirs"] {
        admin("POST", &format!("{mount}/keys/{name}"), json!({})).await;
    }
    mount
}

fn told(opened: Result<KeyRing>, kind: ErrorKind, part: &str) {
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_ring_is_made_and_opened_and_its_key_is_nowhere_in_clear() {
    let mount = engine().await;
    let transit = VaultTransit::connect(&root(), &mount, "ours").await.unwrap();
    let text = transit.new_ring().await.unwrap();
    let (id, wrapped) = text.trim().split_once(' ').unwrap();
    assert!(wrapped.starts_with("vault:v1:"), "{text}");
    assert!(
        KeyRing::parse(&text).unwrap_err().to_string().contains("line 1 of the key file holds a key that a transit")
    );
    let ring = transit.open(&text).await.unwrap();
    assert_eq!(ring.newest().as_str(), id);
    let clear = ring.to_text();
    assert!(!text.contains(clear.trim().split_once(' ').unwrap().1));
    let again = VaultTransit::connect(&root(), &mount, "ours").await.unwrap().open(&text).await.unwrap();
    assert_eq!(again.fingerprint(), ring.fingerprint());

    // A ring that is rotated to another version of the transit key, above a line that was in clear.
    let old = KeyRing::generate().unwrap();
    admin("POST", &format!("{mount}/keys/ours/rotate"), json!({})).await;
    let newest = transit.new_ring().await.unwrap();
    assert!(newest.contains("vault:v2:"), "{newest}");
    let all = format!("# three keys\n{newest}\n{text}{}", *old.to_text());
    let all = transit.open(&all).await.unwrap();
    assert_eq!((all.newest().as_str(), all.ids().count()), (newest.split_once(' ').unwrap().0, 3));
    for older in [&old, &ring] {
        let sealed = older.derive(Purpose::Secrets).seal(b"plain", b"row").unwrap();
        assert_eq!(&all.derive(Purpose::Secrets).open(&sealed.key, &sealed.bytes, b"row").unwrap()[..], b"plain");
    }
    told(transit.open(&old.to_text()).await, ErrorKind::Invalid, "is in clear");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn what_cannot_be_unwrapped_says_why() {
    let mount = engine().await;
    let at = |name: &'static str| {
        let mount = mount.clone();
        async move { VaultTransit::connect(&root(), &mount, name).await.unwrap() }
    };
    let (ours, theirs, none) = (at("ours").await, at("theirs").await, at("none").await);
    let text = ours.new_ring().await.unwrap();
    let id = text.split_once(' ').unwrap().0;
    told(theirs.open(&text).await, ErrorKind::Invalid, &format!("does not take key {id}"));
    told(none.open(&text).await, ErrorKind::Invalid, &format!("bao write -f {mount}/keys/none"));
    assert!(none.new_ring().await.unwrap_err().to_string().contains("there is no key none"));
    let nowhere = VaultTransit::connect(&root(), "nowhere", "ours").await.unwrap();
    told(nowhere.open(&text).await, ErrorKind::Invalid, "no transit engine is mounted at nowhere");
    let changed = text.replace("vault:v1:", "vault:v1:AAAA");
    told(ours.open(&changed).await, ErrorKind::Invalid, "put its line back");
    told(ours.open("k1 vault:v1:\"canary").await, ErrorKind::Invalid, "is not a key that Vault wrapped");
    told(ours.open("").await, ErrorKind::Invalid, "holds no key");
    told(ours.open("# nothing\n").await, ErrorKind::Invalid, "holds no key");

    let short = json!({"plaintext": STANDARD.encode("short")});
    let short = admin("POST", &format!("{mount}/encrypt/ours"), short).await.unwrap();
    let short = format!("k1 {}", short["data"]["ciphertext"].as_str().unwrap());
    told(ours.open(&short).await, ErrorKind::Invalid, "line 1 of the key file is not");

    admin("POST", &format!("{mount}/keys/ours/rotate"), json!({})).await;
    admin("POST", &format!("{mount}/keys/ours/config"), json!({"min_decryption_version": 2})).await;
    told(ours.open(&text).await, ErrorKind::Invalid, "min_decryption_version");

    let policy = unique("policy");
    let rules = format!("path \"{mount}/decrypt/theirs\" {{ capabilities = [\"update\"] }}");
    admin("POST", &format!("sys/policies/acl/{policy}"), json!({"policy": rules})).await;
    let made = admin("POST", "auth/token/create", json!({"policies": [policy]})).await.unwrap();
    let token: &str = made["auth"]["client_token"].as_str().unwrap();
    let limited = config("unused", VaultAuth::Token(token.into()));
    let limited = VaultTransit::connect(&limited, &mount, "ours").await.unwrap();
    told(limited.open(&text).await, ErrorKind::PermissionDenied, &format!("{mount}/decrypt/ours"));
    assert_eq!(limited.new_ring().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    let theirs_text = theirs.new_ring().await.unwrap();
    let enough = config("unused", VaultAuth::Token(token.into()));
    VaultTransit::connect(&enough, &mount, "theirs").await.unwrap().open(&theirs_text).await.unwrap();
}

#[tokio::test]
async fn a_vault_that_is_sealed_slow_or_broken_is_told_apart_and_shows_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let wrong = STANDARD.encode(CANARY);
    for (answer, kind, part, times) in [
        (Told::error(503, "Vault is sealed"), ErrorKind::Unavailable, "unseal", 3),
        (Told::text(502, "<html>bad gateway</html>"), ErrorKind::Unavailable, "502", 3),
        (Told::cut(), ErrorKind::Unavailable, "broke", 3),
        (Told::ok(&Value::Null).after(Duration::from_secs(600)), ErrorKind::Timeout, "unwrapping", 3),
        (Told::error(403, "permission denied"), ErrorKind::PermissionDenied, "transit/decrypt/ours", 1),
        (Told::ok(&json!({"plaintext": wrong})), ErrorKind::Invalid, "line 1 of the key file", 1),
        (Told::ok(&json!({"other": wrong})), ErrorKind::Backend, "is the address that of a Vault server", 1),
    ] {
        asked.store(0, Ordering::SeqCst);
        let count = Arc::clone(&asked);
        let fake = Fake::start(move |asked| {
            healthy(asked).unwrap_or_else(|| {
                assert_eq!(
                    (asked.path.as_str(), asked.body.as_str()),
                    ("/v1/transit/decrypt/ours", r#"{"ciphertext":"vault:v1:AAAA"}"#)
                );
                count.fetch_add(1, Ordering::SeqCst);
                answer.clone()
            })
        })
        .await;
        let transit = VaultTransit::connect(&fake.config(), "transit", "ours").await.unwrap();
        let error = transit.open("k1 vault:v1:AAAA").await.unwrap_err();
        let shown = format!("{error} {error:?} {transit:?}");
        assert_eq!((error.kind(), asked.load(Ordering::SeqCst)), (kind, times), "{error}");
        assert!(shown.contains(part) && !shown.contains(CANARY) && !shown.contains(&wrong), "{shown}");
    }
    for (mount, name) in [("/transit", "ours"), ("transit", "a/b"), ("transit", ".."), ("a/../b", "ours")] {
        VaultTransit::validate(mount, name).unwrap_err();
    }
}
