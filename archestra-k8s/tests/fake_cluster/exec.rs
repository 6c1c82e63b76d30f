//! Commands that are executed in containers, by kube's client and by frames.

use super::help::{apply, deployment, has, refusal, until};
use archestra_core::testing::ScriptedServer;
use archestra_k8s::testing::{FakeCluster, FakeExec, FakeImage};
use futures::{SinkExt as _, StreamExt as _};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api,
    api::{AttachParams, AttachedProcess},
};
use serde_json::{Value, json};
use std::{future::pending, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

const IMAGE: &str = "example.com/a:1";
const LIMIT: Duration = Duration::from_secs(20);

fn image() -> FakeImage {
    FakeImage::server(ScriptedServer::new("echo"))
        .program("cat", |mut exec: FakeExec| async move {
            while let Some(piece) = exec.read().await {
                exec.write(piece).await;
            }
            0
        })
        .program("sh", |exec: FakeExec| async move {
            exec.write(exec.command().join(" ")).await;
            exec.write_error("it is not well").await;
            3
        })
        .program("head", |mut exec: FakeExec| async move {
            let first = exec.read().await.unwrap_or_default();
            exec.write(first).await;
            0
        })
        .program("sleep", |_| pending())
}

/// A cluster with one pod that is ready, and its name.
async fn with_pod() -> (FakeCluster, String) {
    let cluster = FakeCluster::new().image(IMAGE, image());
    apply(&cluster.client(), &deployment("a", IMAGE)).await.unwrap();
    until("it is ready", || cluster.all::<Pod>("default").iter().any(|pod| has(pod, "Ready"))).await;
    let name = cluster.all::<Pod>("default").remove(0).metadata.name.unwrap();
    (cluster, name)
}

async fn exec(cluster: &FakeCluster, pod: &str, command: &[&str], params: &AttachParams) -> AttachedProcess {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.exec(pod, command.iter().copied(), params).await.unwrap()
}

async fn all(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut text = String::new();
    timeout(LIMIT, stream.unwrap().read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

async fn status(process: &mut AttachedProcess) -> Status {
    timeout(LIMIT, process.take_status().unwrap()).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_a_command_writes_and_how_it_ends_is_told() {
    let (cluster, pod) = with_pod().await;
    let mut process = exec(&cluster, &pod, &["sh", "-c", "a b"], &AttachParams::default()).await;
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let status = status(&mut process).await;
    assert_eq!((all(stdout).await, all(stderr).await), ("sh -c a b".to_owned(), "it is not well".to_owned()));
    assert_eq!((status.status.as_deref(), status.reason.as_deref()), (Some("Failure"), Some("NonZeroExitCode")));
    let causes = status.details.unwrap().causes.unwrap();
    assert_eq!((causes[0].reason.as_deref(), causes[0].message.as_deref()), (Some("ExitCode"), Some("3")));
    assert!(status.message.unwrap().ends_with("exit code 3"));
}

#[tokio::test]
async fn a_command_reads_its_input_to_the_end() {
    let (cluster, pod) = with_pod().await;
    let params = AttachParams::default().stdin(true).stderr(false);
    let mut process = exec(&cluster, &pod, &["cat"], &params).await;
    let (mut stdin, stdout) = (process.stdin().unwrap(), process.stdout());
    // More than waits anywhere on the way.
    let sent = "x".repeat(4 * 1024 * 1024);
    let writing = async {
        stdin.write_all(sent.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
        drop(stdin);
    };
    let (read, ()) = tokio::join!(all(stdout), writing);
    assert!(read == sent, "{} of {}", read.len(), sent.len());
    assert_eq!(status(&mut process).await.status.as_deref(), Some("Success"));

    let mut process = exec(&cluster, &pod, &["cat"], &AttachParams::default()).await;
    assert_eq!(status(&mut process).await.status.as_deref(), Some("Success"), "without input it has ended at once");
    assert_eq!(all(process.stdout()).await, "");
}

#[tokio::test]
async fn over_the_fourth_version_of_the_protocol_it_is_the_same() {
    let (cluster, pod) = with_pod().await;
    let server = cluster.serve().await.unwrap();
    let path = format!("/api/v1/namespaces/default/pods/{pod}/exec?command=head&stdin=true&stdout=true");
    let mut request = format!("ws://{}{path}", server.address()).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "v4.channel.k8s.io".parse().unwrap());
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut socket, response) = client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "v4.channel.k8s.io");
    socket.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
    let mut frames = Vec::new();
    while let Some(Ok(message)) = timeout(LIMIT, socket.next()).await.unwrap() {
        if let Message::Binary(frame) = message {
            frames.push(frame);
        }
    }
    let [output, end] = frames.try_into().unwrap();
    assert_eq!(&output[..], b"\x01hello");
    assert_eq!(end[0], 3);
    assert_eq!(serde_json::from_slice::<Value>(&end[1..]).unwrap(), json!({"metadata": {}, "status": "Success"}));
}

#[tokio::test]
async fn a_command_ends_with_its_container() {
    let (cluster, pod) = with_pod().await;
    let mut process = exec(&cluster, &pod, &["sleep", "1d"], &AttachParams::default()).await;
    cluster.crash("default", &pod, 1);
    let causes = status(&mut process).await.details.unwrap().causes.unwrap();
    assert_eq!(causes[0].message.as_deref(), Some("137"));
}

#[tokio::test]
async fn what_cannot_be_executed_is_said() {
    let (cluster, pod) = with_pod().await;
    let mut process = exec(&cluster, &pod, &["bash"], &AttachParams::default()).await;
    let status = status(&mut process).await;
    assert_eq!((status.status.as_deref(), status.code), (Some("Failure"), Some(500)));
    assert!(status.message.unwrap().contains("exec: \"bash\": executable file not found in $PATH"));

    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let nobody = pods.exec("nobody", ["cat"], &AttachParams::default()).await;
    assert_eq!(refusal(nobody.map(drop)).0, 404);
    let elsewhere = pods.exec(&pod, ["cat"], &AttachParams::default().container("sidecar")).await;
    assert!(refusal(elsewhere.map(drop)).1.contains("container sidecar is not valid"));
}
