//! The load generator: closed-loop callers, one connection each, and the window in which their calls count.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    Failure,
    cpu::{Charge, own_used},
    http::Connection,
    message::{CallTemplate, first_id},
    stats::{Sample, Spent},
    target::{Endpoint, Era},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// What a call may take beyond the window before the run is given up.
const CALL_DEADLINE: Duration = Duration::from_secs(15);
const SLICE: Duration = Duration::from_millis(10);

/// How long callers run before and while they are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// How much load: callers, and the threads that carry them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Volume {
    pub(crate) connections: usize,
    pub(crate) threads: usize,
}

/// What every caller calls.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    pub(crate) endpoint: Endpoint,
    pub(crate) era: Era,
    pub(crate) tool: String,
}

// Zero, where a `Phase` begins, is the warm-up.
const MEASURED: u8 = 1;
const OVER: u8 = 2;

/// The signals between the callers and whoever holds the stop-watch.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    now: AtomicU8,
    ready: AtomicUsize,
}

impl Phase {
    pub(crate) fn caller_is_ready(&self) {
        self.ready.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn is_measured(&self) -> bool {
        self.now.load(Ordering::Relaxed) == MEASURED
    }

    pub(crate) fn is_over(&self) -> bool {
        self.now.load(Ordering::Relaxed) == OVER
    }

    pub(crate) fn end(&self) {
        self.now.store(OVER, Ordering::Release);
    }

    /// Waits for `callers`, lets them warm up, opens the window and closes it; an early end shortens everything.
    pub(crate) fn time(&self, callers: usize, window: Window, charge: &Charge) -> Timing {
        let deadline = Instant::now() + CONNECT_DEADLINE;
        while self.ready.load(Ordering::Acquire) < callers && !self.is_over() && Instant::now() < deadline {
            thread::sleep(SLICE);
        }
        self.sleep(window.warm_up);
        let (cpu, client) = (charge.used(), own_used());
        if !self.is_over() {
            self.now.store(MEASURED, Ordering::Release);
        }
        let start = Instant::now();
        self.sleep(window.measured);
        self.end();
        let elapsed = start.elapsed();
        let spent = Spent { measured: charge.used().saturating_sub(cpu), client: own_used().saturating_sub(client) };
        Timing { elapsed, spent }
    }

    fn sleep(&self, length: Duration) {
        let end = Instant::now() + length;
        while !self.is_over() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(SLICE));
        }
    }
}

/// What the stop-watch saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) elapsed: Duration,
    pub(crate) spent: Spent,
}

/// Runs the callers through one window.
pub(crate) fn measure(calls: &Calls, volume: Volume, window: Window, charge: &Charge) -> Result<Sample, Failure> {
    let phase = Arc::new(Phase::default());
    let limit = CONNECT_DEADLINE + window.warm_up + window.measured + CALL_DEADLINE;
    let threads: Vec<_> = (0..volume.threads.min(volume.connections))
        .map(|thread| {
            let mine: Vec<usize> = (thread..volume.connections).step_by(volume.threads).collect();
            let (calls, phase) = (calls.clone(), Arc::clone(&phase));
            thread::spawn(move || {
                let latencies = run_callers(&calls, &mine, &phase, limit);
                if latencies.is_err() {
                    phase.end();
                }
                latencies
            })
        })
        .collect();
    let timing = phase.time(volume.connections, window, charge);
    let mut latencies = Vec::new();
    for thread in threads {
        let of_thread = thread.join().map_err(|_| "a load thread panicked")?;
        latencies.append(&mut of_thread?);
    }
    Sample::from_window(latencies, timing.elapsed, timing.spent)
}

fn run_callers(calls: &Calls, mine: &[usize], phase: &Arc<Phase>, limit: Duration) -> Result<Vec<u64>, Failure> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let all = async {
        let mut callers = JoinSet::new();
        for &number in mine {
            callers.spawn(run_caller(calls.clone(), number, Arc::clone(phase)));
        }
        let mut latencies = Vec::new();
        while let Some(caller) = callers.join_next().await {
            latencies.append(&mut caller??);
        }
        Ok(latencies)
    };
    runtime.block_on(async { timeout(limit, all).await.map_err(|_| "a call was not answered in time")? })
}

async fn run_caller(calls: Calls, number: usize, phase: Arc<Phase>) -> Result<Vec<u64>, Failure> {
    let mut connection = Connection::for_calls(&calls.endpoint, calls.era, &calls.tool).await?;
    let template = CallTemplate::new(calls.era, &calls.tool);
    let mut latencies = Vec::new();
    let mut id = first_id(number);
    connection.call(id, template.with_id(id)).await?;
    phase.caller_is_ready();
    while !phase.is_over() {
        id += 1;
        let body = template.with_id(id);
        let start = Instant::now();
        connection.call(id, body).await?;
        let took = start.elapsed();
        if phase.is_measured() {
            latencies.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
    Ok(latencies)
}
