//! What somebody else changes or removes of that which was applied: seen by the watches, and put back by the next apply.

use crate::{LIMIT, echo};
use archestra_core::{
    runtime::{
        Connection, EnvValue, Phase, Runtime, Workload, WorkloadEnv, WorkloadEvent, WorkloadPullSecret, WorkloadSpec,
    },
    secret::{KeyRing, Purpose},
    testing::fixtures,
};
use archestra_k8s::{KubernetesConfig, KubernetesRuntime, testing::FakeCluster};
use futures::StreamExt as _;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{Pod, Secret, Service},
        networking::v1::NetworkPolicy,
    },
};
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

fn cluster() -> FakeCluster {
    FakeCluster::new().image("example.com/base:1", echo())
}

async fn platform_with(cluster: &FakeCluster, change: impl FnOnce(&mut KubernetesConfig)) -> KubernetesRuntime {
    let mut config = KubernetesConfig {
        base_image: "example.com/base:1".to_owned(),
        connect_wait: Duration::from_secs(1),
        ..KubernetesConfig::default()
    };
    change(&mut config);
    KubernetesRuntime::with_client(config, cluster.client()).await
}

async fn platform(cluster: &FakeCluster) -> KubernetesRuntime {
    platform_with(cluster, |_| {}).await
}

/// Over the bridge, with a secret value and the credentials of a registry.
fn workload() -> Workload {
    let pull = WorkloadPullSecret::Credentials {
        server: "registry.example.com".to_owned(),
        username: "robot".to_owned(),
        password_key: "pull".to_owned(),
        email: None,
    };
    let env = vec![WorkloadEnv { name: "KEY".to_owned(), value: EnvValue::Secret("KEY".to_owned()) }];
    let spec = WorkloadSpec { env, pull_secrets: vec![pull], ..fixtures::workload_spec("echo", &["echo-server"]) };
    let mut workload = fixtures::workload(spec);
    workload.secrets = [("pull".to_owned(), "s3cr3t".into()), ("KEY".to_owned(), "hunter2".into())].into();
    workload
}

async fn drift(runtime: &KubernetesRuntime, workload: &Workload) -> Option<String> {
    let all = runtime.list().await.unwrap();
    all.into_iter().find(|summary| summary.id == workload.id).expect("it is there").drift
}

async fn drifted(runtime: &KubernetesRuntime, workload: &Workload, what: &str) -> String {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(drift) = drift(runtime, workload).await {
            assert!(drift.contains(what), "{drift:?} does not say {what:?}");
            return drift;
        }
        assert!(Instant::now() < end, "nothing is told: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn running(runtime: &KubernetesRuntime, workload: &Workload) {
    runtime.apply(workload).await.unwrap();
    runs(runtime, workload).await;
}

async fn runs(runtime: &KubernetesRuntime, workload: &Workload) {
    let end = Instant::now() + LIMIT;
    while runtime.status(&workload.id).await.unwrap().phase != Phase::Running {
        assert!(Instant::now() < end, "it does not run");
        sleep(Duration::from_millis(10)).await;
    }
}

fn pods(cluster: &FakeCluster) -> BTreeSet<String> {
    let live = cluster.all::<Pod>("default").into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    live.filter_map(|pod| pod.metadata.uid).collect()
}

async fn merge<K>(cluster: &FakeCluster, name: &str, patch: Value) -> K
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + fmt::Debug,
{
    let params = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };
    Api::<K>::default_namespaced(cluster.client()).patch(name, &params, &Patch::Merge(patch)).await.unwrap()
}

async fn delete<K>(cluster: &FakeCluster, name: &str)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + fmt::Debug,
{
    drop(Api::<K>::default_namespaced(cluster.client()).delete(name, &DeleteParams::default()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_is_told_and_put_back_without_touching_a_pod() {
    let cluster = cluster();
    let runtime = platform(&cluster).await;
    let workload = workload();
    let id = workload.id.as_str();
    running(&runtime, &workload).await;
    assert_eq!(drift(&runtime, &workload).await, None);
    let before = pods(&cluster);
    let secrets = [id.to_owned(), format!("{id}-pull-0")];
    delete::<NetworkPolicy>(&cluster, id).await;
    drifted(&runtime, &workload, &format!("its NetworkPolicy {id} is missing")).await;
    runtime.apply(&workload).await.unwrap();
    assert_eq!(drift(&runtime, &workload).await, None, "it is known at once");
    delete::<Service>(&cluster, id).await;
    drifted(&runtime, &workload, &format!("its Service {id} is missing")).await;
    runtime.apply(&workload).await.unwrap();
    for secret in &secrets {
        delete::<Secret>(&cluster, secret).await;
        drifted(&runtime, &workload, &format!("its Secret {secret} is missing")).await;
        runtime.apply(&workload).await.unwrap();
        assert!(cluster.get::<Secret>("default", secret).is_some());
    }
    assert_eq!(drift(&runtime, &workload).await, None);
    assert_eq!(pods(&cluster), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_is_told_and_put_back() {
    let cluster = cluster();
    let runtime = platform(&cluster).await;
    let workload = workload();
    let id = workload.id.as_str();
    running(&runtime, &workload).await;
    let before = pods(&cluster);

    merge::<NetworkPolicy>(&cluster, id, json!({"spec": {"ingress": [{}]}})).await;
    drifted(&runtime, &workload, "its NetworkPolicy").await;
    assert!(!runtime.apply(&workload).await.unwrap().changed, "the Deployment is as it was");
    assert_eq!(drift(&runtime, &workload).await, None);
    merge::<Service>(&cluster, id, json!({"spec": {"selector": {"archestra.dev/workload": "mcp-other"}}})).await;
    drifted(&runtime, &workload, "its Service").await;
    runtime.apply(&workload).await.unwrap();
    let service = cluster.get::<Service>("default", id).unwrap();
    assert_eq!(service.spec.unwrap().selector.unwrap()["archestra.dev/workload"], id);
    merge::<Secret>(&cluster, id, json!({"data": {"KEY": "Zm9yZ2Vk"}})).await;
    drifted(&runtime, &workload, "its Secret").await;
    runtime.apply(&workload).await.unwrap();
    assert_eq!(drift(&runtime, &workload).await, None);
    let secret = cluster.get::<Secret>("default", id).unwrap();
    assert_eq!(secret.data.unwrap()["KEY"].0, b"hunter2");
    assert_eq!(pods(&cluster), before);

    merge::<Deployment>(&cluster, id, json!({"spec": {"replicas": 0}})).await;
    drifted(&runtime, &workload, "its Deployment was changed").await;
    assert!(runtime.apply(&workload).await.unwrap().changed);
    runs(&runtime, &workload).await;
    assert_eq!(drift(&runtime, &workload).await, None);
    assert_eq!(cluster.get::<Deployment>("default", id).unwrap().spec.unwrap().replicas, Some(1));

    let container = json!({"name": "mcp-server", "image": "example.com/mined:1"});
    let params = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };
    let edit = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
    Api::<Deployment>::default_namespaced(cluster.client()).patch(id, &params, &edit).await.unwrap();
    drifted(&runtime, &workload, "its Deployment was changed").await;
    runtime.apply(&workload).await.unwrap();
    let pod = cluster.get::<Deployment>("default", id).unwrap().spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.containers[0].image.as_deref(), Some("example.com/base:1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_add_stays_and_is_no_drift() {
    let cluster = cluster();
    let runtime = platform(&cluster).await;
    let workload = workload();
    let id = workload.id.as_str();
    running(&runtime, &workload).await;
    let added = json!({"spec": {"template": {"metadata": {"annotations": {"example.com/mesh": "in"}}}}});
    merge::<Deployment>(&cluster, id, added).await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(drift(&runtime, &workload).await, None);
    let generation = |deployment: &Deployment| deployment.metadata.generation;
    let before = cluster.get::<Deployment>("default", id).unwrap();
    assert!(!runtime.apply(&workload).await.unwrap().changed);
    let after = cluster.get::<Deployment>("default", id).unwrap();
    assert_eq!(generation(&before), generation(&after), "nothing is rolled");
    let annotations = after.spec.unwrap().template.metadata.unwrap().annotations.unwrap();
    assert_eq!(annotations["example.com/mesh"], "in");
    assert_eq!(drift(&runtime, &workload).await, None);
    // Neither is a restart, which is a change of ours.
    runtime.restart(&workload.id).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(drift(&runtime, &workload).await, None);
    assert!(!runtime.apply(&workload).await.unwrap().changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_token_of_a_bridge_is_the_same_again_or_the_bridge_is_started_anew() {
    let cluster = cluster();
    let runtime = platform(&cluster).await;
    let workload = workload();
    let name = format!("{}-bridge", workload.id);
    let token = || cluster.get::<Secret>("default", &name).unwrap().data.unwrap()["token"].clone();
    running(&runtime, &workload).await;
    let Connection::Stdio(channel) = runtime.connect(&workload.id).await.unwrap() else { panic!("not a channel") };
    drop(channel);
    let (before, first) = (pods(&cluster), token());
    delete::<Secret>(&cluster, &name).await;
    drifted(&runtime, &workload, "its Secret").await;
    runtime.apply(&workload).await.unwrap();
    assert_eq!((pods(&cluster), token()), (before.clone(), first.clone()), "it is known here");
    runtime.shutdown().await;

    let runtime = platform(&cluster).await;
    delete::<Secret>(&cluster, &name).await;
    drifted(&runtime, &workload, "its Secret").await;
    runtime.apply(&workload).await.unwrap();
    assert_ne!(token(), first);
    let end = Instant::now() + LIMIT;
    while pods(&cluster).is_empty() || !pods(&cluster).is_disjoint(&before) {
        assert!(Instant::now() < end, "the bridge is not started anew");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(drift(&runtime, &workload).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_sees_what_was_changed_before_it_and_a_watch_tells() {
    let cluster = cluster();
    let workload = workload();
    let first = platform(&cluster).await;
    running(&first, &workload).await;
    first.shutdown().await;
    delete::<NetworkPolicy>(&cluster, workload.id.as_str()).await;
    let again = platform(&cluster).await;
    drifted(&again, &workload, "its NetworkPolicy").await;
    again.apply(&workload).await.unwrap();
    let mut watch = again.watch();
    let Some(Ok(WorkloadEvent::Snapshot(all))) = watch.next().await else { panic!("a snapshot comes first") };
    assert_eq!(all[0].drift, None);
    delete::<Service>(&cluster, workload.id.as_str()).await;
    let told = async {
        while let Some(event) = watch.next().await {
            if let Ok(WorkloadEvent::Changed(summary)) = event
                && summary.drift.is_some()
            {
                return;
            }
        }
    };
    timeout(LIMIT, told).await.expect("it is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_digests_rolls_nothing_and_neither_does_another_one() {
    let cluster = cluster();
    let mut workload = workload();
    let digest = || {
        let template = cluster.get::<Deployment>("default", workload.id.as_str()).unwrap().spec.unwrap().template;
        template.metadata.unwrap().annotations.unwrap()["archestra.dev/secrets-hash"].clone()
    };
    running(&platform(&cluster).await, &workload).await;
    let (before, unkeyed) = (pods(&cluster), digest());
    let (old, new) = (KeyRing::generate().unwrap(), KeyRing::generate().unwrap());
    let both = KeyRing::parse(&format!("{}{}", *new.to_text(), *old.to_text())).unwrap();
    let under = |ring: &KeyRing| {
        let keys = Some(Arc::new(ring.derive(Purpose::Digests)));
        platform_with(&cluster, |config| config.digest_keys = keys)
    };
    assert!(!under(&old).await.apply(&workload).await.unwrap().changed, "nothing but a key is new");
    assert_eq!((pods(&cluster), digest()), (before.clone(), unkeyed.clone()));
    // Another value is digested with the key, and an older key is recognised.
    workload.revision.0 += 1;
    workload.secrets.insert("KEY".to_owned(), "hunter3".into());
    let digest = || {
        let template = cluster.get::<Deployment>("default", workload.id.as_str()).unwrap().spec.unwrap().template;
        template.metadata.unwrap().annotations.unwrap()["archestra.dev/secrets-hash"].clone()
    };
    assert!(under(&old).await.apply(&workload).await.unwrap().changed);
    let keyed = digest();
    assert_ne!(keyed, unkeyed);
    assert!(!under(&both).await.apply(&workload).await.unwrap().changed);
    assert_eq!(digest(), keyed);
}
