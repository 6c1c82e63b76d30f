//! What is made for a workload, what arrives in its container, and that its removal leaves nothing.

use super::space::{Space, call, channel, running};
use archestra_core::{
    catalog::Scope,
    id::TeamId,
    runtime::{EnvValue, RevisionNumber, Runtime, Workload, WorkloadEnv, WorkloadPullSecret},
    secret::SecretValue,
};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{Secret, Service},
    networking::v1::NetworkPolicy,
};
use serde_json::json;

/// Values that a shell, a template or an encoding would change.
const AWKWARD: &str = "$(HOME) ${x} $$ \"q\" 'q' \\n %20 \u{fc}\u{1f980}";

fn with_secrets(mut workload: Workload, key: &str) -> Workload {
    let variable = |name: &str, value| WorkloadEnv { name: name.to_owned(), value };
    workload.spec.env = vec![
        variable("PLAIN", EnvValue::Plain(AWKWARD.to_owned())),
        variable("API_KEY", EnvValue::Secret("API_KEY".to_owned())),
        variable("CERTIFICATE", EnvValue::Mounted("CERTIFICATE".to_owned())),
    ];
    workload.secrets.insert("API_KEY".to_owned(), SecretValue::new(key));
    workload.secrets.insert("CERTIFICATE".to_owned(), SecretValue::new(format!("{key}\n{AWKWARD}\n")));
    workload
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn each_workload_has_its_own_secrets_byte_for_byte() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let workloads = [with_secrets(space.echo(), "one's key"), with_secrets(space.echo(), AWKWARD)];
    for workload in &workloads {
        runtime.apply(workload).await.unwrap();
    }
    for (workload, key) in workloads.iter().zip(["one's key", AWKWARD]) {
        running(&runtime, workload).await;
        let ask = async |tool: &str, arguments| call(&mut channel(&runtime, &workload.id).await, tool, arguments).await;
        assert_eq!(ask("env", json!({"name": "PLAIN"})).await, AWKWARD);
        assert_eq!(ask("env", json!({"name": "API_KEY"})).await, key);
        assert_eq!(ask("env", json!({"name": "CERTIFICATE"})).await, "(unset)");
        assert_eq!(ask("read", json!({"path": "/secrets/CERTIFICATE"})).await, format!("{key}\n{AWKWARD}\n"));
        assert!(
            ask("read", json!({"path": "/var/run/secrets/kubernetes.io/serviceaccount/token"})).await.starts_with('(')
        );
        let manifest = runtime.render(workload).await.unwrap().documents.join("---\n");
        let deployment = space.api::<Deployment>().get(workload.id.as_str()).await.unwrap();
        let deployment = serde_json::to_string(&deployment).unwrap();
        for text in [manifest, deployment] {
            assert!(!text.contains("one's key"), "{text}");
        }
    }
    // Another value is another revision's, and reaches the process.
    let mut changed = with_secrets(workloads[0].clone(), "rotated");
    changed.revision = RevisionNumber(2);
    assert!(runtime.apply(&changed).await.unwrap().changed);
    running(&runtime, &changed).await;
    let key = call(&mut channel(&runtime, &changed.id).await, "env", json!({"name": "API_KEY"})).await;
    assert_eq!(key, "rotated");
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_removal_leaves_nothing_and_what_is_not_needed_goes_with_its_revision() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let mut workload = with_secrets(space.echo(), "k");
    workload.spec.team = Some(TeamId::new());
    workload.spec.pull_secrets = vec![WorkloadPullSecret::Credentials {
        server: "registry.example.com".to_owned(),
        username: "u".to_owned(),
        password_key: "PASSWORD".to_owned(),
        email: None,
    }];
    workload.secrets.insert("PASSWORD".to_owned(), SecretValue::new("p"));
    running(&runtime, &workload).await;
    let id = &workload.id;
    let secrets = [id.to_string(), format!("{id}-bridge"), format!("{id}-pull-0")];
    let mut found = space.names::<Secret>(id).await;
    found.sort();
    assert_eq!(found, secrets);

    let mut plain = workload.clone();
    plain.revision = RevisionNumber(2);
    (plain.spec.env, plain.spec.pull_secrets) = (Vec::new(), Vec::new());
    plain.secrets.clear();
    running(&runtime, &plain).await;
    assert_eq!(space.names::<Secret>(id).await, [format!("{id}-bridge")]);

    runtime.remove(id).await.unwrap();
    space.ended(id).await;
    let left = [
        space.names::<Deployment>(id).await,
        space.names::<ReplicaSet>(id).await,
        space.names::<Service>(id).await,
        space.names::<Secret>(id).await,
        space.names::<NetworkPolicy>(id).await,
        space.names::<Lease>(id).await,
    ];
    assert_eq!(left.concat(), Vec::<String>::new());
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn pull_secrets_are_listed_for_those_who_may_use_them() {
    let space = Space::new().await;
    let runtime = space.runtime().await;
    let team = TeamId::new();
    let secret = |name: &str, labels: serde_json::Value| {
        let config = json!({"auths": {format!("{name}.example.com"): {"auth": "dTpz"}}}).to_string();
        json!({"metadata": {"name": name, "labels": labels}, "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": config}})
    };
    for object in [
        secret("everybodys", json!({"archestra.dev/pull-secret": "true"})),
        secret("teams", json!({"archestra.dev/pull-secret": "true", "archestra.dev/team": team.to_string()})),
        secret("not-ours", json!({})),
    ] {
        space.create::<Secret>(object).await;
    }
    let names = async |who: Scope| {
        let found = runtime.pull_secrets(&who).await.unwrap();
        assert!(found.iter().all(|one| one.servers == [format!("{}.example.com", one.name)]), "{found:?}");
        found.into_iter().map(|one| one.name).collect::<Vec<_>>()
    };
    assert_eq!(names(Scope::Organization).await, ["everybodys", "teams"]);
    assert_eq!(names(Scope::Teams([team].into())).await, ["everybodys", "teams"]);
    assert_eq!(names(Scope::Teams([TeamId::new()].into())).await, ["everybodys"]);
    runtime.shutdown().await;
}
