//! What is remembered of the ways to workloads, on the fake cluster.

use super::{
    Reach, attach,
    link::Link,
    lock,
    route::{self, Others, Way},
    view,
};
use crate::{
    KubernetesConfig, KubernetesRuntime, ReachMode, names,
    observe::Observer,
    reach::link::ReadyPod,
    testing::{FakeCluster, FakeImage},
};
use archestra_core::{
    ErrorKind,
    runtime::{Runtime as _, Workload, WorkloadId, WorkloadSpec, WorkloadTransport},
    testing::{Answer, ScriptedServer, fixtures},
};
use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const LIMIT: Duration = Duration::from_secs(20);

fn cluster() -> FakeCluster {
    let echo = || {
        let text = |arguments: &serde_json::Value| arguments["text"].as_str().unwrap_or_default().to_owned();
        ScriptedServer::new("echo").tool("echo", move |arguments| Answer::text(text(arguments)))
    };
    FakeCluster::new().image("example.com/base:1", echo()).image("example.com/attached:1", FakeImage::server(echo()))
}

fn config() -> KubernetesConfig {
    KubernetesConfig { base_image: "example.com/base:1".to_owned(), ..KubernetesConfig::default() }
}

fn bridged() -> Workload {
    fixtures::workload(fixtures::workload_spec("echo", &["echo-server"]))
}

fn attached() -> Workload {
    let image = Some("example.com/attached:1".to_owned());
    fixtures::workload(WorkloadSpec { image, ..fixtures::workload_spec("echo", &[]) })
}

/// Another replica than the one that applies and removes.
struct Replica {
    observer: Arc<Observer>,
    reach: Reach,
}

impl Replica {
    async fn new(cluster: &FakeCluster) -> Self {
        Self::with(cluster, config()).await
    }

    async fn with(cluster: &FakeCluster, config: KubernetesConfig) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (client, ours) = (cluster.client(), names::select_ours(None));
        let observer = Observer::start(client.clone(), "default".to_owned(), &ours, &tasks, stop.clone());
        observer.synced().await.unwrap();
        let reach = Reach::new(client, Arc::clone(&observer), Arc::new(config), tasks, &stop);
        Self { observer, reach }
    }

    /// Connects as soon as that is possible.
    async fn connects(&self, id: &WorkloadId) -> Arc<Link> {
        let end = Instant::now() + LIMIT;
        loop {
            match self.reach.connect(id).await {
                Ok(_) => return lock(&self.reach.0.links).get(id).map(Arc::clone).expect("it is remembered"),
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_another_replica_removes_is_forgotten() {
    let cluster = cluster();
    let first = KubernetesRuntime::with_client(config(), cluster.client()).await;
    let second = Replica::new(&cluster).await;
    for workload in [bridged(), attached()] {
        first.apply(&workload).await.unwrap();
        let link = second.connects(&workload.id).await;
        first.remove(&workload.id).await.unwrap();
        timeout(LIMIT, link.stop.cancelled()).await.expect("what follows it ends");
        assert!(!lock(&second.reach.0.links).contains_key(&workload.id));
        assert_eq!(second.reach.connect(&workload.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let end = Instant::now() + LIMIT;
    while !cluster.all::<Lease>("default").is_empty() {
        assert!(Instant::now() < end, "a Lease is left");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lease_is_made_for_what_is_gone() {
    let cluster = cluster();
    let second = Replica::new(&cluster).await;
    let link = Arc::new(Link::new(attached().id, "default".to_owned(), CancellationToken::new()));
    let error = attach::channel(&second.reach.0, &link).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(cluster.all::<Lease>("default").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_service_is_known_without_asking() {
    let cluster = cluster();
    let first = KubernetesRuntime::with_client(config(), cluster.client()).await;
    let second = Replica::new(&cluster).await;
    let workload = bridged();
    first.apply(&workload).await.unwrap();
    let link = second.connects(&workload.id).await;
    cluster.forget_requests();
    let shared = &second.reach.0;
    let place = second.observer.place(&workload.id).unwrap();
    let pod = place.pods.into_iter().find(|pod| view::is_ready(pod)).map(ReadyPod::of).unwrap();
    let end = Instant::now() + LIMIT;
    // Its listener may be a moment behind.
    while let Err(dead) = route::stream(shared, &link, &pod, Way::Service, names::BRIDGE_PORT, Others::None).await {
        assert!(Instant::now() < end, "{dead:?}");
        sleep(Duration::from_millis(10)).await;
    }
    let asked: Vec<_> = cluster.requests().into_iter().filter(|one| one.path.contains("/services/")).collect();
    assert!(asked.is_empty(), "the Role does not grant it: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_service_is_waited_for_until_services_are_listed() {
    let cluster = cluster();
    let first = KubernetesRuntime::with_client(config(), cluster.client()).await;
    let workload = bridged();
    first.apply(&workload).await.unwrap();
    first.shutdown().await;
    cluster.faults().fail_next_of(1, 503, Method::GET, "/services");
    let second = Replica::new(&cluster).await;
    let link = Link::new(workload.id.clone(), "default".to_owned(), CancellationToken::new());
    let end = Instant::now() + LIMIT;
    let pod = loop {
        let place = second.observer.place(&workload.id).unwrap();
        if let Some(pod) = place.pods.into_iter().find(|pod| view::is_ready(pod)) {
            break ReadyPod::of(pod);
        }
        assert!(Instant::now() < end, "it is not ready");
        sleep(Duration::from_millis(10)).await;
    };
    let found = route::address(&second.reach.0, &link, &pod, Way::Service, names::BRIDGE_PORT).await;
    assert!(matches!(found, Ok(Some(_))), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn within_the_cluster_a_server_is_asked_for_by_name_and_nowhere_else() {
    let cluster = cluster();
    let first = KubernetesRuntime::with_client(config(), cluster.client()).await;
    let http = WorkloadTransport::StreamableHttp { port: Some(8080), path: "/mcp".to_owned() };
    let listening = WorkloadSpec { transport: http, ..fixtures::workload_spec("echo", &["echo-server"]) };
    for workload in [bridged(), fixtures::workload(listening)] {
        first.apply(&workload).await.unwrap();
        let config = KubernetesConfig {
            reach: ReachMode::Cluster,
            // No name server knows it, and there may be none to be asked.
            cluster_domain: "cluster.invalid".to_owned(),
            call_timeout: Duration::from_secs(2),
            connect_wait: Duration::from_millis(100),
            ..config()
        };
        let second = Replica::with(&cluster, config).await;
        let name = format!("{}.default.svc.cluster.invalid", names::object(&workload.id));
        let end = Instant::now() + LIMIT;
        loop {
            let error = second.reach.connect(&workload.id).await.unwrap_err();
            let text = error.to_string();
            if text.ends_with(&format!("its server cannot be reached: the name {name} has no address here")) {
                break;
            }
            assert!(error.is_retryable() && Instant::now() < end, "{text}");
            sleep(Duration::from_millis(10)).await;
        }
        let link = lock(&second.reach.0.links).get(&workload.id).map(Arc::clone).unwrap();
        assert_eq!(route::service_name(&second.reach.0, &link), name);
    }
    let forwarded = cluster.requests().into_iter().filter(|one| one.path.ends_with("/portforward")).count();
    assert_eq!(forwarded, 0);
}
