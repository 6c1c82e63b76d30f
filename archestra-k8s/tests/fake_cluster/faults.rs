//! What goes wrong on demand.

use super::help::refusal;
use archestra_k8s::testing::FakeCluster;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, Config, api::ListParams, config::KubeConfigOptions, config::Kubeconfig};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test]
async fn requests_fail_as_often_as_they_were_told_to() {
    let cluster = FakeCluster::new();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let secrets: Api<Secret> = Api::default_namespaced(cluster.client());
    cluster.faults().fail_next(2, 503);
    for _ in 0..2 {
        assert_eq!(refusal(maps.list(&ListParams::default()).await).0, 503);
    }
    maps.list(&ListParams::default()).await.unwrap();
    cluster.faults().fail_next_of(1, 403, http::Method::GET, "/secrets");
    maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(refusal(secrets.list(&ListParams::default()).await).0, 403);
    secrets.list(&ListParams::default()).await.unwrap();
    cluster.faults().latency(Duration::from_millis(50));
    let began = Instant::now();
    maps.list(&ListParams::default()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(50));
    cluster.faults().heal();
}

#[tokio::test]
async fn an_api_server_that_is_down_answers_nobody_and_comes_back() {
    let cluster = FakeCluster::new();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    cluster.faults().down();
    assert!(matches!(maps.list(&ListParams::default()).await, Err(kube::Error::Service(_))));
    cluster.faults().up();
    maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(cluster.requests().len(), 2);
    assert!(cluster.requests().iter().all(|request| request.path == "/api/v1/namespaces/default/configmaps"));
}

#[tokio::test]
async fn it_is_reached_over_a_port_too() {
    let cluster = FakeCluster::new();
    let server = cluster.serve().await.unwrap();
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.list(&ListParams::default()).await.unwrap();
    cluster.faults().down();
    assert!(maps.list(&ListParams::default()).await.is_err());
    cluster.faults().up();
    maps.list(&ListParams::default()).await.unwrap();
    cluster.shutdown().await;
}
