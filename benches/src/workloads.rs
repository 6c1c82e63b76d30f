//! What the ways to a stdio server on Kubernetes cost: the bridge and attach, beside the same process on a local pipe and the
//! same server over streamable-http.

mod channels;
mod cluster;
mod report;

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use crate::{
    Failure, Programs,
    cpu::Charge,
    load::{self, Calls, Volume, Window},
    pipe,
    stats::Sample,
    target::{Era, StdioServer},
};
use cluster::Cluster;

const HELP: &str = "\
What a `tools/call` costs on each way to a stdio server on Kubernetes: the bridge and attach, beside the
same process on a pipe of this machine, alone and behind the multiplexer, and the same server over
streamable-http in the cluster.

  ARCHESTRA_IMAGE_TOOL=... .ci/k8s-images        the images, localhost/archestra-{bridge,bench,everything}:test
  ARCHESTRA_TEST_KUBECONFIG=... cargo bench -p archestra-benches --features workloads --bench workloads -- [FLAGS]

  --seconds N            length of each measurement (5)
  --quick                one second each, half a second of warm-up
  --rounds N             repeat everything N times, interleaved, and report medians (1)
  --callers A,B,...      concurrent callers (1,32)
  --only TEXT            only rows whose name contains TEXT, e.g. `small`, `bridge`; may be repeated
  --work MICROS          how long the small server works on each call (30)
  --node FILE            the same for a Node.js server: the script of server-everything on this machine, such as
                         target/k8s/everything/srv/node_modules/@modelcontextprotocol/server-everything/dist/index.js
  --require-cluster      fail when ARCHESTRA_TEST_KUBECONFIG names no cluster
  --require-wanted       fail when a figure is not as wanted, or was not measured

The small server is `fast-stdio`, over streamable-http `fast-upstream`. Everything shares the cores of a machine
that is also the cluster's node: what a figure would be on a larger cluster is not known from it.";

/// How server-everything is started in its image, which also starts it by itself.
const NODE: [&str; 2] = ["node", "/srv/node_modules/@modelcontextprotocol/server-everything/dist/index.js"];

#[derive(Clone, Debug)]
struct Options {
    window: Window,
    rounds: usize,
    callers: Vec<usize>,
    only: Vec<String>,
    work: u64,
    node: Option<PathBuf>,
    require_cluster: bool,
    require_wanted: bool,
}

/// A server that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Server {
    Small,
    Node,
}

/// A way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// The process alone on its pipe, driven by one writer and reader.
    Pipe,
    /// The process behind the multiplexer, in the callers' own process.
    Multiplexer,
    Bridge,
    Attach,
    Http,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    server: Server,
    way: Way,
}

impl Row {
    fn all() -> Vec<Self> {
        let ways = [Way::Pipe, Way::Multiplexer, Way::Bridge, Way::Attach, Way::Http];
        [Server::Small, Server::Node].into_iter().flat_map(|server| ways.map(|way| Self { server, way })).collect()
    }

    fn is_in_cluster(self) -> bool {
        matches!(self.way, Way::Bridge | Way::Attach | Way::Http)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.server {
            Server::Small => "small",
            Server::Node => "node",
        })?;
        f.write_str(match self.way {
            Way::Pipe => "/pipe",
            Way::Multiplexer => "/multiplexer",
            Way::Bridge => "/bridge",
            Way::Attach => "/attach",
            Way::Http => "/streamable-http",
        })
    }
}

type Samples = BTreeMap<(usize, Row), Vec<Sample>>;

/// Measures what `arguments` (without the program's name) ask for and prints the tables.
///
/// # Errors
///
/// A flag that does not parse, a cluster that does not run the servers, or an answer that is not the one the call asked for.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's answer, and what it is doing meanwhile")]
pub fn workloads(programs: &Programs, arguments: &[String]) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let Some(options) = parse(arguments)? else {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = |row: &Row| options.only.is_empty() || options.only.iter().any(|part| row.to_string().contains(part));
    let mut rows: Vec<Row> = Row::all().into_iter().filter(|row| wanted(row)).collect();
    if options.node.is_none() {
        rows.retain(|row| row.server != Server::Node);
    }
    let mut missing = None;
    let cluster = match cluster::kubeconfig() {
        Some(kubeconfig) if rows.iter().any(|row| row.is_in_cluster()) => Some(Cluster::open(kubeconfig)?),
        Some(_) => None,
        None if options.require_cluster => return Err("ARCHESTRA_TEST_KUBECONFIG is not set".into()),
        None => {
            missing = Some("the rows in a cluster are missing: ARCHESTRA_TEST_KUBECONFIG is not set");
            None
        }
    };
    if cluster.is_none() {
        rows.retain(|row| !row.is_in_cluster());
    }
    let stage = Stage::set(programs, &options, cluster, &rows)?;
    let mut samples = Samples::new();
    for &callers in &options.callers {
        for round in 0..options.rounds {
            // Back and forth, so that a machine that grows slower or faster favours nobody.
            let mut order = rows.clone();
            if round % 2 == 1 {
                order.reverse();
            }
            for row in order {
                eprintln!("workloads: {callers:>3} × {row} (round {} of {})", round + 1, options.rounds);
                let sample = stage.measure(row, callers, options.window);
                let sample = sample.map_err(|failure| format!("{row} with {callers} callers: {failure}"))?;
                samples.entry((callers, row)).or_default().push(sample);
            }
        }
    }
    drop(stage);
    println!("{}", report::markdown(&options, &samples, missing));
    if options.require_wanted {
        let missed = report::verdicts(&samples).missed();
        if !missed.is_empty() {
            return Err(format!("not as wanted: {}", missed.join("; ")).into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(arguments: &[String]) -> Result<Option<Options>, Failure> {
    let window = Window { warm_up: Duration::from_secs(1), measured: Duration::from_secs(5) };
    let mut options = Options {
        window,
        rounds: 1,
        callers: vec![1, 32],
        only: Vec::new(),
        work: 30,
        node: None,
        require_cluster: false,
        require_wanted: false,
    };
    let mut given = arguments.iter().map(String::as_str);
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{flag} needs a value; see --help"));
        match flag {
            // Cargo adds it to every bench target.
            "--bench" => {}
            "--help" => return Ok(None),
            "--seconds" => options.window.measured = Duration::from_secs(value()?.parse::<u64>()?.clamp(1, 600)),
            "--quick" => {
                options.window = Window { warm_up: Duration::from_millis(500), measured: Duration::from_secs(1) };
            }
            "--rounds" => options.rounds = value()?.parse::<usize>()?.clamp(1, 100),
            "--callers" => {
                options.callers = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
                if options.callers.iter().any(|callers| !(1..=pipe::MOST_OUTSTANDING).contains(callers)) {
                    return Err(format!("--callers takes numbers from 1 to {}", pipe::MOST_OUTSTANDING).into());
                }
            }
            "--only" => options.only.push(value()?.to_owned()),
            "--work" => options.work = value()?.parse()?,
            "--node" => options.node = Some(value()?.into()),
            "--require-cluster" => options.require_cluster = true,
            "--require-wanted" => options.require_wanted = true,
            other => return Err(format!("there is no flag {other}; try --help").into()),
        }
    }
    Ok(Some(options))
}

/// What the rows need.
struct Stage {
    cluster: Option<Cluster>,
    local: BTreeMap<Server, StdioServer>,
}

impl Stage {
    fn set(
        programs: &Programs,
        options: &Options,
        mut cluster: Option<Cluster>,
        rows: &[Row],
    ) -> Result<Self, Failure> {
        let stdio = || "stdio".to_owned();
        let work = ["--work".to_owned(), options.work.to_string()];
        let small = StdioServer { program: programs.fast_stdio.clone(), args: work.to_vec() };
        let mut local = BTreeMap::from([(Server::Small, small)]);
        if let Some(script) = &options.node {
            let args = vec![text(script)?, stdio()];
            local.insert(Server::Node, StdioServer { program: "node".into(), args });
        }
        if let Some(cluster) = &mut cluster {
            let http = ["--listen", "0.0.0.0:8080"].map(str::to_owned).into_iter().chain(work.clone()).collect();
            for row in rows {
                match (row.server, row.way) {
                    (Server::Small, Way::Bridge) => {
                        cluster.run(*row, cluster::IMAGE, &["/fast-stdio"], work.to_vec())?
                    }
                    (Server::Small, Way::Attach) => cluster.run(*row, cluster::IMAGE, &[], work.to_vec())?,
                    (Server::Small, Way::Http) => {
                        cluster.run(*row, cluster::IMAGE, &["/fast-upstream"], Vec::clone(&http))?;
                    }
                    (Server::Node, Way::Bridge) => cluster.run(*row, cluster::NODE_IMAGE, &NODE, vec![stdio()])?,
                    (Server::Node, Way::Attach) => cluster.run(*row, cluster::NODE_IMAGE, &[], vec![stdio()])?,
                    (Server::Node, Way::Http) => {
                        cluster.run(*row, cluster::NODE_IMAGE, &NODE, vec!["streamableHttp".to_owned()])?;
                    }
                    _ => {}
                }
            }
        }
        Ok(Self { cluster, local })
    }

    fn measure(&self, row: Row, callers: usize, window: Window) -> Result<Sample, Failure> {
        let era = match row.server {
            Server::Small => Era::Modern,
            Server::Node => Era::Legacy,
        };
        let local = || self.local.get(&row.server).ok_or("the server is not on this machine");
        let cluster = || self.cluster.as_ref().ok_or("there is no cluster");
        match row.way {
            Way::Pipe => pipe::measure(local()?, era, callers, window),
            Way::Multiplexer => channels::measure(&channels::Source::Local(local()?.clone()), era, callers, window),
            Way::Bridge | Way::Attach => channels::measure(&cluster()?.source(row)?, era, callers, window),
            Way::Http => {
                let endpoint = cluster()?.endpoint(row)?;
                let calls = Calls { endpoint, era, tool: "echo".to_owned() };
                load::measure(&calls, Volume { connections: callers, threads: 1 }, window, &Charge::process(0))
            }
        }
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    Ok(path.to_str().ok_or("--node: the path is not UTF-8")?.to_owned())
}
