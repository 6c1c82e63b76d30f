//! Why a pod does not answer: the node, the scheduler, its volumes, its images, its containers, or the server itself.

use super::{PodEvidence, Trouble, Verdict, crash, image, quote};
use crate::{names, observe::view};
use archestra_core::{catalog::EnvFromKind, runtime::Phase};
use k8s_openapi::api::core::v1::{ContainerStateWaiting, ContainerStatus, Pod};

/// What is to be said of a pod that is there to serve and does not answer.
pub(super) fn judge(evidence: &PodEvidence<'_>) -> Verdict {
    let pod = evidence.pod;
    lost(pod)
        .or_else(|| unscheduled(pod))
        .or_else(|| initializing(evidence))
        .or_else(|| container_trouble(evidence))
        .or_else(|| not_created(evidence))
        .or_else(|| not_answering(evidence))
        .unwrap_or_else(|| Verdict::pending("its pod was made, and its node is about to start it"))
}

/// What is to be said of a pod that has ended for good, and whose replacement is not there yet.
pub(super) fn finished(pod: &Pod) -> Verdict {
    let status = pod.status.as_ref();
    let reason = status.and_then(|status| status.reason.as_deref()).unwrap_or_default();
    let message = quote(status.and_then(|status| status.message.as_deref()).unwrap_or_default());
    let said = if message.is_empty() { String::new() } else { format!(": {message}") };
    match reason {
        "Evicted" => Verdict::pending(format!("its pod was evicted from its node{said}; another one is about to be started"))
            .hint("the node ran short of memory, disk or processes; lower the workload's use, raise its requests, or add nodes"),
        "NodeShutdown" | "Terminated" | "Shutdown" | "NodeAffinity" | "Preempting" | "Preempted" => {
            Verdict::pending(format!("its node ended its pod ({reason}){said}; another one is about to be started"))
        }
        "" => Verdict::pending(format!("its pod ended{said}; another one is about to be started")),
        other => Verdict::pending(format!("its pod ended ({other}){said}; another one is about to be started")),
    }
}

/// The node stopped reporting: the pod is not ready although all its containers are.
fn lost(pod: &Pod) -> Option<Verdict> {
    let status = pod.status.as_ref()?;
    let ready = view::condition(pod, "Ready")?;
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
    let containers = view::containers(pod);
    let contradictory = ready.status == "False"
        && !gates
        && view::condition(pod, "ContainersReady").is_some_and(|ready| ready.status == "True")
        && !containers.is_empty()
        && containers.iter().all(|container| container.ready);
    if !contradictory
        && status.reason.as_deref() != Some("NodeLost")
        && view::phase(pod) != "Unknown"
        && ready.status != "Unknown"
    {
        return None;
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("of its pod");
    Some(
        Verdict::error(
            format!("node {node} does not report any more, so it is not known how its pod is"),
            "the pod comes back with its node; if the node stays away, remove it from the cluster, and another node takes over",
        )
        .since(ready.last_transition_time.as_ref().and_then(view::time)),
    )
}

fn unscheduled(pod: &Pod) -> Option<Verdict> {
    if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
        return None;
    }
    let Some(scheduled) = view::condition(pod, "PodScheduled") else {
        return Some(Verdict::pending("its pod waits for the scheduler"));
    };
    let since = scheduled.last_transition_time.as_ref().and_then(view::time);
    let message = quote(scheduled.message.as_deref().unwrap_or_default());
    match (scheduled.status.as_str(), scheduled.reason.as_deref()) {
        ("False", Some("Unschedulable")) => {
            Some(Verdict::error(format!("no node can take its pod: {message}"), scheduling_hint(&message)).since(since))
        }
        ("False", Some("SchedulingGated")) => {
            Some(Verdict::pending(format!("a scheduling gate holds its pod back: {message}")).since(since))
        }
        ("False", _) => Some(Verdict::pending(format!("its pod could not be scheduled yet: {message}")).since(since)),
        _ => None,
    }
}

fn scheduling_hint(message: &str) -> &'static str {
    let message = message.to_ascii_lowercase();
    if message.contains("insufficient") || message.contains("too many pods") {
        "lower its resource requests in deploymentYaml, remove other workloads, or add nodes"
    } else if message.contains("taint") {
        "add a toleration in deploymentYaml, or remove the taint from a node"
    } else if message.contains("node selector") || message.contains("affinity") || message.contains("didn't match") {
        "correct nodeSelector or affinity in deploymentYaml, or label a node accordingly"
    } else if message.contains("persistentvolumeclaim") || message.contains("volume") {
        "check the volumes in deploymentYaml"
    } else {
        "change what deploymentYaml asks of a node, or add a node that offers it"
    }
}

/// An init container that fails, or takes its time.
fn initializing(evidence: &PodEvidence<'_>) -> Option<Verdict> {
    if view::condition(evidence.pod, "Initialized").is_some_and(|done| done.status == "True") {
        return None;
    }
    for container in view::init_containers(evidence.pod) {
        let state = container.state.as_ref();
        if let Some(waiting) = state.and_then(|state| state.waiting.as_ref())
            && let Some(verdict) = waiting_trouble(evidence, container, waiting)
        {
            return Some(verdict.under(&container.name));
        }
        if let Some(ended) = view::ended(container)
            && ended.exit_code != 0
        {
            return Some(crash::again(evidence, container, ended, Phase::Restarting).under(&container.name));
        }
        if let Some(started) = view::started(container)
            && !container.ready
        {
            return Some(
                Verdict::pending(format!("its init container {} is running", container.name)).since(Some(started)),
            );
        }
    }
    None
}

impl Verdict {
    /// The same of an init container.
    fn under(mut self, container: &str) -> Self {
        self.reason = format!("its init container {container} fails: {}", self.reason);
        self
    }
}

/// A container that cannot be started, or does not stay.
fn container_trouble(evidence: &PodEvidence<'_>) -> Option<Verdict> {
    let server = view::server_name(evidence.pod);
    let mut containers: Vec<_> = view::containers(evidence.pod).iter().collect();
    // The server first: what it says is most likely what is looked for.
    containers.sort_by_key(|container| server != Some(container.name.as_str()));
    containers.into_iter().find_map(|container| {
        let verdict = match container.state.as_ref()? {
            state if state.waiting.is_some() => waiting_trouble(evidence, container, state.waiting.as_ref()?)?,
            state => crash::again(evidence, container, state.terminated.as_ref()?, Phase::Restarting),
        };
        Some(if server == Some(container.name.as_str()) {
            verdict
        } else {
            Verdict { reason: format!("in its container {}: {}", container.name, verdict.reason), ..verdict }
        })
    })
}

fn waiting_trouble(
    evidence: &PodEvidence<'_>,
    container: &ContainerStatus,
    waiting: &ContainerStateWaiting,
) -> Option<Verdict> {
    let reason = waiting.reason.as_deref()?;
    let message = waiting.message.as_deref().unwrap_or_default();
    let since = view::condition(evidence.pod, "ContainersReady")
        .and_then(|condition| condition.last_transition_time.as_ref())
        .and_then(view::time);
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => {
            Some(image::judge(&container.image, reason, message, evidence.troubles).since(since))
        }
        "CrashLoopBackOff" => Some(match view::ended_before(container) {
            Some(ended) => crash::again(evidence, container, ended, Phase::Error),
            None => Verdict::error("its server ends again and again", crash::READ_LOGS).since(since),
        }),
        "CreateContainerConfigError" => Some(configuration(message).since(since)),
        "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError"
        | "ContainerCannotRun" => Some(crash::not_started(message).since(since)),
        _ => None,
    }
}

/// What the kubelet cannot put together for a container.
fn configuration(message: &str) -> Verdict {
    let text = quote(message);
    let lower = text.to_ascii_lowercase();
    let hint = if lower.contains("runasnonroot") || lower.contains("non-numeric user") || lower.contains("run as root")
    {
        "the image runs as root or names its user: set runAsUser of the entry to a number (0 only where policy allows it)"
    } else if lower.contains("couldn't find key") {
        "its Secret lacks a value: fill in the missing field by reinstalling, or correct env in deploymentYaml"
    } else if let Some((kind, name)) = missing_object(message) {
        return Verdict::error(format!("its container cannot be configured: {text}"), missing_hint(kind, name));
    } else {
        "correct the entry's environment, mounts or deploymentYaml"
    };
    Verdict::error(format!("its container cannot be configured: {text}"), hint)
}

/// The kind and the name in `secret "keys" not found`.
fn missing_object(message: &str) -> Option<(EnvFromKind, &str)> {
    let before = message.split_once("\" not found")?.0;
    let (rest, name) = before.rsplit_once('"')?;
    let kind = match rest.trim_end().rsplit([' ', ':']).next()?.to_ascii_lowercase().as_str() {
        "secret" => EnvFromKind::Secret,
        "configmap" => EnvFromKind::ConfigMap,
        _ => return None,
    };
    (!name.is_empty()).then_some((kind, name))
}

fn missing_hint(kind: EnvFromKind, name: &str) -> String {
    let name = quote(name);
    if kind == EnvFromKind::Secret && names::is_of_workload(&name) {
        return format!("its own Secret {name:?} is gone: reinstall, so that it is made again");
    }
    let kind = kind.label();
    format!(
        "make the {kind} {name:?} in its namespace, or correct envFrom of the entry, or deploymentYaml, which names it"
    )
}

/// No container was created yet: volumes, pod network, images.
fn not_created(evidence: &PodEvidence<'_>) -> Option<Verdict> {
    let pod = evidence.pod;
    let server = view::server(pod);
    if server.is_some_and(|server| server.state.as_ref().is_some_and(|state| state.waiting.is_none())) {
        return None;
    }
    let scheduled = view::condition(pod, "PodScheduled")?;
    let since = scheduled.last_transition_time.as_ref().and_then(view::time);
    let has_sandbox =
        view::condition(pod, "PodReadyToStartContainers").is_some_and(|condition| condition.status == "True");
    let trouble = if has_sandbox { None } else { evidence.troubles.iter().rev().find_map(sandbox_trouble) };
    Some(match trouble {
        Some(verdict) => verdict.since(since),
        None => Verdict::pending("its container is being created: its image is pulled and its volumes are mounted")
            .since(since),
    })
}

fn sandbox_trouble(trouble: &Trouble) -> Option<Verdict> {
    let text = quote(&trouble.message);
    match trouble.reason.as_str() {
        "FailedMount" | "FailedAttachVolume" if text.contains("not found") => Some(Verdict::error(
            format!("a volume of its pod cannot be mounted: {text}"),
            "what the volume is made from does not exist: create it, reinstall, or correct the volumes in deploymentYaml",
        )),
        "FailedMount" | "FailedAttachVolume" => {
            let verdict = Verdict::pending(format!("a volume of its pod could not be mounted yet: {text}"));
            Some(Verdict { is_news: true, ..verdict })
        }
        "FailedCreatePodSandBox" | "FailedPodSandBoxStatus" | "NetworkNotReady" => Some(
            Verdict::pending(format!("its node could not set up its pod yet: {text}"))
                .hint("Kubernetes goes on trying; if it lasts, look at the node's container runtime and pod network"),
        ),
        "UnexpectedAdmissionError" | "OutOfcpu" | "OutOfmemory" | "OutOfpods" => Some(Verdict::error(
            format!("its node refuses its pod: {text}"),
            "lower its resource requests in deploymentYaml, or add nodes",
        )),
        _ => None,
    }
}

/// The server runs and does not answer.
fn not_answering(evidence: &PodEvidence<'_>) -> Option<Verdict> {
    let server = view::server(evidence.pod)?;
    let started = view::started(server)?;
    let probe = evidence.troubles.iter().rev().find(|trouble| trouble.reason == "Unhealthy" && trouble.at >= started);
    let detail = probe.map(|trouble| format!(" ({})", quote(&trouble.message))).unwrap_or_default();
    let at = started.format("%F %T UTC");
    if let Some(ended) = view::ended_before(server) {
        let again = crash::again(evidence, server, ended, Phase::Restarting);
        let reason = format!("{}; it was started again at {at} and does not answer yet{detail}", again.reason);
        return Some(Verdict { reason, ..again }.since(Some(started)));
    }
    let quiet = view::condition(evidence.pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
    // A condition that changed well after the start says that it had been ready before.
    let since = quiet.and_then(view::time).filter(|since| (*since - started).num_seconds() > 1);
    let verdict = match since {
        Some(since) => Verdict::pending(format!(
            "its server runs and has not answered since {}{detail}",
            since.format("%F %T UTC")
        ))
        .since(Some(since))
        .hint("read its logs, or restart it; it is ready again as soon as it answers"),
        None => Verdict::pending(format!("its server was started at {at} and does not answer yet{detail}"))
            .since(Some(started))
            .hint("read its logs; check that command and args start an MCP server for this transport, and the port if it has one"),
    };
    Some(Verdict { is_news: probe.is_some(), ..verdict })
}
