//! The runtime's contract on the fake cluster, and what the fake cluster itself promises.

#[cfg(test)]
mod fake_cluster {
    mod api;
    mod apply;
    mod check;
    mod drift;
    mod env_from;
    mod exec;
    mod faults;
    mod help;
    mod instances;
    mod lost;
    mod peers;
    mod pods;
    mod prompt;
    mod runtime;
    mod streams;
    mod watch;
}

use archestra_core::{
    runtime::WorkloadSpec,
    testing::{Answer, ScriptedServer, conformance::runtime::RuntimeFixture, fixtures},
};
use archestra_k8s::{
    KubernetesConfig, KubernetesRuntime, ReachMode,
    testing::{FakeCluster, FakeImage},
};
use std::{sync::Arc, time::Duration};

archestra_core::runtime_conformance!(bridge, over_the_bridge(ReachMode::Direct));
archestra_core::runtime_conformance!(port_forward, over_the_bridge(ReachMode::PortForward));
archestra_core::runtime_conformance!(attach, attached());

/// How long a workload may take on a busy machine. Nothing waits for so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

fn echo() -> ScriptedServer {
    ScriptedServer::new("echo")
        .start_log("the echo server is up")
        .tool("echo", |arguments| Answer::text(arguments["text"].as_str().unwrap_or_default()))
}

async fn runtime(cluster: &FakeCluster, reach: ReachMode) -> Arc<KubernetesRuntime> {
    let config = KubernetesConfig {
        base_image: "example.com/base:1".to_owned(),
        reach,
        connect_wait: Duration::from_secs(1),
        ..KubernetesConfig::default()
    };
    Arc::new(KubernetesRuntime::with_client(config, cluster.client()).await)
}

/// Servers whose command is known.
#[cfg(test)]
async fn over_the_bridge(reach: ReachMode) -> RuntimeFixture {
    let base = FakeImage::command_not_found()
        .command("echo-server", FakeImage::server(echo()))
        .command("exits", FakeImage::crashes(1, "Error: API_KEY is not set"))
        .command("silent", FakeImage::never_ready());
    let cluster = FakeCluster::new().image("example.com/base:1", base);
    let runtime = runtime(&cluster, reach).await;
    let spec = |command: &str| fixtures::workload_spec(command, &[command]);
    RuntimeFixture::new(runtime, spec("echo-server"))
        .started_line("echo server is up")
        .exits(spec("exits"))
        .missing(spec("no-such-command"))
        .silent(spec("silent"))
        .limit(LIMIT)
        .keeping(cluster)
}

/// Servers that their image starts by itself.
#[cfg(test)]
async fn attached() -> RuntimeFixture {
    let cluster = FakeCluster::new()
        .image("example.com/echo:1", echo())
        .image("example.com/exits:1", FakeImage::crashes(1, "Error: API_KEY is not set"));
    let runtime = runtime(&cluster, ReachMode::Auto).await;
    let spec = |image: &str| WorkloadSpec {
        image: Some(format!("example.com/{image}:1")),
        ..fixtures::workload_spec(image, &[])
    };
    RuntimeFixture::new(runtime, spec("echo"))
        .started_line("echo server is up")
        .exits(spec("exits"))
        .missing(spec("no-such-image"))
        .limit(LIMIT)
        .keeping(cluster)
}
