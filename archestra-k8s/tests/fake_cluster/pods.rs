//! What becomes of pods: started, rolled, broken, and what is told about it.

use super::help::{apply, deployment, has, until, waits_for};
use archestra_core::testing::{Answer, ScriptedServer};
use archestra_k8s::testing::{FakeCluster, FakeImage};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Event, Pod, Secret},
};
use kube::{
    Api,
    api::{DeleteParams, LogParams, PostParams},
};
use serde_json::{Value, json};

const IMAGE: &str = "example.com/a:1";

fn server() -> ScriptedServer {
    ScriptedServer::new("echo").start_log("up").tool("die", |_| Answer::crash("segmentation fault"))
}

fn only(cluster: &FakeCluster) -> Option<Pod> {
    match cluster.all::<Pod>("default").as_slice() {
        [pod] => Some(pod.clone()),
        _ => None,
    }
}

fn events(cluster: &FakeCluster, reason: &str) -> Vec<String> {
    let told = cluster.all::<Event>("default").into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    told.filter_map(|event| event.message).collect()
}

fn conditions(cluster: &FakeCluster) -> Value {
    let deployment: Deployment = cluster.get("default", "a").unwrap();
    let status = serde_json::to_value(deployment).unwrap()["status"].take();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions
        .into_iter()
        .map(|one| (one["type"].as_str().unwrap().to_owned(), one))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

async fn waits(cluster: &FakeCluster, reason: &str) -> String {
    until(reason, || only(cluster).and_then(|pod| waits_for(&pod)).is_some_and(|(why, _)| why == reason)).await;
    only(cluster).and_then(|pod| waits_for(&pod)).unwrap().1
}

#[tokio::test]
async fn a_deployment_is_rolled_without_a_gap() {
    let cluster = FakeCluster::new().image(IMAGE, server()).image("example.com/b:1", server());
    let client = cluster.client();
    apply(&client, &deployment("a", IMAGE)).await.unwrap();
    until("it is complete", || conditions(&cluster)["Progressing"]["reason"] == "NewReplicaSetAvailable").await;
    let first = only(&cluster).unwrap();
    assert!(has(&first, "Ready"));
    let name = first.metadata.name.clone().unwrap();
    apply(&client, &deployment("a", "example.com/b:1")).await.unwrap();
    until("the first pod is gone", || {
        let pods = cluster.all::<Pod>("default");
        assert!(pods.iter().any(|pod| has(pod, "Ready")), "there is always one that is ready");
        pods.iter().all(|pod| pod.metadata.name.as_ref() != Some(&name))
    })
    .await;
    until("it is complete", || conditions(&cluster)["Progressing"]["reason"] == "NewReplicaSetAvailable").await;
    let revision =
        |object: &Deployment| object.metadata.annotations.clone().unwrap()["deployment.kubernetes.io/revision"].clone();
    assert_eq!(revision(&cluster.get("default", "a").unwrap()), "2");
    assert_eq!(cluster.all::<ReplicaSet>("default").len(), 2, "there is a history");
    let rolled: Deployment = cluster.get("default", "a").unwrap();
    assert_eq!(rolled.status.unwrap().observed_generation, rolled.metadata.generation);
}

#[tokio::test]
async fn recreating_ends_the_old_pod_first() {
    let cluster = FakeCluster::new().image(IMAGE, server()).image("example.com/b:1", server());
    let client = cluster.client();
    let mut object = deployment("a", IMAGE);
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    apply(&client, &object).await.unwrap();
    until("it is ready", || only(&cluster).is_some_and(|pod| has(&pod, "Ready"))).await;
    object["spec"]["template"]["spec"]["containers"][0]["image"] = "example.com/b:1".into();
    apply(&client, &object).await.unwrap();
    until("the new one is ready", || {
        let pods = cluster.all::<Pod>("default");
        assert!(pods.len() <= 1, "there are never two");
        pods.iter().any(|pod| {
            pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("example.com/b:1") && has(pod, "Ready")
        })
    })
    .await;
}

#[tokio::test]
async fn a_crash_loop_shows_code_log_and_back_off() {
    let cluster = FakeCluster::new().image(IMAGE, FakeImage::crashes(3, "Error: no key\nbye"));
    let client = cluster.client();
    apply(&client, &deployment("a", IMAGE)).await.unwrap();
    let message = waits(&cluster, "CrashLoopBackOff").await;
    assert!(message.starts_with("back-off "), "{message}");
    until("it was restarted", || {
        let pod = only(&cluster).unwrap();
        let status = pod.status.unwrap().container_statuses.unwrap().remove(0);
        let code = status.last_state.and_then(|state| state.terminated).map(|ended| ended.exit_code);
        status.restart_count >= 1 && code == Some(3)
    })
    .await;
    assert!(!events(&cluster, "BackOff").is_empty());
    let pods: Api<Pod> = Api::default_namespaced(client);
    let name = only(&cluster).unwrap().metadata.name.unwrap();
    let previous = LogParams { previous: true, ..LogParams::default() };
    assert_eq!(pods.logs(&name, &previous).await.unwrap(), "Error: no key\nbye\n");
    let last = LogParams { tail_lines: Some(1), previous: true, timestamps: true, ..LogParams::default() };
    assert!(pods.logs(&name, &last).await.unwrap().ends_with("Z bye\n"));
    cluster.set_image(IMAGE, server());
    until("a better image runs", || only(&cluster).is_some_and(|pod| has(&pod, "Ready"))).await;
}

#[tokio::test]
async fn what_keeps_a_pod_from_running_is_said() {
    let cluster = FakeCluster::new().image(IMAGE, FakeImage::image_pull_error("manifest unknown"));
    let client = cluster.client();
    cluster.unschedulable(Some("0/1 nodes are available: 1 Insufficient cpu."));
    let mut object = deployment("a", IMAGE);
    let variable = json!({"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}});
    object["spec"]["template"]["spec"]["containers"][0]["env"] = json!([variable]);
    apply(&client, &object).await.unwrap();
    until("it cannot be scheduled", || !events(&cluster, "FailedScheduling").is_empty()).await;
    cluster.unschedulable(None);
    assert!(waits(&cluster, "ImagePullBackOff").await.contains("manifest unknown"));
    cluster.set_image(IMAGE, FakeImage::command_not_found());
    assert_eq!(waits(&cluster, "CreateContainerConfigError").await, "secret \"s\" not found");
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"key": "x"}})).unwrap();
    Api::default_namespaced(client).create(&PostParams::default(), &secret).await.unwrap();
    waits(&cluster, "CrashLoopBackOff").await;
    let status = only(&cluster).unwrap().status.unwrap().container_statuses.unwrap().remove(0);
    let ended = status.last_state.unwrap().terminated.unwrap();
    assert_eq!(ended.reason.as_deref(), Some("StartError"));
    assert!(ended.message.unwrap().contains("executable file not found"));
}

#[tokio::test]
async fn what_keeps_a_pod_from_being_made_is_said() {
    let cluster = FakeCluster::new().image(IMAGE, server());
    let client = cluster.client();
    cluster.pod_quota("default", Some(0));
    apply(&client, &deployment("a", IMAGE)).await.unwrap();
    until("the quota is exceeded", || conditions(&cluster)["ReplicaFailure"]["status"] == "True").await;
    let message = conditions(&cluster)["ReplicaFailure"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("exceeded quota"), "{message}");
    cluster.pod_quota("default", None);
    until("it runs", || only(&cluster).is_some_and(|pod| has(&pod, "Ready"))).await;
    until("nothing fails", || conditions(&cluster)["ReplicaFailure"].is_null()).await;
    let mut other = deployment("b", IMAGE);
    other["spec"]["template"]["spec"]["serviceAccountName"] = "nobody".into();
    apply(&client, &other).await.unwrap();
    until("there is no such account", || {
        events(&cluster, "FailedCreate").iter().any(|text| text.contains("serviceaccount \"nobody\" not found"))
    })
    .await;
}

#[tokio::test]
async fn private_images_need_their_password() {
    let image = "registry.example.com/a:1";
    let cluster = FakeCluster::new().image(image, FakeImage::server(server()).private("u", "right"));
    let client = cluster.client();
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let secret = |password: &str| -> Secret {
        let config = json!({"auths": {"registry.example.com": {"username": "u", "password": password}}}).to_string();
        let object = json!({
            "metadata": {"name": "pull"}, "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config},
        });
        serde_json::from_value(object).unwrap()
    };
    secrets.create(&PostParams::default(), &secret("wrong")).await.unwrap();
    let mut object = deployment("a", image);
    object["spec"]["template"]["spec"]["imagePullSecrets"] = json!([{"name": "pull"}]);
    apply(&client, &object).await.unwrap();
    assert!(waits(&cluster, "ErrImagePull").await.contains("401 Unauthorized"));
    secrets.delete("pull", &DeleteParams::default()).await.unwrap();
    secrets.create(&PostParams::default(), &secret("right")).await.unwrap();
    until("it runs", || only(&cluster).is_some_and(|pod| has(&pod, "Ready"))).await;
}

#[tokio::test]
async fn an_evicted_pod_stays_behind_and_is_replaced() {
    let cluster = FakeCluster::new().image(IMAGE, server());
    apply(&cluster.client(), &deployment("a", IMAGE)).await.unwrap();
    until("it is ready", || only(&cluster).is_some_and(|pod| has(&pod, "Ready"))).await;
    let name = only(&cluster).unwrap().metadata.name.unwrap();
    cluster.evict("default", &name, "The node was low on resource: memory.");
    until("another one is ready", || cluster.all::<Pod>("default").iter().filter(|pod| has(pod, "Ready")).count() == 1)
        .await;
    let evicted: Pod = cluster.get("default", &name).unwrap();
    assert_eq!(evicted.status.unwrap().reason.as_deref(), Some("Evicted"));
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.delete(&name, &DeleteParams::default()).await.unwrap();
    assert!(cluster.get::<Pod>("default", &name).is_none(), "what has failed is gone at once");
}
