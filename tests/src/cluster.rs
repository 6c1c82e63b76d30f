//! A Kubernetes cluster that the environment names, and a namespace of its own in it for each test.

use crate::{Home, Running, Start};
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceQuota};
use kube::{
    Api, Client, Config, Resource, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use std::{fmt, path::PathBuf, time::Duration};
use tokio::time::Instant;

/// The image of `mcp-echo`, which is also its entrypoint.
pub const ECHO: &str = "localhost/archestra-echo:test";
/// The image of Node.js with server-everything, which is also its entrypoint.
pub const EVERYTHING: &str = "localhost/archestra-everything:test";
/// An image of Node.js without an entrypoint, and where server-everything is in it.
pub const NODE: (&str, &str) =
    ("localhost/mcp-node:1", "/srv/node_modules/@modelcontextprotocol/server-everything/dist/index.js");
/// How long after the last pod something may be left.
const AFTER_PODS: Duration = Duration::from_secs(30);
/// How long what is needed for an object may take to be made.
const NEEDED: Duration = Duration::from_secs(30);
/// The image of the bridge.
pub const BRIDGE: &str = "localhost/archestra-bridge:test";

/// A namespace, which is deleted at the end.
pub struct Cluster {
    namespace: String,
    kubeconfig: PathBuf,
    client: Client,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Makes a namespace in the cluster that `ARCHESTRA_TEST_KUBECONFIG` names.
    pub async fn namespace(name: &str) -> Self {
        let kubeconfig = std::env::var_os("ARCHESTRA_TEST_KUBECONFIG").map(PathBuf::from);
        let kubeconfig = kubeconfig.unwrap_or_else(|| panic!("ARCHESTRA_TEST_KUBECONFIG names no kubeconfig"));
        let read = Kubeconfig::read_from(&kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let namespace = format!("whole-{name}-{}", std::process::id());
        let object = serde_json::from_value(json!({ "metadata": { "name": namespace } })).unwrap();
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
        Self { namespace, kubeconfig, client }
    }

    /// Starts the binary with this namespace for its workloads.
    pub async fn start(&self, home: &Home, args: &[&str]) -> Running {
        self.start_with(home, args, Vec::new()).await
    }

    /// Starts it with further variables.
    pub async fn start_with(&self, home: &Home, args: &[&str], mut env: Vec<(&'static str, String)>) -> Running {
        let mut all = vec!["--bridge-image", BRIDGE];
        if !args.contains(&"--base-image") {
            all.extend(["--base-image", ECHO]);
        }
        all.extend_from_slice(args);
        env.push(("ARCHESTRA_ORCHESTRATOR_KUBECONFIG", self.kubeconfig.display().to_string()));
        env.push(("ARCHESTRA_ORCHESTRATOR_K8S_NAMESPACE", self.namespace.clone()));
        home.start(&Start { args: all.into_iter().map(str::to_owned).collect(), env }).await
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.namespace
    }

    /// A client for it.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Makes an object there. What is missing for it may be about to be made, as an account's token is, and is waited for.
    pub async fn create<K: Resource<DynamicType = ()>>(&self, mut object: Value) {
        let kind = ApiResource::erase::<K>(&());
        object["apiVersion"] = kind.api_version.clone().into();
        object["kind"] = kind.kind.clone().into();
        let object = serde_json::from_value(object).unwrap();
        let objects = Api::<DynamicObject>::namespaced_with(self.client(), &self.namespace, &kind);
        let until = Instant::now() + NEEDED;
        while let Err(error) = objects.create(&PostParams::default(), &object).await {
            let missing = matches!(&error, kube::Error::Api(status) if status.code == 403 || status.code == 500);
            assert!(missing && Instant::now() < until, "{error:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The pods there, by name, with the ids that they keep for life.
    pub async fn pods(&self) -> Vec<(String, String)> {
        let listed = self.whole_pods().await;
        let mut pods: Vec<_> = listed.into_iter().map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect();
        pods.sort();
        pods
    }

    /// The pods there, with all that Kubernetes says of them.
    pub async fn whole_pods(&self) -> Vec<Pod> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        pods.list(&ListParams::default()).await.unwrap().items
    }

    /// Those that a label selects.
    pub async fn labelled_pods(&self, label: &str) -> Vec<Pod> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        pods.list(&ListParams::default().labels(label)).await.unwrap().items
    }

    /// Limits what all pods of the namespace together may ask for.
    pub async fn limit(&self, hard: &Value) {
        self.create::<ResourceQuota>(json!({ "metadata": { "name": "limit" }, "spec": { "hard": hard } })).await;
    }

    /// The names of everything that is ours but pods.
    pub async fn leftovers(&self) -> Vec<String> {
        use k8s_openapi::api::{
            apps::v1::Deployment,
            coordination::v1::Lease,
            core::v1::{Secret, Service},
            networking::v1::NetworkPolicy,
        };
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=archestra");
        let (client, namespace) = (&self.client, &self.namespace);
        let mut names = Vec::new();
        let deployments = Api::<Deployment>::namespaced(client.clone(), namespace).list(&ours).await.unwrap();
        names.extend(deployments.iter().map(|found| format!("Deployment {}", found.name_any())));
        let secrets = Api::<Secret>::namespaced(client.clone(), namespace).list(&ours).await.unwrap();
        names.extend(secrets.iter().map(|found| format!("Secret {}", found.name_any())));
        let services = Api::<Service>::namespaced(client.clone(), namespace).list(&ours).await.unwrap();
        names.extend(services.iter().map(|found| format!("Service {}", found.name_any())));
        let policies = Api::<NetworkPolicy>::namespaced(client.clone(), namespace).list(&ours).await.unwrap();
        names.extend(policies.iter().map(|found| format!("NetworkPolicy {}", found.name_any())));
        let leases = Api::<Lease>::namespaced(client.clone(), namespace).list(&ours).await.unwrap();
        names.extend(leases.iter().map(|found| format!("Lease {}", found.name_any())));
        names
    }

    /// Deletes one pod, as a node that goes down does.
    pub async fn delete_pod(&self, name: &str) {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    /// Asks a pod to end, and gives it the time that it is given by default.
    pub async fn end_pod(&self, name: &str) {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        pods.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until no pod is left.
    pub async fn emptied(&self, within: Duration) {
        let until = Instant::now() + within;
        loop {
            let pods = self.pods().await;
            if pods.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "left after {within:?}: {pods:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until no pod is left, and soon after the last one nothing else either: what locks pods in goes after them.
    pub async fn cleared(&self, within: Duration) {
        self.emptied(within).await;
        let until = Instant::now() + AFTER_PODS;
        while let left = self.leftovers().await
            && !left.is_empty()
        {
            assert!(Instant::now() < until, "left {AFTER_PODS:?} after the last pod: {left:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Deletes the namespace with all that is in it.
    pub async fn delete(self) {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        drop(namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap());
    }
}
