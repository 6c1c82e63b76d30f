//! A database server that goes away and comes back under two whole binaries that are called and written to: calls go on for the
//! time that they may, then say why they do not; nothing that was acknowledged is lost; and all goes on without a restart.

use super::{
    at, seconds,
    writing::{Acknowledged, call, install, refusal},
};
use archestra_tests::{
    Home, Mcp, Running,
    postgres::{Database, Server},
    upstream::{self, Upstream, token},
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Longer than calls go on by what was read before.
const AWAY: u64 = 10;
/// Until all goes on again.
const RECOVERY: Duration = Duration::from_secs(60);

/// What came of calls.
#[derive(Debug, Default)]
struct Calls {
    stop: AtomicBool,
    served: AtomicU64,
    /// Those to which it was said that it is not known who may call, and when to come again.
    put_off: AtomicU64,
    /// Those that found no server to call, as seen by their result.
    failed: AtomicU64,
}

impl Calls {
    /// Calls again and again. Whatever is answered, it is never that a caller is unknown or a tool is not there.
    async fn go_on(&self, gateway: &Mcp) {
        while !self.stop.load(Ordering::SeqCst) {
            let answer = gateway.modern("tools/call", json!({ "name": "before__echo", "arguments": {} })).await;
            let text = answer.text();
            let count = match answer.status {
                200 if text.contains(&Upstream::told("before")) => &self.served,
                200 if answer.json()["result"]["isError"] == true => {
                    assert!(text.contains("cannot be read right now"), "{text}");
                    &self.failed
                }
                503 => {
                    assert!(answer.headers.contains_key("retry-after"), "{:?} {text}", answer.headers);
                    &self.put_off
                }
                status => panic!("{status} {text}"),
            };
            count.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let until = Instant::now() + RECOVERY;
    while !holds().await {
        assert!(Instant::now() < until, "{what}: not within {RECOVERY:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a binary that was never restarted calls, writes and installs again.
async fn goes_on(binary: &Running, upstream: &Upstream, name: &str) {
    let gateway = binary.gateway("all");
    until("a call after the restart", || async { call(&gateway, "before").await.is_ok() }).await;
    let added = upstream.keyed(name);
    until("a change after the restart", || async {
        // Whether one that was not answered is there, nobody knows.
        matches!(binary.api().post("/api/v1/entries", &added).await.status, 200 | 201 | 409)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn restarted_under_load_it_costs_nothing_that_was_acknowledged_and_all_goes_on_by_itself() {
    let server = Arc::new(Server::start());
    let database = Database::on(server.url());
    let homes = [Home::new(), Home::new()];
    let start = at(database.url(), &homes[0].key_file("key"));
    let upstream = Arc::new(Upstream::start().await);
    let (first, second) = tokio::join!(homes[0].start(&start), homes[1].start(&start));
    let binaries = [first, second];
    binaries[0].api().post("/api/v1/gateways", &upstream::gateway()).await.ok();
    binaries[0].api().post("/api/v1/entries", &upstream.keyed("before")).await.ok();
    let values = json!({ "entry": "before", "scope": "organization", "values": { "token": token("before") } });
    binaries[0].api().post("/api/v1/installations", &values).await.ok();

    let (calls, acknowledged) = (Arc::new(Calls::default()), Acknowledged::default());
    let (mut calling, mut writing) = (JoinSet::new(), JoinSet::new());
    for (n, binary) in binaries.iter().enumerate() {
        let gateway = binary.gateway("all");
        gateway.until_listed("before__echo").await;
        call(&gateway, "before").await.unwrap();
        for _ in 0..2 {
            let (calls, gateway) = (Arc::clone(&calls), gateway.clone());
            calling.spawn(async move { calls.go_on(&gateway).await });
        }
        for writer in 0..2 {
            let (api, upstream, name) = (binary.api(), Arc::clone(&upstream), format!("written-{n}-{writer}"));
            writing.spawn(install(api, upstream, name, acknowledged.clone()));
        }
    }
    let mut said = BTreeSet::new();
    let rounds = (seconds() / 20).clamp(1, 10);
    for round in 0..rounds {
        sleep(Duration::from_secs(1)).await;
        server.restart(if round % 2 == 0 { "fast" } else { "immediate" }, 0).await;
        for (n, binary) in binaries.iter().enumerate() {
            goes_on(binary, &upstream, &format!("short-{round}-{n}")).await;
        }
        let away = Arc::clone(&server);
        let away = tokio::spawn(async move { away.restart("immediate", AWAY).await });
        until("the database goes away", || async { !server.is_up() }).await;
        for binary in &binaries {
            // By what was read before, calls go on for a while.
            call(&binary.gateway("all"), "before").await.unwrap_or_else(|answer| panic!("{answer}"));
            assert_eq!(binary.api().get("/health/live").await.status, 200);
        }
        let put_off = calls.put_off.load(Ordering::SeqCst);
        until("calls are put off", || async { calls.put_off.load(Ordering::SeqCst) > put_off }).await;
        for (n, binary) in binaries.iter().enumerate() {
            let change = upstream.keyed(&format!("away-{round}-{n}"));
            let answer = binary.api().post("/api/v1/entries", &change).await;
            assert!(answer.status >= 500 || server.is_up(), "{} {}", answer.status, answer.text());
            if answer.status >= 500 {
                said.insert(refusal(&answer));
            }
        }
        away.await.unwrap();
        for (n, binary) in binaries.iter().enumerate() {
            goes_on(binary, &upstream, &format!("long-{round}-{n}")).await;
        }
    }
    calls.stop.store(true, Ordering::SeqCst);
    while let Some(ended) = calling.join_next().await {
        ended.unwrap();
    }
    assert!(writing.try_join_next().is_none(), "a writer failed");
    writing.shutdown().await;
    for binary in &binaries {
        acknowledged.all_there(binary).await;
        let gateway = binary.gateway("all");
        for name in acknowledged.installed() {
            until("a server that was installed", || async { call(&gateway, &name).await.is_ok() }).await;
        }
    }
    let [served, put_off, failed] =
        [&calls.served, &calls.put_off, &calls.failed].map(|count| count.load(Ordering::SeqCst));
    println!(
        "{rounds} rounds: {} entries and {} installations acknowledged; calls: {served} served, {put_off} put off, {failed} failed; said of changes: {said:#?}, {:#?}",
        acknowledged.saved(),
        acknowledged.installed().len(),
        acknowledged.refused(),
    );
    assert!(acknowledged.installed().len() > 10, "hardly anything was written");
    for binary in binaries {
        assert!(binary.stop().await.success());
    }
}
