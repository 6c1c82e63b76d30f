//! The parts of a cluster that go away for a while: servers that run go on serving, and all recovers by itself.
//!
//! These disturb everything else on the cluster, so they run alone, and only where the parts are processes of this machine:
//! `ARCHESTRA_TEST_NODE_PIDS` is a folder with their ids in the files `kubelet` and `apiserver`, and `ARCHESTRA_TEST_NODE_UP` the
//! program that starts again what is missing.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "this is test code, and the environment says where real parts are"
)]

use archestra_tests::{
    Home, Mcp, Running,
    cluster::{Cluster, ECHO},
    hosted::{self, eventually, gateway, install, is_clear, replace, save, until_running, until_status},
    mcp::text,
    processes,
    steady::{Steady, Tally},
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};
use tokio::{
    process::Command,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

/// What one of these does to the cluster, no other one may see.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How long a call may take here, and how much later its end would be a hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(5);
/// Not long enough for Kubernetes to give the node up, and long enough.
const SHORT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(50);
/// How long the API server is gone.
const GONE: Duration = Duration::from_secs(20);

fn env(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")).into()
}

fn process(name: &str) -> u32 {
    let file = env("ARCHESTRA_TEST_NODE_PIDS").join(name);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.trim().parse().unwrap()
}

/// Starts again what is missing, and waits until it answers.
async fn up() {
    let status = Command::new(env("ARCHESTRA_TEST_NODE_UP")).stdout(std::process::Stdio::null()).status();
    assert!(timeout(Duration::from_secs(120), status).await.unwrap().unwrap().success());
}

/// A process that stands still until this is dropped, however the test ends.
struct Paused(u32);

impl Paused {
    fn new(name: &str) -> Self {
        let id = process(name);
        processes::pause(id);
        Self(id)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        processes::resume(self.0);
    }
}

/// Starts the parts again when it is dropped, however the test ends.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        drop(std::process::Command::new(env("ARCHESTRA_TEST_NODE_UP")).stdout(std::process::Stdio::null()).status());
    }
}

const SERVERS: [&str; 3] = ["bridged", "listening", "attached"];

fn server(name: &str) -> Value {
    match name {
        "bridged" => json!({ "command": ["/mcp-echo"], "transport": "stdio" }),
        "attached" => json!({ "image": ECHO, "transport": "stdio" }),
        _ => {
            json!({ "command": ["/mcp-echo", "http", "8080"], "transport": "streamable-http", "port": 8080, "path": "/mcp" })
        }
    }
}

fn known_as(pod: &Pod) -> (String, String) {
    (pod.name_any(), pod.uid().unwrap_or_default())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn fixture(cluster: &Cluster, home: &Home) -> (Running, Mcp, Vec<String>) {
    let timeout = format!("{}s", CALL_TIMEOUT.as_secs());
    let binary = cluster.start(home, &["--call-timeout", &timeout]).await;
    let mut ids = Vec::new();
    for name in SERVERS {
        save(&binary, name, &server(name)).await;
        ids.push(install(&binary, name, json!("organization"), json!({})).await);
    }
    let front = gateway(&binary, "all", &SERVERS).await;
    for name in SERVERS {
        front.until_listed(&format!("{name}__echo")).await;
        eventually(&front, &format!("{name}__echo"), json!({ "text": "up" })).await;
    }
    (binary, front, ids)
}

fn callers(front: &Mcp) -> Vec<(&'static str, Steady)> {
    SERVERS.into_iter().map(|name| (name, Steady::start(front, name, 4, CALL_TIMEOUT + SLACK))).collect()
}

/// What is not reached through the part that is missing, as what is attached to is, goes on as if nothing were.
fn untouched(name: &str, tally: &Tally) {
    assert!(name == "attached" || tally.failures() == 0 && tally.answered > 100, "{name}: {tally}");
}

#[tokio::test]
#[ignore = "needs the one-node development cluster"]
async fn calls_go_on_while_the_kubelet_stands_still() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::namespace("kubelet").await;
    let home = Home::new();
    let (binary, front, ids) = fixture(&cluster, &home).await;
    let before = cluster.pods().await;
    let callers = callers(&front);

    let paused = Paused::new("kubelet");
    sleep(SHORT).await;
    for (name, steady) in &callers {
        let tally = steady.tally();
        println!("{name}, the kubelet standing still for {SHORT:?}: {tally}");
        untouched(name, &tally);
    }
    // Long enough for Kubernetes to take the node for lost.
    sleep(LONG).await;
    let status = hosted::status(&binary, &ids[0]).await;
    let silent = format!("{} {}", status["workload"]["phase"], status["workload"]["reason"]);
    drop(paused);
    let begun = Instant::now();
    for (name, id) in SERVERS.into_iter().zip(&ids) {
        until_running(&binary, id).await;
        eventually(&front, &format!("{name}__echo"), json!({ "text": "back" })).await;
    }
    println!("all is well {:?} after the kubelet went on; the status before: {silent}", begun.elapsed());
    for (name, steady) in callers {
        let tally = steady.end().await;
        println!("{name}, the kubelet standing still for {:?}: {tally}", SHORT + LONG);
        assert!(tally.slowest < CALL_TIMEOUT + SLACK, "{name}: {tally}");
    }
    assert_eq!(cluster.pods().await, before, "no pod was started anew");
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

#[tokio::test]
#[ignore = "needs the one-node development cluster"]
async fn calls_go_on_without_the_api_server_and_changes_after_it() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::namespace("apiserver").await;
    let home = Home::new();
    let (binary, front, ids) = fixture(&cluster, &home).await;
    let before = cluster.pods().await;
    save(&binary, "later", &server("bridged")).await;
    let callers = callers(&front);
    sleep(Duration::from_secs(1)).await;

    let restored = Restored;
    processes::kill(process("apiserver"));
    sleep(GONE / 2).await;
    // What needs the API server says that it is not there, and what does not answers.
    let begun = Instant::now();
    let body = json!({ "entry": "later", "scope": "organization" });
    let during = binary.api().post("/api/v1/installations", &body).await;
    println!("an installation without the API server: {} after {:?}", during.status, begun.elapsed());
    assert!(during.status == 201 || during.status >= 500 && is_clear(&during.text()), "{}", during.text());
    for id in &ids {
        let status = hosted::status(&binary, id).await;
        assert!(status["workload"]["phase"].is_string(), "{status}");
    }
    sleep(GONE.saturating_sub(GONE / 2)).await;
    let begun = Instant::now();
    up().await;
    drop(restored);
    println!("the API server was started again within {:?}", begun.elapsed());
    let begun = Instant::now();
    for name in SERVERS {
        let back = eventually(&front, &format!("{name}__echo"), json!({ "text": "back" })).await;
        assert_eq!(text(&back), "back");
    }
    println!("all servers answered {:?} after it was back", begun.elapsed());
    for (name, steady) in callers {
        let tally = steady.end().await;
        println!("{name}, without the API server for {GONE:?}: {tally}");
        untouched(name, &tally);
    }
    assert_eq!(cluster.pods().await, before, "no pod was started anew");

    // Changes take effect, by the same process.
    let mut changed = server("bridged");
    changed["env"] = json!([{ "name": "GREETING", "value": "after" }]);
    let begun = Instant::now();
    replace(&binary, "bridged", &changed).await;
    let saved = begun.elapsed();
    let until = Instant::now() + hosted::LIMIT;
    while !cluster.whole_pods().await.iter().any(|pod| !before.contains(&known_as(pod)) && is_ready(pod)) {
        assert!(Instant::now() < until, "Kubernetes makes no new pod");
        sleep(Duration::from_millis(100)).await;
    }
    let made = begun.elapsed();
    until_status(&binary, &ids[0], |status| {
        status["workload"]["phase"] == "running" && status["workload"]["revision"] == 2
    })
    .await;
    println!(
        "a change was saved in {saved:?}, its pod was ready after {made:?}, and that was told after {:?}",
        begun.elapsed()
    );
    assert!(begun.elapsed() - made < Duration::from_secs(15), "the watches came back too late");
    while text(&eventually(&front, "bridged__env", json!({ "name": "GREETING" })).await) != "after" {
        assert!(Instant::now() < until, "the former pod still answers");
        sleep(Duration::from_millis(100)).await;
    }
    let later = match during.status {
        201 => during.json()["id"].as_str().unwrap().to_owned(),
        _ => install(&binary, "later", json!("organization"), json!({})).await,
    };
    until_running(&binary, &later).await;
    for id in ids.iter().chain([&later]) {
        assert_eq!(binary.api().delete(&format!("/api/v1/installations/{id}")).await.status, 204);
    }
    cluster.cleared(hosted::LIMIT).await;
    assert!(binary.stop().await.success());
    cluster.delete().await;
}
