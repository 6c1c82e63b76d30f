//! The flags of the overhead harness.

use std::{path::PathBuf, time::Duration};

use crate::{Failure, load::Window, pipe::MOST_OUTSTANDING};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
What a `tools/call` costs: direct, through a bare nginx, and through the release binary `archestra`.

  cargo build --release --bin archestra
  cargo bench -p archestra-benches --bench overhead -- [FLAGS]

  --seconds N            length of each measurement (5)
  --quick                one second each, half a second of warm-up
  --rounds N             repeat everything N times, interleaved, and report medians (1)
  --connections A,B,...  concurrent callers (1,8,32,256)
  --only TEXT            only rows whose name contains TEXT, e.g. `direct`, `gateway/modern`, `stdio`;
                         may be repeated
  --threads N            threads of the load generator (1)
  --upstream-threads N   threads of each fast upstream (1)
  --stdio-work MICROS    how long the stdio server works on each call before it writes the answer by itself, as servers
                         built on the SDKs do (30); 0: not at all, and whatever it read is answered with one write
  --archestra PATH       the gateway's binary (beside the fast upstreams, in target/release)
  --json FILE            write every figure of every round as JSON
  --require-nginx        fail when nginx is not installed (Debian: apt-get install nginx-light)
  --require-gateway      fail when the gateway's binary is not there
  --require-wanted       fail when a figure is not as wanted, or was not measured

Rows: direct/http-ERA, nginx/http-ERA, direct/stdio (the process alone on its pipe), and
gateway/CLIENT-ERA/UPSTREAM with UPSTREAM http-modern, http-legacy or stdio.";

const WARM_UP: Duration = Duration::from_secs(1);
const QUICK_WARM_UP: Duration = Duration::from_millis(500);
const LONGEST: u64 = 600;

/// What the flags ask for.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Measure(Options),
}

/// The settings of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) window: Window,
    pub(crate) rounds: usize,
    pub(crate) connections: Vec<usize>,
    pub(crate) only: Vec<String>,
    pub(crate) threads: usize,
    pub(crate) upstream_threads: usize,
    pub(crate) stdio_work: Option<u64>,
    pub(crate) archestra: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) require_nginx: bool,
    pub(crate) require_gateway: bool,
    pub(crate) require_wanted: bool,
}

/// A server that does something at all: one that only echoes in batches measures its pipe.
const STDIO_WORK: u64 = 30;

impl Default for Options {
    fn default() -> Self {
        Self {
            window: Window { warm_up: WARM_UP, measured: Duration::from_secs(5) },
            rounds: 1,
            connections: vec![1, 8, 32, MOST_OUTSTANDING],
            only: Vec::new(),
            threads: 1,
            upstream_threads: 1,
            stdio_work: Some(STDIO_WORK),
            archestra: None,
            json: None,
            require_nginx: false,
            require_gateway: false,
            require_wanted: false,
        }
    }
}

impl Options {
    /// Whether a row of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

/// Reads the flags.
pub(crate) fn parse(arguments: &[String]) -> Result<Command, Failure> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value; see --help"));
        match flag.as_str() {
            // Cargo adds it to every bench target.
            "--bench" => {}
            "--help" | "-h" => return Ok(Command::Help),
            "--seconds" => options.window.measured = Duration::from_secs(number(flag, value()?, LONGEST)?),
            "--quick" => options.window = Window { warm_up: QUICK_WARM_UP, measured: Duration::from_secs(1) },
            "--rounds" => options.rounds = small(flag, value()?, 100)?,
            "--threads" => options.threads = small(flag, value()?, 64)?,
            "--upstream-threads" => options.upstream_threads = small(flag, value()?, 64)?,
            "--stdio-work" => {
                let text = value()?;
                options.stdio_work = if text == "0" { None } else { Some(number(flag, text, 100_000)?) };
            }
            "--connections" => {
                let parts = value()?.split(',');
                options.connections =
                    parts.map(|part| small(flag, part, MOST_OUTSTANDING)).collect::<Result<_, _>>()?;
            }
            "--only" => options.only.push(value()?.clone()),
            "--archestra" => options.archestra = Some(value()?.into()),
            "--json" => options.json = Some(value()?.into()),
            "--require-nginx" => options.require_nginx = true,
            "--require-gateway" => options.require_gateway = true,
            "--require-wanted" => options.require_wanted = true,
            other => return Err(format!("unknown flag `{other}`; see --help").into()),
        }
    }
    Ok(Command::Measure(options))
}

fn number(flag: &str, text: &str, most: u64) -> Result<u64, Failure> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("{flag} takes a whole number from 1 to {most}, not `{text}`").into()),
    }
}

fn small(flag: &str, text: &str, most: usize) -> Result<usize, Failure> {
    Ok(usize::try_from(number(flag, text, most as u64)?)?)
}

#[cfg(test)]
mod tests {
    use super::{Command, parse};

    fn arguments(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flags_are_read_and_refused() {
        let text = "--bench --seconds 2 --connections 1,32 --only direct --only nginx --rounds 3";
        let Command::Measure(options) = parse(&arguments(text)).unwrap() else { panic!("help was not asked for") };
        assert_eq!(options.window.measured.as_secs(), 2);
        assert_eq!(options.connections, [1, 32]);
        assert_eq!(options.rounds, 3);
        assert!(options.wants("nginx/http-modern") && !options.wants("gateway/modern/stdio"));
        for bad in ["--rounds 0", "--connections 1,x", "--connections 257", "--seconds", "--fast"] {
            parse(&arguments(bad)).unwrap_err();
        }
    }
}
