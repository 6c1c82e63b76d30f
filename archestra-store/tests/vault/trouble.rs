//! Every kind of trouble is told apart, nothing is repeated that must not be, and nothing secret is shown.

use crate::fake::{Asked, Fake, Told, healthy};
use archestra_core::{
    Error, ErrorKind,
    secret::{Expect, SecretStore},
    testing::fixtures::{bundle, secret_ref},
};
use archestra_store::{VaultAuth, VaultConfig, VaultStore};
use serde_json::json;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

const CANARY: &str = "canary-4711-do-not-print";
/// For so long what was read is used, where a test waits for the end of it.
const OVER: Duration = Duration::from_millis(300);

/// A store on a server that is healthy but for what is below `/v1/secret/`.
async fn store_with(answer: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> (Fake, VaultStore) {
    let fake = Fake::start(move |asked| healthy(asked).unwrap_or_else(|| answer(asked))).await;
    let store = VaultStore::connect(&fake.config()).await.unwrap();
    (fake, store)
}

#[tokio::test]
async fn every_answer_to_a_read_has_its_error() {
    let expected = [
        (Told::error(403, "permission denied"), ErrorKind::PermissionDenied, "policy"),
        (Told::text(404, r#"{"errors":[]}"#), ErrorKind::NotFound, "entry/a/1"),
        (
            Told::text(404, r#"{"data":{"data":null,"metadata":{"version":3,"deletion_time":"2026"}}}"#),
            ErrorKind::NotFound,
            "entry/a/1",
        ),
        (Told::error(404, "no handler for route"), ErrorKind::Backend, "no handler for route"),
        (Told::text(404, "<html>not found</html>"), ErrorKind::Backend, "is the address that of a Vault server"),
        (Told::text(200, "<html>welcome</html>"), ErrorKind::Backend, "is the address that of a Vault server"),
        (Told::error(503, "Vault is sealed"), ErrorKind::Unavailable, "unseal"),
        (Told::text(429, ""), ErrorKind::Unavailable, "standby"),
        (Told::error(429, "request path quota exceeded"), ErrorKind::Unavailable, "quota"),
        (Told::text(473, ""), ErrorKind::Unavailable, "standby"),
        (Told::error(500, "internal error"), ErrorKind::Unavailable, "500"),
        (Told::error(502, "bad gateway"), ErrorKind::Unavailable, "502"),
        (Told::text(502, "<html>bad gateway</html>"), ErrorKind::Unavailable, "502"),
        (Told::text(503, "<html>no upstream</html>"), ErrorKind::Unavailable, "503"),
        (Told::error(400, "strange request"), ErrorKind::Backend, "strange request"),
        (Told::cut(), ErrorKind::Unavailable, "broke"),
        (Told::ok(&json!({})).after(Duration::from_secs(600)), ErrorKind::Timeout, "reading"),
    ];
    let told = Arc::new(Mutex::new(Told::cut()));
    let (_fake, store) = store_with({
        let told = Arc::clone(&told);
        move |_| told.lock().unwrap().clone()
    })
    .await;
    for (answer, kind, part) in expected {
        *told.lock().unwrap() = answer.clone();
        let error = store.get(&secret_ref("entry/a/1")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer:?}: {error}");
        assert!(error.to_string().contains(part), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn every_answer_to_a_write_has_its_error() {
    let expected = [
        (Told::error(400, "check-and-set parameter did not match the current version"), ErrorKind::Conflict),
        (Told::error(403, "permission denied"), ErrorKind::PermissionDenied),
        (Told::error(413, "request body too large"), ErrorKind::Invalid),
        (Told::error(500, "put failed due to value being too large"), ErrorKind::Invalid),
        (Told::error(500, "internal error"), ErrorKind::Unavailable),
        (Told::error(503, "Vault is sealed"), ErrorKind::Unavailable),
        (Told::cut(), ErrorKind::Unavailable),
    ];
    let told = Arc::new(Mutex::new(Told::cut()));
    let (_fake, store) = store_with({
        let told = Arc::clone(&told);
        move |_| told.lock().unwrap().clone()
    })
    .await;
    for (answer, kind) in expected {
        *told.lock().unwrap() = answer.clone();
        let error = store.put(&secret_ref("entry/a/1"), &bundle(&[("k", "v")]), Expect::Absent).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer:?}: {error}");
    }
    let large = "x".repeat(1024 * 1024);
    let error = store.put(&secret_ref("entry/a/1"), &bundle(&[("k", &large)]), Expect::Any).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn a_read_is_repeated_and_a_write_only_when_it_cannot_have_happened() {
    let count = Arc::new(AtomicUsize::new(0));
    let status = Arc::new(Mutex::new(500));
    let (_fake, store) = store_with({
        let (count, status) = (Arc::clone(&count), Arc::clone(&status));
        move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Told::error(*status.lock().unwrap(), "Vault is sealed")
        }
    })
    .await;
    let reference = secret_ref("entry/a/1");
    let taken = || count.swap(0, Ordering::SeqCst);
    store.get(&reference).await.unwrap_err();
    assert_eq!(taken(), 3, "a read that failed is repeated twice");
    store.put(&reference, &bundle(&[("k", "v")]), Expect::Any).await.unwrap_err();
    assert_eq!(taken(), 1, "a write that may have happened is not repeated");
    *status.lock().unwrap() = 503;
    store.put(&reference, &bundle(&[("k", "v")]), Expect::Any).await.unwrap_err();
    assert_eq!(taken(), 3, "a write that a sealed server refused is repeated");
}

#[tokio::test]
async fn a_redirect_takes_neither_the_token_nor_a_value_anywhere() {
    let came = Arc::new(Mutex::new(Vec::new()));
    let elsewhere = Fake::start({
        let came = Arc::clone(&came);
        move |asked| {
            came.lock().unwrap().push(format!("{asked:?}"));
            Told::ok(&json!({"data": {"k": "v"}, "metadata": {"version": 1}, "ttl": 0, "renewable": false}))
        }
    })
    .await;
    // Whether the login is answered, and how everything else is.
    let told = Arc::new(Mutex::new((true, 307)));
    let fake = Fake::start({
        let (told, elsewhere) = (Arc::clone(&told), elsewhere.address.clone());
        move |asked| {
            let (login, status) = *told.lock().unwrap();
            let here = if login { healthy(asked) } else { None };
            here.unwrap_or_else(|| Told::elsewhere(status, &format!("{elsewhere}{}", asked.path)))
        }
    })
    .await;
    let store = VaultStore::connect(&fake.config()).await.unwrap();
    let reference = secret_ref("entry/a/1");
    for (status, kind, part) in [
        (
            307,
            ErrorKind::Unavailable,
            "this node is a standby and forwards nothing; use the address of the active node",
        ),
        (301, ErrorKind::Backend, "use the address of the server itself"),
        (302, ErrorKind::Backend, "use the address of the server itself"),
        (303, ErrorKind::Backend, "use the address of the server itself"),
        (308, ErrorKind::Backend, "use the address of the server itself"),
    ] {
        *told.lock().unwrap() = (true, status);
        let read = store.get(&reference).await.map(drop);
        let written = store.put(&reference, &bundle(&[("k", CANARY)]), Expect::Any).await.map(drop);
        let removed = store.remove(&reference).await;
        let listed = store.list("").await.map(drop);
        *told.lock().unwrap() = (false, status);
        let connected = VaultStore::connect(&fake.config()).await.map(drop);
        let mut config = fake.config();
        config.auth =
            VaultAuth::AppRole { mount: "approle".to_owned(), role_id: "role".to_owned(), secret_id: CANARY.into() };
        let logged_in = VaultStore::connect(&config).await.map(drop);
        for outcome in [read, written, removed, listed, connected, logged_in] {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), kind, "{status}: {error}");
            let text = error.to_string();
            assert!(text.contains(part) && text.contains(&status.to_string()) && !text.contains(CANARY), "{text}");
        }
    }
    let came = came.lock().unwrap();
    assert!(came.is_empty(), "a redirect was followed: {came:?}");
}

#[tokio::test]
async fn whoever_is_not_there_is_named() {
    crate::support::tls();
    let config = VaultConfig::new("http://127.0.0.1:1", VaultAuth::Token("t".into()));
    let error = VaultStore::connect(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("no connection to http://127.0.0.1:1") && text.contains("address is right"), "{text}");
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_before_anything_is_sent() {
    crate::support::tls();
    let base = || VaultConfig::new("https://vault.example.com", VaultAuth::Token("t".into()));
    let refused = |config: VaultConfig| async move {
        let error = VaultStore::connect(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        error.to_string()
    };
    for address in
        ["vault.example.com", "ftp://vault", "https://user:pass@vault", "https://vault/v1", "https://vault?x"]
    {
        let mut config = base();
        address.clone_into(&mut config.address);
        let text = refused(config).await;
        assert!(text.contains("address") && !text.contains("user:pass"), "{text}");
    }
    for path in ["/secret", "secret/", "a//b", "a/../b", "a%2fb", "", "a b"] {
        let mut config = base();
        path.clone_into(&mut config.mount);
        assert!(refused(config).await.contains("mount"), "{path}");
    }
    for token in ["", "a\nb", "a b", "\u{e4}"] {
        let mut config = base();
        config.auth = VaultAuth::Token(token.into());
        assert!(refused(config).await.contains("auth.token"), "{token:?}");
    }
    let mut config = base();
    config.ca_file = Some("/does/not/exist.pem".into());
    assert!(refused(config).await.contains("caFile"));
    for (file, told) in [("trouble.rs", "holds no certificate"), ("certificate.pem", "no connection")] {
        let mut config = VaultConfig::new("https://127.0.0.1:1", VaultAuth::Token("t".into()));
        config.ca_file = Some(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vault").join(file));
        let error = VaultStore::connect(&config).await.unwrap_err().to_string();
        assert!(error.contains(told), "{file}: {error}");
    }
}

#[tokio::test]
async fn one_login_serves_everybody_and_an_expired_one_is_replaced_once() {
    let logins = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start({
        let logins = Arc::clone(&logins);
        move |asked| match asked.path.as_str() {
            "/v1/auth/approle/login" => {
                let n = logins.fetch_add(1, Ordering::SeqCst) + 1;
                let auth = json!({"client_token": format!("token-{n}"), "lease_duration": 3600, "renewable": false});
                Told::text(200, &json!({"auth": auth}).to_string()).after(Duration::from_millis(100))
            }
            "/v1/secret/data/archestra/entry/a/1"
                if asked.token != format!("token-{}", logins.load(Ordering::SeqCst)) =>
            {
                Told::error(403, "permission denied")
            }
            "/v1/secret/data/archestra/entry/a/1" if asked.token == "token-1" => Told::error(403, "permission denied"),
            "/v1/secret/data/archestra/entry/a/1" => Told::ok(&json!({"data": {"k": "v"}, "metadata": {"version": 1}})),
            _ => healthy(asked).unwrap_or_else(|| Told::error(400, "unexpected")),
        }
    })
    .await;
    let mut config = fake.config();
    config.auth =
        VaultAuth::AppRole { mount: "approle".to_owned(), role_id: "role".to_owned(), secret_id: CANARY.into() };
    let store = VaultStore::connect(&config).await.unwrap();
    assert_eq!(logins.load(Ordering::SeqCst), 1);
    // So that a refusal can be about the login.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let reads = (0..32).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.get(&secret_ref("entry/a/1")).await.map(drop) })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.unwrap().unwrap();
    }
    assert_eq!(logins.load(Ordering::SeqCst), 2, "32 readers whose login was gone made one new one");
    assert!(!format!("{store:?} {config:?}").contains(CANARY));
}

#[tokio::test]
async fn a_refused_login_says_which_and_never_shows_the_credential() {
    let fake = Fake::start(|asked| Told::error(400, &format!("invalid secret id in {}", asked.body))).await;
    let mut config = fake.config();
    config.auth =
        VaultAuth::AppRole { mount: "approle".to_owned(), role_id: "role".to_owned(), secret_id: CANARY.into() };
    let error = VaultStore::connect(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let text = format!("{error} {error:?}");
    assert!(text.contains("approle") && !text.contains(CANARY), "{text}");
}

#[tokio::test]
async fn no_value_is_in_an_error_whatever_the_server_says() {
    // A server that repeats what it was sent, in every form.
    for told in [
        |text: &str| Told::error(500, text),
        |text: &str| Told::error(400, text),
        |text: &str| Told::error(403, text),
        |text: &str| Told::text(200, text),
        |text: &str| Told::text(500, text),
        |text: &str| Told::text(200, &json!({"data": {"data": {"k": [text]}, "metadata": {"version": 1}}}).to_string()),
    ] {
        let (_fake, store) = store_with(move |asked| told(&format!("{} {CANARY}", asked.body))).await;
        let written = store.put(&secret_ref("entry/a/1"), &bundle(&[("k", CANARY)]), Expect::Any).await;
        let read = store.get(&secret_ref("entry/a/1")).await;
        let mut seen = format!("{store:?}");
        let mut note = |error: &Error| seen.push_str(&format!(" {error} {error:?}"));
        written.as_ref().err().into_iter().for_each(&mut note);
        // What a read is told did not come from us, and what an error says of it is the server's own words.
        if let Err(error @ (Error::Backend { .. } | Error::Unavailable { .. })) = &read
            && !error.to_string().contains(" on reading ")
        {
            note(error);
        }
        assert!(!seen.contains(CANARY), "{seen}");
    }
}

#[tokio::test]
async fn our_token_is_in_no_error_though_a_server_repeats_it() {
    let (_fake, store) = store_with(|asked| Told::error(403, &format!("no policy grants {} this", asked.token))).await;
    let error = store.get(&secret_ref("entry/a/1")).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("no policy grants (hidden) this") && !text.contains("fake-token"), "{text}");
}

#[tokio::test]
async fn what_was_read_is_kept_for_as_long_as_set_and_forgotten_by_a_write() {
    let reads = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start({
        let reads = Arc::clone(&reads);
        move |asked| match (asked.method.as_str(), asked.path.starts_with("/v1/secret/")) {
            ("GET", true) => {
                reads.fetch_add(1, Ordering::SeqCst);
                Told::ok(&json!({"data": {"k": "v"}, "metadata": {"version": 1}}))
            }
            ("POST", true) => Told::ok(&json!({"version": 2})),
            ("DELETE", true) => Told::text(204, ""),
            _ => healthy(asked).unwrap_or_else(|| Told::error(400, "unexpected")),
        }
    })
    .await;
    let mut config = fake.config();
    config.cache_for = Duration::from_secs(60);
    let store = VaultStore::connect(&config).await.unwrap();
    let reference = secret_ref("entry/a/1");
    for _ in 0..3 {
        store.get(&reference).await.unwrap();
    }
    assert_eq!(reads.swap(0, Ordering::SeqCst), 1);
    store.put(&reference, &bundle(&[("k", "n3w")]), Expect::Any).await.unwrap();
    store.get(&reference).await.unwrap();
    store.remove(&reference).await.unwrap();
    store.get(&reference).await.unwrap();
    assert_eq!(reads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_was_read_is_kept_on_while_its_version_is_the_same_and_read_where_nobody_may_ask() {
    let (version, deleted, forbidden) =
        (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let lives = Arc::new(AtomicUsize::new(1));
    let (reads, looks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let fake = Fake::start({
        let (version, deleted, forbidden) = (Arc::clone(&version), Arc::clone(&deleted), Arc::clone(&forbidden));
        let (reads, looks) = (Arc::clone(&reads), Arc::clone(&looks));
        let lives = Arc::clone(&lives);
        move |asked| {
            let now = version.load(Ordering::SeqCst);
            let life = lives.load(Ordering::SeqCst);
            let written = format!("2026-11-{life:02}T00:00:00.{now:03}Z");
            match asked.path.as_str() {
                "/v1/secret/metadata/archestra/entry/a/1" => {
                    looks.fetch_add(1, Ordering::SeqCst);
                    if forbidden.load(Ordering::SeqCst) {
                        return Told::error(403, "permission denied");
                    }
                    let gone = if deleted.load(Ordering::SeqCst) { "2026-11-30T00:00:00Z" } else { "" };
                    let versions = json!({
                        now.to_string(): {"created_time": written, "deletion_time": gone, "destroyed": false},
                    });
                    Told::ok(&json!({"current_version": now, "versions": versions}))
                }
                "/v1/secret/data/archestra/entry/a/1" => {
                    reads.fetch_add(1, Ordering::SeqCst);
                    if deleted.load(Ordering::SeqCst) {
                        return Told::text(404, r#"{"errors":[]}"#);
                    }
                    let value = if life == 1 { now.to_string() } else { format!("{now} of life {life}") };
                    Told::ok(&json!({"data": {"k": value}, "metadata": {"version": now, "created_time": written}}))
                }
                _ => healthy(asked).unwrap_or_else(|| Told::error(400, "unexpected")),
            }
        }
    })
    .await;
    let mut config = fake.config();
    config.cache_for = OVER;
    let store = VaultStore::connect(&config).await.unwrap();
    let reference = secret_ref("entry/a/1");
    // One read after the time of what was read before, and how often each was asked for it.
    let read = || async {
        tokio::time::sleep(OVER + Duration::from_millis(50)).await;
        let value = store.get(&reference).await.map(|stored| stored.bundle.get("k").unwrap().expose().to_owned());
        (value, reads.swap(0, Ordering::SeqCst), looks.swap(0, Ordering::SeqCst))
    };
    // What is over is swept at some time, so that not each read finds it.
    let mut sufficed = false;
    for _ in 0..100 {
        let (value, reads, looks) = read().await;
        assert_eq!((value.unwrap().as_str(), reads + looks), ("1", 1), "either is asked, once");
        sufficed |= looks == 1;
        if sufficed {
            break;
        }
    }
    assert!(sufficed, "the version says that it is the same");
    version.store(2, Ordering::SeqCst);
    assert_eq!(read().await.0.unwrap(), "2", "what was replaced is read");
    deleted.store(true, Ordering::SeqCst);
    assert_eq!(read().await.0.unwrap_err().kind(), ErrorKind::NotFound, "what was deleted is gone");
    deleted.store(false, Ordering::SeqCst);
    // The path is removed with all its versions and written anew, which counts from the beginning.
    for life in 2..12 {
        lives.store(life, Ordering::SeqCst);
        assert_eq!(
            read().await.0.unwrap(),
            format!("2 of life {life}"),
            "another write of the same number is another one"
        );
    }
    lives.store(1, Ordering::SeqCst);
    assert_eq!(read().await.0.unwrap(), "2");
    forbidden.store(true, Ordering::SeqCst);
    let mut refused = 0;
    for _ in 0..20 {
        let (value, reads, looks) = read().await;
        assert_eq!((value.unwrap().as_str(), reads), ("2", 1), "who may not look reads");
        refused += looks;
    }
    assert!(refused <= 2, "a refusal is believed: {refused}");
}
