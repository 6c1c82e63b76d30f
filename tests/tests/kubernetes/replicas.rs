//! Two gateways on one SQLite file: they share one stdio server, and the loss of one is no concern of the other's callers.

use archestra_tests::{
    Home, Mcp,
    cluster::Cluster,
    hosted::{self, eventually, gateway, known, save},
    mcp::text,
};
use serde_json::json;
use std::collections::BTreeSet;
use tokio::{task::JoinSet, time::Instant};

/// How many calls each of them has at the same time.
const CALLS: usize = 300;

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn two_gateways_on_one_database_share_one_stdio_server() {
    let cluster = Cluster::namespace("replicas").await;
    let home = Home::new();
    let first = cluster.start(&home, &[]).await;
    let second = cluster.start(&home, &[]).await;
    save(&first, "echo", &json!({ "command": ["/mcp-echo"], "transport": "stdio" })).await;
    let id = hosted::install(&second, "echo", json!("organization"), json!({})).await;
    let here = gateway(&first, "one", &["echo"]).await;
    let there = known(second.gateway("one")).await;
    let mut servers = BTreeSet::new();
    for gateway in [&here, &there] {
        gateway.until_listed("echo__whoami").await;
        servers.insert(text(&eventually(gateway, "echo__whoami", json!({})).await).to_owned());
    }
    assert_eq!(servers.len(), 1, "{servers:?}");
    assert_eq!(cluster.pods().await.len(), 1);

    let begun = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..CALLS {
        calls.spawn(echo(here.clone(), format!("first {n}")));
        calls.spawn(echo(there.clone(), format!("second {n}")));
    }
    // While all of them go on, slow ones of both wait beside them.
    for (name, gateway) in [("first", &here), ("second", &there)] {
        let gateway = gateway.clone();
        calls.spawn(async move {
            let result = gateway.call("echo__sleep", json!({ "millis": 1500 })).await;
            assert_eq!(text(&result), "slept", "{name}");
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    println!("{CALLS} calls at once from each of two gateways took {:?}", begun.elapsed());

    // One is killed while both have calls under way.
    for n in 0..CALLS {
        calls.spawn(echo(there.clone(), format!("survivor {n}")));
    }
    let slow = tokio::spawn({
        let there = there.clone();
        async move { there.call("echo__sleep", json!({ "millis": 3000 })).await }
    });
    let lost = tokio::spawn({
        let here = here.clone();
        async move { here.open("tools/call", json!({ "name": "echo__sleep", "arguments": { "millis": 3000 } })).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    first.kill().await;
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    assert_eq!(text(&slow.await.unwrap()), "slept");
    drop(lost.await);
    assert_eq!(text(&there.call("echo__whoami", json!({})).await), servers.pop_first().unwrap());

    // A new one takes its place, and a change through it reaches the other.
    let third = cluster.start(&home, &[]).await;
    let back = known(third.gateway("one")).await;
    assert_eq!(text(&eventually(&back, "echo__echo", json!({ "text": "back" })).await), "back");
    assert_eq!(third.api().delete(&format!("/api/v1/installations/{id}")).await.status, 204);
    cluster.cleared(hosted::LIMIT).await;
    let refused = there.call("echo__echo", json!({ "text": "gone" })).await;
    assert!(refused.is_null() || refused["isError"] == true, "{refused}");
    assert!(second.stop().await.success() && third.stop().await.success());
    cluster.delete().await;
}

async fn echo(gateway: Mcp, said: String) {
    let result = gateway.call("echo__echo", json!({ "text": said })).await;
    assert_eq!(text(&result), said, "{result}");
}
