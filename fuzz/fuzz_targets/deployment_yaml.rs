//! Advanced deployment YAML: read or refused with a reason, and what is taken stays ours, wired and locked down.
#![no_main]

use archestra_core::{
    Error, Finding,
    catalog::SelfHosted,
    runtime::{EnvValue, RevisionNumber, Workload, WorkloadEnv, WorkloadSpec, WorkloadTransport},
};
use archestra_k8s::{KubernetesConfig, findings, preview, sync_overrides};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::collections::BTreeMap;

const ID: &str = "mcp-0192d3b4c5d67e8f90a1b2c3d4e5f607";
const SECRET: &str = "the-secret-value-of-the-workload";

fuzz_target!(|text: &str| {
    let config = KubernetesConfig::default();
    let workload = workload(text);
    let findings = findings(&workload.spec, &config);
    match preview(&workload, &config) {
        Ok(manifest) => {
            // A variable of a secret that nobody gave is left out when a workload is made, with all that is wrong about it; that an
            // entry does not declare it is found before.
            let undeclared = |finding: &Finding| finding.reason.contains("there is no secret variable");
            assert!(findings.is_empty() || findings.iter().any(undeclared), "{findings:?}");
            assert!(manifest.documents.iter().all(|document| !document.contains(SECRET)), "a secret shows");
            let deployment = manifest.documents.last().expect("a Deployment");
            assert_sound(&serde_saphyr::from_str(deployment).expect("what we write is YAML"));
        }
        Err(Error::Invalid(refused)) => {
            assert!(!refused.is_empty() && refused.iter().all(|one| !one.reason.is_empty() && !one.remedy.is_empty()));
            assert!(!findings.is_empty());
        }
        Err(error) => panic!("{error}"),
    }
    // Nothing changed, so nothing changes.
    let entry = SelfHosted::default();
    if let Ok(synced) = sync_overrides(text, &entry, &entry) {
        assert_eq!(synced, text);
    }
});

fn workload(yaml: &str) -> Workload {
    let env = |name: &str, value| WorkloadEnv { name: name.to_owned(), value };
    Workload {
        id: ID.parse().expect("a workload id"),
        revision: RevisionNumber(1),
        spec: WorkloadSpec {
            name: "server".to_owned(),
            image: None,
            command: vec!["server".to_owned()],
            args: vec!["$(HOME)".to_owned()],
            env: vec![
                env("LEVEL", EnvValue::Plain("info".to_owned())),
                env("KEY", EnvValue::Secret("KEY".to_owned())),
                env("FILE", EnvValue::Mounted("FILE".to_owned())),
            ],
            env_from: Vec::new(),
            transport: WorkloadTransport::Stdio,
            exclusive: false,
            pull_secrets: Vec::new(),
            service_account: None,
            run_as_user: None,
            deployment_yaml: Some(yaml.to_owned()),
            platform: BTreeMap::new(),
            team: None,
            namespace: None,
        },
        secrets: ["KEY", "FILE"].into_iter().map(|key| (key.to_owned(), SECRET.into())).collect(),
    }
}

fn assert_sound(deployment: &Value) {
    assert_eq!((&deployment["kind"], &deployment["apiVersion"]), (&"Deployment".into(), &"apps/v1".into()));
    assert_eq!(
        (&deployment["metadata"]["name"], &deployment["metadata"]["namespace"]),
        (&ID.into(), &"default".into())
    );
    assert_eq!(deployment["spec"]["selector"]["matchLabels"]["archestra.dev/workload"], ID);
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["archestra.dev/workload"], ID);
    let pod = &template["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    for key in ["hostNetwork", "hostPID", "hostIPC", "automountServiceAccountToken"] {
        assert_ne!(pod[key], true, "{key}");
    }
    assert!(list(pod, "volumes").iter().all(|volume| volume["hostPath"].is_null()));
    let containers = || list(pod, "initContainers").iter().chain(list(pod, "containers"));
    for container in containers() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_ne!(context["privileged"], true);
        assert!(list(&context["capabilities"], "add").is_empty());
        assert_ne!(context["runAsUser"], 0);
        assert!(list(container, "ports").iter().all(|port| port["hostPort"].is_null() || port["hostPort"] == 0));
    }
    let main: Vec<_> = list(pod, "containers").iter().filter(|one| one["name"] == "mcp-server").collect();
    let [main] = main.as_slice() else { panic!("one container runs the server") };
    let key = list(main, "env").iter().find(|one| one["name"] == "KEY").expect("its secret");
    assert_eq!(key["valueFrom"]["secretKeyRef"]["name"], ID);
    assert!(list(main, "volumeMounts").iter().any(|mount| mount["mountPath"] == "/secrets"));
}

fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object[key].as_array().map_or(&[], Vec::as_slice)
}
