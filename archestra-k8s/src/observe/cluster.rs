//! Observing and reading logs on a real cluster: what really happens to pods, and what is told of it.
//!
//! `ARCHESTRA_TEST_KUBECONFIG` names a kubeconfig of an administrator; the image `localhost/mcp-node:1`, or that in
//! `ARCHESTRA_TEST_NODE_IMAGE`, has a shell and Node.js.
#![expect(clippy::disallowed_methods, reason = "the environment says where the cluster is")]

mod logs;
mod status;

use super::{Observer, view};
use crate::names;
use archestra_core::{
    Result,
    id::InstallationId,
    runtime::{LogLine, LogOptions, LogSource, WorkloadId, WorkloadStatus},
};
use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const LIMIT: Duration = Duration::from_secs(60);

/// A namespace that is deleted at the end, and what observes it.
struct Space {
    client: Client,
    namespace: String,
    observer: Arc<Observer>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

fn image() -> String {
    std::env::var("ARCHESTRA_TEST_NODE_IMAGE").unwrap_or_else(|_| "localhost/mcp-node:1".to_owned())
}

fn id() -> WorkloadId {
    WorkloadId::of_installation(InstallationId::new())
}

/// A Deployment that runs this in a shell, changed by `change`.
fn deployment(id: &WorkloadId, revision: u32, script: &str, change: impl FnOnce(&mut Value)) -> Deployment {
    let labels = names::labels(id, None, None);
    let mut whole = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": id.as_str(), "labels": labels, "annotations": {
            names::REVISION: revision.to_string(), names::TRANSPORT: "bridge",
        }},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": names::selector(id)},
            "template": {"metadata": {"labels": labels}, "spec": {
                "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "containers": [{
                    "name": names::CONTAINER, "image": image(), "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", script],
                    "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
                }],
            }},
        },
    });
    change(&mut whole["spec"]["template"]["spec"]);
    serde_json::from_value(whole).unwrap()
}

/// The way to the cluster as an administrator, or as somebody else.
async fn config(who: Option<&str>) -> Config {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let path = std::env::var("ARCHESTRA_TEST_KUBECONFIG").expect("ARCHESTRA_TEST_KUBECONFIG names a kubeconfig");
    let mut kubeconfig = Kubeconfig::read_from(path).unwrap();
    for user in &mut kubeconfig.auth_infos {
        if let Some(user) = &mut user.auth_info {
            user.impersonate = who.map(str::to_owned);
        }
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    config
}

impl Space {
    async fn new() -> Self {
        let client = Client::try_from(config(None).await).unwrap();
        let namespace = format!("archestra-{}", InstallationId::new().as_uuid().simple());
        let space = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &space).await.unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let observer =
            Observer::start(client.clone(), namespace.clone(), &names::select_ours(None), &tasks, stop.clone());
        observer.synced().await.unwrap();
        Self { client, namespace, observer, tasks, stop }
    }

    async fn apply(&self, deployment: Deployment) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let (params, name) = (PatchParams::apply(names::FIELD_MANAGER).force(), view::name(&deployment.metadata));
        let applied = api.patch(name, &params, &Patch::Apply(&deployment)).await.unwrap();
        self.observer.note_applied(applied, Vec::new());
    }

    /// Waits until what is told fulfils this.
    async fn until(&self, id: &WorkloadId, fits: impl Fn(&WorkloadStatus) -> bool + Send + Sync) -> WorkloadStatus {
        let mut changed = self.observer.changed();
        let found = timeout(LIMIT, async {
            loop {
                if let Some(told) = self.observer.summary(id).filter(|told| fits(&told.status)) {
                    return told.status;
                }
                changed.changed().await.unwrap();
            }
        });
        match found.await {
            Ok(status) => status,
            Err(_) => panic!("it is not told in time, but: {:?}", self.observer.summary(id)),
        }
    }

    async fn logs(&self, id: &WorkloadId, options: LogOptions) -> BoxStream<'static, Result<LogLine>> {
        crate::logs::logs(&self.client, &self.observer, &self.namespace, id, options).await.unwrap()
    }

    async fn recent(&self, id: &WorkloadId, options: LogOptions) -> Vec<LogLine> {
        self.logs(id, options).await.map(|line| line.unwrap()).collect().await
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn end(self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
        self.stop.cancel();
        self.tasks.close();
        timeout(Duration::from_secs(5), self.tasks.wait()).await.expect("all tasks end");
    }
}

/// Reads on until a line says this.
async fn read_until(lines: &mut BoxStream<'static, Result<LogLine>>, text: &str) -> Vec<LogLine> {
    let mut seen = Vec::new();
    let read = async {
        loop {
            let line = lines.next().await.expect("following does not end").unwrap();
            let found = line.text.contains(text);
            seen.push(line);
            if found {
                return;
            }
        }
    };
    if timeout(LIMIT, read).await.is_err() {
        panic!("{text:?} is not in {seen:?}");
    }
    seen
}

fn server(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().filter(|line| line.source == LogSource::Server).map(|line| line.text.as_str()).collect()
}

fn options(tail: Option<usize>, follow: bool) -> LogOptions {
    LogOptions { tail, follow, ..LogOptions::default() }
}
