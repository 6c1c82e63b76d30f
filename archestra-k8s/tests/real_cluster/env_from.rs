//! Variables from Secrets and ConfigMaps that an operator opted in, as an account that may ask for no others than are named.

use super::space::{Space, call, channel, running, until};
use archestra_core::{
    Error,
    catalog::{EnvFrom, EnvFromKind},
    runtime::{EnvValue, Phase, RevisionNumber, Runtime, Workload, WorkloadEnv, WorkloadStatus},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

fn source(kind: EnvFromKind, name: &str, prefix: Option<&str>) -> EnvFrom {
    EnvFrom { kind, name: name.to_owned(), prefix: prefix.map(str::to_owned) }
}

fn reading(space: &Space) -> Workload {
    let mut workload = space.echo();
    workload.spec.env_from =
        vec![source(EnvFromKind::Secret, "shared", None), source(EnvFromKind::ConfigMap, "settings", Some("APP_"))];
    let own = |name: &str, text: &str| WorkloadEnv { name: name.to_owned(), value: EnvValue::Plain(text.to_owned()) };
    workload.spec.env = vec![own("OWN", "entry's")];
    workload
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn what_is_opted_in_reaches_the_server_and_nothing_else_does() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let workload = reading(&space);
    space
        .create::<Secret>(
            json!({"metadata": {"name": "shared"}, "stringData": {"KEY": "s3cret-4711", "OWN": "shared"}}),
        )
        .await;
    space.create::<ConfigMap>(json!({"metadata": {"name": "settings"}, "data": {"LEVEL": "debug"}})).await;
    let error = runtime.apply(&workload).await.unwrap_err();
    let Error::Invalid(findings) = &error else { panic!("{error:?}") };
    let fields: Vec<_> = findings.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(fields, ["selfHosted.envFrom[0].name", "selfHosted.envFrom[1].name"]);
    assert!(space.names::<Deployment>(&workload.id).await.is_empty());

    let opted_in = Patch::Merge(json!({"metadata": {"labels": {"archestra.dev/env-from": "true"}}}));
    space.api::<Secret>().patch("shared", &PatchParams::default(), &opted_in).await.unwrap();
    space.api::<ConfigMap>().patch("settings", &PatchParams::default(), &opted_in).await.unwrap();
    running(&runtime, &workload).await;
    let ask = async |name: &str| call(&mut channel(&runtime, &workload.id).await, "env", json!({"name": name})).await;
    assert_eq!(ask("KEY").await, "s3cret-4711");
    assert_eq!(ask("APP_LEVEL").await, "debug");
    assert_eq!(ask("LEVEL").await, "(unset)");
    assert_eq!(ask("OWN").await, "entry's", "what the entry says wins");

    // Another workload's own is refused whatever its label says.
    let bridge = format!("{}-bridge", workload.id);
    space.api::<Secret>().patch(&bridge, &PatchParams::default(), &opted_in).await.unwrap();
    let mut thief = space.echo();
    thief.spec.env_from = vec![source(EnvFromKind::Secret, &bridge, None)];
    assert!(matches!(runtime.apply(&thief).await.unwrap_err(), Error::Invalid(_)));

    let mut without = workload.clone();
    (without.revision, without.spec.env_from) = (RevisionNumber(2), Vec::new());
    running(&runtime, &without).await;
    assert_eq!(ask("KEY").await, "(unset)");
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn what_goes_missing_is_named() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let mut workload = reading(&space);
    workload.spec.env_from.remove(0);
    let labels = json!({"archestra.dev/env-from": "true"});
    space.create::<ConfigMap>(json!({"metadata": {"name": "settings", "labels": labels}, "data": {}})).await;
    running(&runtime, &workload).await;
    space.api::<ConfigMap>().delete("settings", &DeleteParams::default()).await.unwrap();
    let pods: Api<Pod> = space.api();
    for pod in space.pods(&workload.id).await {
        pods.delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    }
    let told = |status: &WorkloadStatus| {
        let names = |text: &Option<String>| text.as_deref().is_some_and(|text| text.contains("\"settings\""));
        status.phase == Phase::Error && names(&status.reason) && names(&status.hint)
    };
    until(&runtime, &workload.id, told).await;
    runtime.shutdown().await;
}
