//! What happens to a pod: how soon the API and the metrics say so, and that a log which is followed goes on with the next pod.

use archestra_tests::{
    Home, Running,
    cluster::{Cluster, ECHO},
    hosted::{self, LIMIT, eventually, gateway, install, save, until_running},
};
use http::Method;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::wait::{Condition, await_condition, conditions::is_deleted},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Wanted is a second. More is left for what else this machine does meanwhile.
const TOLD: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn the_status_follows_the_pod_as_the_watch_does() {
    let cluster = Cluster::namespace("prompt").await;
    let home = Home::new();
    let binary = cluster.start(&home, &[]).await;
    save(&binary, "echo", &json!({ "image": ECHO, "command": ["/mcp-echo"], "transport": "stdio" })).await;
    let id = install(&binary, "echo", json!("organization"), json!({})).await;
    until_running(&binary, &id).await;
    let front = gateway(&binary, "all", &["echo"]).await;
    eventually(&front, "echo__echo", json!({ "text": "up" })).await;
    let mut slowest = Duration::ZERO;

    for round in 0..ROUNDS {
        let (name, uid) = cluster.pods().await.remove(0);
        let gone = watched(&cluster, &name, is_deleted(&uid));
        let (gone, told, ()) = tokio::join!(gone, until_told(&binary, &id, Wanted::DoesNot), cluster.delete_pod(&name));
        slowest = slowest.max(later(round, "that it is gone", gone, told));

        let next = next_pod(&cluster, std::slice::from_ref(&uid)).await;
        let ready = watched(&cluster, &next, |pod: Option<&Pod>| pod.is_some_and(is_ready));
        let (ready, told) = tokio::join!(ready, until_told(&binary, &id, Wanted::Runs));
        slowest = slowest.max(later(round, "that the next one is ready", ready, told));
    }

    // An installation that waits for its server goes on at once, too; "ready" is said once its tools are listed.
    for round in 0..ROUNDS {
        let known: Vec<_> = cluster.pods().await.into_iter().map(|(_, uid)| uid).collect();
        let entry = format!("waits-{round}");
        save(&binary, &entry, &json!({ "image": ECHO, "command": ["/mcp-echo"], "transport": "stdio" })).await;
        let id = install(&binary, &entry, json!("organization"), json!({})).await;
        let pod = next_pod(&cluster, &known).await;
        let ready = watched(&cluster, &pod, |pod: Option<&Pod>| pod.is_some_and(is_ready));
        let (ready, told) = tokio::join!(ready, until_state_ready(&binary, &id));
        slowest = slowest.max(later(round, "that who waited has a server with tools", ready, told));
    }
    println!("at the most {slowest:?} after the watch of somebody else");
    assert!(slowest < TOLD, "{slowest:?}");
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

/// When a watch of ours sees it.
async fn watched(cluster: &Cluster, pod: &str, condition: impl Condition<Pod> + Send + Sync) -> Instant {
    let pods = Api::<Pod>::namespaced(cluster.client(), cluster.name());
    timeout(LIMIT, await_condition(pods, pod, condition)).await.expect("the watch sees it").unwrap();
    Instant::now()
}

/// What the API and the metrics are to say.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Runs,
    DoesNot,
}

/// When both say so.
async fn until_told(binary: &Running, id: &str, wanted: Wanted) -> Instant {
    let until = Instant::now() + LIMIT;
    let count = u8::from(wanted == Wanted::Runs);
    let metric = format!("mcp_server_deployment_status{{server_name=\"echo\",state=\"running\"}} {count}");
    loop {
        let status = hosted::status(binary, id).await;
        let metrics = binary.metrics().await;
        let says = (status["workload"]["phase"] == "running") == (wanted == Wanted::Runs);
        if says && metrics.lines().any(|line| line == metric) {
            return Instant::now();
        }
        assert!(Instant::now() < until, "{status}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn later(round: usize, what: &str, seen: Instant, told: Instant) -> Duration {
    let later = told.saturating_duration_since(seen);
    println!("round {round}: told {what} {later:?} after a watch had it");
    later
}

/// When an installation says that it has come up.
async fn until_state_ready(binary: &Running, id: &str) -> Instant {
    let until = Instant::now() + LIMIT;
    loop {
        let status = hosted::status(binary, id).await;
        if status["state"]["phase"] == "ready" {
            return Instant::now();
        }
        assert!(Instant::now() < until, "{status}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A pod that is none of `known`.
async fn next_pod(cluster: &Cluster, known: &[String]) -> String {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some((name, _)) = cluster.pods().await.into_iter().find(|(_, uid)| !known.contains(uid)) {
            return name;
        }
        assert!(Instant::now() < until, "Kubernetes makes no new pod");
        sleep(Duration::from_millis(20)).await;
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_log_that_is_followed_goes_on_with_the_next_pod() {
    let cluster = Cluster::namespace("logs").await;
    let home = Home::new();
    let binary = cluster.start(&home, &[]).await;
    save(&binary, "echo", &json!({ "image": ECHO, "command": ["/mcp-echo"], "transport": "stdio" })).await;
    let id = install(&binary, "echo", json!("organization"), json!({})).await;
    until_running(&binary, &id).await;

    let path = format!("/api/v1/installations/{id}/logs?follow=true");
    let lines = ("accept", "application/x-ndjson");
    let mut log = binary.api().open(Method::GET, &path, &[lines], bytes::Bytes::new()).await.unwrap();
    let mut heard: Vec<Value> = Vec::new();
    let mut rest = String::new();
    for pods in 1..=3 {
        let until = Instant::now() + LIMIT;
        while starts(&heard) < pods {
            let left = until.saturating_duration_since(Instant::now());
            let frame =
                timeout(left, log.frame()).await.unwrap_or_else(|_| panic!("pod {pods} is not heard: {heard:?}"));
            let data = frame.expect("it is followed on").unwrap().into_data().unwrap_or_default();
            rest.push_str(&String::from_utf8_lossy(&data));
            while let Some((line, more)) = rest.split_once('\n') {
                heard.push(serde_json::from_str(line).unwrap());
                rest = more.to_owned();
            }
        }
        match pods {
            1 => {
                let answer = binary.api().post(&format!("/api/v1/installations/{id}/restart"), &json!({})).await;
                assert_eq!(answer.status, 202, "{}", answer.text());
            }
            2 => {
                until_running(&binary, &id).await;
                for (name, _) in cluster.pods().await {
                    cluster.delete_pod(&name).await;
                }
            }
            _ => {}
        }
    }
    println!("one stream told of three pods: {} lines", heard.len());
    assert_eq!(starts(&heard), 3, "nothing is told twice: {heard:?}");
    drop(log);
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

/// How many processes have said that they are up.
fn starts(lines: &[Value]) -> usize {
    lines.iter().filter(|line| line["text"] == "mcp-echo is up").count()
}
