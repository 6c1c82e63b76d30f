//! Lists of very many folders, each of which is a request by itself.

use crate::fake::{Fake, Told, healthy};
use archestra_core::{ErrorKind, secret::SecretStore};
use archestra_store::VaultStore;
use serde_json::json;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const FOLDERS: usize = 3000;
const LISTED: &str = "/v1/secret/metadata/archestra/installations";

/// A server with a folder for each installation, and with some that are not ours; what it was asked to list.
async fn server(slow: Duration, refuses: Arc<AtomicBool>) -> (Fake, Arc<Mutex<Vec<String>>>) {
    let asked_for = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked_for);
    let fake = Fake::start(move |asked| {
        let Some(below) = asked.path.strip_prefix(LISTED) else {
            let parent = "/v1/secret/metadata/archestra";
            let told = (asked.path == parent).then(|| Told::ok(&json!({"keys": ["installations/"]})));
            return told.or_else(|| healthy(asked)).unwrap_or_else(|| Told::error(400, "unexpected"));
        };
        assert_eq!(asked.method, "LIST");
        seen.lock().unwrap().push(below.to_owned());
        if below.is_empty() {
            let ours = (0..FOLDERS).map(|n| format!("i{n:04}/"));
            let others = ["a b/", "a?b/", "a#b/", "../", "%2e%2e/", "a%2fb/", "c d"].map(str::to_owned);
            return Told::ok(&json!({"keys": ours.chain(others).collect::<Vec<_>>()}));
        }
        if below == "/i2500" && refuses.load(Ordering::SeqCst) {
            return Told::error(503, "Vault is sealed");
        }
        Told::ok(&json!({"keys": ["secret"]})).after(slow)
    })
    .await;
    (fake, asked_for)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_goes_on_for_as_long_as_each_folder_is_answered_in_time() {
    // Eight at once take longer for all of them than a few operations may.
    let (fake, asked_for) = server(Duration::from_millis(35), Arc::default()).await;
    let mut config = fake.config();
    config.deadline = Duration::from_secs(3);
    let store = VaultStore::connect(&config).await.unwrap();
    let listed = store.list("installations").await.unwrap();
    assert_eq!(listed.len(), FOLDERS);
    assert_eq!(listed.last().unwrap().as_str(), "installations/i2999/secret");
    assert_eq!(asked_for.lock().unwrap().len(), FOLDERS + 1, "nobody else's folders are looked into");
}

#[tokio::test]
async fn a_list_of_which_one_folder_is_not_answered_fails_and_one_that_is_dropped_ends() {
    let (fake, asked_for) = server(Duration::ZERO, Arc::new(AtomicBool::new(true))).await;
    let store = VaultStore::connect(&fake.config()).await.unwrap();
    let error = store.list("installations").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");

    let (slow, asked_for_slowly) = server(Duration::from_secs(600), Arc::default()).await;
    let store = VaultStore::connect(&slow.config()).await.unwrap();
    let listing = tokio::spawn(async move { store.list("installations").await.map(drop) });
    while asked_for_slowly.lock().unwrap().len() < 9 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    listing.abort();
    assert!(listing.await.unwrap_err().is_cancelled());
    assert_eq!(asked_for_slowly.lock().unwrap().len(), 9, "no more than eight folders are asked for at once");
    assert!(asked_for.lock().unwrap().len() > 9);
}
