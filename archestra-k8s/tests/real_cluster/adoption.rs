//! Another start of the platform, a restart, another namespace: what must not touch a pod and what must.

use super::space::{LIMIT, Space, call, channel, running, until};
use archestra_core::runtime::{Connection, Phase, RevisionNumber, Runtime, WorkloadEvent, WorkloadTransport};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).filter_map(ResourceExt::uid).collect()
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn another_start_of_the_platform_touches_no_pod() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let mut workload = space.echo();
    workload.spec.platform = runtime.platform();
    running(&runtime, &workload).await;
    let before = uids(&space.pods(&workload.id).await);
    runtime.shutdown().await;
    drop(runtime);
    assert_eq!(uids(&space.pods(&workload.id).await), before, "a shutdown touches no pod");

    // An upgrade with other defaults.
    let mut config = space.config();
    config.requests.insert("cpu".to_owned(), "6m".to_owned());
    config.base_image = "localhost/another-base:2".to_owned();
    let runtime = space.runtime_with(config).await;
    let found = runtime.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].status.phase, found[0].status.revision), (Phase::Running, Some(RevisionNumber(1))));
    assert!(!runtime.apply(&workload).await.unwrap().changed, "what the platform adds is stored with the revision");
    // A revision that changes nothing rolls nothing and is told all the same.
    workload.revision = RevisionNumber(2);
    assert!(!runtime.apply(&workload).await.unwrap().changed);
    until(&runtime, &workload.id, |status| status.revision == Some(RevisionNumber(2))).await;
    assert_eq!(uids(&space.pods(&workload.id).await), before, "the pods are adopted");
    assert_eq!(call(&mut channel(&runtime, &workload.id).await, "echo", json!({"text": "still"})).await, "still");

    // The new defaults, once somebody asks for them.
    workload.revision = RevisionNumber(3);
    workload.spec.platform = runtime.platform();
    assert!(runtime.apply(&workload).await.unwrap().changed);
    until(&runtime, &workload.id, |status| {
        status.phase == Phase::Running && status.revision == Some(RevisionNumber(3))
    })
    .await;
    runtime.remove(&workload.id).await.unwrap();
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_restart_of_an_http_server_leaves_no_gap() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let mut workload = space.echo();
    workload.spec.args = vec!["http".to_owned(), "8080".to_owned()];
    workload.spec.transport = WorkloadTransport::StreamableHttp { port: Some(8080), path: "/mcp".to_owned() };
    running(&runtime, &workload).await;
    let before = uids(&space.pods(&workload.id).await);
    runtime.restart(&workload.id).await.unwrap();
    let end = Instant::now() + LIMIT;
    loop {
        let pods = space.pods(&workload.id).await;
        let ready = pods.iter().filter(|pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
        });
        assert!(ready.count() > 0, "one that answers is always there");
        if !uids(&pods).is_empty() && uids(&pods).is_disjoint(&before) {
            break;
        }
        assert!(Instant::now() < end, "the restart does not end");
        sleep(Duration::from_millis(100)).await;
    }
    // Applying the same again does not take the mark of the restart away.
    let after = uids(&space.pods(&workload.id).await);
    assert!(!runtime.apply(&workload).await.unwrap().changed);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(uids(&space.pods(&workload.id).await), after);
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_workload_stays_in_the_namespace_it_was_put_into() {
    let (old, new) = (Space::new().await, Space::new().await);
    // Who works in both is an administrator here.
    let runtime = archestra_k8s::KubernetesRuntime::with_client(new.config(), new.admin.clone()).await;
    let (mut there, here) = (old.echo(), new.echo());
    let mut watch = runtime.watch();
    assert_eq!(watch.next().await.unwrap().unwrap(), WorkloadEvent::Snapshot(Vec::new()));
    there.spec.namespace = Some(old.namespace.clone());
    assert_eq!(runtime.apply(&there).await.unwrap().namespace.as_deref(), Some(old.namespace.as_str()));
    assert_eq!(runtime.apply(&here).await.unwrap().namespace.as_deref(), Some(new.namespace.as_str()));
    for workload in [&there, &here] {
        until(&runtime, &workload.id, |status| status.phase == Phase::Running).await;
    }
    assert_eq!(runtime.list().await.unwrap().len(), 2);
    let mut seen = BTreeMap::new();
    while !(seen.len() == 2 && seen.values().all(|phase| *phase == Phase::Running)) {
        match timeout(LIMIT, watch.next()).await.expect("a watch tells of every namespace").unwrap().unwrap() {
            WorkloadEvent::Snapshot(all) => seen = all.into_iter().map(|one| (one.id, one.status.phase)).collect(),
            WorkloadEvent::Changed(one) => drop(seen.insert(one.id, one.status.phase)),
            WorkloadEvent::Removed(id) => drop(seen.remove(&id)),
            WorkloadEvent::ToolsChanged(_) => {}
        }
    }
    assert_eq!(call(&mut channel(&runtime, &there.id).await, "echo", json!({"text": "there"})).await, "there");
    for workload in [&there, &here] {
        runtime.remove(&workload.id).await.unwrap();
    }
    tokio::join!(old.ended(&there.id), new.ended(&here.id));
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_revision_may_change_how_the_server_is_reached() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let bridged = space.echo();
    let mut attached = bridged.clone();
    attached.spec.command.clear();
    let mut http = bridged.clone();
    http.spec.args = vec!["http".to_owned(), "8080".to_owned()];
    http.spec.transport = WorkloadTransport::StreamableHttp { port: Some(8080), path: "/mcp".to_owned() };
    let revisions = [&bridged, &attached, &http, &bridged, &http, &attached, &bridged];
    for (number, revision) in (1..).zip(revisions) {
        let mut workload = revision.clone();
        workload.revision = RevisionNumber(number);
        running(&runtime, &workload).await;
        let answer = match workload.spec.transport {
            WorkloadTransport::Stdio => {
                call(&mut channel(&runtime, &workload.id).await, "echo", json!({"text": "here"})).await
            }
            WorkloadTransport::StreamableHttp { .. } => match runtime.connect(&workload.id).await.unwrap() {
                Connection::Http(endpoint) => {
                    assert!(endpoint.url.ends_with("/mcp"), "{}", endpoint.url);
                    "here".to_owned()
                }
                connection @ Connection::Stdio(_) => panic!("not an endpoint: {connection:?}"),
            },
        };
        assert_eq!(answer, "here");
    }
    runtime.shutdown().await;
}
