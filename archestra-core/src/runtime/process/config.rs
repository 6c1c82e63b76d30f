//! How the process runtime is set up: where its state is, what children inherit, how long it waits for what.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// How a supervisor is started: a program that calls [`supervisor::run`](super::supervisor::run), and the arguments that make
/// it do so.
///
/// The runtime appends the workload's id, for people who look at a list of processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorCommand {
    /// The program; an absolute path.
    pub program: PathBuf,
    /// The arguments.
    pub args: Vec<String>,
}

/// How the process runtime is set up.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// What starts a supervisor.
    pub supervisor: SupervisorCommand,
    /// Where workloads have their directories. One runtime at a time uses it.
    pub state_dir: PathBuf,
    /// What every child inherits: `PATH`, `LANG`, `LC_ALL` and `TZ` of the environment the embedder runs in, and nothing else of
    /// it, unless the embedder says so.
    pub inherit: BTreeMap<String, String>,
    /// How long a process may take to end after SIGTERM.
    pub stop_grace: Duration,
    /// How long it may take when we were killed ourselves.
    pub orphan_grace: Duration,
    /// How long a server may take until it answers.
    pub ready_timeout: Duration,
    /// How long [`connect`](crate::runtime::Runtime::connect) waits for a workload that is being started.
    pub connect_wait: Duration,
    /// When a workload that ended is started again.
    pub backoff: Backoff,
    /// How many log lines are kept of each workload.
    pub log_lines: usize,
    /// How many bytes of log are kept of each workload.
    pub log_bytes: usize,
}

impl ProcessConfig {
    /// The defaults.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>, supervisor: SupervisorCommand) -> Self {
        Self {
            supervisor,
            state_dir: state_dir.into(),
            inherit: BTreeMap::new(),
            stop_grace: Duration::from_secs(3),
            orphan_grace: Duration::from_secs(2),
            ready_timeout: Duration::from_secs(60),
            connect_wait: Duration::from_secs(10),
            backoff: Backoff::default(),
            log_lines: 5_000,
            log_bytes: 1024 * 1024,
        }
    }
}

/// When a workload that ended is started again: after a pause that doubles with each failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// A server that ran this long has not failed: the count starts anew.
    pub healthy_after: Duration,
    /// After so many failures in a row the workload's phase is `error`. It is still started again.
    pub failures_until_error: u32,
}

impl Backoff {
    /// The pause after so many failures in a row.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(60),
            healthy_after: Duration::from_secs(60),
            failures_until_error: 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use std::time::Duration;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let backoff = Backoff::default();
        assert_eq!(backoff.pause(1), Duration::from_millis(200));
        assert_eq!(backoff.pause(2), Duration::from_millis(400));
        assert_eq!(backoff.pause(5), Duration::from_millis(3200));
        assert_eq!(backoff.pause(u32::MAX), Duration::from_secs(60));
    }
}
