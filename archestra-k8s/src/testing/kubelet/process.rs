//! The process of a scripted MCP server in a container.

use crate::testing::log::Log;
use archestra_core::{
    runtime::{Connection, LogOptions, LogSource, Phase, Runtime as _, WorkloadEvent, WorkloadId, stdio::Channel},
    testing::{ScriptedRuntime, ScriptedServer, fixtures},
};
use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use std::{sync::Arc, time::Duration};

/// Long enough for the kubelet, who starts another process itself.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// One process of a scripted server: it begins when it is made, and ends when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    door: Door,
    log: Arc<Log>,
}

/// A way to a process, which may outlive it.
#[derive(Debug, Clone)]
pub(super) struct Door {
    runtime: ScriptedRuntime,
    id: WorkloadId,
}

impl Door {
    /// A channel of its own to the server.
    pub(super) async fn channel(&self) -> Option<Channel> {
        match self.runtime.connect(&self.id).await {
            Ok(Connection::Stdio(channel)) => Some(channel),
            _ => None,
        }
    }
}

/// What a process tells about itself.
pub(super) struct Announced(BoxStream<'static, archestra_core::Result<WorkloadEvent>>);

impl Process {
    pub(super) async fn start(server: ScriptedServer, log: Arc<Log>) -> (Self, Announced) {
        let runtime = ScriptedRuntime::new(server).with_delays(Duration::ZERO, NEVER);
        let workload = fixtures::workload(fixtures::workload_spec("server", &["server"]));
        let id = workload.id.clone();
        let announced = Announced(runtime.watch());
        // A runtime that was just made takes what it is scripted for.
        drop(runtime.apply(&workload).await);
        runtime.until(&id, Phase::Running).await;
        (Self { door: Door { runtime, id }, log }, announced)
    }

    /// The way to it.
    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    /// Copies what it writes to the container's log, until it ends; the reason.
    pub(super) async fn ended(&self, mut announced: Announced) -> String {
        let options = LogOptions { tail: None, follow: true, ..LogOptions::default() };
        let Ok(mut lines) = self.door.runtime.logs(&self.door.id, options).await else { return String::new() };
        let write = |line: archestra_core::Result<archestra_core::runtime::LogLine>| {
            if let Ok(line) = line
                && line.source == LogSource::Server
            {
                self.log.write(&line.text);
            }
        };
        loop {
            tokio::select! {
                biased;
                Some(line) = lines.next() => write(line),
                event = announced.0.next() => match event {
                    Some(Ok(WorkloadEvent::Changed(summary))) if summary.status.restarts > 0 => {
                        while let Some(Some(line)) = lines.next().now_or_never() {
                            write(line);
                        }
                        return summary.status.reason.unwrap_or_default();
                    }
                    None => return String::new(),
                    _ => {}
                },
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its first step tells everything to end; there is nothing to wait for.
        let _ended = self.door.runtime.shutdown().now_or_never();
    }
}
