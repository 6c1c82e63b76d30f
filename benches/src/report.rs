//! The tables and the JSON of a run, and the ratios the project is held to.

use std::{collections::BTreeMap, fmt::Write as _, fs, thread::available_parallelism};

use serde_json::{Value, json};

use crate::{
    args::Options,
    nginx::Installed,
    stats::Sample,
    target::{Era, Hop, Row, Upstream},
    wanted::{Verdicts, Wanted},
};

/// Resident memory of the gateway process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Five seconds after the start.
    pub(crate) idle_mib: Option<f64>,
    /// After the last measurement.
    pub(crate) after_mib: Option<f64>,
}

/// Everything a run has found.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) options: &'a Options,
    pub(crate) samples: &'a BTreeMap<(usize, Row), Vec<Sample>>,
    pub(crate) memory: Option<Memory>,
    pub(crate) missing: &'a [String],
}

const HEAD: &str = "\
| row | calls/s | p50 µs | p99 µs | CPU µs/call | client µs/call | calls/s ÷ direct | calls/s ÷ nginx | added p50 µs | added p50 ÷ nginx's |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";
const NOTES: &str = "\
CPU is that of the row's own processes: the upstream for `direct`, nginx with its workers, the gateway with its \
children but without the stdio upstream. `client` is the load generator, which shares the machine. A stdio row \
compares with the process alone on its pipe, driven by one writer and reader. Medians over the rounds.
";

impl Report<'_> {
    fn median(&self, connections: usize, row: Row) -> Option<Sample> {
        Sample::median_of(self.samples.get(&(connections, row))?)
    }

    fn ratios(&self, connections: usize, row: Row) -> Ratios {
        let own = self.median(connections, row);
        let direct = self.median(connections, row.direct()).filter(|_| row.hop != Hop::Direct);
        let nginx = row.nginx().and_then(|nginx| self.median(connections, nginx)).filter(|_| row.hop == Hop::Gateway);
        let added = |over: Option<Sample>| Some(over?.p50_us - direct?.p50_us);
        Ratios {
            of_direct: own.zip(direct).map(|(own, direct)| own.calls_per_second / direct.calls_per_second),
            of_nginx: own.zip(nginx).map(|(own, nginx)| own.calls_per_second / nginx.calls_per_second),
            added_us: added(own),
            added_of_nginx: added(own).zip(added(nginx)).and_then(|(own, nginx)| (nginx > 0.0).then(|| own / nginx)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Ratios {
    of_direct: Option<f64>,
    of_nginx: Option<f64>,
    added_us: Option<f64>,
    added_of_nginx: Option<f64>,
}

/// The report a person reads.
pub(crate) fn markdown(report: &Report<'_>) -> String {
    let mut text = format!("# Overhead of a `tools/call`\n\n{}\n", environment(report));
    for missing in report.missing {
        text.push_str(&format!("\n**{missing}**\n"));
    }
    for &connections in &report.options.connections {
        text.push_str(&format!("\n## {connections} concurrent\n\n{HEAD}"));
        for row in Row::all() {
            if let Some(sample) = report.median(connections, row) {
                text.push_str(&line(row, sample, report.ratios(connections, row)));
            }
        }
    }
    text.push_str(&format!("\n{NOTES}"));
    text.push_str(&verdicts(report).section());
    text
}

fn line(row: Row, sample: Sample, ratios: Ratios) -> String {
    format!(
        "| {row} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} | {} | {} |\n",
        sample.calls_per_second,
        sample.p50_us,
        sample.p99_us,
        sample.cpu_us,
        sample.client_us,
        cell(ratios.of_direct, 2),
        cell(ratios.of_nginx, 2),
        cell(ratios.added_us, 1),
        cell(ratios.added_of_nginx, 2),
    )
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// What is wanted of the figures.
pub(crate) fn verdicts(report: &Report<'_>) -> Verdicts {
    let http = Row { hop: Hop::Gateway, client: Era::Modern, upstream: Upstream::Http(Era::Modern) };
    let stdio = Row { upstream: Upstream::Stdio, ..http };
    let over_http = report.ratios(32, http).of_nginx;
    let added = report.ratios(1, http).added_of_nginx;
    let over_stdio = report.ratios(32, stdio).of_direct;
    let idle = report.memory.and_then(|memory| memory.idle_mib);
    Verdicts::default()
        .judge("calls/s ÷ nginx, modern over http, 32 callers", over_http, Wanted::AtLeast(0.65))
        .judge("added p50 ÷ nginx's, modern over http, 1 caller", added, Wanted::AtMost(1.8))
        .judge("calls/s ÷ the process alone, modern over stdio, 32 callers", over_stdio, Wanted::AtLeast(0.60))
        .judge("idle resident memory, MiB", idle, Wanted::AtMost(40.0))
}

fn environment(report: &Report<'_>) -> String {
    let cores = available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown");
    let nginx = Installed::find();
    let stdio = match report.options.stdio_work {
        Some(micros) => format!("stdio server works {micros} µs per call"),
        None => "stdio server answers in batches".to_owned(),
    };
    let mut text = format!(
        "{cores} cores, load average {load} at the end, {} s per figure, {} round(s), {} load thread(s), {}, {}.",
        report.options.window.measured.as_secs(),
        report.options.rounds,
        report.options.threads,
        nginx.as_ref().map_or("no nginx", Installed::version),
        stdio,
    );
    if let Some(memory) = report.memory {
        let written = write!(
            text,
            " Gateway resident memory: {} MiB idle, {} MiB after the load.",
            cell(memory.idle_mib, 1),
            cell(memory.after_mib, 1),
        );
        written.expect("writing to a string cannot fail");
    }
    text
}

/// The report a program reads: every sample of every round, and the medians' ratios.
pub(crate) fn json(report: &Report<'_>) -> Value {
    let figure = |sample: &Sample| {
        json!({
            "callsPerSecond": sample.calls_per_second,
            "p50Us": sample.p50_us,
            "p99Us": sample.p99_us,
            "cpuUsPerCall": sample.cpu_us,
            "clientCpuUsPerCall": sample.client_us,
        })
    };
    let rows: Vec<Value> = report
        .samples
        .iter()
        .map(|(&(connections, row), samples)| {
            let ratios = report.ratios(connections, row);
            json!({
                "row": row.to_string(),
                "connections": connections,
                "median": Sample::median_of(samples).as_ref().map(figure),
                "rounds": samples.iter().map(figure).collect::<Vec<_>>(),
                "throughputOfDirect": ratios.of_direct,
                "throughputOfNginx": ratios.of_nginx,
                "addedP50Us": ratios.added_us,
                "addedP50OfNginx": ratios.added_of_nginx,
            })
        })
        .collect();
    json!({
        "environment": environment(report),
        "missing": report.missing,
        "idleMiB": report.memory.and_then(|memory| memory.idle_mib),
        "afterLoadMiB": report.memory.and_then(|memory| memory.after_mib),
        "rows": rows,
    })
}

#[cfg(test)]
mod tests;
