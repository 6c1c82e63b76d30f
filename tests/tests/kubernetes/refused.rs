//! What cannot run, because of its image, of itself, of the nodes, the registry or the namespace's quota: told with the reason soon
//! after Kubernetes knows, and over when it is put right.
//!
//! `ARCHESTRA_TEST_PULL_IMAGE`, `_USER` and `_PASSWORD` name an image of `mcp-echo` in a private registry: `.ci/k8s-registry`
//! makes them.

use archestra_tests::{
    Home, Running,
    cluster::{Cluster, ECHO},
    hosted::{self, LIMIT, eventually, gateway, until_running, until_status},
    mcp::text,
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerStatus, Pod},
};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Within this after Kubernetes knows, the status says so.
const TOLD: Duration = Duration::from_secs(10);
const WRONG: &str = "not-the-password-canary";

/// Whether Kubernetes says it of a pod.
type Knows = fn(&Pod) -> bool;

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
    let known = async || cluster.whole_pods().await.iter().any(|pod| waits_for(pod, "ImagePull"));
    let (told, status) = told_after(&binary, &id, known, is_error).await;
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
    let (told, status) = told_after(&binary, &id, known, is_error).await;
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

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn an_image_a_crash_and_a_node_that_is_not_there_are_told() {
    let cluster = Cluster::namespace("failures").await;
    let home = Home::new();
    let binary = cluster.start(&home, &[]).await;
    let server = |more: Value| {
        let mut server = json!({ "image": ECHO, "command": ["/mcp-echo"], "transport": "stdio" });
        server.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server
    };
    let nowhere = "spec: {template: {spec: {nodeSelector: {disk: none-such}}}}";
    let cases: [(&str, Value, Knows, &str); 3] = [
        ("image", json!({ "image": "localhost/there-is-none:1" }), |pod| waits_for(pod, "ImagePull"), "image"),
        ("crash", json!({ "args": ["exit", "3"] }), has_crashed, "exit code 3"),
        ("node", json!({ "deploymentYaml": nowhere }), is_unschedulable, "node"),
    ];
    for (name, more, knows, why) in cases {
        hosted::save(&binary, name, &server(more)).await;
        let id = hosted::install(&binary, name, json!("organization"), json!({})).await;
        let label = format!("archestra.dev/workload=mcp-{}", id.replace('-', ""));
        let known = async || cluster.labelled_pods(&label).await.iter().any(knows);
        let says = |status: &Value| {
            let word = |name: &str| status["workload"][name].as_str().unwrap_or_default();
            status["workload"]["phase"] != "running" && word("reason").contains(why) && !word("hint").is_empty()
        };
        let (told, status) = told_after(&binary, &id, known, says).await;
        let (reason, hint) = words(&status);
        println!("{name}: told {told:?} after Kubernetes knew: {reason}; {hint}");
        assert_eq!(binary.api().delete(&format!("/api/v1/installations/{id}")).await.status, 204);
    }
    cluster.cleared(LIMIT).await;
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

fn is_error(status: &Value) -> bool {
    status["workload"]["phase"] == "error"
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

/// Whether a container of it waits, for a reason of this kind.
fn waits_for(pod: &Pod, kind: &str) -> bool {
    let waiting = containers(pod).filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    waiting.into_iter().any(|reason| reason.contains(kind))
}

fn has_crashed(pod: &Pod) -> bool {
    let states = containers(pod).flat_map(|status| [&status.state, &status.last_state]);
    states.filter_map(|state| state.as_ref()?.terminated.as_ref()).any(|ended| ended.exit_code != 0)
}

fn is_unschedulable(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|found| found.reason.as_deref() == Some("Unschedulable"))
}

/// How much later than Kubernetes the status says so, and the status.
async fn told_after(
    binary: &Running,
    id: &str,
    known: impl AsyncFn() -> bool,
    says: impl Fn(&Value) -> bool,
) -> (Duration, Value) {
    let until = Instant::now() + LIMIT;
    while !known().await {
        assert!(Instant::now() < until, "Kubernetes never knew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let knew = Instant::now();
    let status = until_status(binary, id, says).await;
    assert!(knew.elapsed() < TOLD, "told {:?} later: {status}", knew.elapsed());
    (knew.elapsed(), status)
}

fn words(status: &Value) -> (&str, &str) {
    let word = |name: &str| status["workload"][name].as_str().unwrap_or_else(|| panic!("no {name}: {status}"));
    (word("reason"), word("hint"))
}
