//! What the registry or the namespace's quota refuses: told with the reason soon after Kubernetes knows, and over when it is put
//! right.
//!
//! `ARCHESTRA_TEST_PULL_IMAGE`, `_USER` and `_PASSWORD` name an image of `mcp-echo` in a private registry: `.ci/k8s-registry`
//! makes them.

use archestra_tests::{
    Home, Running,
    cluster::{Cluster, ECHO},
    hosted::{self, LIMIT, eventually, gateway, until_running, until_status},
    mcp::text,
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Within this after Kubernetes knows, the status says so.
const TOLD: Duration = Duration::from_secs(10);
const WRONG: &str = "not-the-password-canary";

fn env(name: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "the environment says where real parts are")]
    let found = std::env::var(name);
    found.unwrap_or_else(|_| panic!("{name} is not set: eval \"$(.ci/k8s-registry)\""))
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_wrong_pull_password_is_told_and_the_right_one_is_taken() {
    let (image, user, password) =
        (env("ARCHESTRA_TEST_PULL_IMAGE"), env("ARCHESTRA_TEST_PULL_USER"), env("ARCHESTRA_TEST_PULL_PASSWORD"));
    let cluster = Cluster::namespace("pull").await;
    let home = Home::new();
    let binary = cluster.start(&home, &["--image-pull-policy", "Always"]).await;
    let server = |password: &str| {
        json!({ "image": image, "command": ["/mcp-echo"], "args": ["http", "8080"],
            "transport": "streamable-http", "port": 8080, "path": "/mcp",
            "imagePullSecrets": [{ "server": image.split('/').next(), "username": user, "password": password }] })
    };
    hosted::save(&binary, "private", &server(WRONG)).await;
    let id = hosted::install(&binary, "private", json!("organization"), json!({})).await;
    let known = async || {
        let pods = cluster.whole_pods().await;
        let statuses =
            pods.iter().flat_map(|pod| pod.status.iter().flat_map(|status| &status.container_statuses).flatten());
        let waiting = statuses.filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
        waiting.into_iter().any(|reason| matches!(reason, "ErrImagePull" | "ImagePullBackOff"))
    };
    let (told, status) = told_after(&binary, &id, known).await;
    let (reason, hint) = words(&status);
    println!("a wrong pull password was told {told:?} after Kubernetes knew: {reason}");
    assert!(reason.contains("401") || reason.to_lowercase().contains("auth"), "{reason}");
    assert!(hint.contains("imagePullSecrets"), "{hint}");
    until_status(&binary, &id, |status| status["state"]["phase"] == "error").await;

    let begun = Instant::now();
    hosted::replace(&binary, "private", &server(&password)).await;
    until_running(&binary, &id).await;
    println!("{:?} after the right password was saved it runs", begun.elapsed());
    let front = gateway(&binary, "private", &["private"]).await;
    front.until_listed("private__echo").await;
    assert_eq!(text(&eventually(&front, "private__echo", json!({ "text": "pulled" })).await), "pulled");

    // What runs has been pulled: another password is no reason to pull it again.
    let before = cluster.pods().await;
    hosted::replace(&binary, "private", &server(WRONG)).await;
    until_running(&binary, &id).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.pods().await, before);
    assert_eq!(text(&eventually(&front, "private__echo", json!({ "text": "still" })).await), "still");

    for path in ["status", "manifest", "revisions", "logs"] {
        let shown = binary.api().get(&format!("/api/v1/installations/{id}/{path}")).await.text();
        assert!(!shown.contains(WRONG) && !shown.contains(&password), "{path}: {shown}");
    }
    let log = binary.log();
    assert!(!log.contains(WRONG) && !log.contains(&password), "{log}");
    assert_eq!(binary.api().delete(&format!("/api/v1/installations/{id}")).await.status, 204);
    cluster.cleared(LIMIT).await;
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_quota_is_told_and_a_server_that_fits_runs() {
    let cluster = Cluster::namespace("quota").await;
    cluster.limit(&json!({ "requests.memory": "64Mi" })).await;
    let home = Home::new();
    let binary = cluster.start(&home, &[]).await;
    let server = |yaml: &str| {
        let mut server = json!({ "image": ECHO, "command": ["/mcp-echo"], "transport": "stdio" });
        if !yaml.is_empty() {
            server["deploymentYaml"] = yaml.into();
        }
        server
    };
    hosted::save(&binary, "large", &server("")).await;
    let id = hosted::install(&binary, "large", json!("organization"), json!({})).await;
    let known = async || {
        let deployments = Api::<Deployment>::namespaced(cluster.client(), cluster.name());
        let found = deployments.list(&ListParams::default()).await.unwrap();
        let status = found.items.into_iter().filter_map(|found| found.status);
        status.flat_map(|status| status.conditions.unwrap_or_default()).any(|found| found.type_ == "ReplicaFailure")
    };
    let (told, status) = told_after(&binary, &id, known).await;
    let (reason, hint) = words(&status);
    println!("a quota was told {told:?} after Kubernetes knew: {reason}");
    assert!(reason.contains("quota") && reason.contains("requests.memory"), "{reason}");
    assert!(hint.contains("quota"), "{hint}");

    let less = "spec: {template: {spec: {containers: [{name: mcp-server, resources: {requests: {memory: 32Mi}}}]}}}";
    hosted::replace(&binary, "large", &server(less)).await;
    until_running(&binary, &id).await;
    let front = gateway(&binary, "large", &["large"]).await;
    front.until_listed("large__echo").await;
    assert_eq!(text(&eventually(&front, "large__echo", json!({ "text": "fits" })).await), "fits");
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

/// How much later than Kubernetes the status says that it is an error, and the status.
async fn told_after(binary: &Running, id: &str, known: impl AsyncFn() -> bool) -> (Duration, Value) {
    let until = Instant::now() + LIMIT;
    while !known().await {
        assert!(Instant::now() < until, "Kubernetes never knew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let knew = Instant::now();
    let status = until_status(binary, id, |status| status["workload"]["phase"] == "error").await;
    assert!(knew.elapsed() < TOLD, "told {:?} later: {status}", knew.elapsed());
    (knew.elapsed(), status)
}

fn words(status: &Value) -> (&str, &str) {
    let word = |name: &str| status["workload"][name].as_str().unwrap_or_else(|| panic!("no {name}: {status}"));
    (word("reason"), word("hint"))
}
