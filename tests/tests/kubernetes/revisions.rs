//! What an installation was given, in the arguments of its server; and an earlier revision that runs again.

use archestra_tests::{
    Home, Mcp,
    cluster::{Cluster, ECHO},
    hosted::{self, LIMIT, eventually, gateway, install, save, until_running, until_status},
    mcp::text,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What a shell, Kubernetes and a template would each read in their own way.
const REGION: &str = "eu $(HOME) $$x \"q\" ${user_config.OTHER} 'z'";

fn server(greeting: &str) -> Value {
    let env = json!([
        { "name": "REGION", "prompt": true, "required": true },
        { "name": "GREETING", "value": greeting },
    ]);
    json!({ "image": ECHO, "command": ["/mcp-echo"], "args": ["--region=${user_config.REGION}"], "env": env,
        "transport": "stdio" })
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn an_earlier_revision_runs_again_with_what_it_was_given() {
    let cluster = Cluster::namespace("revisions").await;
    let home = Home::new();
    let binary = cluster.start(&home, &[]).await;
    save(&binary, "echo", &server("one")).await;
    let listening = json!({ "image": ECHO, "command": ["/mcp-echo", "http"], "args": ["${user_config.PORT}"],
        "env": [{ "name": "PORT", "prompt": true, "required": true }],
        "transport": "streamable-http", "port": 8080, "path": "/mcp" });
    save(&binary, "listening", &listening).await;
    let id = install(&binary, "echo", json!("organization"), json!({ "REGION": REGION })).await;
    let other = install(&binary, "listening", json!("organization"), json!({ "PORT": "8080" })).await;
    until_running(&binary, &id).await;
    until_running(&binary, &other).await;
    let front = gateway(&binary, "all", &["echo", "listening"]).await;
    front.until_listed("echo__env").await;
    front.until_listed("listening__echo").await;
    greets(&front, "one").await;
    let command = eventually(&front, "echo__read", json!({ "path": "/proc/self/cmdline" })).await;
    assert_eq!(text(&command), format!("/mcp-echo\0--region={REGION}\0"));
    assert_eq!(text(&eventually(&front, "listening__echo", json!({ "text": "at 8080" })).await), "at 8080");

    hosted::replace(&binary, "echo", &server("two")).await;
    runs(&binary, &id, 2).await;
    greets(&front, "two").await;

    let begun = Instant::now();
    let back = binary.api().post(&format!("/api/v1/installations/{id}/rollback"), &json!({ "revision": 1 })).await;
    assert_eq!(back.status, 200, "{}", back.text());
    runs(&binary, &id, 3).await;
    greets(&front, "one").await;
    println!("the first revision ran again {:?} after it was asked for", begun.elapsed());
    let command = eventually(&front, "echo__read", json!({ "path": "/proc/self/cmdline" })).await;
    assert_eq!(text(&command), format!("/mcp-echo\0--region={REGION}\0"));

    // It stays, also for a platform that starts anew.
    let pods = cluster.pods().await;
    assert!(binary.stop().await.success());
    let binary = cluster.start(&home, &[]).await;
    until_running(&binary, &id).await;
    greets(&binary.gateway("all"), "one").await;
    assert!(cluster.pods().await.iter().all(|pod| pods.contains(pod)), "no pod was made anew");
    let revisions = binary.api().get(&format!("/api/v1/installations/{id}/revisions")).await.ok();
    let numbers: Vec<_> = revisions["items"].as_array().unwrap().iter().map(|one| one["number"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3], "{revisions}");
    let unknown = binary.api().post(&format!("/api/v1/installations/{id}/rollback"), &json!({ "revision": 9 })).await;
    assert!((400..500).contains(&unknown.status), "{}", unknown.text());
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

async fn runs(binary: &archestra_tests::Running, id: &str, revision: u32) {
    let fits = |status: &Value| status["workload"]["phase"] == "running" && status["workload"]["revision"] == revision;
    until_status(binary, id, fits).await;
}

/// Waits until the server says this: the former pod may answer until it has ended.
async fn greets(front: &Mcp, greeting: &str) {
    let until = Instant::now() + LIMIT;
    while text(&eventually(front, "echo__env", json!({ "name": "GREETING" })).await) != greeting {
        assert!(Instant::now() < until, "it does not say {greeting}");
        sleep(Duration::from_millis(100)).await;
    }
}
