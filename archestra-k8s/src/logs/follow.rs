//! Following a workload's log: every pod it gets and every run of their containers, and what happens to them.

use super::{
    Source, explanation, is_protocol,
    line::{Lines, parse},
    note,
    recent::Read,
    target::{self, Extent, Key, Run},
};
use crate::observe::view;
use archestra_core::{
    Result,
    runtime::{LogLine, LogOptions, Phase, WorkloadStatus},
};
use futures::{
    StreamExt,
    stream::{self, AbortHandle, BoxStream, SelectAll},
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// The pause before a log that broke off is read on; it doubles with every try that brings nothing.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long the log of a pod that is gone may still end.
const LEAVE: Duration = Duration::from_secs(3);

/// Goes on where `read` ends.
pub(super) fn follow(
    source: Source,
    read: HashMap<Key, Read>,
    changes: watch::Receiver<u64>,
    options: LogOptions,
) -> BoxStream<'static, Result<LogLine>> {
    let tails = read.into_iter().map(|(key, read)| (key, Tail { read, ..Tail::default() })).collect();
    let mut following = Following {
        said: source.observer.summary(&source.id).and_then(|summary| explanation(&summary.status)),
        pods: HashMap::new(),
        source: Arc::new(source),
        options,
        changes,
        tails,
        streams: SelectAll::new(),
        queue: VecDeque::new(),
        look: true,
        over: false,
    };
    for pod in following.source.observer.pods(&following.source.id) {
        following.pods.insert(view::uid(&pod.metadata).to_owned(), view::name(&pod.metadata).to_owned());
    }
    stream::unfold(following, async |mut following| Some((Ok(following.next().await?), following))).boxed()
}

struct Following {
    source: Arc<Source>,
    options: LogOptions,
    changes: watch::Receiver<u64>,
    /// The pods there are, by uid.
    pods: HashMap<String, String>,
    tails: HashMap<Key, Tail>,
    streams: SelectAll<BoxStream<'static, Item>>,
    queue: VecDeque<LogLine>,
    /// What was said last about how the workload is.
    said: Option<String>,
    /// Whether something may have changed.
    look: bool,
    over: bool,
}

/// The log of one container.
#[derive(Debug, Default)]
struct Tail {
    read: Read,
    open: Option<(Run, AbortHandle)>,
    /// When it may be opened again, after so many tries that brought nothing.
    again: Option<Instant>,
    tries: u32,
    /// Its pod is gone: when it is given up.
    leave: Option<Instant>,
}

#[derive(Debug)]
enum Item {
    Line(Key, Vec<u8>),
    End(Key, Ending),
}

#[derive(Debug)]
enum Ending {
    /// It was read to its end.
    Whole,
    /// It broke off.
    Broken(String),
}

impl Following {
    async fn next(&mut self) -> Option<LogLine> {
        loop {
            if let Some(line) = self.queue.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            if std::mem::take(&mut self.look) {
                self.look_around();
                continue;
            }
            let wake = self.tails.values().flat_map(|tail| [tail.again, tail.leave]).flatten().min();
            tokio::select! {
                Some(item) = self.streams.next(), if !self.streams.is_empty() => self.take(item),
                changed = self.changes.changed() => {
                    // What is observed lives as long as this does.
                    _ = changed;
                    self.look = true;
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.look = true,
            }
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Line(key, bytes) => {
                let (Some(tail), Some(line)) = (self.tails.get_mut(&key), parse(&bytes)) else { return };
                let fresh = tail.read.cursor.accept(&line) && self.options.since.is_none_or(|since| line.at >= since);
                if fresh {
                    tail.tries = 0;
                    if !(self.source.speaks && is_protocol(&line.text)) {
                        self.queue.push_back(line);
                    }
                }
            }
            Item::End(key, ending) => {
                self.look = true;
                let running = self.is_running(&key);
                let Some(tail) = self.tails.get_mut(&key) else { return };
                let Some((run, _)) = tail.open.take() else { return };
                match ending {
                    Ending::Whole if running.as_deref() != Some(run.id.as_str()) => {
                        tail.read.done.push(run.id);
                        return;
                    }
                    Ending::Whole => {}
                    Ending::Broken(reason) => {
                        tracing::debug!(pod = key.pod, reason, "a log that is followed broke off; it is read on");
                        if tail.tries == 1 {
                            self.queue.push_back(note(format!(
                                "the log of pod {} cannot be read at the moment: {reason}",
                                key.pod
                            )));
                        }
                    }
                }
                let pause = (PAUSE * 2_u32.saturating_pow(tail.tries)).min(LONGEST_PAUSE);
                tail.tries = tail.tries.saturating_add(1).min(10);
                tail.again = Some(Instant::now() + pause);
            }
        }
    }

    /// The run of a container that goes on at the moment.
    fn is_running(&self, key: &Key) -> Option<String> {
        let pods = self.source.observer.pods(&self.source.id);
        let pod = pods.iter().find(|pod| view::uid(&pod.metadata) == key.uid)?;
        let container = target::containers(pod).into_iter().find(|container| container.name == key.container)?;
        target::runs(container).into_iter().find(|run| run.running).map(|run| run.id)
    }

    /// Opens what is new, and says what happened.
    fn look_around(&mut self) {
        let id = &self.source.id;
        let (Some(_), Some(summary)) = (self.source.observer.place(id), self.source.observer.summary(id)) else {
            self.queue.push_back(note("the workload was removed"));
            self.over = true;
            return;
        };
        let pods = self.source.observer.pods(id);
        self.note_pods(&pods);
        self.note_status(&summary.status);
        let now = Instant::now();
        for tail in self.tails.values_mut() {
            tail.again = tail.again.filter(|again| *again > now);
        }
        for pod in &pods {
            for container in target::containers(pod) {
                self.follow_container(pod, container);
            }
        }
        self.tails.retain(|_, tail| {
            let stays = tail.leave.is_none_or(|leave| leave > now && tail.open.is_some());
            if let Some((_, handle)) = tail.open.as_ref().filter(|_| !stays) {
                handle.abort();
            }
            stays
        });
    }

    fn note_pods(&mut self, pods: &[Arc<Pod>]) {
        for pod in pods {
            let (uid, name) = (view::uid(&pod.metadata), view::name(&pod.metadata));
            if self.pods.insert(uid.to_owned(), name.to_owned()).is_none() {
                self.queue.push_back(note(format!("pod {name} is started")));
            }
        }
        let (queue, tails) = (&mut self.queue, &mut self.tails);
        self.pods.retain(|uid, name| {
            let stays = pods.iter().any(|pod| view::uid(&pod.metadata) == uid);
            if !stays {
                queue.push_back(note(format!("pod {name} is gone")));
                for (_, tail) in tails.iter_mut().filter(|(key, _)| key.uid == *uid) {
                    tail.again = None;
                    tail.leave = Some(Instant::now() + LEAVE);
                }
            }
            stays
        });
    }

    fn note_status(&mut self, status: &WorkloadStatus) {
        let text = explanation(status);
        if text == self.said {
            return;
        }
        match &text {
            Some(text) => self.queue.push_back(note(text.clone())),
            None if status.phase == Phase::Running => self.queue.push_back(note("running: its server answers")),
            None => {}
        }
        self.said = text;
    }

    fn follow_container(&mut self, pod: &Pod, container: &ContainerStatus) {
        let key = target::key(pod, container);
        let tail = self.tails.entry(key.clone()).or_default();
        if tail.open.is_some() || tail.again.is_some() {
            return;
        }
        let Some(run) = target::runs(container).into_iter().find(|run| !tail.read.done.contains(&run.id)) else {
            return;
        };
        tail.read.cursor.rewind();
        let since = tail.read.cursor.second();
        let stream = open(Arc::clone(&self.source), key, run.clone(), since, self.options);
        let (stream, handle) = stream::abortable(stream);
        self.streams.push(stream.boxed());
        tail.open = Some((run, handle));
    }
}

/// One reading of one run, opened when it is first asked.
fn open(source: Arc<Source>, key: Key, run: Run, since: Option<i64>, options: LogOptions) -> BoxStream<'static, Item> {
    let opened = async move {
        let reader = source.open(&key, &run, since, Extent::Follow(options)).await;
        match reader {
            Ok(Some(reader)) => stream::unfold(Some((Lines::new(reader), key)), read_on).boxed(),
            Ok(None) => stream::iter([Item::End(key, Ending::Whole)]).boxed(),
            Err(error) => stream::iter([Item::End(key, Ending::Broken(error.to_string()))]).boxed(),
        }
    };
    stream::once(opened).flatten().boxed()
}

async fn read_on<R>(state: Option<(Lines<R>, Key)>) -> Option<(Item, Option<(Lines<R>, Key)>)>
where
    R: futures::io::AsyncBufRead + Unpin,
{
    let (mut lines, key) = state?;
    Some(match lines.next().await {
        Ok(Some(line)) => (Item::Line(key.clone(), line), Some((lines, key))),
        Ok(None) => (Item::End(key, Ending::Whole), None),
        Err(error) => (Item::End(key, Ending::Broken(error.to_string())), None),
    })
}
