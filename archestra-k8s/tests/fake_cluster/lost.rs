//! Pods that are lost with their node, which closes no stream.

use super::help::{has, until};
use crate::{LIMIT, echo};
use archestra_core::{
    runtime::{Connection, HttpEndpoint, Phase, Runtime, Workload, WorkloadSpec, WorkloadTransport, stdio::Channel},
    testing::fixtures,
};
use archestra_k8s::{KubernetesConfig, KubernetesRuntime, ReachMode, testing::FakeCluster};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

const IMAGE: &str = "example.com/echo:1";
/// Long enough to say that nothing happens in it.
const MOMENT: Duration = Duration::from_millis(300);
/// Longer than any test.
const LONG: u32 = 3600;

struct Served {
    cluster: FakeCluster,
    runtime: KubernetesRuntime,
    workload: Workload,
}

/// A process that is attached to.
async fn attached() -> Served {
    served(WorkloadSpec { image: Some(IMAGE.to_owned()), ..fixtures::workload_spec("echo", &[]) }).await
}

/// A server that is reached through the API server.
async fn served(spec: WorkloadSpec) -> Served {
    let cluster = FakeCluster::new().image(IMAGE, echo());
    let config = KubernetesConfig {
        base_image: IMAGE.to_owned(),
        reach: ReachMode::PortForward,
        connect_wait: Duration::from_secs(1),
        ..KubernetesConfig::default()
    };
    let runtime = KubernetesRuntime::with_client(config, cluster.client()).await;
    let workload = fixtures::workload(spec);
    runtime.apply(&workload).await.unwrap();
    let end = Instant::now() + LIMIT;
    while runtime.status(&workload.id).await.unwrap().phase != Phase::Running {
        assert!(Instant::now() < end, "it does not run");
        sleep(Duration::from_millis(5)).await;
    }
    Served { cluster, runtime, workload }
}

impl Served {
    async fn channel(&self) -> Channel {
        match self.connect().await {
            Connection::Stdio(channel) => channel,
            Connection::Http(endpoint) => panic!("not a channel, but {}", endpoint.url),
        }
    }

    async fn connect(&self) -> Connection {
        let end = Instant::now() + LIMIT;
        loop {
            match self.runtime.connect(&self.workload.id).await {
                Ok(connection) => return connection,
                Err(error) => assert!(error.is_retryable() && Instant::now() < end, "{error:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn ready(&self) -> Vec<String> {
        let pods = self.cluster.all::<Pod>("default").into_iter();
        pods.filter(|pod| has(pod, "Ready")).filter_map(|pod| pod.metadata.name).collect()
    }

    /// Asks for the end of a pod, as the node's controller does after a while.
    async fn delete(&self, pod: &str, grace: u32) {
        let pods: Api<Pod> = Api::default_namespaced(self.cluster.client());
        pods.delete(pod, &DeleteParams::default().grace_period(grace)).await.unwrap();
    }

    /// A pod that has taken a call and then was lost, with the channel of the call, after another pod is ready.
    async fn replaced(&self, grace: u32) -> (String, Channel) {
        let mut channel = self.channel().await;
        echoes(&mut channel, "before").await;
        let lost = self.lose();
        say(&mut channel, "is anybody there?").await;
        self.replace(&lost, grace).await;
        (lost, channel)
    }

    /// Loses the pod that serves.
    fn lose(&self) -> String {
        let [lost] = self.ready().try_into().unwrap();
        self.cluster.lose("default", &lost);
        lost
    }

    async fn replace(&self, lost: &str, grace: u32) {
        self.delete(lost, grace).await;
        until("another pod is ready", || self.ready().first().is_some_and(|pod| pod != lost)).await;
    }
}

async fn say(channel: &mut Channel, text: &str) {
    let params = json!({"name": "echo", "arguments": {"text": text}});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    channel.send(call.to_string().into()).await.unwrap();
}

async fn hears(channel: &mut Channel) -> Value {
    let answer = timeout(LIMIT, channel.recv()).await.expect("an answer in time").expect("an answer");
    serde_json::from_slice(&answer).unwrap()
}

async fn echoes(channel: &mut Channel, text: &str) {
    say(channel, text).await;
    let answer = hears(channel).await;
    assert_eq!(answer["result"]["content"][0]["text"], text, "{answer}");
}

/// What is under way is answered with an error, and then the channel ends.
async fn fails(channel: &mut Channel) {
    let answer = hears(channel).await;
    assert!(answer["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    assert_eq!(timeout(LIMIT, channel.recv()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_to_the_other_pod_and_those_under_way_end_with_the_lost_one() {
    let attached = attached().await;
    let (lost, mut before) = attached.replaced(LONG).await;
    echoes(&mut attached.channel().await, "after").await;
    assert!(timeout(MOMENT, before.recv()).await.is_err(), "one that ends in order might still answer");
    attached.delete(&lost, 0).await;
    fails(&mut before).await;
    attached.runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_end_nobody_confirms_has_its_grace_and_no_more() {
    let attached = attached().await;
    let (lost, mut before) = attached.replaced(1).await;
    fails(&mut before).await;
    assert!(attached.cluster.get::<Pod>("default", &lost).is_some(), "it still is said to end");
    echoes(&mut attached.channel().await, "after").await;
    attached.runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_only_not_ready_keeps_its_stream() {
    let attached = attached().await;
    let mut channel = attached.channel().await;
    echoes(&mut channel, "before").await;
    let lost = attached.lose();
    until("it is not ready", || attached.ready().is_empty()).await;
    say(&mut channel, "is anybody there?").await;
    assert!(timeout(MOMENT, channel.recv()).await.is_err(), "its node may come back");
    attached.delete(&lost, 0).await;
    fails(&mut channel).await;
    echoes(&mut attached.channel().await, "after").await;
    attached.runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_through_a_forwarded_port_end_with_the_grace_of_a_lost_pod() {
    for exclusive in ["shared", "exclusive"] {
        let spec =
            WorkloadSpec { exclusive: exclusive == "exclusive", ..fixtures::workload_spec("echo", &["echo-server"]) };
        let bridged = served(spec).await;
        let (lost, mut before) = bridged.replaced(1).await;
        echoes(&mut bridged.channel().await, "after").await;
        // What is said at the end depends on who shares the connection; that there is one does not.
        while timeout(LIMIT, before.recv()).await.expect("an end in time").is_some() {}
        assert!(bridged.cluster.get::<Pod>("default", &lost).is_some(), "it still is said to end");
        bridged.runtime.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_kept_for_the_next_request_ends_with_the_grace_of_a_lost_pod() {
    let http = WorkloadTransport::StreamableHttp { port: Some(8080), path: "/mcp".to_owned() };
    let listening = served(WorkloadSpec { transport: http, ..fixtures::workload_spec("echo", &["echo-server"]) }).await;
    let endpoint = match listening.connect().await {
        Connection::Http(endpoint) => endpoint,
        Connection::Stdio(_) => panic!("it listens"),
    };
    let mut kept = ask(&endpoint).await;
    let lost = listening.lose();
    listening.replace(&lost, 1).await;
    let ended = timeout(LIMIT, kept.read(&mut [0; 16])).await.expect("an end in time");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(listening.cluster.get::<Pod>("default", &lost).is_some(), "it still is said to end");
    drop(ask(&endpoint).await);
    listening.runtime.shutdown().await;
}

/// Asks the server, and keeps the connection.
async fn ask(endpoint: &HttpEndpoint) -> TcpStream {
    let authority = endpoint.url.strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap();
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let body = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
    let keys =
        endpoint.headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.expose())).collect::<String>();
    let request = format!("POST /mcp HTTP/1.1\r\nhost: a\r\n{keys}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let read = timeout(LIMIT, stream.read_buf(&mut answer)).await.expect("an answer in time").unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
    stream
}
