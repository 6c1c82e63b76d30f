//! The suite of [`Runtime`].
//!
//! It needs real workloads, so it takes a [`RuntimeFixture`]: the runtime, and specifications of servers that it can run. What
//! a fixture does not have, and what a runtime says it cannot do, is not checked.

mod client;
mod connect;
mod faults;
mod lifecycle;
mod logs;

pub use connect::*;
pub use faults::*;
pub use lifecycle::*;
pub use logs::*;

use super::{fixture_suite, works};
use crate::{
    runtime::{
        Connection, LogLine, LogOptions, Phase, Runtime, Workload, WorkloadId, WorkloadSpec, WorkloadStatus,
        stdio::Channel,
    },
    testing::fixtures,
};
use futures::StreamExt as _;
use std::{any::Any, fmt, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

fixture_suite! {
    $
    /// One `#[test]` for each case of the [runtime suite](crate::testing::conformance::runtime): a module name and an
    /// expression that yields a [`RuntimeFixture`](crate::testing::conformance::runtime::RuntimeFixture) around a runtime
    /// without workloads.
    runtime_conformance, runtime, RuntimeFixture, [
        runs_what_is_applied,
        applying_again_changes_nothing,
        a_changed_workload_is_rolled,
        an_older_revision_is_refused,
        parallel_applies_make_one_workload,
        unknown_workloads_are_not_found,
        removal_leaves_nothing,
        a_removed_workload_can_be_applied_again,
        a_watch_tells_everything_from_now_on,
        a_restart_starts_anew,
        shutdown_can_be_repeated,
        refuses_what_it_cannot_do,
        shows_no_secret,
        answers_calls,
        interleaved_calls_never_cross,
        connections_are_independent,
        many_connect_at_once,
        a_removal_ends_connections,
        what_ends_at_once_is_reported,
        what_does_not_exist_is_reported,
        what_never_answers_is_not_ready,
        logs_hold_what_the_server_wrote,
        logs_follow_over_a_restart,
    ]
}

/// A runtime, and what it can run.
///
/// ```
/// use archestra_core::testing::{Answer, ScriptedRuntime, ScriptedServer, conformance::runtime::RuntimeFixture, fixtures};
/// use std::sync::Arc;
///
/// let server = ScriptedServer::new("echo").tool("echo", |arguments| Answer::text(arguments["text"].as_str().unwrap_or_default()));
/// let fixture = RuntimeFixture::new(Arc::new(ScriptedRuntime::new(server)), fixtures::workload_spec("echo", &["echo"]));
/// ```
pub struct RuntimeFixture {
    pub(super) runtime: Arc<dyn Runtime>,
    echo: WorkloadSpec,
    started_line: Option<String>,
    exits: Option<WorkloadSpec>,
    missing: Option<WorkloadSpec>,
    silent: Option<WorkloadSpec>,
    limit: Duration,
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for RuntimeFixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeFixture")
            .field("runtime", &self.runtime)
            .field("echo", &self.echo)
            .finish_non_exhaustive()
    }
}

impl RuntimeFixture {
    /// A runtime, and a stdio MCP server with a tool `echo` that answers with the argument `text` as text.
    pub fn new(runtime: Arc<dyn Runtime>, echo: WorkloadSpec) -> Self {
        Self {
            runtime,
            echo,
            started_line: None,
            exits: None,
            missing: None,
            silent: None,
            limit: Duration::from_secs(30),
            _kept: None,
        }
    }

    /// What the echo server writes to its log, as a part of one line, whenever it starts.
    #[must_use]
    pub fn started_line(mut self, text: impl Into<String>) -> Self {
        self.started_line = Some(text.into());
        self
    }

    /// A workload whose process ends as soon as it has started.
    #[must_use]
    pub fn exits(mut self, spec: WorkloadSpec) -> Self {
        self.exits = Some(spec);
        self
    }

    /// A workload whose command does not exist.
    #[must_use]
    pub fn missing(mut self, spec: WorkloadSpec) -> Self {
        self.missing = Some(spec);
        self
    }

    /// A stdio workload whose process runs and never answers.
    #[must_use]
    pub fn silent(mut self, spec: WorkloadSpec) -> Self {
        self.silent = Some(spec);
        self
    }

    /// How long a workload may take to get anywhere; 30 s if nothing is said.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Something that is dropped with the fixture: a temporary directory, a cluster.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any + Send + Sync) -> Self {
        self._kept = Some(Box::new(guard));
        self
    }

    /// Removes all workloads and shuts the runtime down. Called after each case.
    pub async fn clean_up(&self) {
        for workload in self.runtime.list().await.unwrap_or_default() {
            works(self.runtime.remove(&workload.id).await, "a workload can be removed");
        }
        let down = timeout(self.limit, self.runtime.shutdown()).await;
        assert!(down.is_ok(), "a shutdown ends within {:?}", self.limit);
    }

    fn echo(&self) -> Workload {
        fixtures::workload(self.echo.clone())
    }

    /// An echo workload that runs.
    async fn running(&self) -> Workload {
        let workload = self.echo();
        works(self.runtime.apply(&workload).await, "a workload can be applied");
        self.ready(&workload.id).await;
        workload
    }

    async fn status(&self, id: &WorkloadId) -> WorkloadStatus {
        works(self.runtime.status(id).await, "a workload that was applied has a status")
    }

    async fn ready(&self, id: &WorkloadId) -> WorkloadStatus {
        self.status_where(id, "it runs", |status| status.phase == Phase::Running).await
    }

    /// Waits for a status.
    async fn status_where(
        &self,
        id: &WorkloadId,
        what: &str,
        fits: impl Fn(&WorkloadStatus) -> bool + Send + Sync,
    ) -> WorkloadStatus {
        let end = Instant::now() + self.limit;
        loop {
            let status = self.status(id).await;
            if fits(&status) {
                return status;
            }
            assert!(Instant::now() < end, "not within {:?}: {what}; the workload is {status:?}", self.limit);
            sleep(Duration::from_millis(25)).await;
        }
    }

    /// A channel to a workload that runs, as soon as the runtime gives one.
    async fn channel(&self, id: &WorkloadId) -> Channel {
        let end = Instant::now() + self.limit;
        loop {
            match self.runtime.connect(id).await {
                Ok(Connection::Stdio(channel)) => return channel,
                Ok(Connection::Http(_)) => panic!("a workload that speaks stdio is reached over a channel"),
                Err(error) if error.is_retryable() && Instant::now() < end => sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("a workload that runs can be connected to: {error:?}"),
            }
        }
    }

    async fn log(&self, id: &WorkloadId, options: LogOptions) -> Vec<LogLine> {
        let lines = works(self.runtime.logs(id, options).await, "the log of a workload can be read");
        let read = timeout(self.limit, lines.collect::<Vec<_>>()).await;
        let lines = read.unwrap_or_else(|_| panic!("a log that is not followed ends"));
        lines.into_iter().map(|line| works(line, "a log can be read to its end")).collect()
    }
}
