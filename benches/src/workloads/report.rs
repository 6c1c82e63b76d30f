//! The tables of a run, and the ratios the project is held to.

use std::{fs, thread::available_parallelism};

use super::{Options, Row, Samples, Server, Way};
use crate::{
    stats::Sample,
    wanted::{Verdicts, Wanted},
};

const HEAD: &str = "\
| row | calls/s | p50 µs | p99 µs | machine µs/call | callers µs/call | calls/s ÷ pipe |
|---|--:|--:|--:|--:|--:|--:|
";
const NOTES: &str = "\
`pipe` is the process alone, driven by one writer and reader; `multiplexer` is the process behind the multiplexer in the \
callers' own process. `machine` is the CPU time of everything on this machine (for `pipe` of the server alone), `callers` \
that of the callers and their half of the way. Medians over the rounds.
";

/// Nothing that was delayed by an acknowledgement, which takes 40 ms, is within it.
const NO_TAIL_US: f64 = 20_000.0;

/// The report a person reads.
pub(super) fn markdown(options: &Options, samples: &Samples, missing: Option<&str>) -> String {
    let mut text = format!("# Ways to a stdio server on Kubernetes\n\n{}\n", environment(options));
    if let Some(missing) = missing {
        text.push_str(&format!("\n**{missing}**\n"));
    }
    for &callers in &options.callers {
        text.push_str(&format!("\n## {callers} concurrent\n\n{HEAD}"));
        for row in Row::all() {
            let Some(Sample { calls_per_second, p50_us, p99_us, cpu_us, client_us }) = median(samples, callers, row)
            else {
                continue;
            };
            let ratio = of_pipe(samples, callers, row).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
            text.push_str(&format!(
                "| {row} | {calls_per_second:.0} | {p50_us:.1} | {p99_us:.1} | {cpu_us:.1} | {client_us:.1} | {ratio} |\n"
            ));
        }
    }
    text.push_str(&format!("\n{NOTES}"));
    text.push_str(&verdicts(samples).section());
    text
}

/// What is wanted of the figures.
pub(super) fn verdicts(samples: &Samples) -> Verdicts {
    let small = |way| Row { server: Server::Small, way };
    let (bridge, attach) = (median(samples, 1, small(Way::Bridge)), median(samples, 1, small(Way::Attach)));
    let of_pipe = |way| of_pipe(samples, 32, small(way));
    Verdicts::default()
        .judge("bridge, 1 caller: p50, µs", bridge.map(|sample| sample.p50_us), Wanted::AtMost(500.0))
        .judge("bridge, 1 caller: p99, µs", bridge.map(|sample| sample.p99_us), Wanted::AtMost(NO_TAIL_US))
        .judge("attach, 1 caller: p99, µs", attach.map(|sample| sample.p99_us), Wanted::AtMost(NO_TAIL_US))
        .judge("bridge, 32 callers: calls/s ÷ pipe", of_pipe(Way::Bridge), Wanted::AtLeast(0.8))
        .judge("attach, 32 callers: calls/s ÷ pipe", of_pipe(Way::Attach), Wanted::AtLeast(0.5))
}

fn median(samples: &Samples, callers: usize, row: Row) -> Option<Sample> {
    Sample::median_of(samples.get(&(callers, row))?)
}

fn of_pipe(samples: &Samples, callers: usize, row: Row) -> Option<f64> {
    let pipe = median(samples, callers, Row { way: Way::Pipe, ..row })?;
    Some(median(samples, callers, row)?.calls_per_second / pipe.calls_per_second)
}

fn environment(options: &Options) -> String {
    let cores = available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown");
    format!(
        "{cores} cores, load average {load} at the end, {} s per figure, {} round(s); the small server works {} µs per call.",
        options.window.measured.as_secs(),
        options.rounds,
        options.work
    )
}
