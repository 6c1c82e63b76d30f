//! What is asked of pods and their containers, in the words of Kubernetes' own fields.

use crate::names::CONTAINER;
use chrono::{DateTime, Utc};
use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use std::collections::BTreeSet;

/// A time of the API as everything else here counts it.
pub(crate) fn time(time: &Time) -> Option<DateTime<Utc>> {
    let nanos = u32::try_from(time.0.subsec_nanosecond()).ok()?;
    DateTime::from_timestamp(time.0.as_second(), nanos)
}

/// When this was made.
pub(crate) fn created(meta: &ObjectMeta) -> Option<DateTime<Utc>> {
    meta.creation_timestamp.as_ref().and_then(time)
}

/// Its name.
pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// Its uid.
pub(crate) fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// Whether somebody has asked for its end.
pub(crate) fn is_terminating(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// Whether it has ended for good: evicted, for instance.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it is there to serve: neither ending nor ended.
pub(crate) fn is_live(pod: &Pod) -> bool {
    !is_terminating(&pod.metadata) && !is_finished(pod)
}

/// Whether its server answers.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    is_live(pod) && condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Its phase.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// One of its conditions.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// The name of the container that runs the server: ours, or the first where somebody else named them.
pub(crate) fn server_name(pod: &Pod) -> Option<&str> {
    let containers = &pod.spec.as_ref()?.containers;
    let ours = containers.iter().find(|container| container.name == CONTAINER);
    ours.or_else(|| containers.first()).map(|container| container.name.as_str())
}

/// The container that runs the server, once the kubelet has something to say about it.
pub(crate) fn server(pod: &Pod) -> Option<&ContainerStatus> {
    let name = server_name(pod)?;
    containers(pod).iter().find(|container| container.name == name)
}

/// What the kubelet says of its containers.
pub(crate) fn containers(pod: &Pod) -> &[ContainerStatus] {
    pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default()
}

/// What the kubelet says of its init containers.
pub(crate) fn init_containers(pod: &Pod) -> &[ContainerStatus] {
    pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default()
}

/// The names of all Secrets that the pod's containers read, in variables and in files.
pub(crate) fn secrets_of(pod: &Pod) -> BTreeSet<String> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let variables = containers()
        .flat_map(|container| container.env.iter().flatten())
        .filter_map(|variable| Some(&variable.value_from.as_ref()?.secret_key_ref.as_ref()?.name));
    let sources = containers()
        .flat_map(|container| container.env_from.iter().flatten())
        .filter_map(|source| Some(&source.secret_ref.as_ref()?.name));
    let volumes = || spec.volumes.iter().flatten();
    let mounted = volumes().filter_map(|volume| volume.secret.as_ref()?.secret_name.as_ref());
    let projected = volumes()
        .flat_map(|volume| volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()))
        .filter_map(|source| Some(&source.secret.as_ref()?.name));
    variables.chain(sources).chain(projected).chain(mounted).cloned().collect()
}

/// When the container that runs now was started.
pub(crate) fn started(container: &ContainerStatus) -> Option<DateTime<Utc>> {
    container.state.as_ref()?.running.as_ref()?.started_at.as_ref().and_then(time)
}

/// How the container ended, if it is not running at the moment.
pub(crate) fn ended(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.state.as_ref()?.terminated.as_ref()
}

/// How the run before the present one ended.
pub(crate) fn ended_before(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.last_state.as_ref()?.terminated.as_ref()
}

/// How often the container was started again.
pub(crate) fn restarts(container: &ContainerStatus) -> u32 {
    u32::try_from(container.restart_count).unwrap_or_default()
}
