//! Pods that are lost with their node, which closes no stream.

use super::help::{has, until};
use crate::{LIMIT, echo};
use archestra_core::{
    runtime::{Connection, Phase, Runtime, Workload, WorkloadSpec, stdio::Channel},
    testing::fixtures,
};
use archestra_k8s::{KubernetesConfig, KubernetesRuntime, testing::FakeCluster};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const IMAGE: &str = "example.com/echo:1";
/// Long enough to say that nothing happens in it.
const MOMENT: Duration = Duration::from_millis(300);
/// Longer than any test.
const LONG: u32 = 3600;

struct Attached {
    cluster: FakeCluster,
    runtime: KubernetesRuntime,
    workload: Workload,
}

/// A process that is attached to.
async fn attached() -> Attached {
    let cluster = FakeCluster::new().image(IMAGE, echo());
    let config = KubernetesConfig { connect_wait: Duration::from_secs(1), ..KubernetesConfig::default() };
    let runtime = KubernetesRuntime::with_client(config, cluster.client()).await;
    let spec = WorkloadSpec { image: Some(IMAGE.to_owned()), ..fixtures::workload_spec("echo", &[]) };
    let workload = fixtures::workload(spec);
    runtime.apply(&workload).await.unwrap();
    let end = Instant::now() + LIMIT;
    while runtime.status(&workload.id).await.unwrap().phase != Phase::Running {
        assert!(Instant::now() < end, "it does not run");
        sleep(Duration::from_millis(5)).await;
    }
    Attached { cluster, runtime, workload }
}

impl Attached {
    async fn channel(&self) -> Channel {
        let end = Instant::now() + LIMIT;
        loop {
            match self.runtime.connect(&self.workload.id).await {
                Ok(Connection::Stdio(channel)) => return channel,
                Ok(connection) => panic!("not a channel: {connection:?}"),
                Err(error) => assert!(error.is_retryable() && Instant::now() < end, "{error:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn ready(&self) -> Vec<String> {
        let pods = self.cluster.all::<Pod>("default").into_iter();
        pods.filter(|pod| has(pod, "Ready")).filter_map(|pod| pod.metadata.name).collect()
    }

    /// Asks for the end of a pod, as the node's controller does after a while.
    async fn delete(&self, pod: &str, grace: u32) {
        let pods: Api<Pod> = Api::default_namespaced(self.cluster.client());
        pods.delete(pod, &DeleteParams::default().grace_period(grace)).await.unwrap();
    }

    /// A pod that has taken a call and then was lost, with the channel of the call, after another pod is ready.
    async fn replaced(&self, grace: u32) -> (String, Channel) {
        let mut channel = self.channel().await;
        echoes(&mut channel, "before").await;
        let [lost] = self.ready().try_into().unwrap();
        self.cluster.lose("default", &lost);
        say(&mut channel, "is anybody there?").await;
        self.delete(&lost, grace).await;
        until("another pod is ready", || self.ready().first().is_some_and(|pod| *pod != lost)).await;
        (lost, channel)
    }
}

async fn say(channel: &mut Channel, text: &str) {
    let params = json!({"name": "echo", "arguments": {"text": text}});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    channel.send(call.to_string().into()).await.unwrap();
}

async fn hears(channel: &mut Channel) -> Value {
    let answer = timeout(LIMIT, channel.recv()).await.expect("an answer in time").expect("an answer");
    serde_json::from_slice(&answer).unwrap()
}

async fn echoes(channel: &mut Channel, text: &str) {
    say(channel, text).await;
    let answer = hears(channel).await;
    assert_eq!(answer["result"]["content"][0]["text"], text, "{answer}");
}

/// What is under way is answered with an error, and then the channel ends.
async fn fails(channel: &mut Channel) {
    let answer = hears(channel).await;
    assert!(answer["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    assert_eq!(timeout(LIMIT, channel.recv()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_to_the_other_pod_and_those_under_way_end_with_the_lost_one() {
    let attached = attached().await;
    let (lost, mut before) = attached.replaced(LONG).await;
    echoes(&mut attached.channel().await, "after").await;
    assert!(timeout(MOMENT, before.recv()).await.is_err(), "one that ends in order might still answer");
    attached.delete(&lost, 0).await;
    fails(&mut before).await;
    attached.runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_end_nobody_confirms_has_its_grace_and_no_more() {
    let attached = attached().await;
    let (lost, mut before) = attached.replaced(1).await;
    fails(&mut before).await;
    assert!(attached.cluster.get::<Pod>("default", &lost).is_some(), "it still is said to end");
    echoes(&mut attached.channel().await, "after").await;
    attached.runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_only_not_ready_keeps_its_stream() {
    let attached = attached().await;
    let mut channel = attached.channel().await;
    echoes(&mut channel, "before").await;
    let [lost] = attached.ready().try_into().unwrap();
    attached.cluster.lose("default", &lost);
    until("it is not ready", || attached.ready().is_empty()).await;
    say(&mut channel, "is anybody there?").await;
    assert!(timeout(MOMENT, channel.recv()).await.is_err(), "its node may come back");
    attached.delete(&lost, 0).await;
    fails(&mut channel).await;
    echoes(&mut attached.channel().await, "after").await;
    attached.runtime.shutdown().await;
}
