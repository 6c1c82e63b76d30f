//! The platform in a pod of the cluster, as an account that has the Roles this workspace ships and nothing else. It is reached by
//! port-forwards, which every cluster allows.

use crate::{
    Api, Mcp,
    binary::ADMIN,
    cluster::{BRIDGE, Cluster},
    hosted::{LIMIT, Platform},
    names::Names,
};
use k8s_openapi::api::{
    core::v1::{Pod, Service, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::api::{DeleteParams, LogParams};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::copy_bidirectional,
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

/// The image of the platform.
const PLATFORM: &str = "localhost/archestra-platform:test";
const ACCOUNT: &str = "archestra";
const POD: &str = "archestra-0";
const WORKLOADS_ROLE: (&str, &str) =
    ("archestra-workloads", include_str!("../../archestra-k8s/deploy/rbac/workloads.yaml"));
const OWN_POD_ROLE: (&str, &str) = ("archestra-own-pod", include_str!("../../archestra-k8s/deploy/rbac/own-pod.yaml"));

/// A pod with as many replicas of the platform as were asked for, on one database.
#[derive(Debug)]
pub struct InPod {
    replicas: Vec<Replica>,
    pods: kube::Api<Pod>,
    _names: Option<Names>,
}

/// One of them. Dropped, it is out of reach.
#[derive(Debug)]
pub struct Replica {
    name: String,
    port: u16,
    forward: JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.forward.abort();
    }
}

impl Platform for Replica {
    fn api(&self) -> Api {
        Api::new(format!("http://127.0.0.1:{}", self.port), Some(ADMIN.to_owned()))
    }
}

impl Replica {
    /// The endpoint of one gateway, as the admin.
    pub fn gateway(&self, slug: &str) -> Mcp {
        Mcp::new(self.api(), slug)
    }
}

impl InPod {
    /// Starts one replica for each name with its flags, in the namespace `home` with `scheduling` as a part of its pod's
    /// specification; their servers go into the namespace `servers`.
    pub async fn start(home: &Cluster, servers: &Cluster, scheduling: Value, replicas: &[(&str, &[&str])]) -> Self {
        let account = json!({ "metadata": { "name": ACCOUNT } });
        home.create::<ServiceAccount>(account).await;
        grant(home, servers, WORKLOADS_ROLE).await;
        grant(home, home, OWN_POD_ROLE).await;

        let names = if has_names(home).await { None } else { Some(Names::serve(home.client()).await) };
        let container = |(n, (name, flags)): (usize, &(&str, &[&str]))| container(servers, name, flags, n);
        let mut spec = json!({
            "serviceAccountName": ACCOUNT,
            "terminationGracePeriodSeconds": 20,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532 },
            "volumes": [{ "name": "data", "emptyDir": {} }],
            "containers": replicas.iter().enumerate().map(container).collect::<Vec<_>>(),
        });
        if let Some(names) = &names {
            spec["dnsPolicy"] = "None".into();
            spec["dnsConfig"] = json!({ "nameservers": [names.address()] });
        }
        spec.as_object_mut().unwrap().extend(scheduling.as_object().unwrap().clone());
        let labels = json!({ "app.kubernetes.io/name": "archestra" });
        home.create::<Pod>(json!({ "metadata": { "name": POD, "labels": labels }, "spec": spec })).await;

        let pods = kube::Api::<Pod>::namespaced(home.client(), home.name());
        let mut pod = Self { replicas: Vec::new(), pods, _names: names };
        pod.until_ready(replicas).await;
        for (n, (name, _)) in replicas.iter().enumerate() {
            let (port, forward) = forward(pod.pods.clone(), listens_at(n)).await;
            pod.replicas.push(Replica { name: (*name).to_owned(), port, forward });
        }
        pod
    }

    /// The replicas, in the order in which they were named.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// What all replicas have written.
    pub async fn log(&self) -> String {
        let mut whole = String::new();
        for replica in &self.replicas {
            whole.push_str(&log(&self.pods, &replica.name).await);
        }
        whole
    }

    /// Asks the pod to end, and waits until it is gone.
    pub async fn end(self) {
        self.pods.delete(POD, &DeleteParams::default()).await.unwrap();
        let until = Instant::now() + LIMIT;
        while self.pods.get_opt(POD).await.unwrap().is_some() {
            assert!(Instant::now() < until, "the platform's pod does not end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn until_ready(&self, replicas: &[(&str, &[&str])]) {
        let until = Instant::now() + LIMIT;
        loop {
            let status = self.pods.get(POD).await.unwrap().status.unwrap_or_default();
            let statuses = status.container_statuses.unwrap_or_default();
            if statuses.len() == replicas.len() && statuses.iter().all(|status| status.ready) {
                return;
            }
            let broken = statuses.iter().any(|status| status.restart_count > 0);
            if broken || Instant::now() > until {
                let mut said = String::new();
                for (name, _) in replicas {
                    said.push_str(&log(&self.pods, name).await);
                }
                panic!("the platform's pod is not ready: {statuses:?}\n{said}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn listens_at(n: usize) -> u16 {
    9000 + u16::try_from(n).unwrap()
}

/// One replica, as a manifest would have it: its own pod by the downward API, everything else by flags.
fn container(servers: &Cluster, name: &str, flags: &[&str], n: usize) -> Value {
    let port = listens_at(n);
    let mut args: Vec<String> = vec![
        "--listen".to_owned(),
        format!("0.0.0.0:{port}"),
        "--peer-listen".to_owned(),
        format!("0.0.0.0:{}", port + 100),
    ];
    let fixed = ["--metrics-listen", "none", "--data-dir", "/data", "--bridge-image", BRIDGE];
    args.extend(fixed.into_iter().chain(flags.iter().copied()).map(str::to_owned));
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    json!({
        "name": name,
        "image": PLATFORM,
        "args": args,
        "env": [
            { "name": "ARCHESTRA_ADMIN_TOKEN", "value": ADMIN },
            { "name": "ARCHESTRA_ORCHESTRATOR_K8S_NAMESPACE", "value": servers.name() },
            { "name": "ARCHESTRA_ORCHESTRATOR_LOAD_KUBECONFIG_FROM_CURRENT_CLUSTER", "value": "true" },
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_IP", "status.podIP"),
        ],
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
        "readinessProbe": { "httpGet": { "path": "/health/ready", "port": port }, "periodSeconds": 1, "timeoutSeconds": 5 },
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
    })
}

/// Applies a Role to a namespace as its file says, and gives it to the platform's account.
async fn grant(home: &Cluster, namespace: &Cluster, (name, manifest): (&str, &str)) {
    let roles = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles", namespace.name());
    let request = http::Request::patch(format!("{roles}/{name}?fieldManager=operator"))
        .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
        .body(manifest.as_bytes().to_vec())
        .unwrap();
    namespace.client().request_text(request).await.unwrap();
    let binding = json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": home.name() }],
    });
    namespace.create::<RoleBinding>(binding).await;
}

/// Whether the cluster resolves the names of its Services.
async fn has_names(cluster: &Cluster) -> bool {
    let services = kube::Api::<Service>::namespaced(cluster.client(), "kube-system");
    services.get_opt("kube-dns").await.unwrap().is_some()
}

async fn log(pods: &kube::Api<Pod>, container: &str) -> String {
    let params = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
    pods.logs(POD, &params).await.unwrap_or_else(|error| error.to_string())
}

/// A port of this machine that leads to one of the pod's, and the task that does it.
async fn forward(pods: kube::Api<Pod>, port: u16) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut streams = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let pods = pods.clone();
            streams.spawn(async move {
                let Ok(mut forwarder) = pods.portforward(POD, &[port]).await else { return };
                if let Some(mut server) = forwarder.take_stream(port) {
                    drop(copy_bidirectional(&mut client, &mut server).await);
                }
            });
        }
    });
    (local, task)
}
