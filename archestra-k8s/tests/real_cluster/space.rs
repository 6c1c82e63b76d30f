//! A namespace of its own for one test, and an account in it that may do what the Roles say.
#![expect(clippy::disallowed_methods, reason = "the environment says where the cluster is")]

use archestra_core::{
    runtime::{Connection, Phase, Runtime, Workload, WorkloadId, WorkloadSpec, WorkloadStatus, stdio::Channel},
    testing::fixtures,
};
use archestra_k8s::{ClusterAccess, KubernetesConfig, KubernetesRuntime, rbac};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Namespace, Pod, ServiceAccount},
        networking::v1::NetworkPolicy,
        rbac::v1::{Role, RoleBinding},
    },
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a workload may take to get anywhere.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A namespace that is deleted at the end.
pub(crate) struct Space {
    pub(crate) namespace: String,
    /// Who may do everything.
    pub(crate) admin: Client,
    /// Who may do what the Roles say.
    pub(crate) restricted: Client,
}

pub(crate) fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

pub(crate) fn kubeconfig() -> PathBuf {
    let path = std::env::var("ARCHESTRA_TEST_KUBECONFIG");
    path.expect("ARCHESTRA_TEST_KUBECONFIG names the kubeconfig of a cluster").into()
}

async fn admin_config() -> Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    config
}

async fn create<K>(client: &Client, namespace: &str, object: &K)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + fmt::Debug
        + Send
        + Sync,
{
    Api::<K>::namespaced(client.clone(), namespace).create(&PostParams::default(), object).await.unwrap();
}

impl Space {
    pub(crate) async fn new() -> Self {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let config = admin_config().await;
        let admin = Client::try_from(config.clone()).unwrap();
        let namespace = format!("archestra-{}", archestra_core::id::InstallationId::new().as_uuid().simple());
        let space: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        Api::<Namespace>::all(admin.clone()).create(&PostParams::default(), &space).await.unwrap();
        let restricted = restricted(&config, &admin, &namespace).await;
        Self { namespace, admin, restricted }
    }

    /// A configuration that suits a small cluster.
    pub(crate) fn config(&self) -> KubernetesConfig {
        let small = |cpu: &str, memory: &str| {
            BTreeMap::from([("cpu".to_owned(), cpu.to_owned()), ("memory".to_owned(), memory.to_owned())])
        };
        KubernetesConfig {
            access: ClusterAccess::Kubeconfig { path: kubeconfig(), context: None },
            namespace: self.namespace.clone(),
            base_image: echo_image(),
            bridge_image: variable("ARCHESTRA_TEST_BRIDGE_IMAGE", "localhost/archestra-bridge:test"),
            requests: small("5m", "16Mi"),
            limits: small("1", "128Mi"),
            ..KubernetesConfig::default()
        }
    }

    pub(crate) async fn runtime(&self) -> KubernetesRuntime {
        self.runtime_with(self.config()).await
    }

    pub(crate) async fn runtime_with(&self, config: KubernetesConfig) -> KubernetesRuntime {
        KubernetesRuntime::with_client(config, self.restricted.clone()).await
    }

    pub(crate) fn spec(&self, command: &[&str], args: &[&str]) -> WorkloadSpec {
        WorkloadSpec {
            image: Some(echo_image()),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..fixtures::workload_spec("echo", command)
        }
    }

    pub(crate) fn echo(&self) -> Workload {
        fixtures::workload(self.spec(&["/mcp-echo"], &[]))
    }

    /// What an administrator sees.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + fmt::Debug
            + Send
            + Sync,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    /// The names of what is there of the workload.
    pub(crate) async fn names<K>(&self, id: &WorkloadId) -> Vec<String>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + fmt::Debug,
    {
        let mine = ListParams::default().labels(&format!("archestra.dev/workload={id}"));
        let found = self.api::<K>().list(&mine).await.unwrap();
        found.items.iter().map(ResourceExt::name_any).collect()
    }

    pub(crate) async fn pods(&self, id: &WorkloadId) -> Vec<Pod> {
        let mine = ListParams::default().labels(&format!("archestra.dev/workload={id}"));
        self.api::<Pod>().list(&mine).await.unwrap().items
    }

    /// Waits until the pods of a removed workload, which may take their time, and what locks them in have gone.
    pub(crate) async fn ended(&self, id: &WorkloadId) {
        let end = Instant::now() + LIMIT;
        while !self.pods(id).await.is_empty() || !self.names::<NetworkPolicy>(id).await.is_empty() {
            assert!(Instant::now() < end, "its pods are still there after {LIMIT:?}");
            sleep(Duration::from_millis(200)).await;
        }
    }
}

fn echo_image() -> String {
    variable("ARCHESTRA_TEST_ECHO_IMAGE", "localhost/archestra-echo:test")
}

/// An account in the namespace that has the Roles of this crate, and a client of it.
async fn restricted(config: &Config, admin: &Client, namespace: &str) -> Client {
    const ACCOUNT: &str = "archestra";
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": ACCOUNT}})).unwrap();
    create(admin, namespace, &account).await;
    for text in [rbac::WORKLOADS_ROLE, rbac::OWN_POD_ROLE] {
        let role: Role = serde_saphyr::from_str(text).unwrap();
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": role.name_any()},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role.name_any()},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
        }))
        .unwrap();
        create(admin, namespace, &role).await;
        create(admin, namespace, &binding).await;
    }
    let accounts = Api::<ServiceAccount>::namespaced(admin.clone(), namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let made = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await.unwrap();
    let mut config = config.clone();
    config.auth_info = AuthInfo { token: Some(made.status.unwrap().token.into()), ..AuthInfo::default() };
    namespace.clone_into(&mut config.default_namespace);
    Client::try_from(config).unwrap()
}

impl Drop for Space {
    fn drop(&mut self) {
        let namespace = self.namespace.clone();
        // A runtime of its own, because nothing can be awaited here; what is left if this fails is only a namespace.
        let deleted = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let client = Client::try_from(admin_config().await).unwrap();
                drop(Api::<Namespace>::all(client).delete(&namespace, &DeleteParams::background()).await);
            });
        });
        drop(deleted.join());
    }
}

/// Waits for a status.
pub(crate) async fn until(
    runtime: &KubernetesRuntime,
    id: &WorkloadId,
    fits: impl Fn(&WorkloadStatus) -> bool,
) -> WorkloadStatus {
    let end = Instant::now() + LIMIT;
    loop {
        let status = runtime.status(id).await.unwrap();
        if fits(&status) {
            return status;
        }
        assert!(Instant::now() < end, "not within {LIMIT:?}; the workload is {status:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn running(runtime: &KubernetesRuntime, workload: &Workload) -> WorkloadStatus {
    runtime.apply(workload).await.unwrap();
    until(runtime, &workload.id, |status| status.phase == Phase::Running && status.revision == Some(workload.revision))
        .await
}

pub(crate) async fn channel(runtime: &KubernetesRuntime, id: &WorkloadId) -> Channel {
    let end = Instant::now() + LIMIT;
    loop {
        match runtime.connect(id).await {
            Ok(Connection::Stdio(channel)) => return channel,
            Ok(connection) => panic!("not a channel: {connection:?}"),
            Err(error) => assert!(error.is_retryable() && Instant::now() < end, "{error:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The text that a tool answers with.
pub(crate) async fn call(channel: &mut Channel, tool: &str, arguments: Value) -> String {
    let hello =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    for (id, method, params) in
        [(1, "initialize", hello), (2, "tools/call", json!({"name": tool, "arguments": arguments}))]
    {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        channel.send(request.to_string().into()).await.unwrap();
        let answer = tokio::time::timeout(LIMIT, channel.recv()).await.unwrap().expect("an answer");
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        if id == 2 {
            return answer["result"]["content"][0]["text"].as_str().expect("a text").to_owned();
        }
    }
    unreachable!()
}
