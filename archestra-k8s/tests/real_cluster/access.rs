//! The way to a real cluster, and what is said when it does not let us in.

use super::space::{Space, kubeconfig, variable};
use archestra_core::{runtime::Runtime, secret::SecretValue};
use archestra_k8s::{AccessError, ClusterAccess, KubernetesConfig, KubernetesRuntime, OwnPod};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::json;

fn with_text(space: &Space, text: String) -> KubernetesConfig {
    let access = ClusterAccess::KubeconfigText { text: SecretValue::new(text), context: None };
    KubernetesConfig { access, ..space.config() }
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_kubeconfig_leads_to_the_cluster_also_without_its_certificate() {
    let space = Space::new().await;
    let runtime = KubernetesRuntime::connect(space.config()).await.unwrap();
    assert!(runtime.list().await.unwrap().is_empty());
    runtime.shutdown().await;

    let text = std::fs::read_to_string(kubeconfig()).unwrap();
    let unverified: String = text
        .lines()
        .map(|line| match line.split_once("certificate-authority-data:") {
            Some((indent, _)) => format!("{indent}insecure-skip-tls-verify: true\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let runtime = KubernetesRuntime::connect(with_text(&space, unverified)).await.unwrap();
    assert!(runtime.list().await.unwrap().is_empty());
    runtime.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_cluster_that_does_not_know_us_says_so() {
    let space = Space::new().await;
    let text = std::fs::read_to_string(kubeconfig()).unwrap();
    let stranger: String = text
        .lines()
        .map(|line| match line.split_once("client-certificate-data:") {
            Some((indent, _)) => format!("{indent}token: nobody\n"),
            None if line.contains("client-key-data:") => String::new(),
            None => format!("{line}\n"),
        })
        .collect();
    let error = KubernetesRuntime::connect(with_text(&space, stranger)).await.unwrap_err();
    assert!(matches!(error, AccessError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("Unauthorized"), "{error}");
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn workloads_inherit_the_scheduling_of_the_own_pod() {
    let space = Space::new().await;
    let own: Pod = space
        .create(json!({"metadata": {"name": "platform-0"}, "spec": {
            "containers": [{"name": "platform", "image": "localhost/nothing:1"}],
            "nodeSelector": {"pool": "archestra-test"},
            "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}]}}))
        .await;
    let mut config = space.config();
    config.own_pod = Some(OwnPod { name: own.name_any(), namespace: Some(space.namespace.clone()) });
    let runtime = space.runtime_with(config.clone()).await;
    let inherited = format!("{:?}", runtime.platform());
    assert!(inherited.contains("archestra-test") && inherited.contains("dedicated"), "{inherited}");
    let mut workload = space.echo();
    workload.spec.platform = runtime.platform();
    let manifest = runtime.render(&workload).await.unwrap().documents.join("---\n");
    assert!(manifest.contains("archestra-test"), "{manifest}");
    runtime.shutdown().await;

    config.own_pod = Some(OwnPod { name: "no-such-host".to_owned(), namespace: None });
    let runtime = space.runtime_with(config).await;
    assert!(!format!("{:?}", runtime.platform()).contains("archestra-test"));
    runtime.shutdown().await;
}

/// It does something only in a pod, or where its files are.
#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn the_service_account_of_a_pod_leads_to_the_cluster() {
    if !std::path::Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists() {
        return;
    }
    let space = Space::new().await;
    let host = variable("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc");
    let server = format!("https://{host}:{}", variable("KUBERNETES_SERVICE_PORT", "443"));
    let config = KubernetesConfig { access: ClusterAccess::InCluster { server: Some(server) }, ..space.config() };
    let runtime = KubernetesRuntime::connect(config).await.unwrap();
    assert!(runtime.list().await.unwrap().is_empty());
    runtime.shutdown().await;
}
