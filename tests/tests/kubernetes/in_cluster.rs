//! The platform as a pod with the Roles that are shipped: two replicas in it, one of which reaches servers by the names of their
//! Services, and the other as it thinks best.

use archestra_tests::{
    Mcp,
    cluster::{Cluster, EVERYTHING, NODE},
    hosted::{self, LIMIT, Platform as _, eventually, gateway, known, save},
    mcp::text,
    pod::InPod,
};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::{task::JoinSet, time::Instant};

const SERVERS: [&str; 3] = ["bridged", "listening", "attached"];

/// Servers that are told to end and do not listen are waited for this long, as process 1 of a container need not listen.
const PATIENCE: &str = "spec: {template: {spec: {terminationGracePeriodSeconds: 3}}}";

fn server(name: &str) -> Value {
    let (_, index) = NODE;
    let mut server = match name {
        "bridged" => json!({ "command": ["node", index, "stdio"], "transport": "stdio" }),
        "attached" => json!({ "image": EVERYTHING, "args": ["stdio"], "transport": "stdio" }),
        _ => json!({ "command": ["node", index, "streamableHttp"], "transport": "streamable-http", "port": 3001,
            "path": "/mcp", "env": [{ "name": "PORT", "value": "3001" }] }),
    };
    server["deploymentYaml"] = PATIENCE.into();
    server
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn in_a_pod_the_shipped_roles_are_enough_for_everything() {
    let (home, servers) = (Cluster::namespace("platform").await, Cluster::namespace("servers").await);
    let scheduling = json!({
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "tolerations": [{ "key": "dedicated", "operator": "Equal", "value": "mcp", "effect": "NoSchedule" }],
    });
    let base = ["--base-image", NODE.0];
    let by_name = [base[0], base[1], "--workload-reach", "cluster"];
    let begun = Instant::now();
    let pod = InPod::start(&home, &servers, scheduling, &[("auto", &base), ("by-name", &by_name)]).await;
    println!("two replicas in a pod were ready after {:?}", begun.elapsed());
    let [first, second] = pod.replicas() else { panic!("two replicas") };

    let begun = Instant::now();
    let mut ids = Vec::new();
    for name in SERVERS {
        save(first, name, &server(name)).await;
        ids.push(hosted::install(first, name, json!("organization"), json!({})).await);
    }
    let here = gateway(first, "all", &SERVERS).await;
    let there = known(second.gateway("all")).await;
    for name in SERVERS {
        for front in [&here, &there] {
            front.until_listed(&format!("{name}__echo")).await;
            let said = eventually(front, &format!("{name}__echo"), json!({ "message": name })).await;
            assert_eq!(text(&said), format!("Echo: {name}"));
        }
    }
    println!("three servers were called through both of them after {:?}", begun.elapsed());
    at_once(&here, &there).await;

    // What the platform's own pod was told about nodes, its servers are told too.
    let pods = servers.whole_pods().await;
    assert_eq!(pods.len(), SERVERS.len());
    let mut before = BTreeMap::new();
    for found in pods {
        let spec = found.spec.as_ref().unwrap();
        assert_eq!(spec.node_selector.as_ref().unwrap()["kubernetes.io/os"], "linux", "{spec:?}");
        let tolerates = |key: &str| spec.tolerations.iter().flatten().any(|one| one.key.as_deref() == Some(key));
        assert!(tolerates("dedicated"), "{spec:?}");
        before.insert(found.name_any(), found.uid().unwrap());
    }

    for (name, id) in SERVERS.into_iter().zip(&ids) {
        let status = hosted::until_running(second, id).await;
        assert_eq!(status["workload"]["restarts"], 0, "{status}");
        let log = second.api().get(&format!("/api/v1/installations/{id}/logs")).await.text();
        assert!(log.contains("Starting") && !log.contains("\"jsonrpc\""), "{name}: {log}");
        let restarted = second.api().post(&format!("/api/v1/installations/{id}/restart"), &json!({})).await;
        assert_eq!(restarted.status, 202, "{}", restarted.text());
    }
    let until = Instant::now() + LIMIT;
    while servers.pods().await.iter().any(|(name, _)| before.contains_key(name)) {
        assert!(Instant::now() < until, "not all have been restarted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (name, id) in SERVERS.into_iter().zip(&ids) {
        hosted::until_running(first, id).await;
        for front in [&here, &there] {
            eventually(front, &format!("{name}__echo"), json!({ "message": "again" })).await;
        }
    }

    for id in &ids {
        assert_eq!(second.api().delete(&format!("/api/v1/installations/{id}")).await.status, 204);
    }
    servers.cleared(LIMIT).await;
    let log = pod.log().await;
    for word in ["forbidden", "panicked", "deploy/rbac"] {
        assert!(!log.contains(word), "{log}");
    }
    pod.end().await;
    home.delete().await;
    servers.delete().await;
}

/// Calls of both replicas at once, every answer to its caller.
async fn at_once(here: &Mcp, there: &Mcp) {
    let mut calls = JoinSet::new();
    for n in 0..60 {
        let front = if n % 2 == 0 { here } else { there }.clone();
        calls.spawn(async move {
            let said = format!("call {n}");
            let result = front.call(&format!("{}__echo", SERVERS[n % 3]), json!({ "message": said })).await;
            assert_eq!(text(&result), format!("Echo: {said}"), "{result}");
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
}
