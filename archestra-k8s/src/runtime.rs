//! `KubernetesRuntime`: the trait `Runtime` on the parts of this crate.

use crate::{
    access::{self, AccessError},
    apply,
    areas::{Area, Areas},
    check,
    cluster::Cluster,
    config::KubernetesConfig,
    env_from, gc, logs,
    manifest::{self, Variables},
    overrides,
    platform::Platform,
    policies, pull_secrets,
    remove::{self, Pods},
    requests::Requests,
    restart, scheduling,
    turns::Turns,
    validate,
};
use archestra_core::{
    Error, Finding, Result,
    catalog::{EnvFrom, Scope, SelfHosted},
    runtime::{
        Applied, Connection, LogLine, LogOptions, Manifest, PullSecret, RequestCount, Runtime, RuntimeCapabilities,
        Workload, WorkloadEvent, WorkloadId, WorkloadSpec, WorkloadStatus, WorkloadSummary, scheduling::Scheduling,
    },
};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::stream::BoxStream;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a shutdown waits for what runs in the background.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// Runs workloads on Kubernetes.
///
/// Workloads outlive it: dropping it or [shutting it down](Runtime::shutdown) ends watches and connections and touches no pod,
/// and the next one adopts what it finds.
#[derive(Debug)]
pub struct KubernetesRuntime {
    cluster: Cluster,
    requests: Requests,
    /// What workloads inherit from our own pod, once it is known.
    scheduling: Arc<OnceLock<Scheduling>>,
    areas: Arc<Areas>,
    turns: Arc<Turns>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl KubernetesRuntime {
    /// Opens the way to the cluster that the configuration names, and asks whether it answers and lets us in.
    ///
    /// # Errors
    /// [`AccessError`] says what is wrong with the kubeconfig, the service account or the cluster, and what to do.
    pub async fn connect(config: KubernetesConfig) -> Result<Self, AccessError> {
        let access = access::open(&config).await?;
        access::check(&access.client, &access.server, &config).await?;
        Ok(Self::with_client(config, access.client).await)
    }

    /// Like [`connect`](Self::connect), but the cluster need not answer yet: until it does, calls fail as unavailable.
    ///
    /// # Errors
    /// [`AccessError`] for what can be told without the cluster.
    pub async fn connect_later(config: KubernetesConfig) -> Result<Self, AccessError> {
        let access = access::open(&config).await?;
        Ok(Self::with_client(config, access.client).await)
    }

    /// A runtime on a client that somebody else made, such as one of a fake cluster. What the configuration says about
    /// [access](KubernetesConfig::access) is not used.
    pub async fn with_client(mut config: KubernetesConfig, client: kube::Client) -> Self {
        // Two replicas of one name would both hold a Lease.
        let random = random_name();
        config.replica = Some(config.replica.map_or_else(|| random.clone(), |name| format!("{name}-{random}")));
        let requests = Requests::default();
        let client = requests.counted(client);
        let inherited = scheduling::inherited(&client, &config).await;
        let (config, tasks, stop) = (Arc::new(config), TaskTracker::new(), CancellationToken::new());
        let scheduling = Arc::new(OnceLock::new());
        match inherited {
            Ok(inherited) => drop(scheduling.set(inherited)),
            Err(error) => {
                let (client, known) = (client.clone(), Arc::clone(&scheduling));
                drop(tasks.spawn(scheduling::find_out(client, Arc::clone(&config), error, known, stop.clone())));
            }
        }
        let areas = Areas::new(client.clone(), Arc::clone(&config), tasks.clone(), stop.clone());
        let (areas, turns) = (Arc::new(areas), Arc::new(Turns::default()));
        for namespace in std::iter::once(&config.namespace).chain(&config.more_namespaces) {
            areas.get(namespace);
        }
        if let (Some(peers), Some(holder)) = (config.peers.clone(), config.replica.clone()) {
            drop(tasks.spawn(peers.serve(holder, Arc::clone(&areas), tasks.clone(), stop.clone())));
        }
        let cluster = Cluster { client, config };
        for area in areas.all() {
            drop(tasks.spawn(policies::renew(cluster.clone(), area, Arc::clone(&turns), stop.clone())));
        }
        drop(tasks.spawn(gc::run(cluster.clone(), Arc::clone(&areas), Arc::clone(&turns), stop.clone())));
        Self { cluster, requests, scheduling, areas, turns, tasks, stop }
    }

    async fn area(&self, id: &WorkloadId) -> Result<Arc<Area>> {
        self.areas.of(id).await?.ok_or_else(|| Error::not_found("workload", id))
    }

    fn remove_after_its_pods(&self, area: Arc<Area>, id: &WorkloadId) {
        let (cluster, turns, stop) = (self.cluster.clone(), Arc::clone(&self.turns), self.stop.clone());
        let last_pod = remove::last_pod(cluster, area, turns, id.clone());
        drop(self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = last_pod => {}
            }
        }));
    }

    /// The namespace that the workload was put into, or the one for new ones.
    fn home(&self, spec: &WorkloadSpec) -> Result<String> {
        match &spec.namespace {
            Some(stored) if !access::is_namespace(stored) => Err(Error::invalid(
                "namespace",
                format!("{stored:?} is not a namespace"),
                "use at most 63 lower-case letters, digits and '-'",
            )),
            Some(stored) => Ok(stored.clone()),
            None => Ok(self.cluster.config.namespace.clone()),
        }
    }
}

fn random_name() -> String {
    let mut bytes = [0_u8; 9];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => format!("archestra-{}", URL_SAFE_NO_PAD.encode(bytes)),
        Err(_) => format!("archestra-{}", std::process::id()),
    }
}

impl Drop for KubernetesRuntime {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Runtime for KubernetesRuntime {
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities {
            name: "kubernetes",
            images: true,
            commands: true,
            pull_secrets: true,
            env_from: true,
            overrides: true,
            mounts: true,
            isolation: true,
        }
    }

    fn platform(&self) -> BTreeMap<String, String> {
        Platform::today(&self.cluster.config, self.scheduling.get())
    }

    fn validate(&self, workload: &WorkloadSpec) -> Vec<Finding> {
        validate::findings(workload, &self.cluster.config)
    }

    async fn check(&self, workload: &WorkloadSpec) -> Result<Vec<Finding>> {
        Box::pin(check::check(&self.cluster, &self.home(workload)?, workload)).await
    }

    fn sync_overrides(&self, yaml: &str, before: &SelfHosted, after: &SelfHosted) -> Result<String> {
        overrides::sync_overrides(yaml, before, after)
    }

    async fn render(&self, workload: &Workload) -> Result<Manifest> {
        let namespace = self.home(&workload.spec)?;
        Ok(manifest::desired(workload, &self.cluster.config, &namespace)?.redacted())
    }

    async fn apply(&self, workload: &Workload) -> Result<Applied> {
        let findings = validate::findings_of(&workload.spec, &self.cluster.config, Variables::Given);
        if !findings.is_empty() {
            return Err(Error::Invalid(findings));
        }
        let area = self.areas.get(&self.home(&workload.spec)?);
        let (namespace, who) = (&area.namespace, env_from::scope_of(&workload.spec));
        let unknown = env_from::unknown(&self.cluster, namespace, &who, &workload.spec.env_from).await?;
        if !unknown.is_empty() {
            let placed = |(n, finding): (usize, Finding)| finding.under(&format!("selfHosted.envFrom[{n}]"));
            return Err(Error::Invalid(unknown.into_iter().map(placed).collect()));
        }
        area.observer.synced().await?;
        let _turn = self.turns.take(&workload.id).await;
        let token = area.reach.known_token(&workload.id);
        let outcome = Box::pin(apply::apply(&self.cluster, &area.namespace, workload, token.as_ref())).await?;
        area.observer.note_applied(outcome.deployment, outcome.parts);
        Ok(outcome.applied)
    }

    async fn status(&self, id: &WorkloadId) -> Result<WorkloadStatus> {
        let area = self.area(id).await?;
        area.observer.summary(id).map(|summary| summary.status).ok_or_else(|| Error::not_found("workload", id))
    }

    fn watch(&self) -> BoxStream<'static, Result<WorkloadEvent>> {
        self.areas.watch()
    }

    async fn logs(&self, id: &WorkloadId, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        let area = self.area(id).await?;
        logs::logs(&self.cluster.client, &area.observer, &area.namespace, id, options).await
    }

    async fn restart(&self, id: &WorkloadId) -> Result<()> {
        let area = self.area(id).await?;
        let _turn = self.turns.take(id).await;
        let deployment = restart::restart(&self.cluster, &area.namespace, id).await?;
        area.observer.note_applied(deployment, Vec::new());
        Ok(())
    }

    async fn remove(&self, id: &WorkloadId) -> Result<()> {
        let _turn = self.turns.take(id).await;
        // Everywhere: what an interrupted removal left has no Deployment that would say where it is.
        let mut outcome = Ok(());
        for area in self.areas.all() {
            match remove::everything(&self.cluster, &area, id).await {
                Ok(Pods::Gone) => {}
                Ok(Pods::Ending) => self.remove_after_its_pods(area, id),
                // A namespace that was left behind, and in which it is not known to be.
                Err(error @ Error::PermissionDenied { .. })
                    if !self.areas.is_home(&area.namespace) && area.observer.summary(id).is_none() =>
                {
                    tracing::warn!(namespace = %area.namespace, %error, "whether anything is left of a workload is not known");
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    async fn connect(&self, id: &WorkloadId) -> Result<Connection> {
        self.area(id).await?.reach.connect(id).await
    }

    async fn pull_secrets(&self, who: &Scope) -> Result<Vec<PullSecret>> {
        pull_secrets::pull_secrets(&self.cluster, who).await
    }

    async fn unknown_sources(&self, who: &Scope, sources: &[EnvFrom]) -> Result<Vec<(usize, Finding)>> {
        env_from::unknown(&self.cluster, &self.cluster.config.namespace, who, sources).await
    }

    async fn list(&self) -> Result<Vec<WorkloadSummary>> {
        self.areas.summaries().await
    }

    fn requests(&self) -> Vec<RequestCount> {
        self.requests.counts()
    }

    async fn shutdown(&self) {
        self.stop.cancel();
        for area in self.areas.all() {
            area.reach.shutdown().await;
        }
        self.tasks.close();
        if timeout(SHUTDOWN_WAIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("watches and connections to workloads have not ended in time");
        }
    }
}
