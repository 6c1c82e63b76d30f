//! The servers in the cluster, in a namespace of their own that is deleted at the end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use archestra_core::{
    runtime::{Connection, EnvValue, Phase, Runtime, Workload, WorkloadEnv, WorkloadTransport},
    testing::fixtures,
};
use archestra_k8s::{ClusterAccess, KubernetesConfig, KubernetesRuntime};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::{Instant, sleep};

use super::{Row, Way, channels::Source};
use crate::{Failure, target::Endpoint};

pub(super) const IMAGE: &str = "localhost/archestra-bench:test";
pub(super) const NODE_IMAGE: &str = "localhost/archestra-everything:test";
const BRIDGE_IMAGE: &str = "localhost/archestra-bridge:test";
const START: Duration = Duration::from_secs(90);

/// What names the cluster, if anything does.
#[expect(clippy::disallowed_methods, reason = "the environment says where the cluster is")]
pub(super) fn kubeconfig() -> Option<PathBuf> {
    std::env::var_os("ARCHESTRA_TEST_KUBECONFIG").map(PathBuf::from)
}

/// A configuration that suits a small cluster, and throttles nothing: requests are also shares of a busy machine.
pub(super) fn config(kubeconfig: &Path, namespace: &str) -> KubernetesConfig {
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    KubernetesConfig {
        access: ClusterAccess::Kubeconfig { path: kubeconfig.to_owned(), context: None },
        namespace: namespace.to_owned(),
        bridge_image: BRIDGE_IMAGE.to_owned(),
        requests: pairs(&[("cpu", "250m"), ("memory", "64Mi")]),
        limits: pairs(&[("memory", "256Mi")]),
        ..KubernetesConfig::default()
    }
}

/// The workloads that are measured.
pub(super) struct Cluster {
    kubeconfig: PathBuf,
    namespace: String,
    client: Client,
    /// On its own runtime, which also forwards ports where that is the way.
    workloads: KubernetesRuntime,
    tokio: tokio::runtime::Runtime,
    running: BTreeMap<Row, Workload>,
}

impl Cluster {
    /// Makes the namespace.
    pub(super) fn open(kubeconfig: PathBuf) -> Result<Self, Failure> {
        // A second installation is refused, and this is the first.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let namespace = format!("archestra-bench-{}", std::process::id());
        let (client, workloads) = tokio.block_on(async {
            let file = Kubeconfig::read_from(&kubeconfig)?;
            let access = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            let client = Client::try_from(access)?;
            let metadata = ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() };
            let object = Namespace { metadata, ..Namespace::default() };
            Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await?;
            let workloads = KubernetesRuntime::connect(config(&kubeconfig, &namespace)).await?;
            Ok::<_, Failure>((client, workloads))
        })?;
        Ok(Self { kubeconfig, namespace, client, workloads, tokio, running: BTreeMap::new() })
    }

    /// Runs a server and waits until it answers.
    pub(super) fn run(&mut self, row: Row, image: &str, command: &[&str], args: Vec<String>) -> Result<(), Failure> {
        let mut spec = fixtures::workload_spec(&row.to_string().replace('/', "-"), command);
        spec.image = Some(image.to_owned());
        spec.args = args;
        spec.namespace = Some(self.namespace.clone());
        if row.way == Way::Http {
            spec.transport = WorkloadTransport::StreamableHttp { port: Some(8080), path: "/mcp".to_owned() };
            spec.env = vec![WorkloadEnv { name: "PORT".to_owned(), value: EnvValue::Plain("8080".to_owned()) }];
        }
        let workload = fixtures::workload(spec);
        self.tokio.block_on(async {
            self.workloads.apply(&workload).await?;
            let end = Instant::now() + START;
            loop {
                let status = self.workloads.status(&workload.id).await?;
                if status.phase == Phase::Running {
                    return Ok::<_, Failure>(());
                }
                if status.phase == Phase::Error || Instant::now() > end {
                    return Err(format!("{row} does not run: {}", status.reason.unwrap_or_default()).into());
                }
                sleep(Duration::from_millis(100)).await;
            }
        })?;
        self.running.insert(row, workload);
        Ok(())
    }

    /// How the workload of a row is connected to.
    pub(super) fn source(&self, row: Row) -> Result<Source, Failure> {
        let workload = self.running.get(&row).ok_or("it does not run")?;
        Ok(Source::Cluster(self.kubeconfig.clone(), Box::new(workload.clone())))
    }

    /// The address of an HTTP server.
    pub(super) fn endpoint(&self, row: Row) -> Result<Endpoint, Failure> {
        let workload = self.running.get(&row).ok_or("it does not run")?;
        match self.tokio.block_on(self.workloads.connect(&workload.id))? {
            Connection::Http(endpoint) => {
                let rest = endpoint.url.strip_prefix("http://").ok_or("its URL is not http")?;
                let (address, path) = rest.split_once('/').ok_or("its URL has no path")?;
                Ok(Endpoint { address: address.parse()?, path: format!("/{path}"), bearer: None })
            }
            Connection::Stdio(_) => Err("it is no HTTP server".into()),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.tokio.block_on(async {
            self.workloads.shutdown().await;
            let namespaces = Api::<Namespace>::all(self.client.clone());
            // What is left if this fails is only a namespace.
            namespaces.delete(&self.namespace, &DeleteParams::background()).await.ok();
        });
    }
}
