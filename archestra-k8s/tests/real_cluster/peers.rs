//! Replicas that share a process which is attached to, on a real cluster.

use super::space::{LIMIT, Space, call, channel, running};
use archestra_core::{
    runtime::{Connection, Runtime},
    secret::KeyRing,
    testing::fixtures,
};
use archestra_k8s::{KubernetesConfig, KubernetesRuntime, Peers};
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{
    runtime::Builder,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// One more than a Lease lasts, and what noticing it takes.
const TAKEN_OVER: Duration = Duration::from_secs(40);

async fn config(space: &Space, name: &str, ring: &KeyRing) -> KubernetesConfig {
    let peers = Peers::listen("127.0.0.1:0".parse().unwrap(), None, ring).await.unwrap();
    KubernetesConfig { replica: Some(name.to_owned()), peers: Some(peers), ..space.config() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kubernetes cluster"]
async fn three_hundred_calls_of_two_replicas_share_one_attached_server() {
    let (space, ring) = (Space::new().await, KeyRing::generate().unwrap());
    let first = Arc::new(space.runtime_with(config(&space, "replica-one", &ring).await).await);
    let second = Arc::new(space.runtime_with(config(&space, "replica-two", &ring).await).await);
    let workload = fixtures::workload(space.spec(&[], &[]));
    running(&first, &workload).await;
    assert_eq!(call(&mut channel(&first, &workload.id).await, "echo", json!({"text": "one"})).await, "one");
    let mut calls = JoinSet::new();
    for n in 0..300 {
        let runtime = Arc::clone(if n % 2 == 0 { &first } else { &second });
        let id = workload.id.clone();
        calls.spawn(async move {
            let text = format!("call {n}");
            let mut channel = channel(&runtime, &id).await;
            assert_eq!(call(&mut channel, "echo", json!({"text": text})).await, text);
        });
    }
    calls.join_all().await;
    let mut over = channel(&second, &workload.id).await;
    first.shutdown().await;
    assert_eq!(timeout(LIMIT, over.recv()).await.unwrap(), None);
    let lease = space.api::<Lease>().get(&format!("{}-attach", workload.id)).await.unwrap();
    let holder = lease.spec.unwrap().holder_identity.unwrap_or_default();
    assert!(!holder.starts_with("replica-one-"), "a replica that ends gives it up: {holder}");
    assert_eq!(call(&mut channel(&second, &workload.id).await, "echo", json!({"text": "two"})).await, "two");
    second.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_replica_that_is_killed_is_succeeded() {
    let (space, ring) = (Space::new().await, KeyRing::generate().unwrap());
    let second = space.runtime_with(config(&space, "replica-two", &ring).await).await;
    let workload = fixtures::workload(space.spec(&[], &[]));
    running(&second, &workload).await;
    // Its tasks end at once and without a word when its threads do. A connection to the API server belongs to these threads
    // too, so that it needs a client of its own.
    let killed = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (id, settings) = (workload.id.clone(), config(&space, "replica-one", &ring).await);
    let (held, is_held) = tokio::sync::oneshot::channel();
    killed.spawn(async move {
        let peers = Peers::listen("127.0.0.1:0".parse().unwrap(), None, &ring).await.unwrap();
        let first = KubernetesRuntime::connect(KubernetesConfig { peers: Some(peers), ..settings }).await.unwrap();
        assert_eq!(call(&mut channel(&first, &id).await, "echo", json!({"text": "first"})).await, "first");
        // Dropping it would give the Lease up.
        held.send(Box::leak(Box::new(first))).unwrap();
    });
    is_held.await.unwrap();
    let mut over = channel(&second, &workload.id).await;
    assert_eq!(call(&mut over, "echo", json!({"text": "over the first"})).await, "over the first");
    killed.shutdown_background();
    assert_eq!(timeout(LIMIT, over.recv()).await.unwrap(), None);
    let began = Instant::now();
    let mut taken = loop {
        match second.connect(&workload.id).await {
            Ok(Connection::Stdio(channel)) => break channel,
            Ok(connection) => panic!("not a channel: {connection:?}"),
            Err(error) => {
                assert!(error.to_string().contains("replica-one-"), "it is said who had it: {error}");
                assert!(error.is_retryable() && began.elapsed() < TAKEN_OVER, "{:?}: {error}", began.elapsed());
            }
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(call(&mut taken, "echo", json!({"text": "second"})).await, "second");
    let lease = space.api::<Lease>().get(&format!("{}-attach", workload.id)).await.unwrap();
    assert!(lease.spec.unwrap().holder_identity.unwrap().starts_with("replica-two-"));
    second.shutdown().await;
}
