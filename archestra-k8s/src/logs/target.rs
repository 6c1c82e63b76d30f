//! Which containers of a pod have a log that is the server's, and opening it.

use super::Source;
use crate::observe::view;
use archestra_core::{Error, Result, runtime::LogOptions};
use futures::io::AsyncBufRead;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::{Api, api::LogParams};

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The pod's uid.
    pub(super) uid: String,
    /// The pod's name.
    pub(super) pod: String,
    /// The container's.
    pub(super) container: String,
}

/// One run of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The container's id.
    pub(super) id: String,
    /// Whether another run has begun since.
    pub(super) previous: bool,
    /// Whether it goes on.
    pub(super) running: bool,
}

/// The containers of a pod whose logs are the server's: its own, or an init container that keeps it from starting.
pub(super) fn containers(pod: &Pod) -> Vec<&ContainerStatus> {
    let initialized = view::condition(pod, "Initialized").is_some_and(|done| done.status == "True");
    let holding = view::init_containers(pod)
        .iter()
        .filter(|container| !initialized && view::ended(container).is_none_or(|ended| ended.exit_code != 0));
    holding.chain(view::server(pod)).collect()
}

/// The key of a container.
pub(super) fn key(pod: &Pod, container: &ContainerStatus) -> Key {
    Key {
        uid: view::uid(&pod.metadata).to_owned(),
        pod: view::name(&pod.metadata).to_owned(),
        container: container.name.clone(),
    }
}

/// The runs of a container whose logs are still there, the older one first.
pub(super) fn runs(container: &ContainerStatus) -> Vec<Run> {
    let id = |ended: &ContainerStateTerminated| ended.container_id.clone().filter(|id| !id.is_empty());
    let running = view::started(container).and(container.container_id.clone().filter(|id| !id.is_empty()));
    let now = match running {
        Some(id) => Some(Run { id, previous: false, running: true }),
        None => view::ended(container).and_then(id).map(|id| Run { id, previous: false, running: false }),
    };
    // While no run has taken its place, the one that ended is not called previous.
    let before = view::ended_before(container).and_then(id);
    let before = before.map(|id| Run { id, previous: now.is_some(), running: false });
    before.into_iter().chain(now).collect()
}

/// How much of a log is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extent {
    /// What is there.
    Recent(LogOptions),
    /// What is there and what comes.
    Follow(LogOptions),
}

impl Source {
    /// Opens the log of one run, from this second on if there is one. `None`: there is none (any more).
    ///
    /// Some API servers answer only once there is a line, so following has no deadline of its own.
    pub(super) async fn open(
        &self,
        key: &Key,
        run: &Run,
        second: Option<i64>,
        extent: Extent,
    ) -> Result<Option<impl AsyncBufRead + Send + Unpin + use<>>> {
        let (options, follow) = match extent {
            Extent::Recent(options) => (options, false),
            Extent::Follow(options) => (options, true),
        };
        let since = second.or(options.since.map(|since| since.timestamp()));
        // Of what is left out later, nobody knows how much there is.
        let tail = options.tail.filter(|_| !follow && !self.speaks).map(|tail| tail.max(1));
        let params = LogParams {
            container: Some(key.container.clone()),
            follow: follow && run.running,
            previous: run.previous,
            since_time: since.and_then(|second| Timestamp::from_second(second).ok()),
            tail_lines: tail.map(|tail| i64::try_from(tail).unwrap_or(i64::MAX)),
            timestamps: true,
            ..LogParams::default()
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        match pods.log_stream(&key.pod, &params).await {
            Ok(reader) => Ok(Some(Box::pin(reader))),
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => {
                tracing::debug!(pod = key.pod, reason = status.message, "there is no such log");
                Ok(None)
            }
            Err(error) => Err(from_kube(error)),
        }
    }
}

fn from_kube(error: kube::Error) -> Error {
    crate::error::from_kube("reading a log", error)
}
