//! A rotation of the keys that is killed in the middle, again and again: it is finished in the end, and nothing is lost.

use super::{on, refused};
use archestra_tests::{Home, Running, postgres::Database, upstream::Upstream};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// So many that sealing them anew takes several steps.
const SERVERS: usize = 400;
/// How often it is killed.
const KILLS: usize = 2;
const WITHIN: Duration = Duration::from_secs(60);
const DONE: &str = "older keys are no longer needed";

/// A key file with further lines below a new one.
fn rotated(home: &Home, id: &str, below: &Path) -> PathBuf {
    let (new, both) = (home.key_file(&format!("only-{id}")), home.path().join(format!("key-{id}")));
    let line = fs::read_to_string(&new).unwrap().replacen("k1 ", &format!("{id} "), 1);
    fs::write(&new, &line).unwrap();
    fs::copy(&new, &both).unwrap();
    fs::write(&both, line + &fs::read_to_string(below).unwrap()).unwrap();
    both
}

/// How many secrets are still sealed under another key.
fn left(database: &Database, newest: &str) -> usize {
    database.run(&format!("SELECT count(*) FROM secrets WHERE key_id <> '{newest}'")).parse().unwrap()
}

async fn finished(binary: &Running) {
    let until = Instant::now() + WITHIN;
    while !binary.log().contains(DONE) {
        assert!(Instant::now() < until, "{}", binary.log());
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn a_rotation_that_is_killed_in_the_middle_is_finished_and_loses_nothing() {
    let (database, home, upstream) = (Database::new(), Home::new(), Upstream::start().await);
    let first = home.key_file("key-k1");
    let tokens: BTreeMap<_, _> = (0..SERVERS).map(|n| (format!("server{n}"), format!("canary-{n}"))).collect();
    let binary = home.start(&on(&database, &first)).await;
    binary.api().post("/api/v1/apply", &upstream.servers("all", &tokens)).await.ok();
    assert!(binary.stop().await.success());
    assert_eq!(left(&database, "k2"), SERVERS);

    let both = rotated(&home, "k2", &first);
    let (mut last, mut kills) = (SERVERS, 0);
    while kills < KILLS {
        let binary = home.begin(&on(&database, &both));
        let until = Instant::now() + WITHIN;
        let now = loop {
            let now = left(&database, "k2");
            if now < last {
                break now;
            }
            assert!(Instant::now() < until, "nothing is sealed anew: {}", binary.log());
        };
        binary.kill().await;
        let now = left(&database, "k2").min(now);
        assert!(now > 0, "it was too fast to be killed in the middle");
        (last, kills) = (now, kills + 1);
        // Some need either key.
        for (key, lacks) in [("key-k1", "k2"), ("only-k2", "k1")] {
            let key = home.path().join(key);
            let (code, said) = refused(&home, &["--key-file", key.to_str().unwrap()], Some(&database.url()));
            assert!(code == 1 && said.contains(&format!("lacks key {lacks}")), "{said}");
        }
    }
    let binary = home.start(&on(&database, &both)).await;
    finished(&binary).await;
    assert_eq!(left(&database, "k2"), 0);
    assert!(binary.stop().await.success());

    // Whoever was killed counts as there for a minute, which nobody has to wait for here.
    database.run("UPDATE key_ring SET seen_at = seen_at - 61000");
    let binary = home.start(&on(&database, &home.path().join("only-k2"))).await;
    let gateway = binary.gateway("all");
    gateway.until_listed("server0__echo").await;
    for (name, token) in &tokens {
        let result = gateway.call(&format!("{name}__echo"), json!({})).await;
        assert_eq!(result["content"][0]["text"], format!("/mcp/{name} Bearer {token}"));
    }
    assert!(binary.stop().await.success());
}
