//! What somebody else changes or removes: seen by the watches, and put back without touching a pod that is as it should be.

use super::space::{LIMIT, Space, call, channel, running, until};
use archestra_core::{
    runtime::{EnvValue, Phase, Runtime, Workload, WorkloadEnv},
    secret::SecretValue,
};
use archestra_k8s::KubernetesRuntime;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{Instant, sleep};

fn with_secret(space: &Space) -> Workload {
    let mut workload = space.echo();
    workload.spec.env = vec![WorkloadEnv { name: "KEY".to_owned(), value: EnvValue::Secret("KEY".to_owned()) }];
    workload.secrets.insert("KEY".to_owned(), SecretValue::new("hunter2"));
    workload
}

async fn drift(runtime: &KubernetesRuntime, workload: &Workload) -> Option<String> {
    let all = runtime.list().await.unwrap();
    all.into_iter().find(|summary| summary.id == workload.id).expect("it is there").drift
}

async fn drifted(runtime: &KubernetesRuntime, workload: &Workload, what: &str) {
    let end = Instant::now() + LIMIT;
    loop {
        match drift(runtime, workload).await {
            Some(drift) if drift.contains(what) => return,
            found => assert!(Instant::now() < end, "{found:?} does not say {what:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn uids(space: &Space, workload: &Workload) -> BTreeSet<String> {
    let pods = space.pods(&workload.id).await;
    pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).filter_map(ResourceExt::uid).collect()
}

/// As kubectl does it.
fn edit() -> PatchParams {
    PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() }
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn what_is_removed_or_changed_is_put_back() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let workload = with_secret(&space);
    let id = workload.id.as_str();
    running(&runtime, &workload).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(drift(&runtime, &workload).await, None, "what Kubernetes itself writes is no drift");
    let before = uids(&space, &workload).await;
    let now = DeleteParams::default();
    space.api::<NetworkPolicy>().delete(id, &now).await.unwrap();
    space.api::<Service>().delete(id, &now).await.unwrap();
    space.api::<Secret>().delete(id, &now).await.unwrap();
    for part in ["NetworkPolicy", "Service", "Secret"] {
        drifted(&runtime, &workload, &format!("its {part} {id} is missing")).await;
    }
    assert!(!runtime.apply(&workload).await.unwrap().changed, "the Deployment is as it was");
    assert_eq!(drift(&runtime, &workload).await, None);

    space.api::<Secret>().patch(id, &edit(), &Patch::Merge(json!({"data": {"KEY": "Zm9yZ2Vk"}}))).await.unwrap();
    drifted(&runtime, &workload, "its Secret").await;
    let open = Patch::Merge(json!({"spec": {"ingress": [{}]}}));
    space.api::<NetworkPolicy>().patch(id, &edit(), &open).await.unwrap();
    drifted(&runtime, &workload, "its NetworkPolicy").await;
    runtime.apply(&workload).await.unwrap();
    let end = Instant::now() + LIMIT;
    while drift(&runtime, &workload).await.is_some() {
        assert!(Instant::now() < end, "it is not put back");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(space.api::<Secret>().get(id).await.unwrap().data.unwrap()["KEY"].0, b"hunter2");
    assert_eq!(uids(&space, &workload).await, before, "no pod was touched");

    // As `kubectl scale` does it, which older servers keep no record of.
    let scale = Patch::Merge(json!({"spec": {"replicas": 0}}));
    space.api::<Deployment>().patch_scale(id, &PatchParams::default(), &scale).await.unwrap();
    drifted(&runtime, &workload, "its Deployment was changed").await;
    assert!(runtime.apply(&workload).await.unwrap().changed);
    until(&runtime, &workload.id, |status| status.phase == Phase::Running).await;
    assert_eq!(drift(&runtime, &workload).await, None);

    let container = json!({"name": "mcp-server", "image": "localhost/somebody-elses:1"});
    let image = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
    space.api::<Deployment>().patch(id, &edit(), &image).await.unwrap();
    drifted(&runtime, &workload, "its Deployment was changed").await;
    runtime.apply(&workload).await.unwrap();
    let pod = space.api::<Deployment>().get(id).await.unwrap().spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.containers[0].image, workload.spec.image);
    until(&runtime, &workload.id, |status| status.phase == Phase::Running).await;
    assert_eq!(drift(&runtime, &workload).await, None);
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn what_others_add_stays_and_a_lost_token_is_the_same_again() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let workload = with_secret(&space);
    let id = workload.id.as_str();
    running(&runtime, &workload).await;
    let added = json!({"spec": {"template": {"metadata": {"annotations": {"example.com/mesh": "in"}}}}});
    space.api::<Deployment>().patch(id, &edit(), &Patch::Merge(added)).await.unwrap();
    runtime.restart(&workload.id).await.unwrap();
    until(&runtime, &workload.id, |status| status.phase == Phase::Running && status.reason.is_none()).await;
    assert_eq!(drift(&runtime, &workload).await, None, "neither is a change of what was applied");
    assert!(!runtime.apply(&workload).await.unwrap().changed);
    let template = space.api::<Deployment>().get(id).await.unwrap().spec.unwrap().template;
    assert_eq!(template.metadata.unwrap().annotations.unwrap()["example.com/mesh"], "in");

    let ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
    };
    let end = Instant::now() + LIMIT;
    while space.pods(&workload.id).await.len() != 1 || !space.pods(&workload.id).await.iter().all(ready) {
        assert!(Instant::now() < end, "the restart does not end");
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(call(&mut channel(&runtime, &workload.id).await, "echo", json!({"text": "a"})).await, "a");
    let before = uids(&space, &workload).await;
    let bridge = format!("{id}-bridge");
    let token = async || space.api::<Secret>().get(&bridge).await.unwrap().data.unwrap()["token"].0.clone();
    let first = token().await;
    space.api::<Secret>().delete(&bridge, &DeleteParams::default()).await.unwrap();
    drifted(&runtime, &workload, &format!("its Secret {bridge} is missing")).await;
    runtime.apply(&workload).await.unwrap();
    assert_eq!((token().await, uids(&space, &workload).await), (first.clone(), before.clone()));

    // Nobody knows it any more.
    runtime.shutdown().await;
    let runtime = space.runtime().await;
    space.api::<Secret>().delete(&bridge, &DeleteParams::default()).await.unwrap();
    drifted(&runtime, &workload, "its Secret").await;
    runtime.apply(&workload).await.unwrap();
    assert_ne!(token().await, first);
    let end = Instant::now() + LIMIT;
    while !uids(&space, &workload).await.is_disjoint(&before) {
        assert!(Instant::now() < end, "the bridge is not started anew");
        sleep(Duration::from_millis(200)).await;
    }
    until(&runtime, &workload.id, |status| status.phase == Phase::Running).await;
    assert_eq!(call(&mut channel(&runtime, &workload.id).await, "env", json!({"name": "KEY"})).await, "hunter2");
    runtime.shutdown().await;
}
