//! Several platforms in one namespace: each sees, changes and removes only what is its own.

use crate::{LIMIT, echo};
use archestra_core::{
    ErrorKind,
    catalog::Scope,
    runtime::{Phase, Runtime, Workload, WorkloadId, WorkloadPullSecret, WorkloadSpec},
    testing::fixtures,
};
use archestra_k8s::{
    KubernetesConfig, KubernetesRuntime,
    testing::{FakeCluster, FakeImage},
};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{Pod, Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::Resource;
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

const INSTANCE: &str = "archestra.dev/instance";

fn cluster() -> FakeCluster {
    FakeCluster::new().image("example.com/base:1", echo()).image("example.com/attached:1", FakeImage::server(echo()))
}

async fn platform(cluster: &FakeCluster, instance: Option<&str>) -> KubernetesRuntime {
    let config = KubernetesConfig {
        instance: instance.map(str::to_owned),
        base_image: "example.com/base:1".to_owned(),
        connect_wait: Duration::from_secs(1),
        gc_interval: Duration::from_millis(20),
        gc_age: Duration::ZERO,
        ..KubernetesConfig::default()
    };
    KubernetesRuntime::with_client(config, cluster.client()).await
}

/// Everything that is made for a workload: over the bridge, with a value and the credentials of a registry.
fn workload() -> Workload {
    let pull = WorkloadPullSecret::Credentials {
        server: "registry.example.com".to_owned(),
        username: "robot".to_owned(),
        password_key: "pull".to_owned(),
        email: None,
    };
    let spec = WorkloadSpec { pull_secrets: vec![pull], ..fixtures::workload_spec("echo", &["echo-server"]) };
    let mut workload = fixtures::workload(spec);
    workload.secrets.insert("pull".to_owned(), "s3cr3t".into());
    workload
}

async fn listed(runtime: &KubernetesRuntime) -> Vec<WorkloadId> {
    runtime.list().await.unwrap().into_iter().map(|summary| summary.id).collect()
}

async fn running(runtime: &KubernetesRuntime, workload: &Workload) {
    runtime.apply(workload).await.unwrap();
    let end = Instant::now() + LIMIT;
    while runtime.status(&workload.id).await.unwrap().phase != Phase::Running {
        assert!(Instant::now() < end, "it does not run");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The names of all objects of a kind, with the platforms that they say they are of.
fn instances<K>(cluster: &FakeCluster) -> BTreeMap<String, Option<String>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let named = |object: K| {
        let meta = object.meta();
        let instance = meta.labels.as_ref().and_then(|labels| labels.get(INSTANCE)).cloned();
        (meta.name.clone().unwrap(), instance)
    };
    cluster.all::<K>("default").into_iter().map(named).collect()
}

fn everything(cluster: &FakeCluster) -> [BTreeMap<String, Option<String>>; 7] {
    [
        instances::<Deployment>(cluster),
        instances::<ReplicaSet>(cluster),
        instances::<Pod>(cluster),
        instances::<Service>(cluster),
        instances::<Secret>(cluster),
        instances::<NetworkPolicy>(cluster),
        instances::<Lease>(cluster),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_in_one_namespace_leave_each_other_alone() {
    let cluster = cluster();
    let (one, two) = (platform(&cluster, Some("one")).await, platform(&cluster, Some("two")).await);
    let (first, second) = (workload(), workload());
    let attached = fixtures::workload(WorkloadSpec {
        image: Some("example.com/attached:1".to_owned()),
        ..fixtures::workload_spec("attached", &[])
    });
    running(&one, &first).await;
    running(&one, &attached).await;
    drop(one.connect(&attached.id).await.unwrap());
    let ones = everything(&cluster);
    assert!(
        ones.iter().all(|kind| !kind.is_empty() && kind.values().all(|of| of.as_deref() == Some("one"))),
        "{ones:?}"
    );
    running(&two, &second).await;

    let mut expected = [first.id.clone(), attached.id.clone()];
    expected.sort_unstable();
    assert_eq!(listed(&one).await, expected);
    assert_eq!(listed(&two).await, std::slice::from_ref(&second.id));
    assert_eq!(two.status(&first.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(two.connect(&first.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(two.restart(&first.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    let offered = two.pull_secrets(&Scope::Organization).await.unwrap();
    assert_eq!(
        offered.iter().map(|secret| secret.name.as_str()).collect::<Vec<_>>(),
        [format!("{}-pull-0", second.id)]
    );

    two.remove(&first.id).await.unwrap();
    two.remove(&second.id).await.unwrap();
    assert!(listed(&two).await.is_empty());
    // Longer than the pauses of the garbage collection.
    sleep(Duration::from_millis(200)).await;
    assert_eq!(everything(&cluster), ones, "what is another platform's stays");
    assert_eq!(listed(&one).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_platform_owns_is_not_taken_over() {
    let cluster = cluster();
    let (one, two) = (platform(&cluster, Some("one")).await, platform(&cluster, Some("two")).await);
    let (theirs, nobodys) = (workload(), workload());
    running(&one, &theirs).await;
    platform(&cluster, None).await.apply(&nobodys).await.unwrap();
    for (workload, label) in [(&theirs, "\"one\""), (&nobodys, "none")] {
        let before = cluster.get::<Deployment>("default", workload.id.as_str());
        let error = two.apply(workload).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let text = error.to_string();
        assert!(text.contains("another platform owns it") && text.contains(&format!("is {label} and ours")), "{text}");
        assert_eq!(cluster.get::<Deployment>("default", workload.id.as_str()), before);
    }
    assert!(listed(&two).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_and_a_platform_without_a_name_takes_all() {
    let cluster = cluster();
    let one = platform(&cluster, Some("one")).await;
    let workload = workload();
    running(&one, &workload).await;
    // Not before: its garbage collection spares nothing that is new.
    let replica = platform(&cluster, Some("one")).await;
    assert!(!replica.apply(&workload).await.unwrap().changed);
    let end = Instant::now() + LIMIT;
    while listed(&replica).await.is_empty() {
        assert!(Instant::now() < end, "the replica sees it");
        sleep(Duration::from_millis(10)).await;
    }
    let selector = cluster.get::<Deployment>("default", workload.id.as_str()).unwrap().spec.unwrap().selector;
    assert_eq!(selector.match_labels.unwrap().into_keys().collect::<Vec<_>>(), ["archestra.dev/workload"]);
    assert_eq!(listed(&platform(&cluster, None).await).await, [workload.id]);
}
