//! The runtime in situations that are hard to bring about on a real cluster.

use super::help::until;
use crate::{LIMIT, echo, runtime};
use archestra_core::{
    runtime::{
        Connection, Phase, RevisionNumber, Runtime, Workload, WorkloadSpec, WorkloadStatus, WorkloadTransport,
        stdio::Channel,
    },
    testing::fixtures,
};
use archestra_k8s::{
    Egress, KubernetesConfig, KubernetesRuntime, NetworkConfig, OwnPod, ReachMode,
    testing::{FakeCluster, FakeImage, RecordedRequest},
};
use futures::future::join_all;
use http::Method;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Pod, Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

fn cluster() -> FakeCluster {
    FakeCluster::new().image("example.com/base:1", echo())
}

fn workload() -> Workload {
    fixtures::workload(fixtures::workload_spec("echo", &["echo-server"]))
}

async fn status_where(
    runtime: &KubernetesRuntime,
    workload: &Workload,
    what: &str,
    holds: impl Fn(&WorkloadStatus) -> bool,
) -> WorkloadStatus {
    let end = Instant::now() + LIMIT;
    loop {
        let status = runtime.status(&workload.id).await.unwrap();
        if holds(&status) {
            return status;
        }
        assert!(Instant::now() < end, "{what}: {status:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn running(runtime: &KubernetesRuntime, workload: &Workload) {
    runtime.apply(workload).await.unwrap();
    status_where(runtime, workload, "it runs", |status| status.phase == Phase::Running).await;
}

async fn channel(runtime: &KubernetesRuntime, workload: &Workload) -> Channel {
    match runtime.connect(&workload.id).await.unwrap() {
        Connection::Stdio(channel) => channel,
        Connection::Http(endpoint) => panic!("it speaks stdio, and not at {}", endpoint.url),
    }
}

async fn says(channel: &mut Channel, text: &str) {
    let params = json!({"name": "echo", "arguments": {"text": text}});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    channel.send(call.to_string().into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&channel.recv().await.unwrap()).unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], text, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_listens_is_reached_at_its_pod() {
    let cluster = cluster();
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let spec = WorkloadSpec {
        transport: WorkloadTransport::StreamableHttp { port: Some(8080), path: "/mcp".to_owned() },
        ..fixtures::workload_spec("echo", &["echo-server"])
    };
    let workload = fixtures::workload(spec);
    running(&runtime, &workload).await;
    let endpoint = |connection| match connection {
        Connection::Http(endpoint) => endpoint,
        Connection::Stdio(_) => panic!("it listens"),
    };
    let first = endpoint(runtime.connect(&workload.id).await.unwrap());
    let address = first.url.strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap().to_owned();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
    let head = format!("POST /mcp HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"id\":7"), "{answer}");

    let pod = cluster.all::<Pod>("default").remove(0).metadata.name.unwrap();
    cluster.crash("default", &pod, 1);
    status_where(&runtime, &workload, "it was restarted", |status| {
        status.restarts == 1 && status.phase == Phase::Running
    })
    .await;
    let second = endpoint(runtime.connect(&workload.id).await.unwrap());
    assert_ne!(first.generation, second.generation, "another process answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_platform_adopts_and_touches_no_pod() {
    let cluster = cluster();
    let workload = workload();
    let first = runtime(&cluster, ReachMode::Direct).await;
    running(&first, &workload).await;
    let pods = || cluster.all::<Pod>("default").into_iter().map(|pod| pod.metadata.uid).collect::<Vec<_>>();
    let before = pods();
    first.shutdown().await;
    drop(first);
    let second = runtime(&cluster, ReachMode::Direct).await;
    let listed = second.list().await.unwrap();
    assert_eq!(listed.iter().map(|summary| &summary.id).collect::<Vec<_>>(), [&workload.id]);
    assert!(!second.apply(&workload).await.unwrap().changed);
    says(&mut channel(&second, &workload).await, "adopted").await;
    assert_eq!(pods(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_network_settings_reach_what_runs_and_no_pod_is_touched() {
    let cluster = cluster();
    let workload = workload();
    let platform = async |egress: Egress| {
        let network = NetworkConfig { egress, ..NetworkConfig::default() };
        let config =
            KubernetesConfig { base_image: "example.com/base:1".to_owned(), network, ..KubernetesConfig::default() };
        KubernetesRuntime::with_client(config, cluster.client()).await
    };
    let first = platform(Egress::default()).await;
    running(&first, &workload).await;
    let policy = || cluster.get::<NetworkPolicy>("default", workload.id.as_str()).unwrap();
    let pods = || cluster.all::<Pod>("default").into_iter().map(|pod| pod.metadata.uid).collect::<Vec<_>>();
    let deployment = || cluster.get::<Deployment>("default", workload.id.as_str()).unwrap().spec;
    let before = (pods(), deployment());
    assert!(policy().spec.unwrap().egress.is_some());
    first.shutdown().await;

    let second = platform(Egress::Everything).await;
    until("the policy follows", || policy().spec.unwrap().egress.is_none()).await;
    assert_eq!((pods(), deployment()), before);
    assert_eq!(second.list().await.unwrap()[0].drift, None, "what the platform itself changes is no drift");
    second.shutdown().await;

    cluster.forget_requests();
    let third = platform(Egress::Everything).await;
    assert!(third.apply(&workload).await.unwrap().changed, "the Deployment says what it was applied with");
    assert_eq!((pods(), deployment()), before);
    third.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_policy_that_is_refused_keeps_no_other_one_as_it_was() {
    let cluster = cluster();
    let platform = async |egress: Egress| {
        let network = NetworkConfig { egress, ..NetworkConfig::default() };
        let config =
            KubernetesConfig { base_image: "example.com/base:1".to_owned(), network, ..KubernetesConfig::default() };
        KubernetesRuntime::with_client(config, cluster.client()).await
    };
    let first = platform(Egress::default()).await;
    let mut workloads = [workload(), workload(), workload()];
    workloads.sort_by(|a, b| a.id.cmp(&b.id));
    for workload in &workloads {
        running(&first, workload).await;
    }
    first.shutdown().await;
    cluster.forget_requests();
    // The first one, and for good.
    let path = format!("/networkpolicies/{}", workloads[0].id);
    cluster.faults().fail_next_of(u32::MAX, 422, Method::PATCH, &path);
    let second = platform(Egress::Everything).await;
    let follows = |workload: &Workload| {
        let policy = cluster.get::<NetworkPolicy>("default", workload.id.as_str()).unwrap();
        policy.spec.unwrap().egress.is_none()
    };
    until("the others follow", || follows(&workloads[1]) && follows(&workloads[2])).await;
    assert!(!follows(&workloads[0]));
    let puts = || {
        let requests = cluster.requests().into_iter();
        requests.filter(|request| request.method == Method::PATCH).filter(|one| !one.path.contains(&path)).count()
    };
    assert_eq!(puts(), 2);
    cluster.faults().heal();
    until("and so does it, once it is taken", || follows(&workloads[0])).await;
    assert_eq!(puts(), 2, "those that followed are left alone");
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_there_are_watches_and_nothing_else() {
    let cluster = cluster();
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let workloads = [workload(), workload(), workload()];
    for workload in &workloads {
        running(&runtime, workload).await;
        says(&mut channel(&runtime, workload).await, "hello").await;
    }
    // What came with the beginning has an end.
    let end = Instant::now() + LIMIT;
    loop {
        cluster.forget_requests();
        sleep(Duration::from_millis(300)).await;
        if cluster.requests().iter().all(RecordedRequest::is_watch) {
            break;
        }
        assert!(Instant::now() < end, "there is no rest: {:?}", cluster.requests());
    }
    for workload in &workloads {
        says(&mut channel(&runtime, workload).await, "hello again").await;
        runtime.status(&workload.id).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    let others: Vec<_> = cluster.requests().into_iter().filter(|request| !request.is_watch()).collect();
    assert!(others.is_empty(), "neither rest nor calls ask the API server: {others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_gone_for_a_while_stops_no_calls() {
    let cluster = cluster();
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let (present, other) = (workload(), workload());
    running(&runtime, &present).await;
    let mut open = channel(&runtime, &present).await;
    cluster.faults().down();
    says(&mut open, "while it is gone").await;
    says(&mut channel(&runtime, &present).await, "on a new connection").await;
    assert!(runtime.apply(&other).await.unwrap_err().is_retryable());
    let pod = cluster.all::<Pod>("default").remove(0).metadata.name.unwrap();
    cluster.compact();
    cluster.crash("default", &pod, 137);
    sleep(Duration::from_millis(300)).await;
    cluster.faults().up();
    let seen = |status: &WorkloadStatus| status.restarts == 1 && status.phase == Phase::Running;
    status_where(&runtime, &present, "what happened meanwhile is seen", seen).await;
    running(&runtime, &other).await;
    says(&mut channel(&runtime, &present).await, "after it is back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_take_their_time_stay_locked_in_until_the_last_has_ended() {
    let cluster = cluster();
    let config = KubernetesConfig {
        base_image: "example.com/base:1".to_owned(),
        removal_wait: Duration::from_millis(50),
        ..KubernetesConfig::default()
    };
    let runtime = KubernetesRuntime::with_client(config, cluster.client()).await;
    let (slow, other) = (workload(), workload());
    running(&runtime, &slow).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let name = cluster.all::<Pod>("default").remove(0).metadata.name.unwrap();
    let finalizers = |of: Value| Patch::Merge(json!({"metadata": {"finalizers": of}}));
    pods.patch(&name, &PatchParams::default(), &finalizers(json!(["example.com/slow"]))).await.unwrap();
    running(&runtime, &other).await;
    runtime.remove(&slow.id).await.unwrap();
    let policies = || cluster.all::<NetworkPolicy>("default").len();
    assert_eq!((policies(), cluster.all::<Pod>("default").len()), (2, 2), "it has not ended yet");
    pods.patch(&name, &PatchParams::default(), &finalizers(Value::Null)).await.unwrap();
    until("its NetworkPolicy goes with it", || policies() == 1).await;
    assert_eq!(runtime.status(&other.id).await.unwrap().phase, Phase::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_says_what_is_wrong() {
    let cluster = cluster()
        .image("example.com/missing:1", FakeImage::image_pull_error("manifest unknown"))
        .image("example.com/broken:1", FakeImage::crashes(3, "Error: API_KEY is not set"));
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let of = |image: &str| {
        let spec = fixtures::workload_spec("echo", &["echo-server"]);
        fixtures::workload(WorkloadSpec { image: Some(format!("example.com/{image}:1")), ..spec })
    };
    let says = |part: &'static str| {
        move |status: &WorkloadStatus| status.reason.as_ref().is_some_and(|reason| reason.contains(part))
    };
    let (missing, broken) = (of("missing"), of("broken"));
    runtime.apply(&missing).await.unwrap();
    runtime.apply(&broken).await.unwrap();
    let status = status_where(&runtime, &missing, "the image cannot be pulled", says("manifest unknown")).await;
    assert!(status.hint.is_some(), "{status:?}");
    status_where(&runtime, &broken, "it crashes", says("exit code 3")).await;

    cluster.unschedulable(Some("0/1 nodes are available: 1 Insufficient cpu."));
    let (nowhere, too_many) = (workload(), workload());
    runtime.apply(&nowhere).await.unwrap();
    status_where(&runtime, &nowhere, "no node takes it", says("Insufficient cpu")).await;
    cluster.pod_quota("default", Some(0));
    runtime.apply(&too_many).await.unwrap();
    status_where(&runtime, &too_many, "the quota is exceeded", says("exceeded quota")).await;

    cluster.unschedulable(None);
    cluster.pod_quota("default", None);
    cluster.set_image("example.com/missing:1", echo());
    for workload in [&nowhere, &too_many, &missing] {
        status_where(&runtime, workload, "it recovers by itself", |status| status.phase == Phase::Running).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_come_and_go_and_leave_nothing() {
    const MANY: usize = 50;
    let cluster = cluster();
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let workloads: Vec<_> = (0..MANY).map(|_| workload()).collect();
    join_all(workloads.iter().map(|workload| running(&runtime, workload))).await;
    assert_eq!(cluster.all::<Pod>("default").len(), MANY);
    let asked = cluster.requests().iter().filter(|request| !request.is_watch()).count();
    assert!(asked <= 20 * MANY, "{asked} requests for {MANY} installations are too many");
    join_all(workloads.iter().map(|workload| async { runtime.remove(&workload.id).await.unwrap() })).await;
    assert!(runtime.list().await.unwrap().is_empty());
    let left = [
        cluster.all::<Deployment>("default").len(),
        cluster.all::<Service>("default").len(),
        cluster.all::<Secret>("default").len(),
        cluster.all::<NetworkPolicy>("default").len(),
    ];
    assert_eq!(left, [0; 4], "nothing that was made for a workload outlives it");
    until("the pods are gone", || {
        cluster.all::<ReplicaSet>("default").is_empty() && cluster.all::<Pod>("default").is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_inherit_the_scheduling_of_the_pod_that_bears_our_name() {
    let cluster = cluster().namespace("platform").node_label("pool", "mcp");
    let client = cluster.client_in("platform");
    let own = |name: &str, pool: &str| -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "nodeSelector": {"pool": pool}, "containers": [{"name": "a", "image": "example.com/base:1"}],
                "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
            },
        }))
        .unwrap()
    };
    for (namespace, name, pool) in [("platform", "platform-0", "mcp"), ("default", "platform-0", "other")] {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        pods.create(&PostParams::default(), &own(name, pool)).await.unwrap();
    }
    let started = async |name: &str, namespace: Option<&str>| {
        let config = KubernetesConfig {
            base_image: "example.com/base:1".to_owned(),
            own_pod: Some(OwnPod { name: name.to_owned(), namespace: namespace.map(str::to_owned) }),
            ..KubernetesConfig::default()
        };
        KubernetesRuntime::with_client(config, client.clone()).await
    };
    // Where the downward API does not say it, the namespace is the client's own.
    for namespace in [Some("platform"), None] {
        let runtime = started("platform-0", namespace).await;
        let mut inheriting = workload();
        inheriting.spec.platform = runtime.platform();
        running(&runtime, &inheriting).await;
        let made: Deployment = cluster.get("default", inheriting.id.as_str()).unwrap();
        let pod = made.spec.unwrap().template.spec.unwrap();
        assert_eq!(pod.node_selector.unwrap()["pool"], "mcp");
        assert_eq!(pod.tolerations.unwrap()[0].key.as_deref(), Some("dedicated"));
        runtime.shutdown().await;
    }
    // A name that is no pod's, as a host name outside a cluster, is nothing to speak of.
    let runtime = started("no-such-host", None).await;
    assert!(!runtime.platform()["scheduling"].contains("mcp"));
    running(&runtime, &workload()).await;
    runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_inherited_is_found_out_when_the_api_server_is_back() {
    let cluster = cluster();
    let own: Pod = serde_json::from_value(json!({
        "metadata": {"name": "platform-0"},
        "spec": {"nodeSelector": {"pool": "mcp"}, "containers": [{"name": "a", "image": "example.com/base:1"}]},
    }))
    .unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    pods.create(&PostParams::default(), &own).await.unwrap();
    let config = KubernetesConfig {
        own_pod: Some(OwnPod { name: "platform-0".to_owned(), namespace: Some("default".to_owned()) }),
        ..KubernetesConfig::default()
    };
    cluster.faults().down();
    let runtime = KubernetesRuntime::with_client(config, cluster.client()).await;
    assert_eq!(runtime.platform().get("scheduling"), None, "it is not known, which is not the same as none");
    cluster.faults().up();
    let known = || runtime.platform().get("scheduling").is_some_and(|text| text.contains("mcp"));
    until("it is known", known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_template_made_is_not_rolled() {
    let cluster = cluster();
    let first = runtime(&cluster, ReachMode::Direct).await;
    let mut workload = workload();
    workload.spec.platform = first.platform();
    workload.spec.platform.remove("template");
    running(&first, &workload).await;
    let pods = || cluster.all::<Pod>("default").into_iter().map(|pod| pod.metadata.uid).collect::<Vec<_>>();
    let before = pods();
    let grace = || {
        let spec = cluster.get::<Deployment>("default", workload.id.as_str()).unwrap().spec.unwrap();
        spec.template.spec.unwrap().termination_grace_period_seconds
    };
    assert_eq!(grace(), Some(10));
    let incidental = Workload { revision: RevisionNumber(2), ..workload.clone() };
    running(&first, &incidental).await;
    assert_eq!((pods(), grace()), (before, Some(10)));
    let mut updated = Workload { revision: RevisionNumber(3), ..workload.clone() };
    updated.spec.platform = first.platform();
    running(&first, &updated).await;
    assert_eq!(grace(), Some(30), "until somebody updates it");
}
