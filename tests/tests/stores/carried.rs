//! `backup` and `restore` on PostgreSQL, and what a process does whose claim of the database is lost.

use super::{on, seconds};
use archestra_tests::{Home, Running, Start, postgres::Database, remote::Remote};
use serde_json::json;
use std::{path::Path, time::Duration};
use tokio::time::Instant;

/// A claim is renewed every ten seconds, and what is lost is noticed then.
const NOTICED: Duration = Duration::from_secs(60);

async fn works(binary: &Running) {
    let params = json!({ "name": "tracker__wait", "arguments": { "say": "hello" } });
    let answer = binary.gateway("all").modern("tools/call", params).await;
    assert!(answer.status == 200 && answer.text().contains("waited for hello"), "{}", answer.text());
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn a_backup_is_restored_into_another_database_of_either_kind_and_serves_again() {
    let (home, from, to) = (Home::new(), Database::new(), Database::new());
    let key = home.key_file("key");
    let remote = Remote::start().await;
    let binary = home.start(&on(&from, &key)).await;
    let entry = json!({ "name": "tracker", "scope": "organization", "remote": { "url": remote.url() } });
    binary.api().post("/api/v1/entries", &entry).await.ok();
    binary.api().post("/api/v1/installations", &json!({ "entry": "tracker", "scope": "organization" })).await.ok();
    let tools = [json!({ "entry": "tracker", "tool": "*" })];
    binary
        .api()
        .post("/api/v1/gateways", &json!({ "slug": "all", "scope": "organization", "tools": tools }))
        .await
        .ok();
    works(&binary).await;

    // While it runs, and nobody waits.
    let file = home.path().join("backup");
    let named = file.to_str().unwrap();
    let at = |database: &Database| Start { args: Vec::new(), env: vec![("ARCHESTRA_DATABASE_URL", database.url())] };
    let (code, said) = home.run(&["backup", "--to", named], &at(&from));
    assert!(code == 0 && said.contains("keep the key file"), "{said}");
    assert!(!std::fs::read_to_string(&file).unwrap().contains(from.password()));
    works(&binary).await;
    let (code, said) = home.run(&["restore", "--from", named], &at(&from));
    assert!(code == 1 && said.contains("runs on this database; stop it first"), "{said}");
    assert!(binary.stop().await.success());
    let (code, said) = home.run(&["restore", "--from", named], &at(&from));
    assert!(code == 1 && said.contains("only into an empty database"), "{said}");

    let (code, said) = home.run(&["restore", "--from", named], &at(&to));
    assert!(code == 0 && said.contains("restored"), "{said}");
    let binary = home.start(&on(&to, &key)).await;
    works(&binary).await;
    assert!(binary.stop().await.success());

    let other = Home::new();
    let (code, said) = other.run(&["restore", "--from", named], &Start::default());
    assert!(code == 0 && said.contains("restored"), "{said}");
    let args = ["--runtime", "none", "--key-file", key.to_str().unwrap()].map(str::to_owned).into();
    let start = Start { args, env: vec![("ARCHESTRA_QUICKSTART", "false".to_owned())] };
    let binary = other.start(&start).await;
    works(&binary).await;
    assert!(binary.stop().await.success());
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn a_process_whose_claim_is_lost_ends_and_says_why() {
    let (home, database) = (Home::new(), Database::new());
    let start = on(&database, Path::new(&home.key_file("key")));
    let binary = home.start(&start).await;
    // As it is for one that was cut off for a minute, while one with another key file came.
    database.run("UPDATE key_ring SET instance = 'another one', fingerprint = 'another', seen_at = seen_at + 20000");
    let until = Instant::now() + NOTICED + Duration::from_secs(seconds());
    while !binary.log().contains("another process with another key file uses this database") {
        assert!(Instant::now() < until, "it goes on:\n{}", binary.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(binary.log().contains("the claim of the key ring is lost"), "{}", binary.log());
    assert_eq!(binary.stop().await.code(), Some(1));
    // Whoever has the database keeps it.
    let kept = database.run("SELECT count(*) FROM key_ring WHERE instance = 'another one'");
    assert!(kept.contains('1'), "{kept}");
}
