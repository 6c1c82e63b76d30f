//! That the Role holds what is used, and nothing else. That it suffices is shown by all the other tests.

use super::space::{LIMIT, Space, call, channel, running, until};
use archestra_core::{
    catalog::{EnvFrom, EnvFromKind, Scope},
    runtime::{LogOptions, Phase, RevisionNumber, Runtime},
    secret::SecretValue,
    testing::fixtures,
};
use archestra_k8s::{KubernetesRuntime, ReachMode, rbac};
use futures::StreamExt as _;
use http::{Method, Request};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod},
    rbac::v1::Role,
};
use kube::{
    Client,
    api::{Patch, PatchParams},
    client::Body,
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// A verb on a resource of a group.
type Permission = (String, String, String);

/// What a request needs.
fn permission<B>(request: &Request<B>) -> Option<Permission> {
    let parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", "v1", "namespaces", _, rest @ ..] => ("", rest),
        ["apis", group, _, "namespaces", _, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let (resource, named) = match rest {
        [resource] => ((*resource).to_owned(), false),
        [resource, _] => ((*resource).to_owned(), true),
        [resource, _, sub] => (format!("{resource}/{sub}"), true),
        _ => return None,
    };
    let watch = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    let verb = match (request.method(), named) {
        (&Method::GET, true) => "get",
        (&Method::GET, false) if watch => "watch",
        (&Method::GET, false) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "delete",
        _ => "deletecollection",
    };
    Some((group.to_owned(), resource, verb.to_owned()))
}

/// A client that notes what each request needs.
fn noting(client: Client, namespace: &str) -> (Client, Arc<Mutex<BTreeSet<Permission>>>) {
    let used = Arc::new(Mutex::new(BTreeSet::new()));
    let notes = Arc::clone(&used);
    let service = tower::service_fn(move |request: Request<Body>| {
        if let Some(permission) = permission(&request) {
            notes.lock().unwrap().insert(permission);
        }
        let client = client.clone();
        async move { client.send(request).await }
    });
    (Client::new(service, namespace), used)
}

fn granted(role: &str) -> BTreeSet<Permission> {
    let role: Role = serde_saphyr::from_str(role).unwrap();
    let mut granted = BTreeSet::new();
    for rule in role.rules.unwrap() {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    assert!(
                        granted.insert((group.clone(), resource.clone(), verb.clone())),
                        "{resource}: {verb} twice"
                    );
                }
            }
        }
    }
    granted
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn the_role_grants_what_is_used_and_nothing_else() {
    let space = Space::new().await;
    let (client, used) = noting(space.restricted.clone(), &space.namespace);
    let mut config = space.config();
    (config.gc_interval, config.gc_age) = (Duration::from_secs(1), Duration::from_secs(1));
    config.reach = ReachMode::PortForward;
    let runtime = KubernetesRuntime::with_client(config, client).await;

    // A workload with a bridge: made, changed, restarted, called, its log read.
    let labels = json!({"archestra.dev/env-from": "true"});
    space.create::<ConfigMap>(json!({"metadata": {"name": "settings", "labels": labels}, "data": {"A": "b"}})).await;
    let mut bridged = space.echo();
    let settings = EnvFrom { kind: EnvFromKind::ConfigMap, name: "settings".to_owned(), prefix: None };
    bridged.spec.env_from = vec![settings];
    bridged.spec.env = vec![archestra_core::runtime::WorkloadEnv {
        name: "KEY".to_owned(),
        value: archestra_core::runtime::EnvValue::Secret("KEY".to_owned()),
    }];
    bridged.secrets.insert("KEY".to_owned(), SecretValue::new("value"));
    running(&runtime, &bridged).await;
    (bridged.revision, bridged.spec.env) = (RevisionNumber(2), Vec::new());
    bridged.secrets.clear();
    running(&runtime, &bridged).await;
    runtime.restart(&bridged.id).await.unwrap();
    assert_eq!(call(&mut channel(&runtime, &bridged.id).await, "echo", json!({"text": "a"})).await, "a");
    let log = runtime.logs(&bridged.id, LogOptions::default()).await.unwrap();
    assert!(log.count().await > 0);

    // One that is attached to, long enough for its Lease to be renewed; one that ends again and again.
    let attached = fixtures::workload(space.spec(&[], &[]));
    running(&runtime, &attached).await;
    let mut held = channel(&runtime, &attached.id).await;
    assert_eq!(call(&mut held, "echo", json!({"text": "b"})).await, "b");
    let crashing = fixtures::workload(space.spec(&["/mcp-echo"], &["exit", "3"]));
    runtime.apply(&crashing).await.unwrap();
    until(&runtime, &crashing.id, |status| matches!(status.phase, Phase::Error | Phase::Restarting)).await;
    let renewal = ("coordination.k8s.io".to_owned(), "leases".to_owned(), "update".to_owned());
    let end = Instant::now() + LIMIT;
    while !used.lock().unwrap().contains(&renewal) {
        assert!(Instant::now() < end, "the Lease is not renewed");
        sleep(Duration::from_millis(200)).await;
    }
    drop(held);

    runtime.pull_secrets(&Scope::Organization).await.unwrap();
    let labels = json!({"app.kubernetes.io/managed-by": "archestra", "archestra.dev/workload": bridged.id.as_str()});
    let evicted: Pod = space
        .create(json!({"metadata": {"name": "evicted", "labels": labels},
            "spec": {"nodeName": "no-such-node", "containers": [{"name": "x", "image": "x"}]}}))
        .await;
    drop(evicted);
    let failed = Patch::Merge(json!({"status": {"phase": "Failed"}}));
    space.api::<Pod>().patch_status("evicted", &PatchParams::default(), &failed).await.unwrap();
    let end = Instant::now() + LIMIT;
    while space.api::<Pod>().get_opt("evicted").await.unwrap().is_some() {
        assert!(Instant::now() < end, "a failed pod is not removed");
        sleep(Duration::from_millis(200)).await;
    }
    for workload in [&bridged, &attached, &crashing] {
        runtime.remove(&workload.id).await.unwrap();
    }
    runtime.shutdown().await;

    let mut needed = used.lock().unwrap().clone();
    // Server-side apply of what is not there yet is allowed to those who may create it.
    let applied: Vec<_> = needed.iter().filter(|(_, _, verb)| verb == "patch").cloned().collect();
    needed.extend(applied.into_iter().map(|(group, resource, _)| (group, resource, "create".to_owned())));
    // What a WebSocket asks for: `get` in clusters up to 1.34, `create` in later ones.
    for stream in ["pods/attach", "pods/portforward"] {
        assert!(needed.remove(&(String::new(), stream.to_owned(), "get".to_owned())), "{stream} is used");
        needed.extend(["get", "create"].map(|verb| (String::new(), stream.to_owned(), verb.to_owned())));
    }
    let granted = granted(rbac::WORKLOADS_ROLE);
    let missing: Vec<_> = needed.difference(&granted).collect();
    let unused: Vec<_> = granted.difference(&needed).collect();
    assert!(missing.is_empty() && unused.is_empty(), "missing: {missing:?}; granted and never used: {unused:?}");
}
