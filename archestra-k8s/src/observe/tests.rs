//! What watchers see of changes, slow or fast.

use super::{
    Observer, feed,
    store::{Store, Tracked},
    synced::Progress,
};
use crate::names;
use archestra_core::{
    ErrorKind,
    runtime::{WorkloadEvent, WorkloadId},
};
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::core::PartialObjectMeta;
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::sync::{broadcast, mpsc, watch};

fn observer() -> Arc<Observer> {
    Arc::new(Observer {
        namespace: "ns".to_owned(),
        store: Mutex::new(Store::new("ns".to_owned())),
        feed: broadcast::Sender::new(feed::CAPACITY),
        changes: watch::Sender::new(0),
        progress: watch::Sender::new(Progress::default()),
        words: mpsc::channel(1).0,
    })
}

fn listed(observer: &Observer) {
    for kind in [Deployment::KIND, Pod::KIND, <PartialObjectMeta<ReplicaSet> as Tracked>::KIND] {
        observer.note_listed(kind);
    }
}

fn id(n: usize) -> WorkloadId {
    format!("mcp-{n}").parse().expect("an id")
}

fn deployment(n: usize) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": id(n).as_str(), "uid": n.to_string(), "labels": names::labels(&id(n), None, None)},
        "spec": {"replicas": 1, "selector": {}, "template": {}},
    }))
    .expect("a Deployment")
}

#[tokio::test]
async fn a_watch_waits_for_the_lists_and_begins_with_a_snapshot() {
    let observer = observer();
    let mut watch = observer.watch();
    observer.note_applied(deployment(1), Vec::new());
    assert!(watch.next().now_or_never().is_none(), "nothing is told before everything is known");
    listed(&observer);
    let Some(Ok(WorkloadEvent::Snapshot(all))) = watch.next().await else { panic!("a snapshot comes first") };
    assert_eq!(all.iter().map(|one| &one.id).collect::<Vec<_>>(), [&id(1)]);
    observer.note_applied(deployment(2), Vec::new());
    observer.tools_changed(&id(2));
    observer.tools_changed(&id(3));
    observer.note_removed(&id(1));
    let events: Vec<_> = watch.take(3).map(|event| event.expect("an event")).collect().await;
    assert!(matches!(&events[0], WorkloadEvent::Changed(summary) if summary.id == id(2)));
    assert_eq!(events[1..], [WorkloadEvent::ToolsChanged(id(2)), WorkloadEvent::Removed(id(1))]);
}

#[tokio::test]
async fn who_is_too_slow_gets_a_snapshot_instead() {
    let observer = observer();
    listed(&observer);
    let mut watch = observer.watch();
    assert_eq!(watch.next().await.expect("it does not end").expect("an event"), WorkloadEvent::Snapshot(vec![]));
    for n in 0..2 * feed::CAPACITY {
        observer.note_applied(deployment(n), Vec::new());
    }
    let Some(Ok(WorkloadEvent::Snapshot(all))) = watch.next().await else { panic!("a snapshot comes again") };
    assert_eq!(all.len(), 2 * feed::CAPACITY);
    assert!(watch.next().now_or_never().is_none(), "nothing older follows");
}

#[tokio::test]
async fn lists_that_come_again_are_told_by_a_snapshot() {
    let observer = observer();
    listed(&observer);
    let mut watch = observer.watch();
    watch.next().await.expect("it does not end").expect("a snapshot");
    observer.change(|store| Deployment::replace(store, vec![deployment(1)]));
    observer.note_listed(Deployment::KIND);
    assert!(matches!(watch.next().await, Some(Ok(WorkloadEvent::Changed(_)))));
    assert!(matches!(watch.next().await, Some(Ok(WorkloadEvent::Snapshot(_)))));
}

#[tokio::test(start_paused = true)]
async fn lists_that_do_not_come_are_named() {
    let observer = observer();
    observer.note_listed(Pod::KIND);
    let error = observer.synced().await.expect_err("it is not complete");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("Deployments and ReplicaSets") && text.contains("namespace ns"), "{text}");
    listed(&observer);
    observer.synced().await.expect("it is complete");
}
