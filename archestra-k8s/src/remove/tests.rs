//! What locks pods in while they end.

use super::*;
use crate::{config::KubernetesConfig, observe::Observer, reach::Reach, testing::FakeCluster};
use archestra_core::id::InstallationId;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const LIMIT: Duration = Duration::from_secs(20);

/// A removed workload with a pod and its NetworkPolicy, in an area whose watches show nothing of it.
struct Behind {
    client: kube::Client,
    cluster: Cluster,
    area: Arc<Area>,
    id: WorkloadId,
}

impl Behind {
    async fn new(fake: &FakeCluster) -> Self {
        let (client, id) = (fake.client(), WorkloadId::of_installation(InstallationId::new()));
        let config = Arc::new(KubernetesConfig::default());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let ours = names::select_ours(None);
        let observer = Observer::start(client.clone(), "elsewhere".to_owned(), &ours, &tasks, stop.clone());
        observer.synced().await.unwrap();
        let reach = Reach::new(client.clone(), Arc::clone(&observer), Arc::clone(&config), tasks, &stop);
        let area = Arc::new(Area { namespace: "default".to_owned(), observer, reach });
        let metadata = json!({"name": id.as_str(), "labels": names::labels(&id, None, None)});
        let containers = json!([{"name": "a", "image": "example.com/a:1"}]);
        let pod: Pod =
            serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": containers}})).unwrap();
        let policy: NetworkPolicy =
            serde_json::from_value(json!({"metadata": metadata, "spec": {"podSelector": {}}})).unwrap();
        Api::default_namespaced(client.clone()).create(&PostParams::default(), &pod).await.unwrap();
        Api::default_namespaced(client.clone()).create(&PostParams::default(), &policy).await.unwrap();
        Self { cluster: Cluster { client: client.clone(), config }, client, area, id }
    }

    async fn last_pod(&self) {
        let turns = Arc::new(Turns::default());
        last_pod(self.cluster.clone(), Arc::clone(&self.area), turns, self.id.clone()).await;
    }
}

#[tokio::test]
async fn a_pod_that_no_watch_shows_stays_locked_in_until_it_is_gone() {
    let fake = FakeCluster::new().namespace("elsewhere");
    let behind = Behind::new(&fake).await;
    let policies = || fake.all::<NetworkPolicy>("default").len();
    let mut waiting = Box::pin(behind.last_pod());
    assert!(timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "a pod is left");
    assert_eq!(policies(), 1);
    let pods: Api<Pod> = Api::default_namespaced(behind.client.clone());
    pods.delete(behind.id.as_str(), &DeleteParams::default().grace_period(0)).await.unwrap();
    timeout(LIMIT, waiting).await.expect("it ends with the pod");
    assert_eq!(policies(), 0);
}

#[tokio::test]
async fn what_is_applied_again_keeps_its_network_policy() {
    let fake = FakeCluster::new().namespace("elsewhere");
    let behind = Behind::new(&fake).await;
    let template = json!({
        "metadata": {"labels": names::selector(&behind.id)},
        "spec": {"containers": [{"name": "a", "image": "example.com/a:1"}]},
    });
    let metadata = json!({"name": behind.id.as_str(), "labels": names::labels(&behind.id, None, None)});
    let spec = json!({"selector": {"matchLabels": names::selector(&behind.id)}, "template": template});
    let deployment: Deployment = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    Api::default_namespaced(behind.client.clone()).create(&PostParams::default(), &deployment).await.unwrap();
    timeout(LIMIT, behind.last_pod()).await.expect("its pods are there to stay");
    assert_eq!(fake.all::<NetworkPolicy>("default").len(), 1);
}
