//! Variables from Secrets and ConfigMaps: only from those that an operator opted in, and never from another workload's.

use crate::{LIMIT, echo, runtime};
use archestra_core::{
    Error,
    catalog::{EnvFrom, EnvFromKind, Scope},
    id::TeamId,
    runtime::{Phase, RevisionNumber, Runtime as _, Workload, WorkloadSpec, WorkloadStatus},
    testing::fixtures,
};
use archestra_k8s::{
    KubernetesConfig, KubernetesRuntime, OverridePolicy, ReachMode,
    testing::{FakeCluster, FakeImage},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

const OPTED_IN: (&str, &str) = ("archestra.dev/env-from", "true");

fn cluster() -> FakeCluster {
    FakeCluster::new().image("example.com/base:1", echo())
}

fn source(kind: EnvFromKind, name: &str) -> EnvFrom {
    EnvFrom { kind, name: name.to_owned(), prefix: None }
}

fn secret(name: &str) -> EnvFrom {
    source(EnvFromKind::Secret, name)
}

fn reading(sources: Vec<EnvFrom>) -> Workload {
    fixtures::workload(WorkloadSpec { env_from: sources, ..fixtures::workload_spec("echo", &["echo-server"]) })
}

fn metadata(name: &str, labels: &[(&str, &str)]) -> Value {
    json!({"name": name, "labels": labels.iter().copied().collect::<BTreeMap<_, _>>()})
}

async fn put_secret(cluster: &FakeCluster, name: &str, labels: &[(&str, &str)]) {
    let object = json!({"metadata": metadata(name, labels), "stringData": {"KEY": "s3cret-4711"}});
    let secret: Secret = serde_json::from_value(object).unwrap();
    Api::default_namespaced(cluster.client()).create(&PostParams::default(), &secret).await.unwrap();
}

async fn put_map(cluster: &FakeCluster, name: &str, labels: &[(&str, &str)]) {
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": metadata(name, labels), "data": {"LEVEL": "info"}})).unwrap();
    Api::default_namespaced(cluster.client()).create(&PostParams::default(), &map).await.unwrap();
}

async fn until(
    runtime: &KubernetesRuntime,
    workload: &Workload,
    holds: impl Fn(&WorkloadStatus) -> bool,
) -> WorkloadStatus {
    let end = Instant::now() + LIMIT;
    loop {
        let status = runtime.status(&workload.id).await.unwrap();
        if holds(&status) {
            return status;
        }
        assert!(Instant::now() < end, "{status:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn env_from(cluster: &FakeCluster, workload: &Workload) -> Value {
    let deployment: Deployment = cluster.get("default", workload.id.as_str()).unwrap();
    serde_json::to_value(deployment).unwrap()["spec"]["template"]["spec"]["containers"][0]["envFrom"].take()
}

/// What is refused of a workload, and that nothing of it is made.
async fn refused(runtime: &KubernetesRuntime, cluster: &FakeCluster, workload: &Workload) -> String {
    let error = runtime.apply(workload).await.unwrap_err();
    let Error::Invalid(findings) = &error else { panic!("{error:?}") };
    assert_eq!(findings[0].field, "selfHosted.envFrom[0].name", "{findings:?}");
    assert!(cluster.get::<Deployment>("default", workload.id.as_str()).is_none());
    findings[0].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_opted_in_reaches_the_container() {
    let cluster = cluster();
    put_secret(&cluster, "shared", &[OPTED_IN]).await;
    put_map(&cluster, "settings", &[OPTED_IN]).await;
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let settings = EnvFrom { prefix: Some("APP_".to_owned()), ..source(EnvFromKind::ConfigMap, "settings") };
    let workload = reading(vec![secret("shared"), settings]);
    runtime.apply(&workload).await.unwrap();
    until(&runtime, &workload, |status| status.phase == Phase::Running).await;
    let expected = json!([{"secretRef": {"name": "shared"}}, {"configMapRef": {"name": "settings"}, "prefix": "APP_"}]);
    assert_eq!(env_from(&cluster, &workload), expected);
    assert!(!runtime.apply(&workload).await.unwrap().changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_opted_in_is_refused_like_what_is_not_there() {
    let cluster = cluster();
    put_secret(&cluster, "private", &[]).await;
    put_map(&cluster, "private", &[("archestra.dev/env-from", "false")]).await;
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    for kind in [EnvFromKind::Secret, EnvFromKind::ConfigMap] {
        let [there, missing] = ["private", "missing"].map(|name| reading(vec![source(kind, name)]));
        let there = refused(&runtime, &cluster, &there).await;
        assert!(there.contains("archestra.dev/env-from: \"true\""), "it says what to do: {there}");
        assert_eq!(there.replace("private", "missing"), refused(&runtime, &cluster, &missing).await);
    }
    let sources = [secret("private"), secret("../configmaps/settings"), secret("private")];
    let unknown = runtime.unknown_sources(&Scope::Organization, &sources).await.unwrap();
    assert_eq!(
        unknown.iter().map(|one| (one.0, one.1.field.as_str())).collect::<Vec<_>>(),
        [0, 1, 2].map(|n| (n, "name"))
    );
    assert!(cluster.requests().iter().all(|request| !request.path.contains("..")), "a name leads nowhere else");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_one_teams_is_read_by_that_teams_workloads_only() {
    let (cluster, team) = (cluster(), TeamId::new());
    put_secret(&cluster, "theirs", &[OPTED_IN, ("archestra.dev/team", &team.to_string())]).await;
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    for other in [None, Some(TeamId::new())] {
        let mut workload = reading(vec![secret("theirs")]);
        workload.spec.team = other;
        refused(&runtime, &cluster, &workload).await;
    }
    let mut workload = reading(vec![secret("theirs")]);
    workload.spec.team = Some(team);
    runtime.apply(&workload).await.unwrap();
    let asked = async |who: Scope| runtime.unknown_sources(&who, &[secret("theirs")]).await.unwrap().len();
    assert_eq!(asked(Scope::Organization).await, 0);
    assert_eq!(asked(Scope::Teams([team, TeamId::new()].into())).await, 0);
    assert_eq!(asked(Scope::Teams([TeamId::new()].into())).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_a_workload_is_nobodys_to_read() {
    let cluster = cluster();
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let other = reading(Vec::new());
    runtime.apply(&other).await.unwrap();
    let bridge = format!("{}-bridge", other.id);
    let labelled = Patch::Merge(json!({"metadata": {"labels": {"archestra.dev/env-from": "true"}}}));
    let secrets: Api<Secret> = Api::default_namespaced(cluster.client());
    secrets.patch(&bridge, &PatchParams::default(), &labelled).await.unwrap();
    let told = refused(&runtime, &cluster, &reading(vec![secret(&bridge)])).await;
    assert!(told.contains("belongs to a workload"), "{told}");
    // Of another name, as a platform of another make might give it.
    put_secret(&cluster, "renamed", &[OPTED_IN, ("app.kubernetes.io/managed-by", "archestra")]).await;
    refused(&runtime, &cluster, &reading(vec![secret("renamed")])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_names_what_needs_no_label() {
    let cluster = cluster();
    put_secret(&cluster, "listed", &[]).await;
    let policy = OverridePolicy { secrets: ["listed".to_owned()].into(), ..OverridePolicy::default() };
    let config = KubernetesConfig {
        base_image: "example.com/base:1".to_owned(),
        reach: ReachMode::Direct,
        policy,
        ..KubernetesConfig::default()
    };
    let runtime = KubernetesRuntime::with_client(config, cluster.client()).await;
    runtime.apply(&reading(vec![secret("listed")])).await.unwrap();
    refused(&runtime, &cluster, &reading(vec![source(EnvFromKind::ConfigMap, "listed")])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_stops_new_revisions_and_nothing_that_runs() {
    let cluster = cluster();
    put_secret(&cluster, "shared", &[OPTED_IN]).await;
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let mut workload = reading(vec![secret("shared")]);
    runtime.apply(&workload).await.unwrap();
    until(&runtime, &workload, |status| status.phase == Phase::Running).await;
    let before = cluster.get::<Deployment>("default", workload.id.as_str()).unwrap().metadata.generation;
    let secrets: Api<Secret> = Api::default_namespaced(cluster.client());
    let gone = Patch::Merge(json!({"metadata": {"labels": {"archestra.dev/env-from": null}}}));
    secrets.patch("shared", &PatchParams::default(), &gone).await.unwrap();
    workload.revision = RevisionNumber(2);
    workload.spec.args.push("--more".to_owned());
    assert!(matches!(runtime.apply(&workload).await.unwrap_err(), Error::Invalid(_)));
    let after: Deployment = cluster.get("default", workload.id.as_str()).unwrap();
    assert_eq!(after.metadata.generation, before);
    assert_eq!(runtime.status(&workload.id).await.unwrap().phase, Phase::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_missing_later_is_named_by_the_hint() {
    let cluster = cluster();
    put_map(&cluster, "settings", &[OPTED_IN]).await;
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let workload = reading(vec![source(EnvFromKind::ConfigMap, "settings")]);
    runtime.apply(&workload).await.unwrap();
    until(&runtime, &workload, |status| status.phase == Phase::Running).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    maps.delete("settings", &DeleteParams::default()).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let pod = cluster.all::<Pod>("default").remove(0).metadata.name.unwrap();
    pods.delete(&pod, &DeleteParams::default()).await.unwrap();
    let status = until(&runtime, &workload, |status| status.phase == Phase::Error).await;
    assert!(status.reason.unwrap().contains("configmap \"settings\" not found"));
    let hint = status.hint.unwrap();
    assert!(hint.contains("make the ConfigMap \"settings\"") && hint.contains("envFrom"), "{hint}");
    put_map(&cluster, "settings", &[OPTED_IN]).await;
    until(&runtime, &workload, |status| status.phase == Phase::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_from_a_secret_is_not_among_the_last_words() {
    let crashing = FakeImage::crashes(1, "Error: the key s3cret-4711 is wrong");
    let cluster = FakeCluster::new().image("example.com/base:1", crashing);
    put_secret(&cluster, "shared", &[OPTED_IN]).await;
    let runtime = runtime(&cluster, ReachMode::Direct).await;
    let workload = reading(vec![secret("shared")]);
    runtime.apply(&workload).await.unwrap();
    let told = |status: &WorkloadStatus| status.hint.as_deref().is_some_and(|hint| hint.contains("the key"));
    let hint = until(&runtime, &workload, told).await.hint.unwrap();
    assert!(hint.contains("the key <redacted> is wrong"), "{hint}");
}
