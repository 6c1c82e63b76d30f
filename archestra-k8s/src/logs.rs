//! What workloads write to their logs: what is there, and what comes, across pods and restarts.

mod cursor;
mod follow;
mod line;
mod recent;
mod target;

use crate::{names::Wiring, observe::Observer};
use archestra_core::{
    Error, Result,
    runtime::{LogLine, LogOptions, LogSource, Phase, WorkloadId, WorkloadStatus},
};
use chrono::Utc;
use futures::{StreamExt, stream, stream::BoxStream};
use kube::Client;
use serde::{Deserialize, de::IgnoredAny};
use std::sync::Arc;

/// The lines that are asked for, and with `follow` those to come, until the stream is dropped or the workload removed.
///
/// # Errors
/// `NotFound` for a workload that is not there, `PermissionDenied` where logs may not be read, and `Unavailable` when none
/// of its logs could be.
pub(crate) async fn logs(
    client: &Client,
    observer: &Arc<Observer>,
    namespace: &str,
    id: &WorkloadId,
    options: LogOptions,
) -> Result<BoxStream<'static, Result<LogLine>>> {
    let changes = observer.changed();
    let place = observer.place(id).ok_or_else(|| Error::not_found("workload", id))?;
    let source = Source {
        client: client.clone(),
        observer: Arc::clone(observer),
        namespace: namespace.to_owned(),
        id: id.clone(),
        speaks: Wiring::of(&place.deployment.metadata) == Some(Wiring::Attach),
    };
    let (lines, read) = recent::read(&source, options).await?;
    let lines = stream::iter(lines.into_iter().map(Ok));
    if !options.follow {
        return Ok(lines.boxed());
    }
    Ok(lines.chain(follow::follow(source, read, changes, options)).boxed())
}

/// Whether a line is a message of the protocol. Where a server is attached to, the kubelet logs its standard output too.
pub(crate) fn is_protocol(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Message {
        jsonrpc: String,
        #[serde(flatten)]
        _rest: IgnoredAny,
    }
    let line = line.trim();
    let maybe = line.starts_with('{') && line.contains("\"jsonrpc\"");
    // What is too long was cut, and does not parse any more.
    let cut = line.len() + 8 >= line::MAX_LINE;
    maybe && (cut || serde_json::from_str::<Message>(line).is_ok_and(|message| message.jsonrpc == "2.0"))
}

/// Whose log is read.
struct Source {
    client: Client,
    observer: Arc<Observer>,
    namespace: String,
    id: WorkloadId,
    /// Whether its standard output is the protocol.
    speaks: bool,
}

/// A line of our own.
fn note(text: impl Into<String>) -> LogLine {
    LogLine { at: Utc::now(), source: LogSource::Platform, text: text.into() }
}

/// What is to be said of a workload that does not simply run.
fn explanation(status: &WorkloadStatus) -> Option<String> {
    match (&status.reason, status.phase) {
        (Some(reason), phase) => Some(format!("{}: {reason}", phase.label())),
        (None, Phase::Running) => None,
        (None, phase) => Some(phase.label().to_owned()),
    }
}

#[cfg(test)]
mod tests;
