//! The binary on PostgreSQL: what keeps it from starting, two on one database, a server that is restarted, a rotation of its keys;
//! and, on either database and with secrets in Vault, one that is killed again and again; and a file system that can only be read.
//!
//! `eval "$(.ci/pgbouncer)"` starts a server for them and a pooler in front of it, `eval "$(.ci/openbao)"` gets the Vault.
//! `ARCHESTRA_TEST_SECONDS` says how much trouble there is, 10 if it is absent.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is test code"
)]

use archestra_tests::{
    Home, Running, Start,
    binary::{self, ADMIN},
    postgres::Database,
    remote::Remote,
};
use serde_json::json;
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tokio::time::Instant;

/// Within this a change through one process is in effect in every other one.
const FOLLOWED: Duration = Duration::from_secs(1);

#[path = "stores/canaries.rs"]
mod canaries;
#[path = "stores/carried.rs"]
mod carried;
#[path = "stores/kept.rs"]
mod kept;
#[path = "stores/killed.rs"]
mod killed;
#[path = "stores/read_only.rs"]
mod read_only;
#[path = "stores/restarted.rs"]
mod restarted;
#[path = "stores/rotated.rs"]
mod rotated;
#[path = "stores/writing.rs"]
mod writing;

fn seconds() -> u64 {
    let text = std::env::var("ARCHESTRA_TEST_SECONDS").unwrap_or_else(|_| "10".to_owned());
    text.parse().expect("ARCHESTRA_TEST_SECONDS is a number of seconds")
}

fn on(database: &Database, key: &Path) -> Start {
    at(database.url(), key)
}

/// How the binary is started on the database at a URL.
fn at(url: String, key: &Path) -> Start {
    Start {
        args: ["--runtime", "none", "--key-file"]
            .into_iter()
            .map(str::to_owned)
            .chain([key.display().to_string()])
            .collect(),
        env: vec![("ARCHESTRA_DATABASE_URL", url), ("ARCHESTRA_QUICKSTART", "false".to_owned())],
    }
}

/// Starts the binary where it cannot start; its exit code and what it says.
fn refused(home: &Home, args: &[&str], url: Option<&str>) -> (i32, String) {
    let mut command = Command::new(binary::path());
    command.args(["--listen", "127.0.0.1:0", "--metrics-listen", "none", "--runtime", "none", "--data-dir"]);
    command.arg(home.path().join("data")).args(args).env("ARCHESTRA_ADMIN_TOKEN", ADMIN).stdin(Stdio::null());
    if let Some(url) = url {
        command.env("ARCHESTRA_DATABASE_URL", url);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!said.contains("canary"), "{said}");
    (output.status.code().unwrap(), said)
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn a_database_that_cannot_be_used_is_refused_with_a_remedy() {
    let home = Home::new();
    let database = Database::new();
    let key = home.key_file("key");
    let key = key.to_str().unwrap();
    let keyed = ["--key-file", key];
    let closed = binary::free_port();

    let (code, said) = refused(&home, &["--database-url", "postgres://u:canary@db/archestra"], None);
    assert!(code == 2 && said.contains("ARCHESTRA_DATABASE_URL"), "{said}");
    let (code, said) = refused(&home, &[], Some("mysql://u:canary@db/archestra"));
    assert!(code == 2 && said.contains("`postgres://USER@HOST/DATABASE`"), "{said}");
    let (code, said) = refused(&home, &[], Some(&database.url()));
    assert!(code == 2 && said.contains("--key-file"), "{said}");
    let (code, said) = refused(&home, &keyed, Some(&format!("postgres://u:canary@127.0.0.1:{closed}/archestra")));
    assert!(code == 1 && said.contains("cannot be reached") && said.contains("that the server runs"), "{said}");
    let url = database.url();
    let (credentials, at) = url.rsplit_once('@').unwrap();
    let (code, said) = refused(&home, &keyed, Some(&format!("postgres://archestra:canary@{at}")));
    assert!(code == 1 && said.contains("check the user and the password"), "{said}");
    let (host, _) = at.split_once('/').unwrap();
    let (code, said) = refused(&home, &keyed, Some(&format!("{credentials}@{host}/nowhere")));
    assert!(code == 1 && said.contains("CREATE DATABASE \"nowhere\""), "{said}");

    let binary = home.start(&on(&database, Path::new(key))).await;
    let other = home.key_file("other-key");
    let (code, said) = refused(&home, &["--key-file", other.to_str().unwrap()], Some(&database.url()));
    assert!(code == 1 && said.contains("same key file"), "{said}");
    assert!(binary.stop().await.success());

    database.run("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20990101_000001_later', 0)");
    let (code, said) = refused(&home, &keyed, Some(&database.url()));
    assert!(code == 1 && said.contains("start the newer version"), "{said}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn a_change_through_one_process_is_seen_by_calls_through_the_other() {
    let (database, homes) = (Database::new(), [Home::new(), Home::new()]);
    let start = on(&database, &homes[0].key_file("key"));
    let (first, second) = tokio::join!(homes[0].start(&start), homes[1].start(&start));
    changes_reach(first, second).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL and PgBouncer"]
async fn a_change_is_seen_through_a_pooler_and_past_it() {
    let (database, homes) = (Database::new(), [Home::new(), Home::new()]);
    let key = homes[0].key_file("key");
    let (direct, pooled) = (on(&database, &key), at(database.pooled_url(), &key));
    // Both find an empty database, and one of them makes its tables.
    let (first, second) = tokio::join!(homes[0].start(&direct), homes[1].start(&pooled));
    assert!(second.log().contains("a pooler is in front of the database"), "{}", second.log());
    changes_reach(first, second).await;
    let (first, second) = tokio::join!(homes[0].start(&pooled), homes[1].start(&pooled));
    assert!(first.api().get("/api/v1/gateways").await.ok()["items"].as_array().is_some_and(Vec::is_empty));
    assert!(first.stop().await.success() && second.stop().await.success());
}

/// Makes changes through either of two processes, and waits until calls through the other one go by them.
async fn changes_reach(first: Running, second: Running) {
    let remote = Remote::start().await;
    let entry = json!({ "name": "tracker", "scope": "organization", "remote": { "url": remote.url() } });
    first.api().post("/api/v1/entries", &entry).await.ok();
    second.api().post("/api/v1/installations", &json!({ "entry": "tracker", "scope": "organization" })).await.ok();

    let mut slowest = Duration::ZERO;
    let rounds = seconds().clamp(5, 60);
    for round in 0..rounds {
        let (near, far) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let slug = format!("gateway-{round}");
        let tools = [json!({ "entry": "tracker", "tool": "*" })];
        let spec = json!({ "slug": slug, "scope": "organization", "tools": tools });
        near.api().post("/api/v1/gateways", &spec).await.ok();
        let gateway = far.gateway(&slug);
        let works = async || {
            let params = json!({ "name": "tracker__wait", "arguments": { "say": round.to_string() } });
            let answer = gateway.modern("tools/call", params).await;
            answer.status == 200 && answer.text().contains(&format!("waited for {round}"))
        };
        slowest = slowest.max(followed("a new gateway", works).await);

        let made = near.api().post("/api/v1/tokens", &json!({ "name": slug })).await.ok();
        let bearer = gateway.as_token(made["token"].as_str());
        let lists = async || bearer.modern("tools/list", json!({})).await.status == 200;
        slowest = slowest.max(followed("a new token", lists).await);
        near.api().delete(&format!("/api/v1/tokens/{}", made["id"].as_str().unwrap())).await.ok();
        let locked_out = async || bearer.modern("tools/list", json!({})).await.status == 401;
        slowest = slowest.max(followed("a revoked token", locked_out).await);

        near.api().delete(&format!("/api/v1/gateways/{slug}")).await.ok();
        let gone = async || gateway.modern("tools/list", json!({})).await.status == 404;
        slowest = slowest.max(followed("a removed gateway", gone).await);
    }
    println!("{rounds} rounds of four changes; the slowest was followed after {slowest:?}");
    assert!(first.stop().await.success() && second.stop().await.success());
}

/// Waits until a change is in effect, and says how long that took.
async fn followed(what: &str, holds: impl AsyncFn() -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        // What is asked too late says nothing about the moment before.
        let asked = begun.elapsed();
        if holds().await {
            return asked;
        }
        assert!(asked < FOLLOWED, "{what} is not in effect after {asked:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
