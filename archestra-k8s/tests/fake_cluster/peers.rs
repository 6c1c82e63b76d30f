//! Replicas that share a process which is attached to: one has its stream, the others go over that one.

use crate::LIMIT;
use archestra_core::{
    runtime::{Connection, Phase, Runtime, Workload, WorkloadId, WorkloadSpec, stdio::Channel},
    secret::KeyRing,
    testing::{Answer, ScriptedServer, fixtures},
};
use archestra_k8s::{KubernetesConfig, KubernetesRuntime, Peers, testing::FakeCluster};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{
    runtime::Builder,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const SHARED: bool = false;
const EXCLUSIVE: bool = true;
const IMAGE: &str = "example.com/echo:1";

fn cluster() -> FakeCluster {
    let echo = ScriptedServer::new("echo")
        .start_log("up")
        .tool("echo", |arguments| Answer::text(arguments["text"].as_str().unwrap_or_default()));
    FakeCluster::new().image(IMAGE, echo)
}

async fn listening(ring: &KeyRing) -> Peers {
    Peers::listen("127.0.0.1:0".parse().unwrap(), None, ring).await.unwrap()
}

async fn replica(client: Client, name: &str, peers: Option<Peers>) -> KubernetesRuntime {
    let config = KubernetesConfig {
        replica: Some(name.to_owned()),
        peers,
        connect_wait: Duration::from_secs(1),
        ..KubernetesConfig::default()
    };
    KubernetesRuntime::with_client(config, client).await
}

async fn running(runtime: &KubernetesRuntime, exclusive: bool) -> Workload {
    let spec = WorkloadSpec { image: Some(IMAGE.to_owned()), exclusive, ..fixtures::workload_spec("echo", &[]) };
    let workload = fixtures::workload(spec);
    runtime.apply(&workload).await.unwrap();
    let end = Instant::now() + LIMIT;
    while runtime.status(&workload.id).await.unwrap().phase != Phase::Running {
        assert!(Instant::now() < end, "it does not run");
        sleep(Duration::from_millis(5)).await;
    }
    workload
}

async fn channel(runtime: &KubernetesRuntime, id: &WorkloadId) -> Channel {
    let end = Instant::now() + LIMIT;
    loop {
        match runtime.connect(id).await {
            Ok(Connection::Stdio(channel)) => return channel,
            Ok(connection) => panic!("not a channel: {connection:?}"),
            Err(error) => assert!(error.is_retryable() && Instant::now() < end, "{error:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn call(channel: &mut Channel, id: u32, text: &str) -> Option<Value> {
    let params = json!({"name": "echo", "arguments": {"text": text}});
    let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
    channel.send(request.to_string().into()).await.ok()?;
    let answer = timeout(LIMIT, channel.recv()).await.expect("an answer or an end")?;
    Some(serde_json::from_slice(&answer).unwrap())
}

async fn echoes(channel: &mut Channel, id: u32, text: &str) {
    let answer = call(channel, id, text).await.expect("it is open");
    assert_eq!((answer["id"].as_u64(), &answer["result"]["content"][0]["text"]), (Some(id.into()), &json!(text)));
}

fn leases(cluster: &FakeCluster) -> Vec<Lease> {
    cluster.all::<Lease>("default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_calls_of_two_replicas_are_answered_to_their_callers() {
    let (cluster, ring) = (cluster(), KeyRing::generate().unwrap());
    let (one, two) = (listening(&ring).await, listening(&ring).await);
    let addresses = [one.advertised().to_owned(), two.advertised().to_owned()];
    let first = Arc::new(replica(cluster.client(), "one", Some(one)).await);
    let second = Arc::new(replica(cluster.client(), "two", Some(two)).await);
    let workload = running(&first, SHARED).await;
    echoes(&mut channel(&first, &workload.id).await, 1, "the first").await;
    let mut calls = JoinSet::new();
    for n in 0..300_u32 {
        let runtime = Arc::clone(if n % 2 == 0 { &first } else { &second });
        let id = workload.id.clone();
        // All use the same ids.
        calls.spawn(async move { echoes(&mut channel(&runtime, &id).await, 7, &format!("call {n}")).await });
    }
    calls.join_all().await;
    let [lease] = leases(&cluster).try_into().unwrap();
    assert_eq!(lease.metadata.annotations.unwrap()["archestra.dev/peer"], addresses[0]);
    assert!(lease.spec.unwrap().holder_identity.unwrap().starts_with("one-"));

    let mut over = channel(&second, &workload.id).await;
    first.shutdown().await;
    assert_eq!(timeout(LIMIT, over.recv()).await.unwrap(), None, "what went over it ends with it");
    let holder = leases(&cluster).remove(0).spec.unwrap().holder_identity.unwrap_or_default();
    assert!(!holder.starts_with("one-"), "one that ends gives it up: {holder}");
    echoes(&mut channel(&second, &workload.id).await, 8, "taken over").await;
    let [lease] = leases(&cluster).try_into().unwrap();
    assert_eq!(lease.metadata.annotations.unwrap()["archestra.dev/peer"], addresses[1]);
    second.shutdown().await;
}

#[tokio::test]
async fn a_replica_that_is_killed_is_succeeded_when_its_lease_is_over() {
    let (cluster, ring) = (cluster(), KeyRing::generate().unwrap());
    let client = cluster.client();
    let second = replica(client.clone(), "two", Some(listening(&ring).await)).await;
    let workload = running(&second, SHARED).await;
    // Its tasks end at once and without a word when its threads do.
    let killed = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (id, ring) = (workload.id.clone(), KeyRing::parse(&ring.to_text()).unwrap());
    let (server, kubeconfig) = {
        let server = cluster.serve().await.unwrap();
        let kubeconfig = server.kubeconfig();
        (server, kubeconfig)
    };
    let started = killed.spawn(async move {
        let options = kube::config::KubeConfigOptions::default();
        let config =
            kube::Config::from_custom_kubeconfig(kube::config::Kubeconfig::from_yaml(&kubeconfig).unwrap(), &options);
        let client = Client::try_from(config.await.unwrap()).unwrap();
        let first = replica(client, "one", Some(listening(&ring).await)).await;
        echoes(&mut channel(&first, &id).await, 1, "first").await;
        first
    });
    // Dropping it would give the Lease up.
    Box::leak(Box::new(started.await.unwrap()));
    let mut over = channel(&second, &workload.id).await;
    echoes(&mut over, 2, "over the first").await;
    killed.shutdown_background();
    drop(server);
    assert_eq!(timeout(LIMIT, over.recv()).await.unwrap(), None);

    let leases: Api<Lease> = Api::default_namespaced(client);
    let held = |lease: &Lease| lease.spec.as_ref().unwrap().holder_identity.clone().unwrap();
    let name = format!("{}-attach", workload.id);
    assert!(held(&leases.get(&name).await.unwrap()).starts_with("one-"), "nobody takes it before it is over");
    let waiting = second.connect(&workload.id);
    let long_ago = json!({"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}});
    leases.patch(&name, &PatchParams::default(), &Patch::Merge(&long_ago)).await.unwrap();
    let Ok(Connection::Stdio(mut taken)) = waiting.await else { panic!("a call waits for it") };
    echoes(&mut taken, 3, "taken over").await;
    assert!(held(&leases.get(&name).await.unwrap()).starts_with("two-"));
    second.shutdown().await;
}

#[tokio::test]
async fn sessions_of_an_exclusive_server_take_turns_over_all_replicas() {
    let (cluster, ring) = (cluster(), KeyRing::generate().unwrap());
    let first = replica(cluster.client(), "one", Some(listening(&ring).await)).await;
    let second = replica(cluster.client(), "two", Some(listening(&ring).await)).await;
    let workload = running(&first, EXCLUSIVE).await;
    let mut here = channel(&first, &workload.id).await;
    echoes(&mut here, 1, "here").await;
    let mut there = channel(&second, &workload.id).await;
    let waiting = tokio::spawn(async move {
        echoes(&mut there, 2, "there").await;
        there
    });
    sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "it is not its turn");
    drop(here);
    let there = timeout(LIMIT, waiting).await.unwrap().unwrap();
    let mut here = channel(&first, &workload.id).await;
    let again = tokio::spawn(async move { echoes(&mut here, 3, "here again").await });
    sleep(Duration::from_millis(300)).await;
    assert!(!again.is_finished(), "it is not its turn");
    drop(there);
    timeout(LIMIT, again).await.unwrap().unwrap();
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test]
async fn without_a_listener_or_the_same_keys_it_is_said_who_has_the_stream() {
    let (cluster, ring) = (cluster(), KeyRing::generate().unwrap());
    let first = replica(cluster.client(), "one", None).await;
    let workload = running(&first, SHARED).await;
    echoes(&mut channel(&first, &workload.id).await, 1, "first").await;
    let refused = async |runtime: &KubernetesRuntime, expected: &str| {
        let error = match runtime.connect(&workload.id).await {
            Err(error) => error,
            Ok(connection) => panic!("it should be refused: {connection:?}"),
        };
        let text = error.to_string();
        assert!(
            error.is_retryable() && text.contains("replica of the platform, one-") && text.contains(expected),
            "{text}"
        );
    };
    let deaf = replica(cluster.client(), "two", None).await;
    refused(&deaf, "this one does not listen for others").await;
    let listens = replica(cluster.client(), "three", Some(listening(&ring).await)).await;
    refused(&listens, "which does not listen for others").await;
    first.shutdown().await;
    let first = replica(cluster.client(), "one", Some(listening(&KeyRing::generate().unwrap()).await)).await;
    echoes(&mut channel(&first, &workload.id).await, 1, "first").await;
    let other_keys = replica(cluster.client(), "four", Some(listening(&ring).await)).await;
    refused(&other_keys, "does not serve it at the moment").await;
    for runtime in [first, deaf, listens, other_keys] {
        runtime.shutdown().await;
    }
}

#[tokio::test]
async fn an_address_that_nobody_can_connect_to_is_not_advertised() {
    let ring = KeyRing::generate().unwrap();
    let anywhere = "0.0.0.0:0".parse().unwrap();
    let error = Peers::listen(anywhere, None, &ring).await.unwrap_err();
    assert!(error.to_string().contains("advertise one"), "{error}");
    let peers = Peers::listen(anywhere, Some("archestra-0.peers:9001".to_owned()), &ring).await.unwrap();
    assert_eq!(peers.advertised(), "archestra-0.peers:9001");
}
