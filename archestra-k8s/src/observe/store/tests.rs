//! What is kept, and what is told of it when.

use super::{Store, Touched, Tracked};
use crate::observe::derive::Ended;
use archestra_core::runtime::{Phase, RevisionNumber, WorkloadEvent, WorkloadId};
use chrono::Utc;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Event, Pod},
};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};

fn id() -> WorkloadId {
    "mcp-1".parse().expect("an id")
}

fn labels() -> Value {
    json!({"app.kubernetes.io/managed-by": "archestra", "archestra.dev/workload": "mcp-1"})
}

fn deployment(uid: &str, version: u32, revision: u32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {
            "name": "mcp-1", "uid": uid, "resourceVersion": version.to_string(), "labels": labels(), "generation": revision,
            "annotations": {"archestra.dev/revision": revision.to_string(), "deployment.kubernetes.io/revision": revision.to_string()},
        },
        "spec": {"replicas": 1, "selector": {}, "template": {}},
        "status": {"observedGeneration": revision},
    }))
    .expect("a Deployment")
}

fn set(revision: u32) -> PartialObjectMeta<ReplicaSet> {
    serde_json::from_value(json!({"metadata": {
        "name": format!("mcp-1-{revision}"), "labels": labels(),
        "annotations": {"archestra.dev/revision": revision.to_string(), "deployment.kubernetes.io/revision": revision.to_string()},
    }}))
    .expect("a ReplicaSet")
}

fn pod(revision: u32, state: &Value, ready: bool) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("mcp-1-{revision}-x"), "uid": format!("pod-{revision}"), "labels": labels(),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("mcp-1-{revision}"), "uid": "r"}],
        },
        "spec": {"nodeName": "n", "containers": [{"name": "mcp-server"}]},
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": "Initialized", "status": "True"}, {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": if ready { "True" } else { "False" }},
            ],
            "containerStatuses": [{
                "name": "mcp-server", "image": "a", "imageID": "", "ready": ready, "restartCount": 0, "state": state,
            }],
        },
    }))
    .expect("a pod")
}

fn answering(revision: u32) -> Pod {
    pod(revision, &json!({"running": {"startedAt": "2026-11-20T10:00:00Z"}}), true)
}

fn told(store: &mut Store) -> Option<WorkloadEvent> {
    store.tell(&id(), Utc::now()).0
}

fn status(store: &Store) -> (Phase, Option<RevisionNumber>) {
    let status = &store.summary(&id()).expect("it is told").status;
    (status.phase, status.revision)
}

#[test]
fn changes_are_told_once() {
    let mut store = Store::new("ns".to_owned());
    assert_eq!(Tracked::put(&mut store, deployment("u", 1, 1)), Touched::One(id()));
    assert!(matches!(told(&mut store), Some(WorkloadEvent::Changed(_))));
    assert_eq!(told(&mut store), None);
    Tracked::put(&mut store, set(1));
    Tracked::put(&mut store, answering(1));
    assert!(matches!(told(&mut store), Some(WorkloadEvent::Changed(_))));
    assert_eq!(status(&store), (Phase::Running, Some(RevisionNumber(1))));
    Tracked::delete(&mut store, &deployment("u", 2, 1));
    assert_eq!(told(&mut store), Some(WorkloadEvent::Removed(id())));
    assert_eq!(told(&mut store), None);
}

#[test]
fn the_revision_that_runs_is_that_of_the_pod_that_answers() {
    let mut store = Store::new("ns".to_owned());
    Tracked::put(&mut store, deployment("u", 2, 2));
    Tracked::put(&mut store, set(1));
    Tracked::put(&mut store, set(2));
    Tracked::put(&mut store, answering(1));
    told(&mut store);
    assert_eq!(status(&store), (Phase::Running, Some(RevisionNumber(1))));
    Tracked::put(&mut store, answering(2));
    told(&mut store);
    assert_eq!(status(&store), (Phase::Running, Some(RevisionNumber(2))));
    let serving = store.serving(&id());
    let names: Vec<_> = serving.iter().map(|pod| pod.metadata.name.as_deref()).collect();
    assert_eq!(names, [Some("mcp-1-2-x"), Some("mcp-1-1-x")], "and calls go to that pod, though both are as old");
}

#[test]
fn nothing_older_replaces_what_was_applied() {
    let mut store = Store::new("ns".to_owned());
    store.note_applied(deployment("u", 5, 2), Vec::new());
    assert_eq!(Tracked::put(&mut store, deployment("u", 4, 1)), Touched::Nothing);
    Tracked::put(&mut store, deployment("v", 1, 3));
    let known = store.deployment(&id()).expect("it is known");
    assert_eq!(known.metadata.uid.as_deref(), Some("v"), "another object of the name is newer");
}

#[test]
fn what_was_removed_does_not_come_back() {
    let mut store = Store::new("ns".to_owned());
    Tracked::put(&mut store, deployment("u", 1, 1));
    assert_eq!(store.note_removed(&id()), Touched::One(id()));
    assert_eq!(Tracked::put(&mut store, deployment("u", 2, 1)), Touched::Nothing);
    assert_eq!(Tracked::delete(&mut store, &deployment("u", 3, 1)), Touched::Nothing);
    assert_eq!(Tracked::put(&mut store, deployment("v", 4, 1)), Touched::One(id()));
    assert_eq!(Tracked::delete(&mut store, &deployment("u", 3, 1)), Touched::Nothing, "the one before");
    assert!(store.deployment(&id()).is_some());
}

#[test]
fn a_list_replaces_all_but_what_was_applied_meanwhile() {
    let mut store = Store::new("ns".to_owned());
    Tracked::put(&mut store, deployment("u", 1, 1));
    <Deployment as Tracked>::begin(&mut store);
    assert_eq!(Deployment::replace(&mut store, vec![]), Touched::All);
    assert!(store.deployment(&id()).is_none());
    <Deployment as Tracked>::begin(&mut store);
    store.note_applied(deployment("w", 9, 1), Vec::new());
    Deployment::replace(&mut store, vec![]);
    assert!(store.deployment(&id()).is_some());
}

#[test]
fn what_is_being_deleted_is_gone() {
    let mut store = Store::new("ns".to_owned());
    let mut ending = deployment("u", 1, 1);
    Tracked::put(&mut store, ending.clone());
    told(&mut store);
    ending.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-20T10:00:00Z")).expect("a time");
    Tracked::put(&mut store, ending);
    assert_eq!(told(&mut store), Some(WorkloadEvent::Removed(id())));
}

#[test]
fn warnings_are_told_even_if_they_come_before_their_pod() {
    let mut store = Store::new("ns".to_owned());
    let event: Event = serde_json::from_value(json!({
        "metadata": {"name": "e"}, "reason": "FailedMount", "message": "secret \"s\" not found", "type": "Warning",
        "involvedObject": {"kind": "Pod", "uid": "pod-1"}, "lastTimestamp": "2026-11-20T10:00:00Z",
    }))
    .expect("an event");
    assert_eq!(Tracked::put(&mut store, event.clone()), Touched::Nothing);
    Tracked::put(&mut store, deployment("u", 1, 1));
    Tracked::put(&mut store, pod(1, &json!({"waiting": {"reason": "ContainerCreating"}}), false));
    told(&mut store);
    assert_eq!(status(&store).0, Phase::Error);
    assert_eq!(Tracked::put(&mut store, event), Touched::One(id()));
}

#[test]
fn last_words_are_asked_for_once() {
    let mut store = Store::new("ns".to_owned());
    Tracked::put(&mut store, deployment("u", 1, 1));
    let ended = json!({"terminated": {"exitCode": 1, "containerID": "containerd://1"}});
    Tracked::put(&mut store, pod(1, &ended, false));
    let (_, asks) = store.tell(&id(), Utc::now());
    let asks = asks.expect("they are asked for");
    assert!(store.tell(&id(), Utc::now()).1.is_none());
    let other = Ended { run: "containerd://0".to_owned(), ..asks.clone() };
    assert_eq!(store.note_words(&other, Some("old".to_owned())), Touched::Nothing);
    assert_eq!(store.note_words(&asks, Some("no key".to_owned())), Touched::One(id()));
    told(&mut store);
    let hint = store.summary(&id()).and_then(|told| told.status.hint.clone()).unwrap_or_default();
    assert!(hint.contains("no key"), "{hint}");
}
