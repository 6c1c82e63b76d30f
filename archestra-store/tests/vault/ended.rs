//! Logins that are not needed any more are revoked, those that somebody gave us are not, and refusals cost few new ones.

use crate::{
    fake::{Asked, Fake, Told, healthy},
    methods::{app_role, token},
    support::{address, admin, config, mount, request},
};
use archestra_core::{ErrorKind, secret::SecretStore, testing::fixtures::secret_ref};
use archestra_store::{VaultAuth, VaultConfig, VaultStore, VaultTransit};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Longer than a login is too young to have ended.
const GROWN: Duration = Duration::from_millis(1100);
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server was asked about logins.
#[derive(Debug, Default)]
struct Logins {
    made: AtomicUsize,
    revoked: Mutex<Vec<String>>,
}

impl Logins {
    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    async fn until_revoked(&self, expected: &[&str]) {
        let until = Instant::now() + PATIENCE;
        while *self.revoked.lock().unwrap() != expected {
            assert!(Instant::now() < until, "{:?}, not {expected:?}", self.revoked.lock().unwrap());
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A server with an AppRole that reads as `read` says, and refuses tokens that were revoked.
async fn server(read: impl Fn(&Asked, usize) -> Told + Send + Sync + 'static) -> (Fake, Arc<Logins>) {
    let logins = Arc::new(Logins::default());
    let counted = Arc::clone(&logins);
    let fake = Fake::start(move |asked| {
        if counted.revoked.lock().unwrap().contains(&asked.token) {
            return Told::error(403, "permission denied");
        }
        match asked.path.as_str() {
            "/v1/auth/approle/login" => {
                let n = counted.made.fetch_add(1, Ordering::SeqCst) + 1;
                let auth = json!({"client_token": format!("token-{n}"), "lease_duration": 3600, "renewable": false});
                Told::text(200, &json!({"auth": auth}).to_string())
            }
            "/v1/auth/token/revoke-self" => {
                counted.revoked.lock().unwrap().push(asked.token.clone());
                Told::text(204, "")
            }
            path if path.starts_with("/v1/secret/") => read(asked, counted.made()),
            _ => healthy(asked).unwrap_or_else(|| Told::error(400, "unexpected")),
        }
    })
    .await;
    (fake, logins)
}

fn by_role(fake: &Fake) -> VaultConfig {
    let mut config = fake.config();
    config.request_timeout = Duration::from_secs(2);
    config.auth =
        VaultAuth::AppRole { mount: "approle".to_owned(), role_id: "role".to_owned(), secret_id: "id".into() };
    config
}

fn value() -> Told {
    Told::ok(&json!({"data": {"k": "v"}, "metadata": {"version": 1}}))
}

#[tokio::test]
async fn what_stays_refused_does_not_cost_a_login_each_second() {
    let (fake, logins) = server(|asked, _| match asked.path.ends_with("/refused") {
        true => Told::error(403, "permission denied"),
        false => value(),
    })
    .await;
    let store = VaultStore::connect(&by_role(&fake)).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(6500) {
        let error = store.get(&secret_ref("entry/a/refused")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        store.get(&secret_ref("entry/a/granted")).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    assert!((2..=4).contains(&logins.made()), "{} logins", logins.made());
}

#[tokio::test]
async fn a_login_is_revoked_when_a_newer_one_took_its_place_and_when_the_store_is_closed() {
    // The first login is refused once it is old, though it has not ended: its policy is another one by then.
    let (fake, logins) = server(|asked, made| match (asked.token.as_str(), made) {
        ("token-1", 1) => Told::error(403, "permission denied"),
        _ => value(),
    })
    .await;
    let store = VaultStore::connect(&by_role(&fake)).await.unwrap();
    let reference = secret_ref("entry/a/1");
    sleep(GROWN).await;
    store.get(&reference).await.unwrap();
    assert_eq!(logins.made(), 2);
    logins.until_revoked(&["token-1"]).await;
    store.get(&reference).await.unwrap();
    store.close().await;
    logins.until_revoked(&["token-1", "token-2"]).await;
    assert!(store.get(&reference).await.is_err(), "what is closed logs in no more");
    store.close().await;
    assert_eq!((logins.made(), logins.revoked.lock().unwrap().len()), (2, 2));
}

#[tokio::test]
async fn what_is_closed_at_once_revokes_both_and_a_start_that_fails_leaves_no_login() {
    let (fake, logins) = server(|asked, made| match (asked.token.as_str(), made) {
        ("token-1", 1) => Told::error(403, "permission denied"),
        _ => value(),
    })
    .await;
    let store = VaultStore::connect(&by_role(&fake)).await.unwrap();
    sleep(GROWN).await;
    store.get(&secret_ref("entry/a/1")).await.unwrap();
    store.close().await;
    let mut revoked = logins.revoked.lock().unwrap().clone();
    revoked.sort_unstable();
    assert_eq!(revoked, ["token-1", "token-2"]);

    let mut config = by_role(&fake);
    config.mount = "elsewhere".to_owned();
    VaultStore::connect(&config).await.unwrap_err();
    assert_eq!(logins.revoked.lock().unwrap().last().unwrap(), "token-3");
    VaultTransit::connect(&by_role(&fake), "transit", "key").await.unwrap().close().await;
    assert_eq!(logins.revoked.lock().unwrap().last().unwrap(), "token-4");
}

#[tokio::test]
async fn a_token_that_somebody_gave_us_is_not_revoked_and_a_silent_server_does_not_hold_up_the_end() {
    let (fake, logins) = server(|_, _| value()).await;
    let store = VaultStore::connect(&fake.config()).await.unwrap();
    store.get(&secret_ref("entry/a/1")).await.unwrap();
    store.close().await;
    assert!(logins.revoked.lock().unwrap().is_empty());

    let silent = Fake::start(|asked| match asked.path.as_str() {
        "/v1/auth/approle/login" => {
            let auth = json!({"client_token": "token", "lease_duration": 3600, "renewable": false});
            Told::text(200, &json!({"auth": auth}).to_string())
        }
        "/v1/auth/token/revoke-self" => Told::text(204, "").after(Duration::from_secs(600)),
        _ => healthy(asked).unwrap_or_else(value),
    })
    .await;
    let store = VaultStore::connect(&by_role(&silent)).await.unwrap();
    tokio::time::timeout(PATIENCE, store.close()).await.expect("it takes no longer than a request");
}

/// How many logins by a method the server has at the moment.
async fn living(method: &str) -> usize {
    let listed = admin("LIST", "auth/token/accessors", Value::Null).await.unwrap();
    let mut living = 0;
    for accessor in listed["data"]["keys"].as_array().unwrap() {
        let root = crate::support::root_token();
        let asked = json!({"accessor": accessor});
        // Others come and go meanwhile.
        if let (200, Some(found)) = request(&address(), &root, "POST", "auth/token/lookup-accessor", asked).await {
            let path = found["data"]["path"].as_str().unwrap_or_default();
            living += usize::from(path.starts_with(&format!("auth/{method}/")));
        }
    }
    living
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_real_server_keeps_no_login_that_is_not_needed() {
    let mount = mount(2).await;
    let (approle, auth) = app_role(&mount, json!({"token_ttl": "1h"})).await;
    let mut config = config(&mount, auth);
    // A policy is for another prefix.
    config.prefix = "elsewhere".to_owned();
    config.request_timeout = Duration::from_secs(2);
    let store = VaultStore::connect(&config).await.unwrap();
    assert_eq!(living(&approle).await, 1);
    sleep(GROWN).await;
    for _ in 0..3 {
        let error = store.get(&secret_ref("entry/a/1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
    let until = Instant::now() + PATIENCE;
    while living(&approle).await != 1 {
        assert!(Instant::now() < until, "what was superseded is still there");
        sleep(Duration::from_millis(200)).await;
    }
    store.close().await;
    assert_eq!(living(&approle).await, 0);
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_real_server_keeps_the_token_that_somebody_gave_us() {
    let mount = mount(2).await;
    let given = token(&mount, json!({"ttl": "1h"})).await;
    let store = VaultStore::connect(&config(&mount, VaultAuth::Token(given.as_str().into()))).await.unwrap();
    sleep(GROWN).await;
    store.close().await;
    let (status, _) = request(&address(), &given, "GET", "auth/token/lookup-self", Value::Null).await;
    assert_eq!(status, 200);
}
