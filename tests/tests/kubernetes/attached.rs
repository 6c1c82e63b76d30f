//! Two gateways on one database and a server that is attached to: one of them has its stream, the other goes over that one,
//! and takes the stream over when that one is killed.

use super::replicas::Replicas;
use archestra_tests::{
    Mcp,
    cluster::{Cluster, ECHO},
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
async fn two_gateways_on_one_file_share_one_server_that_is_attached_to() {
    let cluster = Cluster::namespace("attached").await;
    share_one_attached_server(&cluster, Replicas::on_a_file(&cluster)).await;
    cluster.delete().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster and a PostgreSQL server"]
async fn two_gateways_on_postgresql_share_one_server_that_is_attached_to() {
    let cluster = Cluster::namespace("attached-sql").await;
    share_one_attached_server(&cluster, Replicas::on_postgresql(&cluster)).await;
    cluster.delete().await;
}

async fn share_one_attached_server(cluster: &Cluster, replicas: Replicas<'_>) {
    let peers = ["--peer-listen", "127.0.0.1:0"];
    let first = replicas.start(0, &peers).await;
    save(&first, "echo", &json!({ "image": ECHO, "transport": "stdio" })).await;
    hosted::install(&first, "echo", json!("organization"), json!({})).await;
    let here = gateway(&first, "one", &["echo"]).await;
    here.until_listed("echo__whoami").await;
    let server = text(&eventually(&here, "echo__whoami", json!({})).await).to_owned();
    let second = replicas.start(1, &peers).await;
    let there = known(second.gateway("one")).await;
    there.until_listed("echo__whoami").await;
    assert_eq!(text(&eventually(&there, "echo__whoami", json!({})).await), server, "it is one process");
    assert_eq!(cluster.pods().await.len(), 1);

    let mut calls = JoinSet::new();
    for n in 0..CALLS {
        calls.spawn(echo(here.clone(), format!("first {n}")));
        calls.spawn(echo(there.clone(), format!("second {n}")));
    }
    let begun = Instant::now();
    let answered: BTreeSet<_> = calls.join_all().await.into_iter().collect();
    assert_eq!(answered.len(), 2 * CALLS);
    println!("{CALLS} calls at once from each of two gateways took {:?}", begun.elapsed());

    first.kill().await;
    let killed = Instant::now();
    let taken = eventually(&there, "echo__whoami", json!({})).await;
    assert_eq!(text(&taken), server, "the process goes on");
    println!("taken over {:?} after the other was killed", killed.elapsed());
    assert!(second.stop().await.success());
}

async fn echo(gateway: Mcp, said: String) -> String {
    let result = gateway.call("echo__echo", json!({ "text": said })).await;
    assert_eq!(text(&result), said, "{result}");
    said
}
