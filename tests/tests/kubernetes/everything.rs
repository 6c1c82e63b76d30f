//! server-everything from npm: over the bridge, attached, and over streamable HTTP; on the base image, and on images of its own.

use archestra_tests::{
    Home, Mcp,
    cluster::{Cluster, EVERYTHING, NODE},
    hosted::{self, LIMIT, eventually, gateway, save},
    mcp::{messages, text},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

/// How long the long operation takes, in seconds, and in how many steps.
const OPERATION: (u64, u64) = (2, 4);

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn server_everything_serves_on_each_image_and_transport() {
    let cluster = Cluster::namespace("everything").await;
    let home = Home::new();
    let (image, index) = NODE;
    let binary = cluster.start(&home, &["--base-image", image]).await;
    let env = json!([{ "name": "GREETING", "value": "grüß" }, { "name": "PORT", "value": "3001" }]);
    let http = |mut spec: Value| {
        spec["transport"] = "streamable-http".into();
        spec["port"] = 3001.into();
        spec["path"] = "/mcp".into();
        spec
    };
    let stdio = |mut spec: Value| {
        spec["transport"] = "stdio".into();
        spec
    };
    let servers = [
        ("base-stdio", stdio(json!({ "command": ["node", index, "stdio"] }))),
        ("base-http", http(json!({ "command": ["node"], "args": [index, "streamableHttp"] }))),
        ("own-stdio", stdio(json!({ "image": EVERYTHING, "command": ["node", index], "args": ["stdio"] }))),
        ("own-http", http(json!({ "image": EVERYTHING, "command": ["node", index, "streamableHttp"] }))),
        ("own-attached", stdio(json!({ "image": EVERYTHING, "args": ["stdio"] }))),
        ("own-entrypoint", http(json!({ "image": EVERYTHING, "args": ["streamableHttp"] }))),
    ];
    let mut installed = Vec::new();
    for (name, spec) in &servers {
        let mut spec = spec.clone();
        spec["env"] = env.clone();
        save(&binary, name, &spec).await;
        installed.push(hosted::install(&binary, name, json!("organization"), json!({})).await);
    }
    let front = gateway(&binary, "all", &servers.each_ref().map(|(name, _)| *name)).await;
    let mut trials = JoinSet::new();
    for (name, _) in &servers {
        front.until_listed(&format!("{name}__echo")).await;
        trials.spawn(serves(front.clone(), name));
    }
    while let Some(trial) = trials.join_next().await {
        trial.unwrap();
    }
    for id in &installed {
        let status = hosted::until_running(&binary, id).await;
        assert_eq!(status["workload"]["restarts"], 0, "{status}");
        assert!(status["tools"].as_u64().unwrap() >= 8, "{status}");
        let log = binary.api().get(&format!("/api/v1/installations/{id}/logs")).await.text();
        assert!(log.contains("Starting") && !log.contains("\"jsonrpc\""), "{log}");
        assert_eq!(binary.api().delete(&format!("/api/v1/installations/{id}")).await.status, 204);
    }
    cluster.emptied(LIMIT).await;
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

/// Calls its tools in both eras, and the long one several times at once.
async fn serves(front: Mcp, server: &str) {
    let tool = |name: &str| format!("{server}__{name}");
    let listed: Vec<_> = front.tools().await.into_iter().filter(|name| name.starts_with(&tool(""))).collect();
    assert!(listed.len() >= 8, "{server}: {listed:?}");

    let echoed = eventually(&front, &tool("echo"), json!({ "message": "modérn" })).await;
    assert_eq!(text(&echoed), "Echo: modérn", "{server}");
    let sum = front.call(&tool("get-sum"), json!({ "a": 2, "b": 40 })).await;
    assert!(text(&sum).contains("42"), "{server}: {sum}");
    let env = front.call(&tool("get-env"), json!({})).await;
    assert!(text(&env).contains("grüß"), "{server}: {env}");
    let refused = front.call(&tool("get-sum"), json!({ "a": "two" })).await;
    assert!(refused["isError"] == true || refused.is_null(), "{server}: {refused}");

    let session = front.session().await;
    assert!(session.tools().await.contains(&tool("echo")), "{server}");
    assert_eq!(text(&session.call(7, &tool("echo"), json!({ "message": "legacy" })).await), "Echo: legacy", "{server}");

    let mut operations = JoinSet::new();
    for n in 0..3 {
        let (front, name, session) = (front.clone(), tool("trigger-long-running-operation"), session.clone());
        operations.spawn(async move {
            let token = format!("operation {n}");
            let params = json!({ "name": name, "_meta": { "progressToken": token },
                "arguments": { "duration": OPERATION.0, "steps": OPERATION.1 } });
            let heard = match n {
                0 => messages(&session.request(9, "tools/call", params).await),
                _ => streamed(&front, params).await,
            };
            told(&name, &token, &heard);
        });
    }
    while let Some(operation) = operations.join_next().await {
        operation.unwrap();
    }
}

/// All messages of a modern call, the first of which must come long before the last.
async fn streamed(front: &Mcp, params: Value) -> Vec<Value> {
    let begun = Instant::now();
    let mut answer = front.open("tools/call", params).await.unwrap();
    let (mut whole, mut first) = (Vec::new(), None);
    while let Some(frame) = answer.frame().await {
        if let Ok(data) = frame.unwrap().into_data() {
            whole.extend_from_slice(&data);
        }
        if first.is_none() && String::from_utf8_lossy(&whole).contains("notifications/progress") {
            first = Some(begun.elapsed());
        }
    }
    let (first, took) = (first.expect("progress is told"), begun.elapsed());
    assert!(took - first > Duration::from_secs(OPERATION.0) / 4, "told after {first:?} of {took:?}");
    String::from_utf8(whole)
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?.trim()).ok())
        .collect()
}

/// Whether these are the messages of one long operation: its progress in order under its own token, then its result.
fn told(tool: &str, token: &str, heard: &[Value]) {
    let (result, before) = heard.split_last().unwrap_or_else(|| panic!("{tool}: no answer"));
    assert!(text(&result["result"]).contains("completed"), "{tool}: {result}");
    let progress: Vec<_> = before.iter().filter(|message| message["method"] == "notifications/progress").collect();
    assert!(progress.iter().all(|message| message["params"]["progressToken"] == token), "{tool}: {heard:#?}");
    let steps: Vec<_> = progress.iter().filter_map(|message| message["params"]["progress"].as_u64()).collect();
    assert_eq!(steps, (1..=OPERATION.1).collect::<Vec<_>>(), "{tool}: {heard:#?}");
}
