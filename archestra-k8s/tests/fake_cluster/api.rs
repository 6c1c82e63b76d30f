//! Reading, writing and deleting objects.

use super::help::{apply, deployment, refusal, until};
use archestra_k8s::testing::{FakeCluster, FakeImage};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Namespace, Pod, Secret},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
};
use serde_json::{Value, json};

fn secret(name: &str, value: &str) -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kind": value}}, "stringData": {"token": value},
    }))
    .unwrap()
}

#[tokio::test]
async fn what_is_created_can_be_read_and_only_once() {
    let cluster = FakeCluster::new();
    let api: Api<Secret> = Api::default_namespaced(cluster.client());
    assert!(api.get_opt("a").await.unwrap().is_none());
    let created = api.create(&PostParams::default(), &secret("a", "x")).await.unwrap();
    assert_eq!(created.data.as_ref().unwrap()["token"].0, b"x");
    assert!(created.metadata.uid.is_some() && created.metadata.creation_timestamp.is_some());
    assert_eq!(api.get("a").await.unwrap(), created);
    let (code, message) = refusal(api.create(&PostParams::default(), &secret("a", "y")).await);
    assert_eq!((code, message.as_str()), (409, "secrets \"a\" already exists"));
    let (code, message) = refusal(api.create(&PostParams::default(), &secret("A_b", "y")).await);
    assert_eq!(code, 422, "{message}");
    let elsewhere: Api<Secret> = Api::namespaced(cluster.client(), "nowhere");
    assert_eq!(refusal(elsewhere.create(&PostParams::default(), &secret("a", "x")).await).0, 404);
}

#[tokio::test]
async fn replacing_needs_the_present_version() {
    let cluster = FakeCluster::new();
    let api: Api<Secret> = Api::default_namespaced(cluster.client());
    let first = api.create(&PostParams::default(), &secret("a", "x")).await.unwrap();
    let mut changed = secret("a", "y");
    changed.metadata.resource_version.clone_from(&first.metadata.resource_version);
    let second = api.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(first.metadata.resource_version, second.metadata.resource_version);
    assert_eq!(first.metadata.uid, second.metadata.uid);
    let (code, message) = refusal(api.replace("a", &PostParams::default(), &changed).await);
    assert_eq!(code, 409, "{message}");
    let same = api.replace("a", &PostParams::default(), &second).await.unwrap();
    assert_eq!(same.metadata.resource_version, second.metadata.resource_version, "nothing changes, nothing is written");
}

#[tokio::test]
async fn lists_are_selected_and_paged() {
    let cluster = FakeCluster::new();
    let api: Api<Secret> = Api::default_namespaced(cluster.client());
    for n in 0..5 {
        let kind = if n % 2 == 0 { "even" } else { "odd" };
        api.create(&PostParams::default(), &secret(&format!("s{n}"), kind)).await.unwrap();
    }
    let names = |found: Vec<Secret>| found.into_iter().filter_map(|one| one.metadata.name).collect::<Vec<_>>();
    let list = |params: ListParams| {
        let api = api.clone();
        async move { api.list(&params).await.unwrap() }
    };
    assert_eq!(names(list(ListParams::default().labels("kind=even")).await.items), ["s0", "s2", "s4"]);
    assert_eq!(names(list(ListParams::default().labels("kind notin (even),kind")).await.items), ["s1", "s3"]);
    assert_eq!(names(list(ListParams::default().fields("metadata.name=s3")).await.items), ["s3"]);
    let first = list(ListParams::default().limit(3)).await;
    assert_eq!(first.metadata.remaining_item_count, Some(2));
    let token = first.metadata.continue_.clone().unwrap();
    assert_eq!(names(first.items), ["s0", "s1", "s2"]);
    assert_eq!(names(list(ListParams::default().limit(3).continue_token(&token)).await.items), ["s3", "s4"]);
    let metadata = api.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items.len(), 5);
    api.create(&PostParams::default(), &secret("s5", "even")).await.unwrap();
    cluster.compact();
    assert_eq!(refusal(api.list(&ListParams::default().limit(3).continue_token(&token)).await).0, 410);
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("kind=odd")).await.unwrap();
    assert_eq!(names(list(ListParams::default()).await.items), ["s0", "s2", "s4", "s5"]);
}

#[tokio::test]
async fn patches_merge_each_in_its_way() {
    let cluster = FakeCluster::new().image("example.com/a:1", FakeImage::never_ready());
    let client = cluster.client();
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let made = apply(&client, &deployment("a", "example.com/a:1")).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let spec = |object: Deployment| serde_json::to_value(object).unwrap()["spec"]["template"].take();
    let template =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "example.com/a:1"}]}}}});
    let patched = api.patch("a", &PatchParams::default(), &Patch::Strategic(&template)).await.unwrap();
    assert_eq!(patched.metadata.generation, Some(2), "a change of the specification is counted");
    let names: Vec<Value> =
        spec(patched)["spec"]["containers"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["main", "side"], "containers merge by name");
    let restart = json!({"spec": {"template": {"metadata": {"annotations": {"restartedAt": "now"}}}}});
    let patched = api.patch("a", &PatchParams::default(), &Patch::Merge(&restart)).await.unwrap();
    assert_eq!(spec(patched)["metadata"]["annotations"]["restartedAt"], "now");
    let patched = api.patch("a", &PatchParams::default(), &Patch::Merge(&template)).await.unwrap();
    assert_eq!(spec(patched)["spec"]["containers"].as_array().unwrap().len(), 1, "a JSON merge replaces lists");
    let nothing = json!({"metadata": {"labels": {"app": "a"}}});
    let before = api.get_metadata("a").await.unwrap().metadata.generation;
    api.patch("a", &PatchParams::default(), &Patch::Merge(&nothing)).await.unwrap();
    assert_eq!(api.get_metadata("a").await.unwrap().metadata.generation, before);
    let selector = json!({"spec": {"selector": {"matchLabels": {"app": "b"}}}});
    let (code, message) = refusal(api.patch("a", &PatchParams::default(), &Patch::Merge(&selector)).await);
    assert!(code == 422 && message.contains("field is immutable"), "{code} {message}");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let cluster = FakeCluster::new();
    let client = cluster.client();
    let params = PatchParams::apply("tester").dry_run();
    let tried = super::help::apply_as(&client, &deployment("a", "example.com/a:1"), &params).await.unwrap();
    assert_eq!(tried.spec.unwrap().replicas, Some(1), "the answer has the defaults");
    assert!(cluster.get::<Deployment>("default", "a").is_none());
    let strict = PatchParams::apply("tester").validation_strict();
    let mut wrong = deployment("a", "example.com/a:1");
    wrong["spec"]["template"]["spec"]["containers"][0]["imagge"] = "x".into();
    let (code, message) = refusal(super::help::apply_as(&client, &wrong, &strict).await);
    assert_eq!(code, 400);
    assert!(message.contains("unknown field \"spec.template.spec.containers[0].imagge\""), "{message}");
    wrong["spec"]["replicas"] = "two".into();
    assert_eq!(refusal(apply(&client, &wrong).await).0, 400, "a value of another type is refused");
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner() {
    let cluster = FakeCluster::new().image("example.com/a:1", FakeImage::never_ready());
    let client = cluster.client();
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let pods = || cluster.all::<Pod>("default").len();
    let sets = || cluster.all::<ReplicaSet>("default").len();
    for propagation in [PropagationPolicy::Background, PropagationPolicy::Foreground] {
        apply(&client, &deployment("a", "example.com/a:1")).await.unwrap();
        until("there is a pod", || pods() == 1).await;
        let params = DeleteParams { propagation_policy: Some(propagation), ..DeleteParams::default() };
        api.delete("a", &params).await.unwrap();
        until("nothing is left", || pods() == 0 && sets() == 0 && cluster.get::<Deployment>("default", "a").is_none())
            .await;
    }
    apply(&client, &deployment("a", "example.com/a:1")).await.unwrap();
    until("there is a pod", || pods() == 1).await;
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    api.delete("a", &orphan).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!((sets(), pods()), (1, 1), "orphans stay");
}

#[tokio::test]
async fn finalizers_and_preconditions_hold_a_deletion_up() {
    let cluster = FakeCluster::new();
    let api: Api<Secret> = Api::default_namespaced(cluster.client());
    let mut held = secret("a", "x");
    held.metadata.finalizers = Some(vec!["example.com/wait".to_owned()]);
    let made = api.create(&PostParams::default(), &held).await.unwrap();
    let other = kube::api::Preconditions { uid: Some("other".to_owned()), resource_version: None };
    assert_eq!(refusal(api.delete("a", &DeleteParams::default().preconditions(other)).await).0, 409);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get("a").await.unwrap().metadata.deletion_timestamp.is_some());
    let free = json!({"metadata": {"finalizers": null}});
    api.patch("a", &PatchParams::default(), &Patch::Merge(&free)).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
    assert!(made.metadata.uid.is_some());
}

#[tokio::test]
async fn a_namespace_takes_everything_with_it() {
    let cluster = FakeCluster::new().namespace("t").image("example.com/a:1", FakeImage::never_ready());
    let client = cluster.client_in("t");
    apply(&client, &deployment("a", "example.com/a:1")).await.unwrap();
    until("there is a pod", || cluster.all::<Pod>("t").len() == 1).await;
    Api::<Namespace>::all(client).delete("t", &DeleteParams::default()).await.unwrap();
    until("the namespace is gone", || cluster.get::<Namespace>("", "t").is_none()).await;
    assert!(cluster.all::<Deployment>("t").is_empty() && cluster.all::<Pod>("t").is_empty());
}
