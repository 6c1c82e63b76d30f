//! What workloads come to, as snapshots and as rules. `UPDATE_SNAPSHOTS=1` writes the snapshots anew.

use super::*;
use crate::config::{Egress, ImagePullPolicy, NetworkConfig, OverridePolicy, Relaxation};
use archestra_core::{
    catalog::{EnvFrom, EnvFromKind},
    runtime::{
        EnvValue, RevisionNumber, WorkloadEnv, WorkloadPullSecret, WorkloadSpec,
        scheduling::{Scheduling, Toleration},
    },
    testing::fixtures::workload_spec,
};
use proptest::prelude::*;
use std::{fs, path::Path};

const ID: &str = "mcp-0192d3b4c5d67e8f90a1b2c3d4e5f607";
const SECRET: &str = "s3cr3t-of-the-workload";

fn config() -> KubernetesConfig {
    KubernetesConfig {
        namespace: "servers".to_owned(),
        base_image: "registry.example.com/mcp-base:1.0".to_owned(),
        bridge_image: "registry.example.com/archestra-bridge:1.0".to_owned(),
        ..KubernetesConfig::default()
    }
}

fn workload(spec: WorkloadSpec) -> Workload {
    let keys = spec.env.iter().filter_map(|variable| match &variable.value {
        EnvValue::Secret(key) | EnvValue::Mounted(key) => Some(key.clone()),
        EnvValue::Plain(_) => None,
    });
    let secrets = keys.chain(["pull".to_owned()]).map(|key| (key, SECRET.into())).collect();
    Workload { id: ID.parse().unwrap(), revision: RevisionNumber(3), spec, secrets }
}

fn env(name: &str, value: EnvValue) -> WorkloadEnv {
    WorkloadEnv { name: name.to_owned(), value }
}

fn stdio() -> WorkloadSpec {
    WorkloadSpec {
        args: vec![
            "-y".to_owned(),
            "@modelcontextprotocol/server-everything".to_owned(),
            "costs $5, $(HOME)".to_owned(),
        ],
        env: vec![
            env("LOG_LEVEL", EnvValue::Plain("info".to_owned())),
            env("PASSWORD_HINT", EnvValue::Plain("a$$b $(HOME)".to_owned())),
            env("API_KEY", EnvValue::Secret("API_KEY".to_owned())),
            env("CERTIFICATE", EnvValue::Mounted("env.CERTIFICATE".to_owned())),
        ],
        ..workload_spec("everything", &["npx"])
    }
}

fn http() -> WorkloadSpec {
    WorkloadSpec {
        image: Some("registry.example.com/team/server:2.1".to_owned()),
        args: vec!["--port".to_owned(), "${archestra.http_port}".to_owned()],
        transport: WorkloadTransport::StreamableHttp { port: Some(3000), path: "/mcp".to_owned() },
        team: Some("0192d3b4-c5d6-7e8f-90a1-b2c3d4e5f608".parse().unwrap()),
        pull_secrets: vec![
            WorkloadPullSecret::Existing { name: "regcred".to_owned() },
            WorkloadPullSecret::Credentials {
                server: "registry.example.com".to_owned(),
                username: "robot".to_owned(),
                password_key: "pull".to_owned(),
                email: None,
            },
        ],
        ..workload_spec("server", &[])
    }
}

fn attached() -> WorkloadSpec {
    WorkloadSpec { image: Some("localhost/mcp-server:1".to_owned()), ..workload_spec("own", &[]) }
}

fn made(spec: WorkloadSpec) -> Desired {
    desired(&workload(spec), &config(), "servers").unwrap()
}

/// Where entries may give their pods labels.
fn labelled(spec: WorkloadSpec) -> Desired {
    let policy = OverridePolicy { allow: [Relaxation::Labels].into(), ..OverridePolicy::default() };
    desired(&workload(spec), &KubernetesConfig { policy, ..config() }, "servers").unwrap()
}

fn with_yaml(spec: WorkloadSpec, yaml: &str) -> WorkloadSpec {
    WorkloadSpec { deployment_yaml: Some(yaml.to_owned()), ..spec }
}

/// Compares with the snapshot of this name.
#[track_caller]
fn assert_snapshot(name: &str, desired: &Desired) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/manifest/snapshots/{name}.yaml"));
    let mut text = desired.redacted().documents.join("---\n");
    assert!(!text.contains(SECRET), "a secret shows in {name}");
    text.insert_str(0, "# Written by the test of this name; `UPDATE_SNAPSHOTS=1` writes it anew.\n");
    #[expect(clippy::disallowed_methods, reason = "a test may be told to write its snapshots")]
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{} differs; now it is\n{text}", path.display());
}

fn deployment_of(desired: &Desired) -> Value {
    untyped(&desired.deployment)
}

fn pod(desired: &Desired) -> Value {
    deployment_of(desired)["spec"]["template"]["spec"].clone()
}

fn annotation<'a>(desired: &'a Desired, key: &str) -> &'a str {
    &desired.deployment.metadata.annotations.as_ref().unwrap()[key]
}

#[test]
fn stdio_runs_behind_the_bridge() {
    assert_snapshot("stdio", &made(stdio()));
}

#[test]
fn variables_come_from_objects_too() {
    let source = |kind, name: &str, prefix: Option<&str>| EnvFrom {
        kind,
        name: name.to_owned(),
        prefix: prefix.map(str::to_owned),
    };
    let env_from = vec![
        source(EnvFromKind::Secret, "shared-keys", None),
        source(EnvFromKind::ConfigMap, "settings", Some("APP_")),
    ];
    let spec = WorkloadSpec { env_from, ..stdio() };
    assert_snapshot("env_from", &made(spec.clone()));

    // Put back before what a document names, which wins where both have a variable; a document that is a preview changes nothing.
    let sources = |desired: &Desired| pod(desired)["containers"][0]["envFrom"].clone();
    let own = sources(&made(spec.clone()));
    let yaml = "spec: {template: {spec: {containers: [{name: mcp-server, envFrom: [
      {configMapRef: {name: kube-root-ca.crt}}, {secretRef: {name: shared-keys, optional: true}}]}]}}}";
    let expected = serde_json::json!([
        {"configMapRef": {"name": "settings"}, "prefix": "APP_"},
        {"configMapRef": {"name": "kube-root-ca.crt"}},
        {"secretRef": {"name": "shared-keys", "optional": true}},
    ]);
    assert_eq!(sources(&made(with_yaml(spec.clone(), yaml))), expected);
    let emptied = "spec: {template: {spec: {containers: [{name: mcp-server, envFrom: null}]}}}";
    assert_eq!(sources(&made(with_yaml(spec.clone(), emptied))), own);
    let preview = made(spec.clone()).redacted().documents.pop().unwrap();
    assert_eq!(sources(&made(with_yaml(spec, &preview))), own);
}

#[test]
fn http_has_a_service_and_rolls_without_a_gap() {
    assert_snapshot("http", &made(http()));
}

#[test]
fn an_image_with_its_own_command_is_attached_to() {
    assert_snapshot("attach", &made(attached()));
}

#[test]
fn an_exclusive_process_is_alone() {
    let desired = made(WorkloadSpec { exclusive: true, ..workload_spec("alone", &["server"]) });
    assert_eq!(deployment_of(&desired)["spec"]["strategy"]["type"], "Recreate");
    assert!(pod(&desired)["containers"][0]["args"].as_array().unwrap().contains(&"--exclusive".into()));
    assert_eq!(annotation(&desired, names::EXCLUSIVE), "true");
}

#[test]
fn what_the_platform_adds_comes_from_the_stored_revision() {
    let scheduling = Scheduling {
        node_selector: Some(BTreeMap::from([("pool".to_owned(), "mcp".to_owned())])),
        tolerations: Some(vec![Toleration {
            key: Some("mcp".to_owned()),
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        }]),
    };
    let then = KubernetesConfig {
        image_pull_policy: Some(ImagePullPolicy::Always),
        requests: BTreeMap::from([("cpu".to_owned(), "5m".to_owned())]),
        limits: BTreeMap::from([("memory".to_owned(), "16Mi".to_owned())]),
        ..config()
    };
    let spec = WorkloadSpec { platform: Platform::today(&then, &scheduling), ..stdio() };
    let desired = made(spec.clone());
    assert_snapshot("platform", &desired);
    let upgraded = KubernetesConfig {
        base_image: "other:2".to_owned(),
        bridge_image: "other:3".to_owned(),
        ..KubernetesConfig::default()
    };
    let again = super::desired(&workload(spec), &upgraded, "servers").unwrap();
    assert_eq!(annotation(&again, TEMPLATE_HASH), annotation(&desired, TEMPLATE_HASH));
}

#[test]
fn what_was_made_with_the_first_template_is_as_it_was() {
    let mut spec = WorkloadSpec { platform: Platform::today(&config(), &Scheduling::default()), ..stdio() };
    let today = made(spec.clone());
    spec.platform.remove("template");
    let before = made(spec);
    assert_snapshot("template-1", &before);
    assert_ne!(annotation(&before, TEMPLATE_HASH), annotation(&today, TEMPLATE_HASH));
    assert_eq!(annotation(&today, TEMPLATE_HASH), annotation(&made(stdio()), TEMPLATE_HASH));
}

#[test]
fn what_was_made_with_the_second_template_is_what_is_made_today() {
    for spec in [stdio(), http()] {
        let mut spec = WorkloadSpec { platform: Platform::today(&config(), &Scheduling::default()), ..spec };
        let today = made(spec.clone());
        spec.platform.insert("template".to_owned(), "2".to_owned());
        assert_eq!(made(spec).deployment, today.deployment, "nothing rolls");
    }
}

#[test]
fn only_real_changes_roll() {
    let hash = |workload: &Workload| {
        let desired = desired(workload, &config(), "servers").unwrap();
        (annotation(&desired, TEMPLATE_HASH).to_owned(), annotation(&desired, OBJECTS_HASH).to_owned())
    };
    let before = workload(stdio());
    let same = Workload { revision: RevisionNumber(9), ..before.clone() };
    assert_eq!(hash(&same), hash(&before));
    let mut renamed = before.clone();
    renamed.spec.name = "another-name".to_owned();
    assert_eq!(hash(&renamed).0, hash(&before).0);
    assert_ne!(hash(&renamed).1, hash(&before).1);
    let mut secret = before.clone();
    secret.secrets.insert("API_KEY".to_owned(), "another".into());
    let mut mounted = before.clone();
    mounted.secrets.insert("env.CERTIFICATE".to_owned(), "another".into());
    let mut argument = before.clone();
    argument.spec.args.pop();
    for changed in [secret, mounted, argument] {
        assert_ne!(hash(&changed).0, hash(&before).0);
    }
    let pulled = workload(http());
    let mut password = pulled.clone();
    password.secrets.insert("pull".to_owned(), "another".into());
    assert_eq!(hash(&password).0, hash(&pulled).0, "what runs has been pulled already");
    assert_ne!(hash(&password).1, hash(&pulled).1);
}

#[test]
fn secrets_are_in_secrets_alone() {
    for spec in [stdio(), http()] {
        let desired = made(spec);
        let outside = json!([desired.deployment, desired.service, desired.network_policy]).to_string();
        assert!(!outside.contains(SECRET));
        assert!(!desired.redacted().documents.concat().contains(SECRET));
        assert!(desired.secret.is_some() || !desired.pull_secrets.is_empty());
    }
    let pull = &made(http()).pull_secrets[0];
    let text = String::from_utf8(pull.data.as_ref().unwrap()[".dockerconfigjson"].0.clone()).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["auths"]["registry.example.com"]["password"], SECRET);
    assert_eq!(config["auths"]["registry.example.com"]["auth"], "cm9ib3Q6czNjcjN0LW9mLXRoZS13b3JrbG9hZA==");
    assert_eq!(pull.metadata.labels.as_ref().unwrap()[names::PULL_SECRET], "true");
}

#[test]
fn a_missing_secret_is_named() {
    let mut workload = workload(stdio());
    workload.secrets.remove("API_KEY");
    let error = desired(&workload, &config(), "servers").unwrap_err().to_string();
    assert!(error.contains("selfHosted.env[2]") && error.contains("API_KEY"), "{error}");
}

#[test]
fn the_network_is_what_the_operator_says() {
    let network = NetworkConfig {
        gateway_namespace: Some("archestra".to_owned()),
        gateway_cidrs: ["192.0.2.7/32".to_owned()].into(),
        egress: Egress::Public { private: ["10.1.0.0/16".to_owned()].into() },
        dns: ["10.9.0.10/32".to_owned()].into(),
        ..NetworkConfig::default()
    };
    let policy = |network: NetworkConfig, spec: WorkloadSpec| {
        let config = KubernetesConfig { network, ..config() };
        untyped(&desired(&workload(spec), &config, "servers").unwrap().network_policy)["spec"].clone()
    };
    let spec = policy(network, http());
    assert_eq!(
        spec["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
        "archestra"
    );
    assert_eq!(spec["ingress"][0]["from"][1]["ipBlock"]["cidr"], "192.0.2.7/32");
    assert_eq!(spec["egress"][2]["to"][0]["ipBlock"]["cidr"], "10.1.0.0/16");
    let servers = json!([
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}},
        {"ipBlock": {"cidr": "169.254.20.10/32"}},
        {"ipBlock": {"cidr": "10.9.0.10/32"}},
    ]);
    assert_eq!(spec["egress"][0]["to"], servers, "nobody else is asked at port 53");
    let open =
        NetworkConfig { egress: Egress::Everything, gateway_labels: BTreeMap::new(), ..NetworkConfig::default() };
    let spec = policy(open, http());
    assert_eq!(spec["policyTypes"], json!(["Ingress"]));
    assert_eq!(spec["ingress"], json!([]), "nobody named means nobody, not everybody");
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let yaml = "
spec:
  template:
    metadata:
      labels: {cost-center: '42', archestra.dev/workload: somebody-elses}
    spec:
      nodeSelector: {disk: ssd}
      containers:
      - name: mcp-server
        resources: {limits: {memory: 64Mi}}
        env:
        - {name: LOG_LEVEL, value: debug}
        - {name: SCALE, value: 1.10}
        - {name: TOKEN, value: '${secret.API_KEY}'}
        - {name: WHERE, value: '${archestra.namespace}/${archestra.deployment_name}: ${env.PASSWORD_HINT}'}
      - name: sidecar
        image: localhost/sidecar:1
      volumes:
      - {name: cache, emptyDir: {}}
";
    assert_snapshot("patch", &labelled(with_yaml(stdio(), yaml)));
}

#[test]
fn a_whole_deployment_is_completed_and_wired() {
    let yaml = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: whatever
  namespace: kube-system
  labels: {app: mine}
  uid: '12345'
spec:
  selector: {matchLabels: {app: mine}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: mine}}
    spec:
      containers:
      - name: the-server
        image: ${archestra.docker_image}
        command: ${archestra.command}
        args: ['${archestra.arguments}', --more]
        readinessProbe: {exec: {command: ['true']}}
status: {replicas: 7}
";
    assert_snapshot("replace", &labelled(with_yaml(stdio(), yaml)));
}

#[test]
fn a_preview_can_be_pasted_as_the_override() {
    for spec in [stdio(), http(), attached()] {
        let first = made(spec.clone());
        let text = first.redacted().documents.pop().unwrap();
        let second = made(with_yaml(spec, &text));
        assert_eq!(annotation(&second, TEMPLATE_HASH), annotation(&first, TEMPLATE_HASH), "{text}");
    }
}

#[test]
fn scheduling_yields_to_the_override() {
    let scheduling = Scheduling {
        node_selector: Some(BTreeMap::from([
            ("pool".to_owned(), "mcp".to_owned()),
            ("zone".to_owned(), "a".to_owned()),
        ])),
        tolerations: Some(vec![Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() }]),
    };
    let placed = |patch: &str| {
        let spec = WorkloadSpec { platform: Platform::today(&config(), &scheduling), ..stdio() };
        let pod = pod(&made(with_yaml(spec, &format!("spec: {{template: {{spec: {patch}}}}}"))));
        (pod["nodeSelector"].clone(), pod["tolerations"].clone())
    };
    let inherited = (json!({"pool": "mcp", "zone": "a"}), json!([{"operator": "Exists"}]));
    assert_eq!(placed("{priority: 5}"), inherited);
    assert_eq!(placed("{nodeSelector: {pool: own, worker: ''}}").0, json!({"pool": "own", "worker": "", "zone": "a"}));
    assert_eq!(placed("{nodeSelector: {pool: null}}").0, json!({"zone": "a"}));
    assert_eq!(placed("{nodeSelector: {$patch: replace, disk: ssd}}").0, json!({"disk": "ssd"}));
    for none in ["{nodeSelector: {}}", "{nodeSelector: null}"] {
        assert_eq!(placed(none).0, Value::Null, "{none}");
    }
    assert_eq!(placed("{tolerations: []}").1, Value::Null);
    assert_eq!(
        placed("{tolerations: [{key: k, operator: Exists, tolerationSeconds: 5}]}").1,
        json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 5}])
    );
}

#[test]
fn a_command_in_the_override_brings_the_bridge_and_without_one_it_goes() {
    let patch = |container: &str| format!("spec: {{template: {{spec: {{containers: [{container}]}}}}}}");
    let bridged = made(with_yaml(attached(), &patch("{name: mcp-server, command: [/server], args: [a]}")));
    assert_eq!(annotation(&bridged, names::TRANSPORT), "bridge");
    let args = pod(&bridged)["containers"][0]["args"].as_array().unwrap().clone();
    assert_eq!(args[args.len() - 3..], ["--", "/server", "a"]);
    let own = WorkloadSpec { image: Some("localhost/own:1".to_owned()), ..stdio() };
    let attached = made(with_yaml(own, &patch("{name: mcp-server, command: null, args: null}")));
    assert_eq!(annotation(&attached, names::TRANSPORT), "attach");
    assert_eq!(pod(&attached)["containers"][0]["stdin"], true);
    assert_eq!(pod(&attached)["initContainers"], Value::Null);
    assert_eq!(attached.service, None);
}

#[test]
fn policy_opens_what_the_operator_allows() {
    let yaml = "spec: {template: {spec: {
        serviceAccountName: reader, automountServiceAccountToken: true, hostNetwork: true, imagePullSecrets: [{name: other}],
        volumes: [{name: host, hostPath: {path: /var}}, {name: data, persistentVolumeClaim: {claimName: data}},
          {name: keys, secret: {secretName: shared}}],
        containers: [{name: mcp-server, envFrom: [{secretRef: {name: shared}}], securityContext: {privileged: true, runAsUser: 0, runAsNonRoot: false, capabilities: {add: [NET_ADMIN]}}}]}}}";
    let workload = workload(with_yaml(stdio(), yaml));
    let refused = desired(&workload, &config(), "servers").unwrap_err();
    let Error::Invalid(findings) = refused else { panic!("{refused}") };
    let text: Vec<_> = findings.iter().map(ToString::to_string).collect();
    for word in [
        "serviceAccountName",
        "automountServiceAccountToken",
        "hostNetwork",
        "imagePullSecrets[0].name",
        "hostPath",
        "volumes[1].persistentVolumeClaim",
        "volumes[2].secret.secretName",
        "envFrom[0].secretRef.name",
        "privileged",
        "runAsUser",
        "runAsNonRoot",
        "capabilities.add",
    ] {
        assert!(text.iter().any(|one| one.contains(word) && one.contains("line ")), "{word}: {text:#?}");
    }
    let policy = OverridePolicy {
        allow: Relaxation::ALL.into(),
        service_accounts: ["reader".to_owned()].into(),
        pull_secrets: ["other".to_owned()].into(),
        secrets: ["shared".to_owned()].into(),
        ..OverridePolicy::default()
    };
    let allowed = desired(&workload, &KubernetesConfig { policy, ..config() }, "servers").unwrap();
    assert_eq!(pod(&allowed)["containers"][0]["securityContext"]["privileged"], true);
    assert_eq!(pod(&allowed)["serviceAccountName"], "reader");
}

proptest! {
    #[test]
    fn anything_plain_comes_out_as_it_went_in(text in prop_oneof!["[ -~]{0,40}", any::<String>()]) {
        let text = text.replace('\0', "");
        let spec = WorkloadSpec {
            args: vec![text.clone()],
            env: vec![env("X", EnvValue::Plain(text.clone()))],
            ..workload_spec("any", &["server"])
        };
        let desired = made(spec);
        let pod = pod(&desired);
        let escaped = escape(&text);
        prop_assert_eq!(pod["containers"][0]["args"].as_array().unwrap().last().unwrap(), escaped.as_str());
        let rendered = desired.redacted().documents.pop().unwrap();
        let read: Value = serde_saphyr::from_str(&rendered).unwrap();
        prop_assert_eq!(&read["spec"]["template"]["spec"]["containers"], &pod["containers"]);
    }
}
