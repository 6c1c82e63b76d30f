//! Containers that ended or cannot be started: what the exit code, the signal and the runtime's text mean.

use super::{Ended, PodEvidence, Verdict, quote};
use crate::observe::view;
use archestra_core::runtime::Phase;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};

/// What can always be done.
pub(super) const READ_LOGS: &str = "read the logs of the run before";

/// A container that ended like this, and is started again now or later.
pub(super) fn again(
    evidence: &PodEvidence<'_>,
    container: &ContainerStatus,
    ended: &ContainerStateTerminated,
    phase: Phase,
) -> Verdict {
    if let Some(verdict) = never_ran(ended) {
        return Verdict { phase, ..verdict };
    }
    let who = if view::server_name(evidence.pod) == Some(container.name.as_str()) { "its server" } else { "it" };
    let (mut reason, mut hint) = meaning(who, ended);
    match view::restarts(container) {
        0 => {}
        1 => reason.push_str(", and was restarted once"),
        times => reason = format!("{reason}, and was restarted {times} times"),
    }
    let words = evidence.words.filter(|words| !words.is_empty());
    if let Some(words) = words {
        let lower = words.to_ascii_lowercase();
        if lower.contains("eacces") || lower.contains("permission denied") || lower.contains("read-only file system") {
            hint = "its user may not do what it tries: let the image work without root, or set runAsUser of the entry"
                .to_owned();
        }
        hint = format!("{hint}; its last words: {words}");
    }
    let verdict = Verdict::new(phase, reason).since(ended.finished_at.as_ref().and_then(view::time));
    Verdict { asks: asks(evidence, container, ended), ..verdict.hint(hint) }
}

/// What the container runtime says when it cannot start a container at all.
pub(super) fn not_started(message: &str) -> Verdict {
    let text = quote(message);
    let lower = text.to_ascii_lowercase();
    let hint = if lower.contains("executable file not found")
        || lower.contains("no such file or directory")
        || lower.contains("no command specified")
    {
        "check command: the image has no such program"
    } else if lower.contains("permission denied") {
        "the program is not executable for the user it runs as: check command, or set runAsUser of the entry"
    } else if lower.contains("exec format error") {
        "the image is made for another processor architecture than the node's"
    } else {
        "check image, command and deploymentYaml"
    };
    Verdict::error(format!("its container cannot be started: {text}"), hint)
}

/// A process that was never started has no exit code of its own.
fn never_ran(ended: &ContainerStateTerminated) -> Option<Verdict> {
    let never = matches!(ended.reason.as_deref(), Some("StartError" | "ContainerCannotRun" | "ContainerStatusUnknown"));
    let message = ended.message.as_deref().filter(|message| never && !message.trim().is_empty())?;
    Some(not_started(message).since(ended.finished_at.as_ref().and_then(view::time)))
}

fn meaning(who: &str, ended: &ContainerStateTerminated) -> (String, String) {
    if ended.reason.as_deref() == Some("OOMKilled") {
        return (
            format!("{who} used more memory than its limit and was killed (OOMKilled)"),
            "raise the memory limit in deploymentYaml".to_owned(),
        );
    }
    let code = ended.exit_code;
    let signal = ended.signal.filter(|signal| *signal > 0).or_else(|| (129..=159).contains(&code).then(|| code - 128));
    if let Some(signal) = signal {
        let name = signal_name(signal).map(|name| format!(" ({name})")).unwrap_or_default();
        let hint = match signal {
            9 => "something killed it: a failed liveness probe, or too little memory on the node",
            6 | 11 => "the program crashed: use another version of the server or of its image",
            _ => READ_LOGS,
        };
        return (format!("{who} was ended by signal {signal}{name}"), hint.to_owned());
    }
    let hint = match code {
        0 => "an MCP server has to go on running: check command and args",
        126 => "the program cannot be executed: check command, and the image's file permissions",
        127 => "the program was not found in the image: check command",
        _ => READ_LOGS,
    };
    (format!("{who} ended with exit code {code}"), hint.to_owned())
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return None,
    })
}

fn asks(evidence: &PodEvidence<'_>, container: &ContainerStatus, ended: &ContainerStateTerminated) -> Option<Ended> {
    let meta = &evidence.pod.metadata;
    Some(Ended {
        pod: view::name(meta).to_owned(),
        uid: view::uid(meta).to_owned(),
        container: container.name.clone(),
        run: ended.container_id.clone().filter(|run| !run.is_empty())?,
        previous: view::started(container).is_some(),
    })
}
