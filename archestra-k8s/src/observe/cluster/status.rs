//! What is told of pods that run, that cannot run, and that are replaced.

use super::{Space, config, deployment, id, image, options};
use crate::observe::Observer;
use archestra_core::runtime::{LogSource, Phase, RevisionNumber, WorkloadEvent, WorkloadStatus};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn what_cannot_run_says_why() {
    let space = Space::new().await;
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "some"}, "stringData": {"a": "b"}})).unwrap();
    Api::<Secret>::namespaced(space.client.clone(), &space.namespace)
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
    let run = "sleep 1000";
    type Change = Box<dyn FnOnce(&mut Value)>;
    let set = |pointer: &'static str, value: Value| -> Change {
        Box::new(move |spec| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[key] = value;
        })
    };
    let cases: Vec<(&str, Change, &str, &str)> = vec![
        (
            run,
            set("/containers/0/image", json!("127.0.0.1:1/none/at-all:1")),
            "connection refused",
            "does not reach the registry",
        ),
        (run, set("/containers/0/image", json!("Not An Image")), "is not the name of an image", "registry/name:tag"),
        (run, set("/nodeSelector", json!({"no": "such-node"})), "no node can take its pod", "nodeSelector"),
        (
            run,
            set("/containers/0/resources/requests/memory", json!("9000Gi")),
            "Insufficient memory",
            "resource requests",
        ),
        (run, set("/serviceAccountName", json!("nobody")), "service account does not exist", "service account"),
        (
            run,
            set(
                "/containers/0/env",
                json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "some", "key": "c"}}}]),
            ),
            "couldn't find key c",
            "lacks a value",
        ),
        (
            run,
            set(
                "/containers/0/env",
                json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "c"}}}]),
            ),
            "secret \"none\" not found",
            "make the Secret \"none\" in its namespace",
        ),
        (run, set("/containers/0/command", json!(["/no-such-program"])), "cannot be started", "check command"),
        (run, set("/containers/0/securityContext", json!({"runAsNonRoot": true})), "run as root", "runAsUser"),
        (
            run,
            set("/volumes", json!([{"name": "v", "secret": {"secretName": "none"}}])),
            "secret \"none\" not found",
            "does not exist",
        ),
        (
            "echo first >&2; echo not much to say >&2; exit 3",
            Box::new(|_| {}),
            "exit code 3",
            "first ⏎ not much to say",
        ),
        (
            run,
            set(
                "/initContainers",
                json!([{"name": "before", "image": image(), "command": ["sh", "-c", "echo no luck; exit 4"]}]),
            ),
            "init container before fails",
            "no luck",
        ),
    ];
    let mut expected = Vec::new();
    for (script, change, reason, hint) in cases {
        let id = id();
        space
            .apply(deployment(&id, 1, script, |spec| {
                change(spec);
                if spec["volumes"].is_array() {
                    spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
                }
            }))
            .await;
        expected.push((id, reason, hint));
    }
    for (id, reason, hint) in expected {
        let fits = |status: &WorkloadStatus| {
            status.phase == Phase::Error
                && status.reason.as_deref().unwrap_or_default().contains(reason)
                && status.hint.as_deref().unwrap_or_default().contains(hint)
        };
        let status = space.until(&id, fits).await;
        assert_eq!(status.revision.is_some(), space.observer.place(&id).is_some_and(|place| !place.pods.is_empty()));
    }
    space.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_quota_that_is_used_up_says_so() {
    let space = Space::new().await;
    let quota: ResourceQuota =
        serde_json::from_value(json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})).unwrap();
    let quotas: Api<ResourceQuota> = Api::namespaced(space.client.clone(), &space.namespace);
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let id = id();
    space.apply(deployment(&id, 1, "sleep 1000", |_| {})).await;
    let status = space.until(&id, |status| status.phase == Phase::Error).await;
    assert!(status.reason.unwrap().contains("exceeded quota"));
    let lines = space.recent(&id, options(Some(5), false)).await;
    assert!(
        lines.iter().any(|line| line.source == LogSource::Platform && line.text.contains("exceeded quota")),
        "{lines:?}"
    );
    space.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn secrets_are_not_among_the_last_words() {
    let space = Space::new().await;
    let id = id();
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": id.as_str()}, "stringData": {"env.KEY": "canary-4711"}}))
            .unwrap();
    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.namespace);
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    space.apply(deployment(&id, 1, "echo the key canary-4711 is wrong >&2; exit 1", |_| {})).await;
    let told = |status: &WorkloadStatus| status.hint.as_deref().is_some_and(|hint| hint.contains("last words"));
    let hint = space.until(&id, told).await.hint.unwrap();
    assert!(hint.contains("the key <redacted> is wrong"), "{hint}");
    space.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_new_revision_that_fails_leaves_the_former_one_running() {
    let space = Space::new().await;
    let id = id();
    let mut watch = space.observer.watch();
    assert_eq!(watch.next().await.unwrap().unwrap(), WorkloadEvent::Snapshot(vec![]));
    space.apply(deployment(&id, 1, "sleep 1000", |_| {})).await;
    let first = space.until(&id, |status| status.phase == Phase::Running).await;
    assert_eq!(first.revision, Some(RevisionNumber(1)));
    // Its probe never succeeds, so it takes nobody's place.
    let broken = deployment(&id, 3, "exit 7", |spec| {
        spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["sh", "-c", "exit 1"]}});
    });
    space.apply(broken).await;
    let told = |status: &WorkloadStatus| status.reason.as_deref().is_some_and(|reason| reason.contains("exit code 7"));
    let status = space.until(&id, told).await;
    assert_eq!((status.phase, status.revision), (Phase::Running, Some(RevisionNumber(1))));
    let probed = |spec: &mut Value| {
        spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["sh", "-c", "exit 0"]}})
    };
    space.apply(deployment(&id, 4, "sleep 1001", probed)).await;
    let fixed = space.until(&id, |status| status.revision == Some(RevisionNumber(4)) && status.reason.is_none()).await;
    assert_eq!(fixed.phase, Phase::Running);
    // Another revision of the same template rolls nothing.
    let started = fixed.started_at;
    space.apply(deployment(&id, 5, "sleep 1001", probed)).await;
    let renamed = space.until(&id, |status| status.revision == Some(RevisionNumber(5))).await;
    assert_eq!((renamed.phase, renamed.started_at), (Phase::Running, started));
    space.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_namespace_that_may_not_be_watched_is_an_error_at_once() {
    let space = Space::new().await;
    let config = config(Some("system:serviceaccount:nowhere:nobody")).await;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (client, ours) = (Client::try_from(config).unwrap(), crate::names::select_ours(None));
    let observer = Observer::start(client, space.namespace.clone(), &ours, &tasks, stop.clone());
    let error = observer.synced().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, archestra_core::Error::PermissionDenied { .. }), "{text}");
    assert!(text.contains("cannot list resource") && text.contains(&space.namespace), "{text}");
    stop.cancel();
    space.end().await;
}
