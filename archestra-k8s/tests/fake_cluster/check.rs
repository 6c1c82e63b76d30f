//! Deployment YAML that is tried before it is saved.

use crate::{echo, runtime};
use archestra_core::{
    ErrorKind,
    runtime::{Runtime as _, WorkloadSpec},
    testing::fixtures,
};
use archestra_k8s::{ReachMode, testing::FakeCluster};
use k8s_openapi::api::apps::v1::Deployment;

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
async fn a_refusal_of_more_than_the_yaml_speaks_against_nothing_until_it_is_applied() {
    let cluster = FakeCluster::new().image("example.com/base:1", echo());
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let spec = with("metadata: {annotations: {example.com/day: monday}}");
    cluster.deny("Deployment", Some("exceeded quota: count, requested: count/deployments.apps=1"));
    let not_asked = runtime.check(&spec).await.unwrap_err();
    assert!(not_asked.to_string().contains("exceeded quota"), "{not_asked}");
    let refused = runtime.apply(&fixtures::workload(spec)).await.unwrap_err();
    assert!(refused.to_string().contains("exceeded quota"), "{refused}");
    assert!(cluster.all::<Deployment>("default").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_answer_says_nothing() {
    let cluster = FakeCluster::new();
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    cluster.faults().down();
    let error = runtime.check(&with(NOWHERE)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
