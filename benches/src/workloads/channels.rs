//! Load on channels: closed-loop callers with a channel each, all on one thread, as on a worker of the gateway.

use std::{path::PathBuf, process::Stdio, sync::Arc, thread, time::Duration};

use archestra_core::runtime::{
    Connection, Runtime, Workload,
    stdio::{Channel, Multiplexer, MultiplexerOptions},
};
use archestra_k8s::KubernetesRuntime;
use tokio::{
    process::{Child, Command},
    runtime::Builder,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::cluster;
use crate::{
    Failure,
    cpu::Charge,
    load::{Phase, Window},
    message::{CallTemplate, check, first_id},
    stats::Sample,
    target::{Era, StdioServer},
};

const START: Duration = Duration::from_secs(30);
/// What a call may take beyond the window before the run is given up.
const CALL: Duration = Duration::from_secs(15);

/// Where channels come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A process of our own, behind the multiplexer.
    Local(StdioServer),
    /// A workload that runs, by this kubeconfig and in its namespace.
    Cluster(PathBuf, Box<Workload>),
}

/// Runs the callers through one window.
pub(super) fn measure(source: &Source, era: Era, callers: usize, window: Window) -> Result<Sample, Failure> {
    let phase = Arc::new(Phase::default());
    let thread = thread::spawn({
        let (phase, source) = (Arc::clone(&phase), source.clone());
        move || {
            let limit = START + window.warm_up + window.measured + CALL;
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let run = async { timeout(limit, run(&source, era, callers, &phase)).await.map_err(|_| "no end in time")? };
            let latencies = runtime.block_on(run);
            if latencies.is_err() {
                phase.end();
            }
            latencies
        }
    });
    // Everything on the machine, whoever started it: what carries the calls is not ours.
    let timing = phase.time(callers, window, &Charge::process(0));
    let latencies: Result<Vec<u64>, Failure> = thread.join().map_err(|_| "the thread of the callers panicked")?;
    Sample::from_window(latencies?, timing.elapsed, timing.spent)
}

async fn run(source: &Source, era: Era, callers: usize, phase: &Arc<Phase>) -> Result<Vec<u64>, Failure> {
    match source {
        Source::Local(server) => {
            let (mut process, multiplexer) = start(server)?;
            multiplexer.ready().await?;
            let channels = (0..callers).map(|_| multiplexer.channel()).collect::<Result<_, _>>()?;
            let latencies = call(channels, era, phase).await;
            multiplexer.shutdown().await;
            process.kill().await?;
            latencies
        }
        Source::Cluster(kubeconfig, workload) => {
            let namespace = workload.spec.namespace.clone().unwrap_or_default();
            let runtime = KubernetesRuntime::connect(cluster::config(kubeconfig, &namespace)).await?;
            let mut channels = Vec::new();
            for _ in 0..callers {
                channels.push(connect(&runtime, workload).await?);
            }
            let latencies = call(channels, era, phase).await;
            runtime.shutdown().await;
            latencies
        }
    }
}

fn start(server: &StdioServer) -> Result<(Child, Multiplexer), Failure> {
    let mut command = Command::new(&server.program);
    command.args(&server.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut process = command.spawn()?;
    let input = process.stdin.take().ok_or("the stdio server has no stdin")?;
    let output = process.stdout.take().ok_or("the stdio server has no stdout")?;
    Ok((process, Multiplexer::start(output, input, MultiplexerOptions::default())))
}

/// The stream of a process that is attached to may still be that of the measurement before.
async fn connect(runtime: &KubernetesRuntime, workload: &Workload) -> Result<Channel, Failure> {
    let end = Instant::now() + START;
    loop {
        match runtime.connect(&workload.id).await {
            Ok(Connection::Stdio(channel)) => return Ok(channel),
            Ok(Connection::Http(_)) => return Err("it is no stdio server".into()),
            Err(error) if error.is_retryable() && Instant::now() < end => sleep(Duration::from_millis(100)).await,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn call(channels: Vec<Channel>, era: Era, phase: &Arc<Phase>) -> Result<Vec<u64>, Failure> {
    let mut callers = JoinSet::new();
    for (number, channel) in channels.into_iter().enumerate() {
        callers.spawn(run_caller(channel, era, number, Arc::clone(phase)));
    }
    let mut latencies = Vec::new();
    while let Some(caller) = callers.join_next().await {
        latencies.append(&mut caller??);
    }
    Ok(latencies)
}

async fn run_caller(mut channel: Channel, era: Era, number: usize, phase: Arc<Phase>) -> Result<Vec<u64>, Failure> {
    let template = CallTemplate::new(era, "echo");
    let mut latencies = Vec::new();
    let mut id = first_id(number);
    exchange(&mut channel, id, &template).await?;
    phase.caller_is_ready();
    while !phase.is_over() {
        id += 1;
        let start = Instant::now();
        exchange(&mut channel, id, &template).await?;
        let took = start.elapsed();
        if phase.is_measured() {
            latencies.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
    Ok(latencies)
}

async fn exchange(channel: &mut Channel, id: u64, template: &CallTemplate) -> Result<(), Failure> {
    channel.send(template.with_id(id)).await?;
    let answer = channel.recv().await.ok_or("the channel ended")?;
    check(id, &answer)
}
