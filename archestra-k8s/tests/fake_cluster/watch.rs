//! Watches: from a version on, through selectors, over interruptions.

use super::help::until;
use archestra_k8s::testing::FakeCluster;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

fn map(name: &str, kind: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"kind": kind}}})).unwrap()
}

async fn create(api: &Api<ConfigMap>, name: &str, kind: &str) {
    api.create(&PostParams::default(), &map(name, kind)).await.unwrap();
}

fn shown(event: &WatchEvent<ConfigMap>) -> String {
    match event {
        WatchEvent::Added(object) => format!("+{}", object.name_any()),
        WatchEvent::Modified(object) => format!("~{}", object.name_any()),
        WatchEvent::Deleted(object) => format!("-{}", object.name_any()),
        WatchEvent::Bookmark(_) => "bookmark".to_owned(),
        WatchEvent::Error(status) => format!("error {}", status.code),
    }
}

async fn seen(api: &Api<ConfigMap>, params: &WatchParams, version: &str, count: usize) -> Vec<String> {
    let stream = api.watch(params, version).await.unwrap();
    let events = timeout(Duration::from_secs(5), stream.take(count).try_collect::<Vec<_>>()).await;
    events.expect("the events come").unwrap().iter().map(shown).collect()
}

#[tokio::test]
async fn a_watch_replays_what_came_after_a_version() {
    let cluster = FakeCluster::new();
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    create(&api, "a", "x").await;
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    create(&api, "b", "x").await;
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let params = WatchParams::default();
    assert_eq!(seen(&api, &params, &version, 2).await, ["+b", "-a"]);
    assert_eq!(seen(&api, &params, "0", 1).await, ["+b"], "version 0 begins with what there is");
    cluster.compact();
    assert_eq!(seen(&api, &params, &version, 1).await, ["error 410"], "what is forgotten cannot be replayed");
}

#[tokio::test]
async fn what_enters_and_leaves_a_selector_is_added_and_deleted() {
    let cluster = FakeCluster::new();
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    create(&api, "a", "x").await;
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    for kind in ["y", "y2", "x"] {
        let patch = json!({"metadata": {"labels": {"kind": kind}}});
        api.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
    let params = WatchParams::default().labels("kind in (y,y2)");
    assert_eq!(seen(&api, &params, &version, 3).await, ["+a", "~a", "-a"]);
}

#[tokio::test]
async fn bookmarks_tell_how_far_a_quiet_watch_is() {
    let cluster = FakeCluster::new();
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    create(&api, "a", "x").await;
    let params = WatchParams { bookmarks: true, timeout: Some(1), ..WatchParams::default() };
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    assert_eq!(seen(&api, &params, &version, 9).await, ["bookmark"], "a watch that times out says how far it came");
}

#[tokio::test]
async fn a_reflector_survives_interruptions() {
    let cluster = FakeCluster::new();
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let (store, writer) = reflector::store();
    let config = watcher::Config::default();
    let following = watcher(api.clone(), config).default_backoff().reflect(writer).touched_objects();
    let task = tokio::spawn(following.for_each(|_| std::future::ready(())));
    let holds = |name: &'static str| store.state().iter().any(|object| object.name_any() == name);
    create(&api, "a", "x").await;
    until("a is seen", || holds("a")).await;
    cluster.faults().drop_watches();
    create(&api, "b", "x").await;
    until("b is seen over a dropped watch", || holds("b")).await;
    cluster.faults().drop_watches();
    create(&api, "c", "x").await;
    cluster.compact();
    until("c is seen over an expired version", || holds("c")).await;
    task.abort();
}
