//! Pods that go while they are at work: the call fails clearly or is answered, and the next ones work.

use archestra_tests::{
    Home, Mcp, Running,
    cluster::{Cluster, ECHO},
    hosted::{self, eventually, gateway, is_clear, save, until_running},
    mcp::text,
    steady::Steady,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

/// How long a call may take here, and how much later its end would be a hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
const SLACK: Duration = Duration::from_secs(5);

fn servers() -> [(&'static str, Value); 3] {
    [
        ("bridged", json!({ "command": ["/mcp-echo"], "transport": "stdio" })),
        ("attached", json!({ "image": ECHO, "transport": "stdio" })),
        (
            "listening",
            json!({ "command": ["/mcp-echo", "http", "8080"], "transport": "streamable-http", "port": 8080, "path": "/mcp" }),
        ),
    ]
}

async fn fixture(cluster: &Cluster, home: &Home) -> (Running, Mcp, Vec<(&'static str, String)>) {
    let timeout = format!("{}s", CALL_TIMEOUT.as_secs());
    let binary = cluster.start(home, &["--call-timeout", &timeout]).await;
    let mut installed = Vec::new();
    for (name, server) in servers() {
        save(&binary, name, &server).await;
        installed.push((name, hosted::install(&binary, name, json!("organization"), json!({})).await));
    }
    let front = gateway(&binary, "all", &servers().map(|(name, _)| name)).await;
    for (name, _) in &installed {
        front.until_listed(&format!("{name}__sleep")).await;
        eventually(&front, &format!("{name}__echo"), json!({ "text": "up" })).await;
    }
    (binary, front, installed)
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_pod_that_is_lost_during_a_call_fails_that_call_clearly() {
    let cluster = Cluster::namespace("lost").await;
    let home = Home::new();
    let (binary, front, installed) = fixture(&cluster, &home).await;
    // At once, as with a node that dies; and with notice, where a call that is short enough may still be answered.
    for (notice, millis) in [(false, 60_000), (true, 2_000)] {
        for (name, id) in &installed {
            let pod = pod_of(&front, name).await;
            let begun = Instant::now();
            let mut calls = JoinSet::new();
            for _ in 0..8 {
                let (front, tool) = (front.clone(), format!("{name}__sleep"));
                calls.spawn(async move { front.call(&tool, json!({ "millis": millis })).await });
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            match notice {
                true => cluster.end_pod(&pod).await,
                false => cluster.delete_pod(&pod).await,
            }
            let (mut answered, mut told) = (0, String::new());
            while let Some(call) = calls.join_next().await {
                let result = call.unwrap();
                if result["isError"] == true {
                    told = text(&result).to_owned();
                    assert!(is_clear(&told), "{name}: {result}");
                } else {
                    assert_eq!(text(&result), "slept", "{name}: {result}");
                    answered += 1;
                }
            }
            let ended = begun.elapsed();
            assert!(ended < CALL_TIMEOUT + SLACK, "{name}: a call hangs for {ended:?}");
            assert!(notice || answered == 0, "{name}: nobody could have answered");
            eventually(&front, &format!("{name}__echo"), json!({ "text": "again" })).await;
            println!(
                "{name}, pod {}: {answered} of 8 calls answered, all over after {ended:?}, the next one after {:?}; {told}",
                if notice { "asked to end" } else { "lost" },
                begun.elapsed()
            );
            until_running(&binary, id).await;
            // One that was asked to end may answer until it has ended.
            let until = Instant::now() + hosted::LIMIT;
            while pod_of(&front, name).await == pod {
                assert!(Instant::now() < until, "{name}: {pod} still answers");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_restart_rolls_while_calls_go_on() {
    let cluster = Cluster::namespace("rolling").await;
    let home = Home::new();
    let (binary, front, installed) = fixture(&cluster, &home).await;
    for (name, id) in &installed {
        let pod = pod_of(&front, name).await;
        let steady = Steady::start(&front, name, 4, CALL_TIMEOUT + SLACK);
        let begun = Instant::now();
        let answer = binary.api().post(&format!("/api/v1/installations/{id}/restart"), &json!({})).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let until = begun + hosted::LIMIT;
        while cluster.pods().await.iter().any(|(there, _)| *there == pod) {
            assert!(Instant::now() < until, "{pod} is still there");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let took = begun.elapsed();
        eventually(&front, &format!("{name}__echo"), json!({ "text": "again" })).await;
        let tally = steady.end().await;
        println!("{name}: restarted in {took:?}; {tally}");
        // Attached, one process has the only stream there is: it ends before the other begins.
        let rolls = *name != "attached";
        assert!(!rolls || tally.failures() == 0 && tally.answered > 20, "{name}: {tally}");
        until_running(&binary, id).await;
    }
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

/// The pod whose process answers.
async fn pod_of(front: &Mcp, name: &str) -> String {
    let who = eventually(front, &format!("{name}__whoami"), json!({})).await;
    text(&who).split(' ').next().unwrap().to_owned()
}
