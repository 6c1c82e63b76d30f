//! What happens in the cluster is told at once, and not when somebody looks again.
//!
//! The clock stands still while anything goes on, so that an interval at which something was asked for would show.

use crate::echo;
use archestra_core::{
    Result,
    runtime::{Phase, Runtime, Workload, WorkloadEvent, WorkloadSpec, WorkloadStatus},
    testing::fixtures,
};
use archestra_k8s::{
    KubernetesConfig, KubernetesRuntime,
    testing::{FakeCluster, FakeImage, RecordedRequest, Timing},
};
use futures::{StreamExt as _, stream::BoxStream};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);
const IMAGE: &str = "example.com/echo:1";

struct Watched {
    cluster: FakeCluster,
    runtime: KubernetesRuntime,
    workload: Workload,
    events: BoxStream<'static, Result<WorkloadEvent>>,
}

impl Watched {
    async fn new(image: impl Into<FakeImage>) -> Self {
        // What a kubelet itself waits for is not what is measured.
        let hour = Duration::from_secs(3600);
        let timing = Timing { start: Duration::from_millis(1), backoff: hour, max_backoff: hour };
        let cluster = FakeCluster::with_timing(timing).image(IMAGE, image);
        let runtime = KubernetesRuntime::with_client(KubernetesConfig::default(), cluster.client()).await;
        let spec = WorkloadSpec { image: Some(IMAGE.to_owned()), ..fixtures::workload_spec("echo", &[]) };
        let workload = fixtures::workload(spec);
        let mut events = runtime.watch();
        assert!(matches!(events.next().await, Some(Ok(WorkloadEvent::Snapshot(_)))));
        cluster.forget_requests();
        Self { cluster, runtime, workload, events }
    }

    /// Waits until what is told after something was done fits: within a second, and without a question to the API server.
    async fn tells(&mut self, fits: impl Fn(&WorkloadStatus) -> bool + Send + Sync) -> WorkloadStatus {
        let (began, mut last) = (Instant::now(), None);
        let told = timeout(2 * SECOND, async {
            loop {
                if let Some(Ok(WorkloadEvent::Changed(told))) = self.events.next().await {
                    if fits(&told.status) {
                        return told.status;
                    }
                    last = Some(told.status);
                }
            }
        });
        let Ok(status) = told.await else { panic!("it is not told, but {last:?}") };
        assert!(began.elapsed() < SECOND, "after {:?}: {status:?}", began.elapsed());
        // The last words of what crashed, and what is not to be shown of them, are asked for once.
        let id = self.workload.id.as_str();
        let is_poll = |one: &RecordedRequest| {
            let once = one.path.ends_with("/log") || one.path.contains("/secrets/");
            one.method == Method::GET
                && !one.is_watch()
                && !once
                && (one.path.contains(id) || one.path.ends_with("/pods"))
        };
        let asked: Vec<_> = self.cluster.requests().into_iter().filter(is_poll).collect();
        self.cluster.forget_requests();
        assert!(asked.is_empty(), "{asked:?}");
        status
    }

    async fn apply(&mut self) {
        self.runtime.apply(&self.workload).await.unwrap();
        // What applying itself asks for is not what is looked at.
        self.cluster.forget_requests();
    }

    fn pod(&self) -> String {
        self.cluster.all::<Pod>("default").remove(0).metadata.name.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn what_runs_ends_and_crashes_is_told_within_a_second() {
    let mut watched = Watched::new(echo()).await;
    watched.apply().await;
    watched.tells(|status| status.phase == Phase::Running).await;
    watched.cluster.evict("default", &watched.pod(), "The node was low on memory.");
    watched.tells(|status| status.phase != Phase::Running).await;
    let again = watched.tells(|status| status.phase == Phase::Running).await;
    assert_eq!(again.restarts, 0, "it is another pod");
    for pod in watched.cluster.all::<Pod>("default") {
        watched.cluster.crash("default", &pod.metadata.name.unwrap(), 7);
    }
    let crashed = watched.tells(|status| status.phase != Phase::Running).await;
    assert!(crashed.reason.as_ref().is_some_and(|reason| reason.contains("exit code 7")), "{crashed:?}");
    watched.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_keeps_it_from_running_is_told_within_a_second() {
    let mut watched = Watched::new(FakeImage::image_pull_error("manifest unknown")).await;
    let says = |text: &'static str| {
        move |status: &WorkloadStatus| status.reason.as_ref().is_some_and(|reason| reason.contains(text))
    };
    watched.cluster.unschedulable(Some("0/1 nodes are available: 1 Insufficient cpu."));
    watched.apply().await;
    watched.tells(says("Insufficient cpu")).await;
    watched.cluster.unschedulable(None);
    watched.tells(says("manifest unknown")).await;
    watched.cluster.pod_quota("default", Some(0));
    watched.cluster.evict("default", &watched.pod(), "gone");
    watched.tells(says("exceeded quota")).await;
    watched.runtime.shutdown().await;
}
