//! What somebody else changes or deletes of a server's objects is put back, through the whole binary.

use archestra_tests::{
    Home,
    cluster::{Cluster, ECHO},
    hosted::{LIMIT, eventually, gateway, install, save, until_running},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn what_somebody_else_changes_or_deletes_is_put_back() {
    let cluster = Cluster::namespace("drift").await;
    let home = Home::new();
    let binary = cluster.start(&home, &[]).await;
    let env = json!([{ "name": "API_KEY", "secret": true, "prompt": true, "required": true }]);
    save(
        &binary,
        "echo",
        &json!({ "image": ECHO, "command": ["/mcp-echo"], "args": ["http", "8080"], "env": env,
            "transport": "streamable-http", "port": 8080, "path": "/mcp" }),
    )
    .await;
    let id = install(&binary, "echo", json!("organization"), json!({ "API_KEY": "k3y" })).await;
    until_running(&binary, &id).await;
    let front = gateway(&binary, "all", &["echo"]).await;
    eventually(&front, "echo__echo", json!({ "text": "up" })).await;
    let pods = cluster.pods().await;

    // What no pod depends on comes back, and no pod is touched.
    delete_and_see_again::<Service>(&cluster).await;
    delete_and_see_again::<NetworkPolicy>(&cluster).await;
    delete_and_see_again::<Secret>(&cluster).await;
    until_running(&binary, &id).await;
    assert_eq!(cluster.pods().await, pods);

    // A Deployment that was edited is as it was applied again.
    let deployments = objects::<Deployment>(&cluster);
    let deployment = only(&deployments).await;
    let edit = json!({ "spec": { "replicas": 0 } });
    deployments.patch(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
    until("it is scaled back", || async { only(&deployments).await.data["spec"]["replicas"] == 1 }).await;
    until_running(&binary, &id).await;
    eventually(&front, "echo__echo", json!({ "text": "again" })).await;

    // One that was deleted is made anew.
    let uid = only(&deployments).await.uid();
    deployments.delete(&deployment.name_any(), &DeleteParams::default()).await.unwrap();
    until("it is made anew", || async {
        let found = deployments.get_opt(&deployment.name_any()).await.unwrap();
        found.is_some_and(|found| found.uid() != uid && found.metadata.deletion_timestamp.is_none())
    })
    .await;
    until_running(&binary, &id).await;
    eventually(&front, "echo__echo", json!({ "text": "and again" })).await;

    assert_eq!(binary.api().delete(&format!("/api/v1/installations/{id}")).await.status, 204);
    cluster.cleared(LIMIT).await;
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

/// Deletes the only object of ours of a kind, and waits for the next one.
async fn delete_and_see_again<K: Resource<DynamicType = ()>>(cluster: &Cluster) {
    let objects = objects::<K>(cluster);
    let object = only(&objects).await;
    objects.delete(&object.name_any(), &DeleteParams::default()).await.unwrap();
    until("it is there again", || async {
        objects.get_opt(&object.name_any()).await.unwrap().is_some_and(|found| found.uid() != object.uid())
    })
    .await;
}

fn objects<K: Resource<DynamicType = ()>>(cluster: &Cluster) -> Api<DynamicObject> {
    Api::namespaced_with(cluster.client(), cluster.name(), &ApiResource::erase::<K>(&()))
}

async fn only(objects: &Api<DynamicObject>) -> DynamicObject {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=archestra");
    let mut found = objects.list(&ours).await.unwrap().items;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let until = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < until, "not within {LIMIT:?}: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}
