//! Self-hosted servers on a real cluster, through the API and the gateway of the real binary.
//!
//! `ARCHESTRA_TEST_KUBECONFIG` names the cluster; `.ci/k8s-images` makes the images.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod kubernetes {
    mod attached;
    mod drift;
    mod everything;
    mod followed;
    mod in_cluster;
    mod lost;
    mod many;
    mod packages;
    mod refused;
    mod replicas;
    mod revisions;
}

use archestra_tests::{
    Home, Running,
    cluster::{Cluster, ECHO},
    hosted::{self, LIMIT, eventually, gateway, known, save, until_status},
    mcp::text,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn every_transport_serves_calls_with_the_secrets_of_its_installation() {
    let cluster = Cluster::namespace("transports").await;
    let home = Home::new();
    let binary = cluster.start(&home, &[]).await;
    let env = json!([
        { "name": "GREETING", "value": "a$$b $(HOME) ${x} \"q\"" },
        { "name": "API_KEY", "secret": true, "prompt": true, "required": true },
        { "name": "CERT", "secret": true, "prompt": true, "required": true, "mount": true }
    ]);
    let server = |extra: Value| {
        let mut hosted = json!({ "env": env });
        hosted.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        hosted
    };
    let entries = [
        ("bridged", server(json!({ "command": ["/mcp-echo"], "transport": "stdio" }))),
        ("attached", server(json!({ "image": ECHO, "transport": "stdio" }))),
        (
            "listening",
            server(json!({ "image": ECHO, "command": ["/mcp-echo"], "args": ["http", "8080"],
                "transport": "streamable-http", "port": 8080, "path": "/mcp" })),
        ),
    ];
    for (name, hosted) in &entries {
        save(&binary, name, hosted).await;
        install(&binary, name, json!("organization"), &format!("k-{name}")).await;
    }
    let gateway = gateway(&binary, "all", &["bridged", "attached", "listening"]).await;
    for (name, _) in &entries {
        gateway.until_listed(&format!("{name}__env")).await;
        let call =
            async |tool: &str, arguments| text(&gateway.call(&format!("{name}__{tool}"), arguments).await).to_owned();
        assert_eq!(call("echo", json!({ "text": "héllo" })).await, "héllo", "{name}");
        assert_eq!(call("env", json!({ "name": "GREETING" })).await, "a$$b $(HOME) ${x} \"q\"", "{name}");
        assert_eq!(call("env", json!({ "name": "API_KEY" })).await, format!("k-{name}"));
        assert_eq!(call("env", json!({ "name": "CERT" })).await, "(unset)");
        assert_eq!(call("read", json!({ "path": "/secrets/CERT" })).await, "line one\nline two\n");
    }

    // The same entry for another owner: its own pod, with its own secret.
    binary.api().post("/api/v1/teams", &json!({ "name": "finance" })).await.ok();
    install(&binary, "bridged", json!({ "team": "finance" }), "k-finance").await;
    let pinned = json!({ "slug": "finance", "scope": "organization",
        "tools": [{ "entry": "bridged", "tool": "*", "credential": { "installation": { "team": "finance" } } }] });
    binary.api().post("/api/v1/gateways", &pinned).await.ok();
    let finance = known(binary.gateway("finance")).await;
    finance.until_listed("bridged__env").await;
    assert_eq!(text(&eventually(&finance, "bridged__env", json!({ "name": "API_KEY" })).await), "k-finance");
    assert_eq!(text(&gateway.call("bridged__env", json!({ "name": "API_KEY" })).await), "k-bridged");

    // Many at once on each, every answer to its caller.
    let mut calls = JoinSet::new();
    for n in 0..300 {
        let (gateway, name) = (gateway.clone(), entries[n % 3].0);
        calls.spawn(async move {
            let result = gateway.call(&format!("{name}__echo"), json!({ "text": format!("{name} {n}") })).await;
            assert_eq!(text(&result), format!("{name} {n}"), "{result}");
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }

    let installations = binary.api().get("/api/v1/installations").await.ok();
    for installation in installations["items"].as_array().unwrap() {
        let id = installation["id"].as_str().unwrap();
        let manifest = binary.api().get(&format!("/api/v1/installations/{id}/manifest")).await.ok().to_string();
        assert!(manifest.contains("kind: Deployment") && !manifest.contains("k-bridged"), "{manifest}");
        let log = binary.api().get(&format!("/api/v1/installations/{id}/logs")).await.text();
        assert!(log.contains("mcp-echo is up") && !log.contains("jsonrpc"), "{log}");
        assert_eq!(binary.api().delete(&format!("/api/v1/installations/{id}")).await.status, 204);
    }
    cluster.cleared(LIMIT).await;
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_platform_that_dies_or_changes_its_defaults_touches_no_pod() {
    let cluster = Cluster::namespace("adoption").await;
    let home = Home::new();
    let binary = cluster.start(&home, &[]).await;
    save(&binary, "echo", &json!({ "command": ["/mcp-echo"], "transport": "stdio" })).await;
    let id = install(&binary, "echo", json!("organization"), "").await;
    let front = gateway(&binary, "one", &["echo"]).await;
    front.until_listed("echo__whoami").await;
    let (before, who) = (cluster.pods().await, text(&front.call("echo__whoami", json!({})).await).to_owned());
    binary.kill().await;

    let binary = cluster.start(&home, &["--workload-requests", "cpu=5m,memory=16Mi"]).await;
    let front = binary.gateway("one");
    assert_eq!(text(&eventually(&front, "echo__whoami", json!({})).await), who, "the same process answers");
    assert_eq!(cluster.pods().await, before);
    let status = binary.api().get(&format!("/api/v1/installations/{id}/status")).await.ok();
    assert_eq!((&status["outdated"], &status["workload"]["phase"]), (&json!(true), &json!("running")), "{status}");

    binary.api().post(&format!("/api/v1/installations/{id}/update"), &json!({})).await.ok();
    until_status(&binary, &id, |status| {
        status["workload"]["revision"] == 2 && status["workload"]["phase"] == "running"
    })
    .await;
    assert_eq!(binary.api().get(&format!("/api/v1/installations/{id}/status")).await.ok()["outdated"], false);
    let now = text(&eventually(&front, "echo__whoami", json!({})).await).to_owned();
    assert_ne!(now, who, "a new revision is another pod");

    // A pod that is lost comes back, and calls do too. The former one may still be ending.
    let serving = now.split(' ').next().unwrap();
    let lost = cluster.pods().await.into_iter().find(|pod| pod.0 == serving).unwrap();
    cluster.delete_pod(&lost.0).await;
    let until = Instant::now() + LIMIT;
    loop {
        let pods = cluster.pods().await;
        if pods.len() == 1
            && pods[0] != lost
            && front.call("echo__echo", json!({ "text": "x" })).await["isError"] != true
        {
            break;
        }
        assert!(Instant::now() < until, "{pods:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(binary.stop().await.success());
    assert_eq!(cluster.pods().await.len(), 1, "workloads outlive the platform");
    cluster.delete().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn what_kubernetes_would_refuse_is_refused_when_it_is_saved() {
    let cluster = Cluster::namespace("refused").await;
    let home = Home::new();
    let binary = cluster.start(&home, &[]).await;
    let hosted = |more: Value| {
        let mut spec = json!({ "image": ECHO, "command": ["/mcp-echo"], "transport": "stdio" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    for (more, field) in [
        (json!({ "image": "Not An Image" }), "image"),
        (json!({ "deploymentYaml": "spec: {template: {spec: {hostNetwork: true}}}" }), "deploymentYaml"),
        (json!({ "deploymentYaml": "spec: {tmplate: {}}" }), "deploymentYaml"),
        (json!({ "imagePullSecrets": [{ "existing": "somebody-elses" }] }), "imagePullSecrets[0]"),
        (json!({ "serviceAccount": "cluster-admin" }), "serviceAccount"),
    ] {
        let refused = binary.api().post("/api/v1/entries", &json!({ "name": "bad", "selfHosted": hosted(more) })).await;
        assert!((400..500).contains(&refused.status) && refused.text().contains(field), "{}", refused.text());
    }
    let preview = json!({ "name": "seen", "selfHosted": hosted(json!({})) });
    let shown = binary.api().post("/api/v1/preview", &preview).await.ok();
    assert!(shown["documents"].to_string().contains("runAsNonRoot: true"), "{shown}");
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

/// Installs an entry of these tests; `key` is what it gets for `API_KEY`, if it asks for one.
async fn install(binary: &Running, entry: &str, scope: Value, key: &str) -> String {
    let values = if key.is_empty() { json!({}) } else { json!({ "API_KEY": key, "CERT": "line one\nline two\n" }) };
    hosted::install(binary, entry, scope, values).await
}
