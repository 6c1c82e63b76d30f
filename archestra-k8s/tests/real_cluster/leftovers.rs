//! What was left behind is cleared away, and what only looks like it is not.

use super::space::{LIMIT, Space, running};
use archestra_core::runtime::Runtime;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn failed_pods_and_orphaned_objects_are_removed() {
    let space = Space::new().await;
    let mut config = space.config();
    (config.gc_interval, config.gc_age) = (Duration::from_secs(1), Duration::from_secs(1));
    let runtime = space.runtime_with(config).await;
    let workload = space.echo();
    running(&runtime, &workload).await;

    let labels = |id: &str| json!({"app.kubernetes.io/managed-by": "archestra", "archestra.dev/workload": id});
    space.create::<Secret>(json!({"metadata": {"name": "orphan", "labels": labels("mcp-gone")}})).await;
    space
        .create::<Secret>(json!({"metadata": {"name": "foreign", "labels": {"archestra.dev/workload": "mcp-gone"}}}))
        .await;
    let evicted = json!({"metadata": {"name": "evicted", "labels": labels(workload.id.as_str())},
        "spec": {"nodeName": "no-such-node", "containers": [{"name": "x", "image": "x"}]}});
    space.create::<Pod>(evicted).await;
    let failed = Patch::Merge(json!({"status": {"phase": "Failed", "reason": "Evicted"}}));
    space.api::<Pod>().patch_status("evicted", &PatchParams::default(), &failed).await.unwrap();

    let end = Instant::now() + LIMIT;
    let (secrets, pods) = (space.api::<Secret>(), space.api::<Pod>());
    while secrets.get_opt("orphan").await.unwrap().is_some() || pods.get_opt("evicted").await.unwrap().is_some() {
        assert!(Instant::now() < end, "they are still there");
        sleep(Duration::from_millis(200)).await;
    }
    assert!(secrets.get_opt("foreign").await.unwrap().is_some(), "what is not ours stays");
    let kept = space.names::<Secret>(&workload.id).await;
    assert_eq!(kept, [format!("{}-bridge", workload.id)], "what belongs to a workload stays");
    runtime.shutdown().await;
}
