//! Following logs over crashes, other pods, and connections that are cut.

use super::{LIMIT, Space, config, deployment, id, options, read_until, server};
use crate::{logs, names, observe::Observer};
use archestra_core::runtime::{LogOptions, LogSource, Phase, WorkloadEvent};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client, api::DeleteParams};
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn logs_are_followed_over_crashes_and_other_pods() {
    let space = Space::new().await;
    let id = id();
    let script = "echo up; sleep 0.5; i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo line $i >&2; sleep 0.2; done; echo bye; exit 9";
    space.apply(deployment(&id, 1, script, |_| {})).await;
    let mut lines = space.logs(&id, options(None, true)).await;
    let seen = read_until(&mut lines, "line 5").await;
    assert_eq!(server(&seen)[..6], ["up", "line 1", "line 2", "line 3", "line 4", "line 5"], "{seen:?}");
    // Who comes later begins where it asked to, and misses nothing.
    let mut late = space.logs(&id, options(Some(2), true)).await;
    let seen = read_until(&mut late, "line 12").await;
    let numbers: Vec<u32> =
        server(&seen).iter().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    drop(late);

    let pod = space.observer.place(&id).unwrap().pods[0].metadata.name.clone().unwrap();
    let stop = ["sh", "-c", ": > /tmp/stop"];
    let exec = space.pods().exec(&pod, stop, &kube::api::AttachParams::default()).await.unwrap();
    exec.join().await.unwrap();
    let seen = read_until(&mut lines, "bye").await;
    assert!(seen.iter().all(|line| line.source == LogSource::Server), "{seen:?}");
    let seen = read_until(&mut lines, "up").await;
    assert!(
        seen.iter().any(|line| line.source == LogSource::Platform && line.text.contains("exit code 9")),
        "{seen:?}"
    );
    let status = space.until(&id, |status| status.phase == Phase::Running).await;
    assert_eq!(status.restarts, 1);

    let previous = space.recent(&id, LogOptions { previous: true, ..options(Some(3), false) }).await;
    assert_eq!(server(&previous).last(), Some(&"bye"), "{previous:?}");
    let three = space.recent(&id, options(Some(3), false)).await;
    assert!(three.len() == 3 && server(&three).len() == 3, "{three:?}");
    assert!(space.recent(&id, options(Some(0), false)).await.is_empty());
    let since = LogOptions { since: Some(three[1].at), ..options(None, false) };
    let later = space.recent(&id, since).await;
    assert_eq!(later[..2], three[1..], "{later:?}");

    space.pods().delete(&pod, &DeleteParams::default()).await.unwrap();
    let seen = read_until(&mut lines, "up").await;
    assert!(seen.iter().any(|line| line.text == format!("pod {pod} is gone")), "{seen:?}");
    read_until(&mut lines, "line 3").await;
    let deployments: Api<Deployment> = Api::namespaced(space.client.clone(), &space.namespace);
    deployments.delete(id.as_str(), &DeleteParams::background()).await.unwrap();
    read_until(&mut lines, "the workload was removed").await;
    assert!(lines.next().await.is_none());
    space.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn silent_servers_and_pending_pods_can_be_followed() {
    let space = Space::new().await;
    let (silent, pending) = (id(), id());
    space.apply(deployment(&silent, 1, "sleep 3; echo at last; sleep 1000", |_| {})).await;
    space.apply(deployment(&pending, 1, "sleep 1", |spec| spec["nodeSelector"] = json!({"no": "such-node"}))).await;
    let mut lines = space.logs(&silent, options(Some(10), true)).await;
    let seen = read_until(&mut lines, "at last").await;
    assert!(!server(&seen).is_empty());
    let mut lines = space.logs(&pending, options(Some(10), true)).await;
    read_until(&mut lines, "no node can take its pod").await;
    let loops = id();
    space.apply(deployment(&loops, 1, "echo before the end; exit 1", |_| {})).await;
    space.until(&loops, |status| status.phase == Phase::Error).await;
    let lines = space.recent(&loops, options(None, false)).await;
    assert!(server(&lines).contains(&"before the end"), "{lines:?}");
    assert!(lines.iter().any(|line| line.text.contains("ended with exit code 1")), "{lines:?}");
    let lines = space.recent(&loops, LogOptions { previous: true, ..options(None, false) }).await;
    assert!(server(&lines).contains(&"before the end"), "{lines:?}");
    space.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn messages_of_an_attached_server_are_no_log() {
    let space = Space::new().await;
    let id = id();
    let script = r#"echo up >&2; for i in 1 2 3 4 5 6; do echo '{"jsonrpc":"2.0","id":1,"result":{}}'; done; sleep 2; echo '{"jsonrpc":"2.0","method":"x"}'; echo done; sleep 1000"#;
    let mut attached = deployment(&id, 1, script, |_| {});
    let annotations = attached.metadata.annotations.get_or_insert_default();
    annotations.insert(names::TRANSPORT.to_owned(), "attach".to_owned());
    space.apply(attached).await;
    let mut lines = space.logs(&id, options(None, true)).await;
    let seen = read_until(&mut lines, "done").await;
    assert_eq!(server(&seen), ["up", "done"]);
    assert_eq!(server(&space.recent(&id, options(Some(2), false)).await), ["up", "done"]);
    space.end().await;
}

/// Passes on connections while `open`, and cuts them when it is not.
async fn wire(listener: TcpListener, to: String, open: watch::Receiver<bool>) {
    loop {
        let (mut from, _) = listener.accept().await.unwrap();
        let (mut open, to) = (open.clone(), to.clone());
        if *open.borrow() {
            tokio::spawn(async move {
                let mut onward = TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    done = copy_bidirectional(&mut from, &mut onward) => drop(done),
                    done = open.wait_for(|open| !open) => drop(done),
                }
            });
        }
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn a_cut_connection_loses_nothing() {
    let space = Space::new().await;
    let mut config = config(None).await;
    let host = config.cluster_url.host().unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, is_open) = watch::channel(true);
    let to = format!("{host}:{}", config.cluster_url.port_u16().unwrap_or(443));
    let wire = tokio::spawn(wire(listener, to, is_open));
    config.cluster_url = format!("https://{address}").parse().unwrap();
    config.tls_server_name.get_or_insert(host);
    let client = Client::try_from(config).unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let observer =
        Observer::start(client.clone(), space.namespace.clone(), &names::select_ours(None), &tasks, stop.clone());
    observer.synced().await.unwrap();
    let mut watch = observer.watch();
    watch.next().await.unwrap().unwrap();

    let (stays, goes) = (id(), id());
    let script = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done";
    space.apply(deployment(&stays, 1, script, |_| {})).await;
    space.apply(deployment(&goes, 1, "sleep 1000", |_| {})).await;
    space.until(&stays, |status| status.phase == Phase::Running).await;
    space.until(&goes, |status| status.phase == Phase::Running).await;
    let mut lines = logs::logs(&client, &observer, &space.namespace, &stays, options(None, true)).await.unwrap();
    let mut seen = read_until(&mut lines, "line 20").await;

    open.send_replace(false);
    let deployments: Api<Deployment> = Api::namespaced(space.client.clone(), &space.namespace);
    deployments.delete(goes.as_str(), &DeleteParams::background()).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert!(observer.summary(&goes).is_some(), "nobody can know");
    open.send_replace(true);
    let removed = async { while watch.next().await.unwrap().unwrap() != WorkloadEvent::Removed(goes.clone()) {} };
    timeout(LIMIT, removed).await.expect("what was missed is told");
    seen.extend(read_until(&mut lines, "line 100").await);
    let numbers: Vec<u32> =
        server(&seen).iter().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
    drop((lines, watch));
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    wire.abort();
    space.end().await;
}
