//! A run from start to end: starts what the wanted rows need, measures in interleaved rounds, reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    Failure, Programs,
    args::Options,
    gateway::{Gateway, Installs},
    load::{self, Calls, Volume},
    nginx::{Installed, Nginx},
    pipe,
    report::{self, Memory, Report},
    stats::Sample,
    target::{Endpoint, Era, Hop, Link, Row, StdioServer, Target, Upstream},
    upstream::FastUpstream,
};

/// Everything that runs beside the harness; dropped as a whole, the gateway and nginx before their upstreams.
#[derive(Debug)]
struct Stage {
    gateway: Option<Gateway>,
    nginx: BTreeMap<Era, Nginx>,
    upstreams: BTreeMap<Era, FastUpstream>,
    stdio: StdioServer,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the harness is a program and this is its answer")]
pub(crate) fn run(programs: &Programs, options: &Options) -> Result<ExitCode, Failure> {
    let wanted: Vec<Row> = Row::all().into_iter().filter(|row| options.wants(&row.to_string())).collect();
    if wanted.is_empty() {
        return Err("no row has a name that --only asks for; see --help".into());
    }
    let mut missing = Vec::new();
    let stage = Stage::set(programs, options, &wanted, &mut missing)?;
    for text in &missing {
        eprintln!("overhead: {text}");
    }
    let targets: Vec<Target> = wanted.iter().filter_map(|&row| stage.target(row)).collect();
    let mut samples: BTreeMap<(usize, Row), Vec<Sample>> = BTreeMap::new();
    for &connections in &options.connections {
        for round in 0..options.rounds {
            // Back and forth, so that a machine that grows slower or faster favours nobody.
            let mut order: Vec<&Target> = targets.iter().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for target in order {
                eprintln!("overhead: {connections:>3} × {} (round {} of {})", target.row, round + 1, options.rounds);
                let sample = measure(target, connections, options)
                    .map_err(|failure| format!("{} with {connections} callers: {failure}", target.row))?;
                samples.entry((connections, target.row)).or_default().push(sample);
            }
        }
    }
    let memory = stage
        .gateway
        .as_ref()
        .map(|gateway| Memory { idle_mib: gateway.idle_mib(), after_mib: gateway.resident_mib() });
    drop(stage);
    let report = Report { options, samples: &samples, memory, missing: &missing };
    println!("{}", report::markdown(&report));
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&report::json(&report))?)?;
    }
    if options.require_wanted {
        let missed = report::verdicts(&report).missed();
        if !missed.is_empty() {
            return Err(format!("not as wanted: {}", missed.join("; ")).into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(target: &Target, connections: usize, options: &Options) -> Result<Sample, Failure> {
    match &target.link {
        Link::Http { endpoint, tool, charge } => {
            let calls = Calls { endpoint: endpoint.clone(), era: target.row.client, tool: tool.clone() };
            load::measure(&calls, Volume { connections, threads: options.threads }, options.window, charge)
        }
        Link::Pipe { server } => pipe::measure(server, Era::Modern, connections, options.window),
    }
}

impl Stage {
    /// Starts what the rows need; what is not installed is told in `missing`, or fails where it is required.
    fn set(programs: &Programs, options: &Options, rows: &[Row], missing: &mut Vec<String>) -> Result<Self, Failure> {
        let wants = |hop| rows.iter().any(|row| row.hop == hop);
        let mut eras: BTreeSet<Era> = rows
            .iter()
            .filter_map(|row| match row.upstream {
                Upstream::Http(era) => Some(era),
                Upstream::Stdio => None,
            })
            .collect();
        let archestra = binary(programs, options);
        let with_gateway = wants(Hop::Gateway) && archestra.is_file();
        if wants(Hop::Gateway) && !with_gateway {
            let text = format!(
                "the gateway rows are missing: {} is not there (cargo build --release --bin archestra)",
                archestra.display()
            );
            absent(text, options.require_gateway, missing)?;
        }
        if with_gateway {
            eras.extend([Era::Modern, Era::Legacy]);
        }
        let work = options.stdio_work.map(|micros| ["--work".to_owned(), micros.to_string()]);
        let stdio = StdioServer { program: programs.fast_stdio.clone(), args: work.into_iter().flatten().collect() };
        let mut stage = Self { gateway: None, nginx: BTreeMap::new(), upstreams: BTreeMap::new(), stdio };
        for &era in &eras {
            let upstream = FastUpstream::start(&programs.fast_upstream, era, options.upstream_threads)?;
            stage.upstreams.insert(era, upstream);
        }
        if wants(Hop::Nginx) {
            match Installed::find() {
                Some(installed) => {
                    let proxied = rows.iter().filter(|row| row.hop == Hop::Nginx).map(|row| row.client);
                    for era in proxied {
                        stage.nginx.insert(era, Nginx::start(&installed, stage.http(era)?)?);
                    }
                }
                None => {
                    let text = "the nginx rows and ratios are missing: no nginx on this machine \
                                (Debian: apt-get install nginx-light)";
                    absent(text.to_owned(), options.require_nginx, missing)?;
                }
            }
        }
        if with_gateway {
            let installs = Installs {
                modern: stage.http(Era::Modern)?.clone(),
                legacy: stage.http(Era::Legacy)?.clone(),
                stdio: stage.stdio.clone(),
            };
            stage.gateway = Some(Gateway::start(&archestra, &installs)?);
        }
        Ok(stage)
    }

    fn http(&self, era: Era) -> Result<&Endpoint, Failure> {
        let upstream = self.upstreams.get(&era).ok_or("the fast upstream was not started")?;
        Ok(&upstream.endpoint)
    }

    /// How a row is reached, when what it needs is there.
    fn target(&self, row: Row) -> Option<Target> {
        let echo = || "echo".to_owned();
        let link = match (row.hop, row.upstream) {
            (Hop::Direct | Hop::Nginx, Upstream::Stdio) => Link::Pipe { server: self.stdio.clone() },
            (Hop::Direct, Upstream::Http(era)) => {
                let upstream = self.upstreams.get(&era)?;
                Link::Http { endpoint: upstream.endpoint.clone(), tool: echo(), charge: upstream.charge() }
            }
            (Hop::Nginx, Upstream::Http(era)) => {
                let nginx = self.nginx.get(&era)?;
                Link::Http { endpoint: nginx.endpoint.clone(), tool: echo(), charge: nginx.charge() }
            }
            (Hop::Gateway, upstream) => {
                let gateway = self.gateway.as_ref()?;
                Link::Http {
                    endpoint: gateway.endpoint.clone(),
                    tool: Gateway::tool(upstream),
                    charge: gateway.charge(),
                }
            }
        };
        Some(Target { row, link })
    }
}

/// The named binary, or the one Cargo puts beside the fast upstreams.
fn binary(programs: &Programs, options: &Options) -> PathBuf {
    let beside = programs.fast_upstream.parent().unwrap_or(Path::new(".")).join("archestra");
    options.archestra.clone().unwrap_or(beside)
}

fn absent(text: String, required: bool, missing: &mut Vec<String>) -> Result<(), Failure> {
    if required {
        return Err(text.into());
    }
    missing.push(text);
    Ok(())
}
