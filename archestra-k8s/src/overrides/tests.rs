//! What an override says wrong is found, with its line; what it says right is kept.

use super::*;
use crate::{config::KubernetesConfig, manifest, validate};
use archestra_core::{
    Error,
    catalog::{EnvFrom, EnvFromKind},
    runtime::{EnvValue, Manifest, WorkloadEnv, WorkloadSpec},
    testing::fixtures::{workload, workload_spec},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn spec(yaml: &str) -> WorkloadSpec {
    WorkloadSpec {
        env: vec![
            WorkloadEnv { name: "LEVEL".to_owned(), value: EnvValue::Plain("info".to_owned()) },
            WorkloadEnv { name: "KEY".to_owned(), value: EnvValue::Secret("KEY".to_owned()) },
        ],
        deployment_yaml: Some(yaml.to_owned()),
        ..workload_spec("server", &["server"])
    }
}

fn findings(yaml: &str) -> Vec<String> {
    let findings = validate::findings(&spec(yaml), &KubernetesConfig::default());
    assert!(findings.iter().all(|one| one.field == "selfHosted.deploymentYaml"), "{findings:?}");
    findings.into_iter().map(|one| format!("{} ({})", one.reason, one.remedy)).collect()
}

fn rendered(yaml: &str) -> Result<Manifest, Error> {
    let mut workload = workload(spec(yaml));
    workload.secrets.insert("KEY".to_owned(), "hunter2".into());
    manifest::preview(&workload, &KubernetesConfig::default())
}

fn pod(yaml: &str) -> Value {
    let text = rendered(yaml).unwrap().documents.pop().unwrap();
    let deployment: Value = serde_saphyr::from_str(&text).unwrap();
    deployment["spec"]["template"]["spec"].clone()
}

#[track_caller]
fn assert_refused(yaml: &str, words: &[&str]) {
    let findings = findings(yaml);
    let found = findings.iter().any(|one| words.iter().all(|word| one.contains(word)));
    assert!(found, "{words:?} not in {findings:#?} of\n{yaml}");
    let again = rendered(yaml).unwrap_err();
    assert!(matches!(again, Error::Invalid(_)), "{again}");
}

#[test]
fn what_a_deployment_does_not_know_is_named_with_its_line() {
    assert_refused(
        "spec:\n  template:\n    spec:\n      nodeSelectr: {a: b}\n",
        &["line 4", "spec.template.spec.nodeSelectr", "unknown field"],
    );
    assert_refused(
        "spec:\n  template:\n    spec:\n      containers:\n      - name: mcp-server\n        resource: {}\n",
        &["line 6", "containers[0].resource"],
    );
    assert_refused("spec:\n  replicas: two\n", &["line 2", "spec.replicas", "two"]);
    assert_refused(
        "spec:\n  template:\n    spec:\n      nodeSelector:\n        disk: 5\n",
        &["line 5", "nodeSelector.disk"],
    );
    assert_refused("spec: {template: {spec: {containers: {name: mcp-server}}}}", &["spec.template.spec.containers"]);
}

#[test]
fn bad_yaml_is_refused_with_its_line() {
    assert_refused("spec:\n\ttemplate: {}\n", &["not YAML", "line 2"]);
    assert_refused("spec: {}\nspec: {}\n", &["not YAML", "line 2", "spec"]);
    assert_refused("- spec\n", &["not a mapping"]);
    assert_refused("", &["not a mapping"]);
    assert_refused("spec: {}\n---\nspec: {}\n", &["not YAML"]);
    assert_refused(&format!("x: {}", "[".repeat(3000)), &["not YAML"]);
    assert_refused(&format!("# {}\nspec: {{}}", "x".repeat(300_000)), &["Too long"]);
}

#[test]
fn another_kind_is_refused() {
    assert_refused("apiVersion: apps/v1\nkind: StatefulSet\n", &["line 2", "StatefulSet", "Deployment"]);
    assert_refused("apiVersion: extensions/v1beta1\nkind: Deployment\n", &["line 1", "apps/v1"]);
}

#[test]
fn placeholders_that_stand_for_nothing_are_refused() {
    assert_refused(
        "metadata:\n  labels:\n    a: ${archestra.nothing}\n",
        &["line 3", "${archestra.nothing}", "deployment_name"],
    );
    assert_refused("metadata:\n  annotations:\n    a: ${env.KEY}\n", &["line 3", "KEY is secret"]);
    assert_refused("metadata:\n  annotations:\n    a: ${secret.KEY}\n", &["line 3", "readable"]);
    assert_refused("metadata:\n  annotations:\n    a: ${secret.OTHER}\n", &["line 3", "no secret variable OTHER"]);
    // Two of them are not one with a strange name, which would be left out as blank.
    let both = "spec: {template: {spec: {containers: [{name: mcp-server, env: [{name: A, value: '${secret.KEY} ${env.B}'}]}]}}}";
    assert_refused(both, &["line 1", "${secret.KEY} stands where a secret would be readable"]);
}

#[test]
fn directives_that_are_not_known_are_refused() {
    assert_refused("spec:\n  template:\n    $patch: erase\n", &["line 3", "$patch"]);
    assert_refused("spec:\n  $setElementOrder/containers: []\n", &["line 2", "$setElementOrder/containers"]);
    assert_refused("kind: Deployment\nspec:\n  template: {spec: {$patch: replace}}\n", &["line 3", "patch only"]);
    assert_refused(
        "spec: {template: {spec: {containers: [{image: x}]}}}",
        &["does not contain declared merge key: name"],
    );
}

#[test]
fn what_nobody_may_ask_for_is_refused_with_its_line() {
    let pod = |text: &str| format!("spec:\n  template:\n    spec:\n      {text}\n");
    let container = |text: &str| pod(&format!("containers:\n      - name: mcp-server\n        {text}"));
    let affinity = |term: &str| {
        format!(
            "affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{term}]}}}}}}"
        )
    };
    for (yaml, words) in [
        (pod("hostNetwork: true"), ["line 4", "hostNetwork"]),
        (pod("hostPID: true"), ["line 4", "hostPID"]),
        (pod("hostIPC: true"), ["line 4", "hostIPC"]),
        (pod("serviceAccountName: admin"), ["line 4", "admin"]),
        (pod("serviceAccount: admin"), ["line 4", "admin"]),
        (pod("automountServiceAccountToken: true"), ["line 4", "token"]),
        (pod("automountServiceAccountToken: null"), ["line 4", "must not be deleted"]),
        (pod("securityContext: {seLinuxOptions: {type: spc_t}}"), ["line 4", "SELinux"]),
        (container("livenessProbe: {httpGet: {host: 169.254.169.254, port: 80}}"), ["line 6", "another host"]),
        (container("lifecycle: {preStop: {tcpSocket: {host: 10.0.0.1, port: 80}}}"), ["line 6", "another host"]),
        (
            "spec: {template: {metadata: {labels: {app.kubernetes.io/name: archestra}}}}".to_owned(),
            ["line 1", "pass for the gateway"],
        ),
        (pod("imagePullSecrets: [{name: other}]"), ["line 4", "other"]),
        (pod("volumes: [{name: v, hostPath: {path: /}}]"), ["line 4", "hostPath"]),
        (pod("volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]"), ["line 4", "token"]),
        (pod("volumes: [{name: v, secret: {secretName: mcp-0192d3b4c5d67e8f90a1b2c3d4e5f607}}]"), ["line 4", "another workload"]),
        (pod("volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]"), ["line 4", "allow `volumes`"]),
        (pod("volumes: [{name: v, ephemeral: {}}]"), ["line 4", "volumes[0].ephemeral"]),
        (pod("volumes: [{name: v, csi: {driver: d, nodePublishSecretRef: {name: s}}}]"), ["line 4", "csi.nodePublishSecretRef.name"]),
        (pod("volumes: [{name: v, csi: {driver: d}}]"), ["line 4", "csi volumes"]),
        (pod("volumes: [{name: v, nfs: {server: s, path: /}}]"), ["line 4", "--workload-allow"]),
        (pod("volumes: [{name: v, gitRepo: {repository: r}}]"), ["line 4", "gitRepo"]),
        (pod("volumes: [{name: v, flexVolume: {driver: d}}]"), ["line 4", "flexVolume"]),
        (pod("priorityClassName: system-node-critical"), ["line 4", "system-node-critical"]),
        (pod("nodeName: node1"), ["line 4: spec.template.spec.nodeName", "allow `scheduling`"]),
        (pod("schedulerName: own"), ["line 4: spec.template.spec.schedulerName", "allow `scheduling`"]),
        (pod("runtimeClassName: runc"), ["line 4: spec.template.spec.runtimeClassName", "allow `scheduling`"]),
        (pod("nodeSelector: {kubernetes.io/hostname: node1}"), ["line 4: spec.template.spec.nodeSelector", "allow `scheduling`"]),
        (pod(&affinity("{matchFields: [{key: metadata.name, operator: In, values: [node1]}]}")), ["line 4", "allow `scheduling`"]),
        (pod(&affinity("{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node1]}]}")), ["line 4", "allow `scheduling`"]),
        (
            pod("affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchFields: [{key: metadata.name, operator: In, values: [node1]}]}}]}}"),
            ["line 4", "allow `scheduling`"],
        ),
        (pod("resourceClaims: [{name: gpu, resourceClaimName: c}]"), ["line 4", "allow `devices`"]),
        (container("resources: {limits: {nvidia.com/gpu: 1}}"), ["line 6", "allow `devices`"]),
        (container("resources: {requests: {hugepages-2Mi: 4Mi}}"), ["line 6", "hugepages-2Mi"]),
        (container("resources: {claims: [{name: gpu}]}"), ["line 6", "allow `devices`"]),
        (container("resources: null"), ["line 6: spec.template.spec.containers[0].resources.limits.", "allow `limits`"]),
        (container("resources: {limits: null}"), ["line 6: spec.template.spec.containers[0].resources.limits.", "allow `limits`"]),
        (container("resources: {limits: {memory: null}}"), ["line 6", "resources.limits.memory"]),
        (pod("containers: [{name: side, image: x:1, resources: {limits: {memory: null}}}]"), ["line 4", "resources.limits.memory"]),
        (container("image: Wrong"), ["line 6", "couldn't parse image reference"]),
        (pod("initContainers: [{name: prepare, image: 'a b'}]"), ["line 4", "couldn't parse image reference"]),
        (pod("volumes: [{name: v, cinder: {volumeID: i, secretRef: {name: s}}}]"), ["line 4", "cinder.secretRef.name"]),
        (
            "spec:\n  template:\n    metadata:\n      annotations:\n        k8s.v1.cni.cncf.io/networks: storage\n".to_owned(),
            ["line 5", "allow `annotations`"],
        ),
        (
            "spec: {template: {metadata: {annotations: {iam.amazonaws.com/role: admin}}}}".to_owned(),
            ["line 1", "iam.amazonaws.com"],
        ),
        (pod("terminationGracePeriodSeconds: 301"), ["line 4", "equal to 300"]),
        (container("livenessProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: 3600}"), ["line 6", "equal to 300"]),
        (
            "spec:\n  template:\n    metadata:\n      labels:\n        app: postgres\n".to_owned(),
            ["line 5: spec.template.metadata.labels.app", "allow `labels`"],
        ),
        (pod("securityContext: {runAsUser: 0}"), ["line 4", "root"]),
        (pod("securityContext: {runAsNonRoot: null}"), ["line 4", "runAsNonRoot"]),
        (pod("securityContext: {seccompProfile: {type: Unconfined}}"), ["line 4", "unconfined"]),
        (pod("securityContext: null"), ["line 4", "seccompProfile"]),
        (pod("securityContext: {sysctls: [{name: a, value: b}]}"), ["line 4", "kernel"]),
        (pod("restartPolicy: Never"), ["line 4", "supported values"]),
        (pod("ephemeralContainers: [{name: e, image: x}]"), ["line 4", "ephemeral"]),
        (container("securityContext: {privileged: true}"), ["line 6", "privileged"]),
        (container("securityContext: {allowPrivilegeEscalation: true}"), ["line 6", "escalation"]),
        (container("securityContext: {capabilities: {add: [SYS_ADMIN]}}"), ["line 6", "capabilities.add"]),
        (container("securityContext: {capabilities: {drop: []}}"), ["line 6", "dropped"]),
        (container("securityContext: {runAsUser: 0}"), ["line 6", "root"]),
        (container("securityContext: {procMount: Unmasked}"), ["line 6", "/proc"]),
        (container("ports: [{containerPort: 80, hostPort: 80}]"), ["line 6", "hostPort"]),
        (container("envFrom: [{secretRef: {name: mcp-shared-0192d3b4c5d67e8f90a1b2c3d4e5f607-bridge}}]"), ["line 6", "another workload"]),
        (pod("initContainers: [{name: i, image: x, securityContext: {privileged: true}}]"), ["line 4", "privileged"]),
        (pod("containers: [{name: side}]"), ["line 4", "no image"]),
        ("metadata: {finalizers: [a/b]}".to_owned(), ["line 1", "finalizers"]),
        ("spec: {template: {metadata: {annotations: {container.apparmor.security.beta.kubernetes.io/mcp-server: unconfined}}}}".to_owned(), ["line 1", "unconfined"]),
        ("spec:\n  template:\n".to_owned(), ["line 2", "spec.template: Required value"]),
        ("spec: {template: {spec: null}}".to_owned(), ["line 1", "spec.template.spec: Required value"]),
        ("spec: {template: {spec: {containers: null}}}".to_owned(), ["line 1", "containers: Required value"]),
        ("spec: null".to_owned(), ["line 1", "spec: Required value"]),
        ("spec: {template: {spec: {containers: [{name: mcp-server, image: null}]}}}".to_owned(), ["line 1", "no image"]),
        ("spec: {template: {spec: {volumes: [{name: a, emptyDir: {}}, {name: a, emptyDir: {}}]}}}".to_owned(), ["line 1", "Duplicate"]),
        ("kind: Deployment\nspec: {template: {spec: {containers: [{name: a, image: x}, {name: b, image: z}]}}}".to_owned(), ["line 2", "mcp-server"]),
    ] {
        assert_refused(&yaml, &words);
    }
}

#[test]
fn what_was_saved_before_a_rule_was_there_is_applied_again() {
    let pod = |text: &str| format!("spec:\n  template:\n    spec:\n      {text}\n");
    let container = |text: &str| pod(&format!("containers: [{{name: mcp-server, {text}}}]"));
    let config = KubernetesConfig::default();
    let today = Platform::today(&config, None);
    let mut before = today.clone();
    before.remove("template");
    let findings = |yaml: &str, platform: &BTreeMap<String, String>| {
        validate::findings(&WorkloadSpec { platform: platform.clone(), ..spec(yaml) }, &config)
    };
    for yaml in [
        "spec: {template: {metadata: {annotations: {iam.amazonaws.com/role: admin}}}}".to_owned(),
        pod("nodeName: node1"),
        pod("nodeSelector: {kubernetes.io/hostname: node1}"),
        pod("resourceClaims: [{name: gpu, resourceClaimName: c}]"),
        container("resources: {limits: {nvidia.com/gpu: 1}}"),
        container("resources: {claims: [{name: gpu}]}"),
        container("resources: {limits: {memory: null}}"),
    ] {
        assert_eq!(findings(&yaml, &before), [], "{yaml}");
        assert!(!findings(&yaml, &today).is_empty(), "{yaml}");
    }
    for yaml in [pod("hostNetwork: true"), container("securityContext: {privileged: true}")] {
        assert!(!findings(&yaml, &before).is_empty(), "{yaml}: this was always refused");
    }
}

#[test]
fn nodes_are_chosen_by_what_they_are() {
    let zone = "{key: topology.kubernetes.io/zone, operator: In, values: [a]}";
    for yaml in [
        "spec: {template: {spec: {nodeSelector: {disk: ssd}}}}".to_owned(),
        format!(
            "spec: {{template: {{spec: {{affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{{matchExpressions: [{zone}]}}]}}}}}}}}}}}}"
        ),
        "spec: {template: {spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname}]}}}}}".to_owned(),
    ] {
        assert_eq!(findings(&yaml), [""; 0], "{yaml}");
    }
}

#[test]
fn lists_merge_by_their_keys() {
    let pod = pod("
spec:
  template:
    spec:
      terminationGracePeriodSeconds: null
      containers:
      - name: mcp-server
        imagePullPolicy: Always
        resources: {requests: {memory: null}}
        readinessProbe: {exec: {command: [check]}}
        env:
        - {name: LEVEL, $patch: delete}
        - {name: HOME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        ports: [{containerPort: 9090}]
");
    let main = &pod["containers"][0];
    assert_eq!(pod["terminationGracePeriodSeconds"], Value::Null);
    assert_eq!(main["imagePullPolicy"], "Always");
    assert_eq!(main["resources"]["requests"]["memory"], main["resources"]["limits"]["memory"], "as Kubernetes has it");
    assert_eq!(main["readinessProbe"]["httpGet"], Value::Null);
    assert_eq!(main["readinessProbe"]["exec"]["command"][0], "check");
    let names: Vec<_> = main["env"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["HOME", "KEY"]);
    assert_eq!(main["env"][0]["value"], Value::Null);
    let ports: Vec<_> =
        main["ports"].as_array().unwrap().iter().map(|one| one["containerPort"].as_u64().unwrap()).collect();
    assert_eq!(ports, [7420, 7421, 9090]);
    assert_eq!(main["ports"][2]["protocol"], "TCP");
}

#[test]
fn secrets_stay_wired_and_references_that_lead_nowhere_go() {
    let pod = pod("
spec: {template: {spec: {containers: [{name: mcp-server, env: [
  {name: KEY, value: overridden},
  {name: GONE, valueFrom: {secretKeyRef: {name: '${archestra.secret_name}', key: GONE}}},
  {name: OTHER, valueFrom: {configMapKeyRef: {name: kube-root-ca.crt, key: ca.crt}}}]}]}}}
");
    let env = pod["containers"][0]["env"].as_array().unwrap();
    let of = |name: &str| env.iter().find(|one| one["name"] == name);
    assert_eq!(of("KEY").unwrap()["valueFrom"]["secretKeyRef"]["key"], "KEY");
    assert_eq!(of("KEY").unwrap()["value"], Value::Null);
    assert_eq!(of("GONE"), None);
    assert_eq!(of("OTHER").unwrap()["valueFrom"]["configMapKeyRef"]["name"], "kube-root-ca.crt");
}

/// Every way in which a document reads an object of this kind.
fn readings(kind: EnvFromKind, name: &str) -> [String; 5] {
    let pod = |text: &str| format!("spec:\n  template:\n    spec:\n      {text}\n");
    let (key, whole, volume, field) = match kind {
        EnvFromKind::Secret => ("secretKeyRef", "secretRef", "secret", "secretName"),
        EnvFromKind::ConfigMap => ("configMapKeyRef", "configMapRef", "configMap", "name"),
    };
    [
        pod(&format!(
            "containers: [{{name: mcp-server, env: [{{name: X, valueFrom: {{{key}: {{name: {name}, key: k}}}}}}]}}]"
        )),
        pod(&format!("containers: [{{name: mcp-server, envFrom: [{{{whole}: {{name: {name}}}}}]}}]")),
        pod(&format!("initContainers: [{{name: i, image: x, envFrom: [{{{whole}: {{name: {name}}}}}]}}]")),
        pod(&format!("volumes: [{{name: v, {volume}: {{{field}: {name}}}}}]")),
        pod(&format!("volumes: [{{name: v, projected: {{sources: [{{{volume}: {{name: {name}}}}}]}}}}]")),
    ]
}

#[test]
fn secrets_and_config_maps_are_read_where_the_operator_names_them() {
    let another = "mcp-0192d3b4c5d67e8f90a1b2c3d4e5f607";
    let names = || ["operators-own".to_owned(), another.to_owned()];
    let mut config = KubernetesConfig::default();
    config.policy.secrets.extend(names());
    config.policy.config_maps.extend(names());
    for kind in [EnvFromKind::Secret, EnvFromKind::ConfigMap] {
        for yaml in readings(kind, "operators-own") {
            assert_refused(&yaml, &["line 4", "\"operators-own\" is not this workload's", "--workload-secrets"]);
            assert_eq!(validate::findings(&spec(&yaml), &config), [], "{yaml}");
            // What the entry itself reads is looked at when it is applied.
            let source = EnvFrom { kind, name: "operators-own".to_owned(), prefix: None };
            let named = WorkloadSpec { env_from: vec![source.clone()], ..spec(&yaml) };
            assert_eq!(validate::findings(&named, &KubernetesConfig::default()), [], "{yaml}");
            let other_kind = match kind {
                EnvFromKind::Secret => EnvFromKind::ConfigMap,
                EnvFromKind::ConfigMap => EnvFromKind::Secret,
            };
            let other = WorkloadSpec { env_from: vec![EnvFrom { kind: other_kind, ..source }], ..spec(&yaml) };
            assert!(!validate::findings(&other, &KubernetesConfig::default()).is_empty(), "{yaml}");
        }
        for yaml in readings(kind, another) {
            assert_refused(&yaml, &["line 4", "another workload"]);
            assert!(!validate::findings(&spec(&yaml), &config).is_empty(), "{yaml}");
        }
    }
    for yaml in readings(EnvFromKind::Secret, "'${archestra.secret_name}'") {
        assert_eq!(findings(&yaml), [""; 0], "{yaml}");
    }
    for yaml in readings(EnvFromKind::ConfigMap, "kube-root-ca.crt") {
        assert_eq!(findings(&yaml), [""; 0], "{yaml}");
    }
}

#[test]
fn config_maps_of_what_was_saved_before_they_were_looked_at_are_read_as_before() {
    let config = KubernetesConfig::default();
    let mut platform = Platform::today(&config, None);
    for yaml in readings(EnvFromKind::ConfigMap, "somebodys") {
        assert_refused(&yaml, &["\"somebodys\" is not this workload's"]);
        platform.insert("template".to_owned(), "2".to_owned());
        let before = WorkloadSpec { platform: platform.clone(), ..spec(&yaml) };
        assert_eq!(validate::findings(&before, &config), [], "{yaml}");
    }
    for yaml in readings(EnvFromKind::Secret, "somebodys") {
        let before = WorkloadSpec { platform: platform.clone(), ..spec(&yaml) };
        assert!(!validate::findings(&before, &config).is_empty(), "{yaml}");
    }
}

#[test]
fn volumes_labels_and_graces_that_harm_nobody_are_taken() {
    let pod = pod("
metadata: {labels: {cost-center: '42'}}
spec: {template: {metadata: {labels: {app.kubernetes.io/managed-by: me, archestra.dev/workload: other}}, spec: {
  priorityClassName: low, terminationGracePeriodSeconds: 300,
  containers: [{name: mcp-server, livenessProbe: {exec: {command: [check]}, terminationGracePeriodSeconds: 300}}],
  volumes: [{name: a, emptyDir: {}}, {name: b, configMap: {name: kube-root-ca.crt}}, {name: c, downwardAPI: {items: []}},
    {name: d, projected: {sources: [{configMap: {name: kube-root-ca.crt}}, {downwardAPI: {items: []}}]}}]}}}
");
    assert_eq!(
        pod["volumes"].as_array().unwrap().iter().filter(|one| one["name"].as_str().unwrap().len() == 1).count(),
        4
    );
    assert_eq!(pod["terminationGracePeriodSeconds"], 300);
}

#[test]
fn the_bridge_cannot_be_taken_out() {
    let pod = pod("
spec: {template: {spec: {
  initContainers: [{name: archestra-bridge, image: evil, $patch: replace}],
  volumes: [{name: archestra-token, emptyDir: {}}],
  containers: [{name: mcp-server, command: [other], volumeMounts: [{mountPath: /archestra-token, name: archestra-token, $patch: delete}]}]}}}
");
    assert_ne!(pod["initContainers"][0]["image"], "evil");
    let main = &pod["containers"][0];
    assert_eq!(main["command"], serde_json::json!(["/archestra/archestra-bridge"]));
    assert_eq!(main["args"].as_array().unwrap().last().unwrap(), "other");
    assert!(main["volumeMounts"].as_array().unwrap().iter().any(|one| one["mountPath"] == "/archestra-token"));
    let token = pod["volumes"].as_array().unwrap().iter().find(|one| one["name"] == "archestra-token").unwrap();
    assert_eq!(token["emptyDir"], Value::Null);
}

#[test]
fn aliases_and_merge_keys_work_and_comments_say_nothing() {
    let pod = pod("
# ${archestra.nothing}
spec:
  template:
    spec:
      containers:
      - name: mcp-server
        resources: {requests: &few {cpu: 10m}}
      - name: side
        image: localhost/side:1
        resources: {requests: *few}
");
    assert_eq!(pod["containers"][0]["resources"]["requests"]["cpu"], "10m");
    assert_eq!(pod["containers"][1]["resources"]["requests"]["cpu"], "10m");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_document_panics_and_what_is_taken_is_locked_down(text in "[a-z:{}\\[\\],\\-$&* \n\"'0-9#.]{0,80}", wrap in any::<bool>()) {
        let yaml = if wrap { format!("spec:\n  template:\n    spec: {{{text}}}\n") } else { text };
        if let Ok(manifest) = rendered(&yaml) {
            let text = manifest.documents.last().unwrap();
            let deployment: Value = serde_saphyr::from_str(text).unwrap();
            prop_assert_eq!(&deployment["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"], true);
            prop_assert!(!text.contains("hunter2"));
        }
    }
}

#[test]
fn no_container_goes_without_requests_and_limits() {
    let resources = |text: &str| {
        let pod = pod(&format!("spec: {{template: {{spec: {{containers: [{{name: side, image: 'x:1'{text}}}]}}}}}}"));
        pod["containers"].as_array().unwrap().iter().find(|one| one["name"] == "side").unwrap()["resources"].clone()
    };
    let config = KubernetesConfig::default();
    let all = serde_json::json!({"requests": config.requests, "limits": config.limits});
    assert_eq!(resources(""), all);
    assert_eq!(resources(", resources: {}"), all);
    let more = resources(", resources: {requests: {memory: 2Gi}}");
    assert_eq!((&more["requests"]["memory"], &more["limits"]["memory"]), (&"2Gi".into(), &"2Gi".into()));
    let own = resources(", resources: {limits: {memory: 64Mi}}");
    assert_eq!((&own["requests"]["memory"], &own["limits"]["memory"]), (&"64Mi".into(), &"64Mi".into()));
    assert_eq!(own["limits"]["ephemeral-storage"], all["limits"]["ephemeral-storage"]);
}

#[test]
fn limits_are_deleted_where_the_operator_allows_it() {
    let mut config = KubernetesConfig::default();
    config.policy.allow.insert(crate::config::Relaxation::Limits);
    for own in
        ["{name: mcp-server, resources: null}", "{name: side, image: 'x:1', resources: {limits: {memory: null}}}"]
    {
        let yaml = format!("spec: {{template: {{spec: {{containers: [{own}]}}}}}}");
        assert_eq!(validate::findings(&spec(&yaml), &config), [], "{own}");
        assert_refused(&yaml, &["allow `limits`"]);
    }
}

#[test]
fn what_only_notes_something_is_taken() {
    let annotations = "{note: a, prometheus.io/scrape: 'true', kubectl.kubernetes.io/default-container: mcp-server}";
    let yaml = format!(
        "spec: {{template: {{metadata: {{annotations: {annotations}}}, spec: {{schedulerName: default-scheduler}}}}}}"
    );
    assert_eq!(findings(&yaml), Vec::<String>::new());
}
