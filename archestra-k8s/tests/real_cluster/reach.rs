//! The ways to servers: the bridge, HTTP and attached streams, directly and through the API server, and what ends them.

use super::space::{LIMIT, Space, call, channel, running, until};
use archestra_core::{
    ErrorKind,
    runtime::{Connection, HttpEndpoint, Phase, Runtime, Workload, WorkloadTransport, stdio::Channel},
    testing::fixtures,
};
use archestra_k8s::{KubernetesRuntime, ReachMode};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

async fn by(space: &Space, reach: ReachMode) -> KubernetesRuntime {
    let mut config = space.config();
    config.reach = reach;
    space.runtime_with(config).await
}

async fn replica(space: &Space, name: &str) -> KubernetesRuntime {
    let mut config = space.config();
    config.replica = Some(name.to_owned());
    space.runtime_with(config).await
}

async fn send_call(channel: &Channel, id: u32, tool: &str, arguments: serde_json::Value) {
    let params = json!({"name": tool, "arguments": arguments});
    let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
    channel.send(request.to_string().into()).await.unwrap();
}

async fn endpoint(runtime: &KubernetesRuntime, workload: &Workload) -> HttpEndpoint {
    let end = Instant::now() + LIMIT;
    loop {
        match runtime.connect(&workload.id).await {
            Ok(Connection::Http(endpoint)) => return endpoint,
            Ok(connection) => panic!("not an endpoint: {connection:?}"),
            Err(error) => assert!(error.is_retryable() && Instant::now() < end, "{error:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Asks the server behind the endpoint who it is.
async fn whoami(endpoint: &HttpEndpoint) -> String {
    let (authority, path) = endpoint.url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami","arguments":{}}}"#;
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let headers: String =
        endpoint.headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.expose())).collect();
    let head = format!(
        "POST /{path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains("\"text\"") {
        let read = timeout(LIMIT, stream.read(&mut chunk)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(answer).unwrap()
}

async fn delete_pods(space: &Space, workload: &Workload, grace: u32) {
    for pod in space.pods(&workload.id).await {
        let params = DeleteParams::default().grace_period(grace);
        drop(space.api::<Pod>().delete(&pod.name_any(), &params).await);
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_bridge_is_reached_on_every_way() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let workload = space.echo();
    running(&runtime, &workload).await;
    for mode in [ReachMode::Auto, ReachMode::Direct, ReachMode::PortForward] {
        let runtime = by(&space, mode).await;
        let mut channels = Vec::new();
        for _ in 0..4 {
            channels.push(channel(&runtime, &workload.id).await);
        }
        for (n, channel) in channels.iter_mut().enumerate() {
            let text = format!("{mode:?} {n}");
            assert_eq!(call(channel, "echo", json!({"text": text})).await, text);
        }
        let large = "x".repeat(1_000_000);
        assert_eq!(call(&mut channels[0], "echo", json!({"text": large})).await, large);
        runtime.shutdown().await;
        assert_eq!(timeout(LIMIT, channels[1].recv()).await.unwrap(), None, "a shutdown ends channels");
    }
    let mut last = channel(&runtime, &workload.id).await;
    runtime.remove(&workload.id).await.unwrap();
    assert_eq!(timeout(LIMIT, last.recv()).await.unwrap(), None, "a removal ends channels");
    assert_eq!(runtime.connect(&workload.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn an_http_server_is_reached_on_every_way_and_another_process_is_another_generation() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let mut workload = space.echo();
    workload.spec.args = vec!["http".to_owned(), "8080".to_owned()];
    workload.spec.transport = WorkloadTransport::StreamableHttp { port: Some(8080), path: "/mcp".to_owned() };
    running(&runtime, &workload).await;
    let mut generations = Vec::new();
    let forwarding = by(&space, ReachMode::PortForward).await;
    for mode in [ReachMode::Auto, ReachMode::Direct] {
        let runtime = by(&space, mode).await;
        let endpoint = endpoint(&runtime, &workload).await;
        assert!(whoami(&endpoint).await.contains(workload.id.as_str()), "{mode:?}");
        generations.push(endpoint.generation);
        runtime.shutdown().await;
    }
    let forwarded = endpoint(&forwarding, &workload).await;
    assert!(forwarded.url.starts_with("http://127.0.0.1:"), "{}", forwarded.url);
    let before = whoami(&forwarded).await;
    // Whoever else is on this machine can connect, and does not know the key.
    let authority = forwarded.url.strip_prefix("http://").unwrap().split_once('/').unwrap().0;
    let mut stream = TcpStream::connect(authority).await.unwrap();
    stream.write_all(b"POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    let mut refusal = String::new();
    timeout(LIMIT, stream.read_to_string(&mut refusal)).await.unwrap().unwrap();
    assert!(refusal.starts_with("HTTP/1.1 403 "), "{refusal}");
    generations.push(forwarded.generation);
    generations.dedup();
    assert_eq!(generations.len(), 1, "it is one process on every way");

    delete_pods(&space, &workload, 0).await;
    until(&runtime, &workload.id, |status| status.phase != Phase::Running).await;
    until(&runtime, &workload.id, |status| status.phase == Phase::Running).await;
    let after = endpoint(&forwarding, &workload).await;
    assert_ne!(after.generation, forwarded.generation);
    assert_eq!(after.url, forwarded.url, "the listener stays");
    assert_ne!(whoami(&after).await, before);
    forwarding.shutdown().await;
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_pod_that_is_deleted_finishes_what_is_under_way_and_its_successor_answers() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let workload = space.echo();
    running(&runtime, &workload).await;
    let mut under_way = channel(&runtime, &workload.id).await;
    send_call(&under_way, 7, "sleep", json!({"millis": 2000})).await;
    sleep(Duration::from_millis(200)).await;
    delete_pods(&space, &workload, 30).await;
    let answer = timeout(LIMIT, under_way.recv()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("slept"), "the bridge lets it finish");
    assert_eq!(timeout(LIMIT, under_way.recv()).await.unwrap(), None);
    let mut next = channel(&runtime, &workload.id).await;
    assert_eq!(call(&mut next, "echo", json!({"text": "again"})).await, "again");

    // Without grace nothing is finished, and nobody waits for ever.
    send_call(&next, 8, "sleep", json!({"millis": 600_000})).await;
    delete_pods(&space, &workload, 0).await;
    let mut last = None;
    while let Some(frame) = timeout(LIMIT, next.recv()).await.expect("it ends") {
        last = Some(frame);
    }
    assert!(last.is_none_or(|frame| String::from_utf8_lossy(&frame).contains("\"error\"")));
    let mut next = channel(&runtime, &workload.id).await;
    assert_eq!(call(&mut next, "echo", json!({"text": "and again"})).await, "and again");
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_stream_belongs_to_one_replica_until_that_one_gives_it_up() {
    let space = Space::new().await;
    let (first, second) = (replica(&space, "replica-one").await, replica(&space, "replica-two").await);
    let workload = fixtures::workload(space.spec(&[], &[]));
    running(&first, &workload).await;
    let mut channels = [channel(&first, &workload.id).await, channel(&first, &workload.id).await];
    for (n, channel) in channels.iter_mut().enumerate() {
        let text = format!("caller {n}");
        assert_eq!(call(channel, "echo", json!({"text": text})).await, text);
    }
    let error = second.connect(&workload.id).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("replica-one"), "{error}");
    let lease = space.api::<Lease>().get(&format!("{}-attach", workload.id)).await.unwrap();
    // Two replicas of one name must not both hold it.
    let holder = lease.spec.unwrap().holder_identity.unwrap();
    assert!(holder.starts_with("replica-one-"), "{holder}");

    first.shutdown().await;
    assert_eq!(timeout(LIMIT, channels[0].recv()).await.unwrap(), None);
    let lease = space.api::<Lease>().get(&format!("{}-attach", workload.id)).await.unwrap();
    let holder = lease.spec.unwrap().holder_identity.unwrap_or_default();
    assert!(!holder.starts_with("replica-one-"), "a replica that ends gives it up: {holder}");
    let mut taken = channel(&second, &workload.id).await;
    assert_eq!(call(&mut taken, "echo", json!({"text": "two"})).await, "two");
    second.remove(&workload.id).await.unwrap();
    assert_eq!(space.names::<Lease>(&workload.id).await, Vec::<String>::new());
    second.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_stream_is_opened_again_when_its_pod_is_replaced() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let workload = fixtures::workload(space.spec(&[], &[]));
    running(&runtime, &workload).await;
    let mut under_way = channel(&runtime, &workload.id).await;
    assert_eq!(call(&mut under_way, "echo", json!({"text": "one"})).await, "one");
    send_call(&under_way, 9, "sleep", json!({"millis": 600_000})).await;
    sleep(Duration::from_millis(300)).await;
    delete_pods(&space, &workload, 1).await;
    let answer = timeout(LIMIT, under_way.recv()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("\"error\""), "{answer:?}");
    assert_eq!(timeout(LIMIT, under_way.recv()).await.unwrap(), None);
    let mut next = channel(&runtime, &workload.id).await;
    assert_eq!(call(&mut next, "echo", json!({"text": "two"})).await, "two");
    runtime.shutdown().await;
}
