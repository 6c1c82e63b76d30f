//! Server-side apply: who owns what.

use super::help::{apply, apply_as, deployment, refusal};
use archestra_k8s::testing::{FakeCluster, FakeImage};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

const IMAGE: &str = "example.com/a:1";

fn cluster() -> (FakeCluster, Client) {
    let cluster = FakeCluster::new().image(IMAGE, FakeImage::never_ready());
    let client = cluster.client();
    (cluster, client)
}

fn container(object: &Deployment) -> Value {
    serde_json::to_value(object).unwrap()["spec"]["template"]["spec"]["containers"][0].take()
}

#[tokio::test]
async fn applying_the_same_again_writes_nothing() {
    let (_cluster, client) = cluster();
    let mut object = deployment("a", IMAGE);
    object["spec"]["paused"] = true.into();
    let first = apply(&client, &object).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let before = api.get("a").await.unwrap();
    let second = apply(&client, &object).await.unwrap();
    assert_eq!(second.metadata.resource_version, before.metadata.resource_version);
    assert_eq!(second.metadata.generation, first.metadata.generation);
    let managed = second.metadata.managed_fields.unwrap();
    let ours = managed.iter().find(|entry| entry.manager.as_deref() == Some("tester")).unwrap();
    assert_eq!(ours.operation.as_deref(), Some("Apply"));
    let fields = serde_json::to_value(&ours.fields_v1).unwrap();
    assert!(fields["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"main\"}"]["f:image"].is_object());
    assert!(fields["f:spec"]["f:replicas"].is_null(), "a default is not owned by who left it open");
}

#[tokio::test]
async fn what_is_not_applied_any_more_goes_and_what_others_have_stays() {
    let (_cluster, client) = cluster();
    let mut object = deployment("a", IMAGE);
    let env = |names: &[&str]| names.iter().map(|name| json!({"name": name, "value": name})).collect::<Value>();
    object["spec"]["template"]["spec"]["containers"][0]["env"] = env(&["A", "B"]);
    object["metadata"]["annotations"] = json!({"ours": "1"});
    apply(&client, &object).await.unwrap();
    let other = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "annotations": {"theirs": "1"}},
        "spec": {"template": {"spec": {"containers": [{"name": "main", "env": env(&["C"])}]}}},
    });
    apply_as(&client, &other, &PatchParams::apply("other")).await.unwrap();
    object["spec"]["template"]["spec"]["containers"][0]["env"] = env(&["B"]);
    object["metadata"]["annotations"] = Value::Null;
    let after = apply(&client, &object).await.unwrap();
    let annotations = after.metadata.annotations.clone().unwrap();
    assert!(!annotations.contains_key("ours") && annotations.contains_key("theirs"), "{annotations:?}");
    let names: Vec<_> = container(&after)["env"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["B", "C"]);
}

#[tokio::test]
async fn a_field_of_somebody_else_is_a_conflict_unless_it_is_taken() {
    let (_cluster, client) = cluster();
    apply(&client, &deployment("a", IMAGE)).await.unwrap();
    let other = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {"template": {"spec": {"containers": [{"name": "main", "image": "example.com/b:1"}]}}},
    });
    let (code, message) = refusal(apply_as(&client, &other, &PatchParams::apply("other")).await);
    assert_eq!(code, 409);
    assert!(
        message.contains("conflict with \"tester\": .spec.template.spec.containers[name=\"main\"].image"),
        "{message}"
    );
    let taken = apply_as(&client, &other, &PatchParams::apply("other").force()).await.unwrap();
    assert_eq!(container(&taken)["image"], "example.com/b:1");
    let (code, message) = refusal(apply(&client, &deployment("a", IMAGE)).await);
    assert!(code == 409 && message.contains("conflict with \"other\""), "{message}");
}

#[tokio::test]
async fn what_is_written_otherwise_is_owned_too() {
    let (_cluster, client) = cluster();
    let mut object = deployment("a", IMAGE);
    object["spec"]["replicas"] = 1.into();
    apply(&client, &object).await.unwrap();
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let scale = json!({"spec": {"replicas": 0}});
    let params = PatchParams { field_manager: Some("scaler".to_owned()), ..PatchParams::default() };
    api.patch("a", &params, &Patch::Merge(&scale)).await.unwrap();
    let (code, message) = refusal(apply(&client, &object).await);
    assert!(code == 409 && message.contains("conflict with \"scaler\": .spec.replicas"), "{message}");
    let without = apply(&client, &deployment("a", IMAGE)).await.unwrap();
    assert_eq!(without.spec.unwrap().replicas, Some(0), "what somebody else owns stays");
}

#[tokio::test]
async fn lists_without_keys_are_one_value() {
    let (_cluster, client) = cluster();
    let mut object = deployment("a", IMAGE);
    object["spec"]["template"]["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
    object["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    apply(&client, &object).await.unwrap();
    object["spec"]["template"]["spec"]["tolerations"] = json!([{"key": "b", "operator": "Exists"}]);
    object["spec"]["template"]["spec"]["nodeSelector"] = json!({"zone": "1"});
    let after = serde_json::to_value(apply(&client, &object).await.unwrap()).unwrap();
    let spec = &after["spec"]["template"]["spec"];
    assert_eq!(spec["tolerations"], json!([{"key": "b", "operator": "Exists"}]));
    assert_eq!(spec["nodeSelector"], json!({"zone": "1"}));
    assert_eq!(after["metadata"]["generation"], 2);
}
