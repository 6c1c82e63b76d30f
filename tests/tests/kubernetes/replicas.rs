//! Two gateways on one database: they share one stdio server, and the loss of one is no concern of the other's callers.

use archestra_tests::{
    Home, Mcp, Running,
    cluster::Cluster,
    hosted::{self, eventually, gateway, known, save},
    mcp::text,
    postgres::Database,
};
use serde_json::json;
use std::{collections::BTreeSet, path::PathBuf};
use tokio::{task::JoinSet, time::Instant};

/// How many calls each of them has at the same time.
const CALLS: usize = 300;

/// The replicas of one platform: on a file that they share, or on a server, with nothing else in common but the key file.
pub(super) struct Replicas<'a> {
    cluster: &'a Cluster,
    homes: [Home; 2],
    server: Option<(Database, PathBuf)>,
}

impl<'a> Replicas<'a> {
    pub(super) fn on_a_file(cluster: &'a Cluster) -> Self {
        Self { cluster, homes: [Home::new(), Home::new()], server: None }
    }

    pub(super) fn on_postgresql(cluster: &'a Cluster) -> Self {
        let homes = [Home::new(), Home::new()];
        let key = homes[0].key_file("archestra.key");
        Self { cluster, homes, server: Some((Database::new(), key)) }
    }

    /// Starts the one with this number.
    pub(super) async fn start(&self, n: usize, args: &[&str]) -> Running {
        let Some((database, key)) = &self.server else { return self.cluster.start(&self.homes[0], args).await };
        let mut all = vec!["--key-file", key.to_str().unwrap()];
        all.extend_from_slice(args);
        let url = vec![("ARCHESTRA_DATABASE_URL", database.url())];
        self.cluster.start_with(&self.homes[n % self.homes.len()], &all, url).await
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn two_gateways_on_one_file_share_one_stdio_server() {
    let cluster = Cluster::namespace("replicas").await;
    share_one_stdio_server(&cluster, Replicas::on_a_file(&cluster)).await;
    cluster.delete().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster and a PostgreSQL server"]
async fn two_gateways_on_postgresql_share_one_stdio_server() {
    let cluster = Cluster::namespace("replicas-sql").await;
    share_one_stdio_server(&cluster, Replicas::on_postgresql(&cluster)).await;
    cluster.delete().await;
}

async fn share_one_stdio_server(cluster: &Cluster, replicas: Replicas<'_>) {
    let first = replicas.start(0, &[]).await;
    let second = replicas.start(1, &[]).await;
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
    let third = replicas.start(2, &[]).await;
    let back = known(third.gateway("one")).await;
    assert_eq!(text(&eventually(&back, "echo__echo", json!({ "text": "back" })).await), "back");
    assert_eq!(third.api().delete(&format!("/api/v1/installations/{id}")).await.status, 204);
    cluster.cleared(hosted::LIMIT).await;
    let refused = there.call("echo__echo", json!({ "text": "gone" })).await;
    assert!(refused.is_null() || refused["isError"] == true, "{refused}");
    assert!(second.stop().await.success() && third.stop().await.success());
}

async fn echo(gateway: Mcp, said: String) {
    let result = gateway.call("echo__echo", json!({ "text": said })).await;
    assert_eq!(text(&result), said, "{result}");
}
