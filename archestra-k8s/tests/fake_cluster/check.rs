//! Deployment YAML that is tried before it is saved.

use super::help::apply_as;
use crate::{echo, runtime};
use archestra_core::{
    Error, ErrorKind,
    runtime::{RevisionNumber, Runtime as _, WorkloadSpec},
    testing::fixtures,
};
use archestra_k8s::{ReachMode, testing::FakeCluster};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Container, Pod},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

fn with(yaml: &str) -> WorkloadSpec {
    let spec = fixtures::workload_spec("echo", &["echo-server"]);
    WorkloadSpec { deployment_yaml: Some(yaml.to_owned()), ..spec }
}

const NOWHERE: &str = "\
spec:
  template:
    spec:
      containers:
      - name: mcp-server
        volumeMounts:
        - {name: nowhere, mountPath: /data}
";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_refuses_is_told_with_its_line_and_nothing_is_made() {
    let cluster = FakeCluster::new().image("example.com/base:1", echo());
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let refused = with(NOWHERE);
    assert!(runtime.validate(&refused).is_empty(), "only the cluster can tell");
    let findings = runtime.check(&refused).await.unwrap();
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!(finding.field, "selfHosted.deploymentYaml");
    assert!(
        finding.reason.starts_with("line 7: spec.template.spec.containers[0].volumeMounts[")
            && finding.reason.contains("nowhere"),
        "{finding}"
    );
    assert!(runtime.check(&with("spec: {template: {spec: {nodeSelector: {disk: ssd}}}}")).await.unwrap().is_empty());
    assert!(cluster.all::<Deployment>("default").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_speaks_against_nothing_until_it_is_applied() {
    let cluster = FakeCluster::new().image("example.com/base:1", echo());
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let spec = with("metadata: {annotations: {example.com/day: monday}}");
    cluster.object_quota("default", "Deployment", Some(0));
    for refused in
        [runtime.check(&spec).await.unwrap_err(), runtime.apply(&fixtures::workload(spec.clone())).await.unwrap_err()]
    {
        let Error::Invalid(findings) = &refused else { panic!("it is no refusal: {refused:?}") };
        let [finding] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!(finding.field, "namespace", "{finding}");
        assert!(finding.reason.contains("exceeded quota: objects, requested: count/deployments.apps=1"), "{finding}");
        assert!(finding.remedy.contains("quota"), "{finding}");
    }
    assert!(cluster.all::<Deployment>("default").is_empty());
    cluster.object_quota("default", "Deployment", None);
    assert_eq!(runtime.check(&spec).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_denies_is_refused_in_its_words() {
    let cluster = FakeCluster::new().image("example.com/base:1", echo());
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let spec = with("metadata: {annotations: {example.com/day: monday}}");
    cluster.deny("Deployment", Some("an owner must be named"));
    let findings = runtime.check(&spec).await.unwrap();
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!(finding.field, "selfHosted.deploymentYaml");
    let words = "admission webhook \"fake.archestra.dev\" denied the request: an owner must be named";
    assert!(finding.reason.contains(words), "{finding}");
    let refused = runtime.apply(&fixtures::workload(spec)).await.unwrap_err();
    assert!(refused.to_string().contains(words), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_cannot_be_called_is_named_and_is_no_silence() {
    let cluster = FakeCluster::new().image("example.com/base:1", echo());
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let spec = with("metadata: {annotations: {example.com/day: monday}}");
    cluster.webhook_away("Deployment", Some("Post \"https://judge.example\": context deadline exceeded"));
    let unjudged = runtime.check(&spec).await.unwrap_err();
    let Error::Invalid(findings) = &unjudged else { panic!("{unjudged:?}") };
    assert_eq!(findings[0].reason, "failed calling webhook \"fake.archestra.dev\"", "and not where it is");
    let later = runtime.apply(&fixtures::workload(spec)).await.unwrap_err();
    assert!(later.is_retryable(), "it is tried again: {later:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_takes_no_dry_runs_is_asked_for_good() {
    let cluster = FakeCluster::new().image("example.com/base:1", echo());
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    cluster.refuse_dry_runs("Deployment");
    let spec = with("metadata: {annotations: {example.com/day: monday}}");
    let not_asked = runtime.check(&spec).await.unwrap_err();
    assert_eq!(not_asked.kind(), ErrorKind::Unsupported, "{not_asked}");
    let workload = fixtures::workload(spec);
    assert!(runtime.apply(&workload).await.unwrap().changed);
    assert!(!runtime.apply(&workload).await.unwrap().changed, "it is known to be intact");
}

const CHECKED: &str = "\
spec:
  template:
    spec:
      containers:
      - name: mcp-server
        livenessProbe:
          tcpSocket: {port: 8080}
";

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_over_what_is_there_is_replaced() {
    for dry_runs in ["taken", "not taken"] {
        let cluster = FakeCluster::new().image("example.com/base:1", echo());
        let runtime = runtime(&cluster, ReachMode::Direct).await;
        let mut workload = fixtures::workload(with(CHECKED));
        runtime.apply(&workload).await.unwrap();
        let name = cluster.all::<Deployment>("default")[0].metadata.name.clone().unwrap();
        // Somebody else has a part of the probe, and keeps it without the part that makes it one.
        let theirs = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"template": {"spec": {"containers": [{"name": "mcp-server", "livenessProbe": {"failureThreshold": 9}}]}}},
        });
        apply_as(&cluster.client(), &theirs, &PatchParams::apply("tester").force()).await.unwrap();
        if dry_runs == "not taken" {
            cluster.refuse_dry_runs("Deployment");
        }
        workload.revision = RevisionNumber(2);
        workload.spec.deployment_yaml = None;
        assert!(runtime.apply(&workload).await.unwrap().changed, "dry runs are {dry_runs}");
        let spec = cluster.all::<Deployment>("default")[0].spec.clone().unwrap().template.spec.unwrap();
        assert_eq!(spec.containers[0].liveness_probe, None, "dry runs are {dry_runs}");
        assert!(!runtime.apply(&workload).await.unwrap().changed, "dry runs are {dry_runs}");
    }
}

/// Who replaces what cannot be applied.
const REPLACER: &str = "archestra-replace";

fn container(cluster: &FakeCluster) -> Container {
    let spec = cluster.all::<Deployment>("default")[0].spec.clone().unwrap().template.spec.unwrap();
    spec.containers.into_iter().find(|one| one.name == "mcp-server").unwrap()
}

fn is_unfinished(cluster: &FakeCluster) -> bool {
    let managers = cluster.all::<Deployment>("default")[0].metadata.managed_fields.clone().unwrap();
    managers.iter().any(|entry| entry.manager.as_deref() == Some(REPLACER))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_was_cut_short_leaves_nothing_behind() {
    for dry_runs in ["taken", "not taken"] {
        let cluster = FakeCluster::new().image("example.com/base:1", echo());
        let runtime = runtime(&cluster, ReachMode::Direct).await;
        let mut workload = fixtures::workload(with(CHECKED));
        runtime.apply(&workload).await.unwrap();
        let mut there = json!(container(&cluster));
        there["env"].as_array_mut().unwrap().push(json!({"name": "LEFT", "value": "over"}));
        let half = json!({"spec": {"template": {"spec": {"containers": [there]}}}});
        let params = PatchParams { field_manager: Some(REPLACER.to_owned()), ..PatchParams::default() };
        let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
        deployments.patch(workload.id.as_str(), &params, &Patch::Merge(&half)).await.unwrap();
        assert!(is_unfinished(&cluster));
        if dry_runs == "not taken" {
            cluster.refuse_dry_runs("Deployment");
        }
        workload.revision = RevisionNumber(2);
        workload.spec.deployment_yaml = None;
        assert!(runtime.apply(&workload).await.unwrap().changed, "dry runs are {dry_runs}");
        let now = container(&cluster);
        assert!(now.env.iter().flatten().all(|variable| variable.name != "LEFT"), "{:?}", now.env);
        assert!(now.liveness_probe.is_none() && !is_unfinished(&cluster), "dry runs are {dry_runs}");
        assert!(!runtime.apply(&workload).await.unwrap().changed, "dry runs are {dry_runs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_was_not_given_back_is_before_the_next_change() {
    let cluster = FakeCluster::new().image("example.com/base:1", echo());
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let mut workload = fixtures::workload(with(CHECKED));
    runtime.apply(&workload).await.unwrap();
    let mut managers = json!(cluster.all::<Deployment>("default")[0].metadata.managed_fields);
    let probe = json!({"f:livenessProbe": {".": {}, "f:tcpSocket": {".": {}, "f:port": {}}}});
    let fields =
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"mcp-server\"}": probe}}}}});
    managers.as_array_mut().unwrap().push(json!({
        "manager": REPLACER, "operation": "Update", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    }));
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
    let shared = json!({"metadata": {"managedFields": managers}});
    deployments.patch(workload.id.as_str(), &PatchParams::default(), &Patch::Merge(&shared)).await.unwrap();
    assert!(is_unfinished(&cluster));
    let pods = || cluster.all::<Pod>("default").into_iter().map(|pod| pod.metadata.uid).collect::<Vec<_>>();
    let before = pods();
    assert!(!runtime.apply(&workload).await.unwrap().changed, "that alone rolls nothing");
    assert!(!is_unfinished(&cluster) && pods() == before);
    deployments.patch(workload.id.as_str(), &PatchParams::default(), &Patch::Merge(&shared)).await.unwrap();
    workload.revision = RevisionNumber(2);
    workload.spec.deployment_yaml = None;
    assert!(runtime.apply(&workload).await.unwrap().changed);
    assert!(container(&cluster).liveness_probe.is_none() && !is_unfinished(&cluster));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_answer_says_nothing() {
    let cluster = FakeCluster::new();
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    cluster.faults().down();
    let error = runtime.check(&with(NOWHERE)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
