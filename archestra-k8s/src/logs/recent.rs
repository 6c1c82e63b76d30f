//! What is in the logs of a workload: all its pods in one, the runs before the present one where they say why it fails.

use super::{
    Source,
    cursor::Cursor,
    explanation, is_protocol,
    line::{Lines, parse},
    note,
    target::{self, Extent, Key, Run},
};
use crate::{error::BACKEND, observe::view};
use archestra_core::{
    Error, Result,
    runtime::{LogLine, LogOptions, LogSource},
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// How long reading may take, all logs together.
const LIMIT: Duration = Duration::from_secs(30);
/// How many lines are held at most, and how many bytes.
const MAX_LINES: usize = 50_000;
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What was read of one container.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) cursor: Cursor,
    /// The runs that have nothing more to say.
    pub(super) done: Vec<String>,
}

/// What is there, and how far each container was read.
pub(super) async fn read(source: &Source, options: LogOptions) -> Result<(Vec<LogLine>, HashMap<Key, Read>)> {
    let pods = source.observer.pods(&source.id);
    let end = Instant::now() + LIMIT;
    let mut found = Found { limit: options.tail.unwrap_or(MAX_LINES).min(MAX_LINES), ..Found::default() };
    for pod in &pods {
        for container in target::containers(pod) {
            found.container(source, pod, container, options, end).await?;
        }
    }
    if found.lines.is_empty() && !found.missing.is_empty() {
        return Err(found.missing.swap_remove(0).1);
    }
    let missing = found.missing.iter().map(|(pod, error)| note(format!("a log of pod {pod} is missing: {error}")));
    found.lines.extend(missing);
    if !options.previous
        && let Some(text) = source.observer.summary(&source.id).and_then(|summary| explanation(&summary.status))
    {
        found.lines.push(note(text));
    }
    let Found { mut lines, read, limit, .. } = found;
    lines.sort_by_key(|line| line.at);
    let surplus = lines.len().saturating_sub(limit);
    lines.drain(..surplus);
    Ok((lines, read))
}

#[derive(Debug, Default)]
struct Found {
    lines: Vec<LogLine>,
    read: HashMap<Key, Read>,
    limit: usize,
    /// The pods whose logs could not be read, and why.
    missing: Vec<(String, Error)>,
}

impl Found {
    async fn container(
        &mut self,
        source: &Source,
        pod: &Arc<Pod>,
        container: &ContainerStatus,
        options: LogOptions,
        end: Instant,
    ) -> Result<()> {
        let runs = target::runs(container);
        let key = target::key(pod, container);
        let mut read = Read::default();
        let last = runs.len().saturating_sub(1);
        let ended = runs.iter().rposition(|run| !run.running);
        for (n, run) in runs.iter().enumerate() {
            let is_last = n == last;
            // The run before says why a server fails; of one that answers it is history, and asked for by name.
            let shown = if options.previous { Some(n) == ended } else { is_last || !container.ready };
            if !(shown || is_last && options.follow) {
                read.done.push(run.id.clone());
                continue;
            }
            let options = if shown { options } else { LogOptions { tail: Some(0), since: None, ..options } };
            let text = timeout_at(end, text(source, &key, run, &mut read.cursor, options)).await;
            let text = text.unwrap_or(Err(Error::Timeout { operation: "reading a log", after: LIMIT }));
            match text {
                Ok(text) if shown => self.lines.extend(text),
                Ok(_) => {}
                Err(error @ Error::PermissionDenied { .. }) => return Err(error),
                Err(error) => self.missing.push((key.pod.clone(), error)),
            }
            if !run.running {
                self.lines.extend(
                    ending(container, run).filter(|line| shown && options.since.is_none_or(|since| line.at >= since)),
                );
                read.done.push(run.id.clone());
            }
        }
        self.read.insert(key, read);
        Ok(())
    }
}

/// The lines of one run that are asked for.
async fn text(
    source: &Source,
    key: &Key,
    run: &Run,
    cursor: &mut Cursor,
    options: LogOptions,
) -> Result<VecDeque<LogLine>> {
    let mut kept = VecDeque::new();
    // Each run is a log of its own: where the one before ended says nothing about this one.
    let Some(reader) = source.open(key, run, None, Extent::Recent(options)).await? else {
        return Ok(kept);
    };
    let limit = options.tail.unwrap_or(MAX_LINES).min(MAX_LINES);
    let (mut lines, mut bytes) = (Lines::new(reader), 0);
    loop {
        let line = lines.next().await.map_err(|error| Error::unavailable(BACKEND, error))?;
        let Some(line) = line else { return Ok(kept) };
        let Some(line) = parse(&line) else { continue };
        let fresh = cursor.accept(&line) && options.since.is_none_or(|since| line.at >= since);
        if !fresh || source.speaks && is_protocol(&line.text) {
            continue;
        }
        bytes += line.text.len();
        kept.push_back(line);
        while kept.len() > limit || bytes > MAX_BYTES {
            let Some(oldest) = kept.pop_front() else { break };
            bytes -= oldest.text.len();
        }
    }
}

/// How a run ended, where its log ends.
fn ending(container: &ContainerStatus, run: &Run) -> Option<LogLine> {
    let ended = [view::ended(container), view::ended_before(container)];
    let ended = ended.into_iter().flatten().find(|ended| ended.container_id.as_deref() == Some(run.id.as_str()))?;
    let at = ended.finished_at.as_ref().and_then(view::time)?;
    let reason = ended.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let text = format!("container {} ended with exit code {}{reason}", container.name, ended.exit_code);
    Some(LogLine { at, source: LogSource::Platform, text })
}
