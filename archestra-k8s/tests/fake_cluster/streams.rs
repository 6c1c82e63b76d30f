//! Streams to pods: attach, port-forward, logs that are followed, and the addresses of pods and Services.

use super::help::{apply, deployment, has, until};
use archestra_core::testing::{Answer, ScriptedServer};
use archestra_k8s::testing::FakeCluster;
use futures::{AsyncBufReadExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    Api, Client, Config,
    api::{AttachParams, LogParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

const IMAGE: &str = "example.com/a:1";
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn server() -> ScriptedServer {
    ScriptedServer::new("echo").start_log("up").tool("die", |_| Answer::crash("segmentation fault"))
}

/// A cluster with one pod that is ready, and its name.
async fn with_pod(change: impl FnOnce(&mut Value)) -> (FakeCluster, String) {
    let cluster = FakeCluster::new().image(IMAGE, server());
    let mut object = deployment("a", IMAGE);
    change(&mut object["spec"]["template"]["spec"]["containers"][0]);
    apply(&cluster.client(), &object).await.unwrap();
    until("it is ready", || cluster.all::<Pod>("default").iter().any(|pod| has(pod, "Ready"))).await;
    let name = cluster.all::<Pod>("default").remove(0).metadata.name.unwrap();
    (cluster, name)
}

/// A client over a port.
async fn over_a_port(cluster: &FakeCluster) -> (Client, archestra_k8s::testing::ApiServer) {
    let server = cluster.serve().await.unwrap();
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    (Client::try_from(config).unwrap(), server)
}

#[tokio::test]
async fn an_attached_stream_is_that_of_the_process() {
    let (cluster, name) = with_pod(|container| container["stdin"] = true.into()).await;
    let (remote, _server) = over_a_port(&cluster).await;
    for client in [cluster.client(), remote] {
        let pods: Api<Pod> = Api::default_namespaced(client);
        let params = AttachParams { stdin: true, stdout: true, stderr: false, ..AttachParams::default() };
        let mut process = pods.attach(&name, &params).await.unwrap();
        let (mut stdin, stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
        stdin.write_all(format!("{PING}\n").as_bytes()).await.unwrap();
        let line = BufReader::new(stdout).lines().next_line().await.unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["id"], 1, "{line}");
    }
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    assert!(pods.logs(&name, &LogParams::default()).await.unwrap().contains("\"id\":1"), "it is in the log as well");
    let mut process =
        pods.attach(&name, &AttachParams { stderr: false, ..AttachParams::default() }.stdin(true)).await.unwrap();
    let (mut stdin, ended) = (process.stdin().unwrap(), process.take_status().unwrap());
    let call = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"die","arguments":{}}}"#;
    stdin.write_all(format!("{call}\n").as_bytes()).await.unwrap();
    assert_eq!(ended.await.unwrap().status.as_deref(), Some("Success"));
    until("it was restarted", || {
        let pod: Pod = cluster.get("default", &name).unwrap();
        let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first().cloned());
        status.is_some_and(|status| status.restart_count == 1) && has(&pod, "Ready")
    })
    .await;
}

/// Asks a server over streamable HTTP.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let head =
        format!("POST /mcp HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{PING}", PING.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_server_that_listens_is_reached_in_every_way() {
    let probe = json!({"tcpSocket": {"port": "mcp"}});
    let (cluster, name) = with_pod(|container| {
        container["ports"] = json!([{"name": "mcp", "containerPort": 8080}]);
        container["readinessProbe"] = probe;
    })
    .await;
    let client = cluster.client();
    let pod: Pod = cluster.get("default", &name).unwrap();
    let ip = pod.status.unwrap().pod_ip.unwrap();
    let answer = ask(TcpStream::connect((ip.as_str(), 8080)).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"id\":1"), "{answer}");

    let service = json!({
        "metadata": {"name": "a"},
        "spec": {"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": "mcp"}]},
    });
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let service = services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let address = (service.spec.unwrap().cluster_ip.unwrap(), 80);
    let stream = loop {
        match TcpStream::connect((address.0.as_str(), address.1)).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    };
    assert!(ask(stream).await.contains("\"id\":1"));

    let (remote, _server) = over_a_port(&cluster).await;
    for client in [client, remote] {
        let pods: Api<Pod> = Api::default_namespaced(client);
        let mut forwarder = pods.portforward(&name, &[8080]).await.unwrap();
        let stream = forwarder.take_stream(8080).unwrap();
        assert!(ask(stream).await.contains("\"id\":1"));
        let mut closed = pods.portforward(&name, &[9]).await.unwrap();
        let error = closed.take_error(9).unwrap();
        let _stream = closed.take_stream(9).unwrap();
        assert!(error.await.unwrap().contains("error forwarding port 9"));
    }
}

#[tokio::test]
async fn a_log_is_followed_to_the_end_of_the_run() {
    let (cluster, name) = with_pod(|_| {}).await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let params = LogParams { follow: true, ..LogParams::default() };
    let mut lines = pods.log_stream(&name, &params).await.unwrap().lines();
    assert_eq!(lines.next().await.unwrap().unwrap(), "up");
    cluster.log("default", &name, "something happened");
    assert_eq!(lines.next().await.unwrap().unwrap(), "something happened");
    cluster.crash("default", &name, 1);
    assert!(lines.next().await.is_none(), "the end of the run is the end of its log");
    until("it was restarted", || {
        let pod: Pod = cluster.get("default", &name).unwrap();
        pod.status.unwrap().container_statuses.unwrap()[0].restart_count == 1
    })
    .await;
}
