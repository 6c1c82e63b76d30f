//! Deadlines, pauses and limits of the lifecycle.

use std::{collections::BTreeMap, time::Duration};

/// Deadlines, pauses and limits; the defaults are what the documentation says.
#[derive(Debug, Clone)]
pub struct LifecycleOptions {
    /// What the platform adds to the revisions that people's actions make: base image, bridge image, default limits,
    /// scheduling. Revisions that exist keep what they were made with.
    pub platform: BTreeMap<String, String>,
    /// How often a self-hosted server is asked for its tools before its installation fails.
    pub discover_tries: u32,
    /// How long to wait between those.
    pub discover_pause: Duration,
    /// How long one attempt may take, connecting and listing together.
    pub discover_timeout: Duration,
    /// How long a workload may take until its server answers.
    pub start_timeout: Duration,
    /// How often the status of a starting workload is read.
    pub status_pause: Duration,
    /// How long a runtime may take to accept a workload, to restart or to remove one.
    pub runtime_timeout: Duration,
    /// How often everything is compared without any change having been announced.
    pub resync: Duration,
    /// How long changes are gathered before they are acted on.
    pub debounce: Duration,
    /// How old a secret that no row names must be before it is removed. Longer than any operation takes.
    pub sweep_grace: Duration,
    /// How many revisions of a workload are kept.
    pub revision_history: usize,
    /// How many workloads are applied at the same time.
    pub parallel: usize,
}

impl Default for LifecycleOptions {
    fn default() -> Self {
        Self {
            platform: BTreeMap::new(),
            discover_tries: 6,
            discover_pause: Duration::from_secs(5),
            discover_timeout: Duration::from_secs(60),
            start_timeout: Duration::from_secs(120),
            status_pause: Duration::from_millis(200),
            runtime_timeout: Duration::from_secs(60),
            resync: Duration::from_secs(60),
            debounce: Duration::from_millis(250),
            sweep_grace: Duration::from_secs(3600),
            revision_history: 20,
            parallel: 8,
        }
    }
}
