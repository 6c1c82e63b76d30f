//! The Prometheus metrics: tool calls, their duration and sizes, and the state of workloads.

mod labels;

use super::requests::Requests;
use archestra_core::{
    catalog::Entry,
    consumer::Consumer,
    runtime::{Phase, Runtime, WorkloadId},
    tool::Tool,
};
use labels::CallLabels;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// Seconds: from a warm local call to a slow one.
const DURATIONS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Bytes: from a small message to the default limit and beyond.
const SIZES: [f64; 9] = [256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// The name under which calls to tools that nobody has are counted: no server's, which has no empty name.
const UNKNOWN: &str = "<unknown>";

/// How a call ended, as the label `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallStatus {
    /// The server answered with a result that is no error.
    Success,
    /// Anything else.
    Error,
}

impl CallStatus {
    const fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeploymentLabels {
    server_name: String,
    state: &'static str,
}

/// Which workload is in which phase, and how many of each server are in each.
#[derive(Debug, Default)]
struct Workloads {
    known: HashMap<WorkloadId, (String, Phase)>,
    servers: HashMap<String, [u32; Phase::ALL.len()]>,
}

/// All metrics of one platform.
#[derive(Clone)]
pub struct Meters(Arc<Inner>);

struct Inner {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    durations: Family<CallLabels, Histogram, fn() -> Histogram>,
    requests: Family<CallLabels, Histogram, fn() -> Histogram>,
    responses: Family<CallLabels, Histogram, fn() -> Histogram>,
    deployments: Family<DeploymentLabels, Gauge>,
    audit_dropped: Counter,
    unreadable: Gauge,
    workloads: Mutex<Workloads>,
    /// How many routes count into each series, by the labels of its successes.
    routes: Mutex<HashMap<CallLabels, usize>>,
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meters")
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}

impl Meters {
    /// Fresh metrics in a registry of their own.
    #[must_use]
    pub fn new() -> Self {
        Self::with_runtime(None)
    }

    /// The same, with what this runtime says of itself. It is not kept alive.
    #[must_use]
    pub fn with_runtime(runtime: Option<&Arc<dyn Runtime>>) -> Self {
        let durations: fn() -> Histogram = || Histogram::new(DURATIONS);
        let sizes: fn() -> Histogram = || Histogram::new(SIZES);
        let mut inner = Inner {
            registry: Registry::default(),
            calls: Family::default(),
            durations: Family::new_with_constructor(durations),
            requests: Family::new_with_constructor(sizes),
            responses: Family::new_with_constructor(sizes),
            deployments: Family::default(),
            audit_dropped: Counter::default(),
            unreadable: Gauge::default(),
            workloads: Mutex::default(),
            routes: Mutex::default(),
        };
        let registry = &mut inner.registry;
        registry.register("mcp_tool_calls", "Tool calls", inner.calls.clone());
        registry.register(
            "mcp_tool_call_duration_seconds",
            "Time from the request to the end of its answer",
            inner.durations.clone(),
        );
        registry.register("mcp_request_size_bytes", "Size of a tool call's request body", inner.requests.clone());
        registry.register("mcp_response_size_bytes", "Size of a tool call's answer body", inner.responses.clone());
        registry.register(
            "mcp_server_deployment_status",
            "1 for the present state of a self-hosted server, 0 for the others",
            inner.deployments.clone(),
        );
        registry.register(
            "audit_records_dropped",
            "Audit records lost because the queue was full or the sink refused them",
            inner.audit_dropped.clone(),
        );
        registry.register(
            "catalog_records_unreadable",
            "Records that cannot be read, as ones of a newer version, and that calls are served without",
            inner.unreadable.clone(),
        );
        if let Some(runtime) = runtime {
            registry.register_collector(Box::new(Requests(Arc::downgrade(runtime))));
        }
        Self(Arc::new(inner))
    }

    /// The counters of one tool of one consumer. Made once per route, so that a call only adds to them.
    ///
    /// A series goes with the last route that has its labels, and with the last call on that one.
    pub(crate) fn tool(&self, consumer: &Consumer, entry: &Entry, tool: &Tool) -> Arc<ToolMeters> {
        self.series(consumer, &entry.spec.name, &tool.name)
    }

    /// The counters of calls of one consumer to tools that it does not have. Whatever the callers name, it is one series.
    pub(crate) fn unknown_tool(&self, consumer: &Consumer) -> Arc<ToolMeters> {
        self.series(consumer, "", UNKNOWN)
    }

    fn series(&self, consumer: &Consumer, server: &str, tool: &str) -> Arc<ToolMeters> {
        let (success, error) = CallLabels::of(consumer, server, tool);
        *self.routes().entry(success.clone()).or_default() += 1;
        Arc::new(ToolMeters {
            meters: self.clone(),
            success: (success, OnceLock::new()),
            error: (error, OnceLock::new()),
        })
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<CallLabels, usize>> {
        self.0.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One route less has these labels.
    fn leave(&self, success: &CallLabels, error: &CallLabels) {
        let mut routes = self.routes();
        let Slot::Occupied(mut count) = routes.entry(success.clone()) else { return };
        *count.get_mut() -= 1;
        if *count.get() > 0 {
            return;
        }
        count.remove();
        // Under the lock, so that a new route does not begin to count into what is being removed.
        for labels in [success, error] {
            self.0.calls.remove(labels);
            self.0.durations.remove(labels);
            self.0.requests.remove(labels);
            self.0.responses.remove(labels);
        }
    }

    fn outcome(&self, labels: &CallLabels) -> OutcomeMeters {
        OutcomeMeters {
            calls: self.0.calls.get_or_create_owned(labels),
            duration: self.0.durations.get_or_create_owned(labels),
            request: self.0.requests.get_or_create_owned(labels),
            response: self.0.responses.get_or_create_owned(labels),
        }
    }

    /// Notes how many records of the catalog calls are served without.
    pub(crate) fn unreadable(&self, records: usize) {
        self.0.unreadable.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// Notes the state of a self-hosted server.
    pub fn workload(&self, id: &WorkloadId, server: &str, phase: Phase) {
        let mut workloads = self.workloads();
        let before = workloads.known.insert(id.clone(), (server.to_owned(), phase));
        if before.as_ref().is_some_and(|(name, at)| name == server && *at == phase) {
            return;
        }
        // First what comes: a server that changes its phase is not taken for one that is gone.
        workloads.servers.entry(server.to_owned()).or_default()[place(phase)] += 1;
        self.show(&mut workloads, server);
        if let Some((name, at)) = before {
            self.leave_phase(&mut workloads, &name, at);
        }
    }

    /// Notes that a self-hosted server is gone.
    pub fn workload_gone(&self, id: &WorkloadId) {
        let mut workloads = self.workloads();
        if let Some((name, at)) = workloads.known.remove(id) {
            self.leave_phase(&mut workloads, &name, at);
        }
    }

    fn workloads(&self) -> MutexGuard<'_, Workloads> {
        self.0.workloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_phase(&self, workloads: &mut Workloads, server: &str, phase: Phase) {
        if let Some(counts) = workloads.servers.get_mut(server) {
            counts[place(phase)] = counts[place(phase)].saturating_sub(1);
        }
        self.show(workloads, server);
    }

    /// A server may have several workloads; the gauge counts them per state.
    fn show(&self, workloads: &mut Workloads, server: &str) {
        let counts = workloads.servers.get(server).copied().unwrap_or_default();
        let gone = counts.iter().all(|count| *count == 0);
        if gone {
            workloads.servers.remove(server);
        }
        for phase in Phase::ALL {
            let labels = DeploymentLabels { server_name: server.to_owned(), state: phase.label() };
            if gone {
                self.0.deployments.remove(&labels);
            } else {
                self.0.deployments.get_or_create(&labels).set(i64::from(counts[place(phase)]));
            }
        }
    }

    pub(crate) fn audit_dropped(&self, records: u64) {
        self.0.audit_dropped.inc_by(records);
    }

    /// Everything in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a `String` cannot fail.
        let _ = text::encode(&mut out, &self.0.registry);
        out
    }
}

/// The counters of one tool of one consumer. They are there from the first call on that they count.
#[derive(Debug)]
pub struct ToolMeters {
    meters: Meters,
    success: (CallLabels, OnceLock<OutcomeMeters>),
    error: (CallLabels, OnceLock<OutcomeMeters>),
}

#[derive(Debug)]
struct OutcomeMeters {
    calls: Counter,
    duration: Histogram,
    request: Histogram,
    response: Histogram,
}

impl ToolMeters {
    /// Counts one call.
    pub(crate) fn record(&self, status: CallStatus, took: Duration, request_bytes: u64, response_bytes: u64) {
        let (labels, meters) = match status {
            CallStatus::Success => &self.success,
            CallStatus::Error => &self.error,
        };
        let meters = meters.get_or_init(|| self.meters.outcome(labels));
        meters.calls.inc();
        meters.duration.observe(took.as_secs_f64());
        meters.request.observe(to_f64(request_bytes));
        meters.response.observe(to_f64(response_bytes));
    }
}

impl Drop for ToolMeters {
    fn drop(&mut self) {
        self.meters.leave(&self.success.0, &self.error.0);
    }
}

/// Where a phase is counted.
fn place(phase: Phase) -> usize {
    Phase::ALL.iter().position(|known| *known == phase).unwrap_or_default()
}

/// Sizes stay far below 2⁵², where this would lose anything.
fn to_f64(bytes: u64) -> f64 {
    u32::try_from(bytes).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use archestra_core::{id::InstallationId, testing::fixtures};

    fn count(meters: &ToolMeters) {
        meters.record(CallStatus::Success, Duration::from_millis(1), 1, 1);
        meters.record(CallStatus::Error, Duration::from_millis(1), 1, 1);
    }

    #[test]
    fn series_go_with_the_last_route_that_counts_into_them() {
        let meters = Meters::new();
        let (entry, consumer) = (fixtures::remote_entry("tracker"), fixtures::gateway("finance"));
        let tool = fixtures::tool(&entry, "search");
        let (old, other) =
            (meters.tool(&consumer, &entry, &tool), meters.tool(&consumer, &entry, &fixtures::tool(&entry, "kept")));
        count(&old);
        count(&other);
        let new = meters.tool(&consumer, &entry, &tool);
        drop(old);
        count(&new);
        let shown = meters.render();
        assert!(shown.contains("tool_name=\"search\",status=\"success\"} 2"), "{shown}");
        drop(new);
        let shown = meters.render();
        assert!(!shown.contains("search"), "{shown}");
        assert!(shown.contains("kept"), "{shown}");
        drop(other);
        assert!(!meters.render().contains("tracker"));
        assert!(meters.routes().is_empty());
    }

    #[test]
    fn every_metric_of_a_call_bears_the_labels_of_the_consumer_too() {
        let meters = Meters::new();
        let (entry, mut consumer) = (fixtures::remote_entry("tracker"), fixtures::gateway("finance"));
        consumer.spec.labels.insert("cost/center", "12 \"b\"");
        let tool = meters.tool(&consumer, &entry, &fixtures::tool(&entry, "search"));
        tool.record(CallStatus::Success, Duration::from_millis(3), 300, 70_000);
        let shown = meters.render();
        let labels = format!(
            "agent_id=\"{}\",agent_name=\"finance\",agent_type=\"mcp_gateway\",mcp_server_name=\"tracker\",tool_name=\"search\",status=\"success\",agent_label_cost_center=\"12 \\\"b\\\"\"",
            consumer.id
        );
        for line in [
            format!("mcp_tool_calls_total{{{labels}}} 1"),
            format!("mcp_tool_call_duration_seconds_sum{{{labels}}} 0.003"),
            format!("mcp_tool_call_duration_seconds_bucket{{le=\"0.0025\",{labels}}} 0"),
            format!("mcp_tool_call_duration_seconds_bucket{{le=\"0.005\",{labels}}} 1"),
            format!("mcp_request_size_bytes_sum{{{labels}}} 300.0"),
            format!("mcp_request_size_bytes_count{{{labels}}} 1"),
            format!("mcp_response_size_bytes_sum{{{labels}}} 70000.0"),
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
        }
    }

    #[test]
    fn the_states_of_a_server_go_with_its_last_workload() {
        let meters = Meters::new();
        let (first, second) =
            (WorkloadId::of_installation(InstallationId::new()), WorkloadId::of_installation(InstallationId::new()));
        meters.workload(&first, "tracker", Phase::Running);
        meters.workload(&second, "tracker", Phase::Pending);
        meters.workload_gone(&first);
        assert!(meters.render().contains("server_name=\"tracker\",state=\"running\"} 0"), "{}", meters.render());
        meters.workload(&second, "renamed", Phase::Pending);
        assert!(!meters.render().contains("tracker"));
        meters.workload_gone(&second);
        assert!(!meters.render().contains("server_name"));
    }
}
