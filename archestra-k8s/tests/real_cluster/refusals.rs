//! What Kubernetes refuses: the reason reaches the caller, and nothing half-made stays.

use super::space::{LIMIT, Space, running};
use archestra_core::{Error, ErrorKind, runtime::Runtime, secret::SecretValue};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ResourceQuota, Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::{Api, api::PostParams};
use serde_json::json;

async fn nothing_of(space: &Space, id: &archestra_core::runtime::WorkloadId) {
    let left = [
        space.names::<Deployment>(id).await,
        space.names::<Service>(id).await,
        space.names::<Secret>(id).await,
        space.names::<NetworkPolicy>(id).await,
    ];
    assert_eq!(left.concat(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_quota_refuses_with_its_name_and_nothing_is_left() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let quota = json!({"metadata": {"name": "no-more"}, "spec": {"hard": {"count/services": "0"}}});
    space.create::<ResourceQuota>(quota).await;
    let counted = async || {
        let quota = space.api::<ResourceQuota>().get("no-more").await.unwrap();
        quota.status.is_some_and(|status| status.used.is_some_and(|used| !used.is_empty()))
    };
    let end = tokio::time::Instant::now() + LIMIT;
    while !counted().await {
        assert!(tokio::time::Instant::now() < end, "the quota controller has not seen it");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let workload = space.echo();
    let error = runtime.apply(&workload).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.to_string().contains("exceeded quota: no-more"), "{error}");
    nothing_of(&space, &workload.id).await;
    assert!(runtime.list().await.unwrap().is_empty());
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn what_the_api_server_refuses_is_said_in_its_words() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let mut workload = space.echo();
    workload.secrets.insert("K".to_owned(), SecretValue::new("s3cret"));
    workload.spec.deployment_yaml =
        Some("spec: {template: {spec: {topologySpreadConstraints: [{maxSkew: 0, topologyKey: x, whenUnsatisfiable: Maybe}]}}}".to_owned());
    let error = runtime.apply(&workload).await.unwrap_err();
    let Error::Invalid(findings) = &error else { panic!("{error:?}") };
    assert!(findings.iter().any(|one| one.field.contains("topologySpreadConstraints")), "{findings:?}");
    assert!(!error.to_string().contains("s3cret"));
    nothing_of(&space, &workload.id).await;
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_namespace_that_is_not_there_is_named() {
    let space = Space::new().await;
    let mut config = space.config();
    config.namespace = "archestra-no-such-namespace".to_owned();
    let runtime = archestra_k8s::KubernetesRuntime::with_client(config, space.admin.clone()).await;
    let error = runtime.apply(&space.echo()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.to_string().contains("archestra-no-such-namespace"), "{error}");
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_missing_permission_is_named() {
    let (space, other) = (Space::new().await, Space::new().await);
    let mut config = space.config();
    config.namespace.clone_from(&other.namespace);
    let runtime = space.runtime_with(config).await;
    let error = runtime.list().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.to_string().contains("cannot list"), "{error}");
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn somebody_elses_deployment_is_not_taken_over() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let workload = space.echo();
    let foreign: Deployment = serde_json::from_value(json!({
        "metadata": {"name": workload.id.as_str()},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": {
            "metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "x", "image": "x"}]}}}}))
    .unwrap();
    let deployments: Api<Deployment> = space.api();
    deployments.create(&PostParams::default(), &foreign).await.unwrap();
    let error = runtime.apply(&workload).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    runtime.remove(&workload.id).await.unwrap();
    assert!(deployments.get_opt(workload.id.as_str()).await.unwrap().is_some(), "what is not ours stays");
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_refused_change_leaves_what_runs_alone() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let mut workload = space.echo();
    let before = running(&runtime, &workload).await;
    workload.revision = archestra_core::runtime::RevisionNumber(2);
    workload.spec.deployment_yaml =
        Some("spec: {template: {spec: {topologySpreadConstraints: [{maxSkew: 0, topologyKey: x, whenUnsatisfiable: Maybe}]}}}".to_owned());
    assert_eq!(runtime.apply(&workload).await.unwrap_err().kind(), ErrorKind::Invalid);
    let after = runtime.status(&workload.id).await.unwrap();
    assert_eq!((after.revision, after.started_at), (before.revision, before.started_at));
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn what_would_be_refused_is_told_and_nothing_is_made() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let mut spec = space.echo().spec;
    let mut check = async |yaml: &str| {
        spec.deployment_yaml = Some(yaml.to_owned());
        assert!(runtime.validate(&spec).is_empty(), "only the cluster can tell");
        runtime.check(&spec).await.unwrap()
    };
    let nowhere = "spec:\n  template:\n    spec:\n      containers:\n      - name: mcp-server\n        volumeMounts:\n        - {name: nowhere, mountPath: /data}\n";
    let findings = check(nowhere).await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].field, "selfHosted.deploymentYaml");
    assert!(findings[0].reason.starts_with("line 7: ") && findings[0].reason.contains("nowhere"), "{findings:?}");
    assert!(check("spec: {template: {spec: {nodeSelector: {disk: ssd}}}}").await.is_empty());
    let deployments: Api<Deployment> = space.api();
    assert!(deployments.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty());
    runtime.shutdown().await;
}
