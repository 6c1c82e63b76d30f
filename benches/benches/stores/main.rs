//! What a large catalog costs: building the snapshot, following a change, and reading pages, on SQLite and on PostgreSQL.
//!
//! The catalog is filled by this process and measured by a fresh one, so that the memory is that of the gateway's library alone.

mod bounds;
mod database;
mod fill;
mod measure;
mod resync;

use std::{
    env,
    error::Error,
    process::{Command, ExitCode, Stdio},
};

use archestra_store::{SqlConfig, SqlStore};
use serde::{Deserialize, Serialize};

use database::Database;

/// Why a measurement stopped: a text for the person who runs it.
type Failure = Box<dyn Error + Send + Sync>;

const HELP: &str = "\
What a catalog of 10,000 entries, 100,000 tools and 50,000 installations costs, on SQLite and, if
ARCHESTRA_TEST_POSTGRES_URL names a server, on PostgreSQL (`eval \"$(.ci/postgres)\"`).

  cargo bench -p archestra-benches --bench stores -- [FLAGS]

  --quick                a tenth of it
  --changes N            how many single changes and pages are measured (50)
  --require-postgres     fail when no PostgreSQL server is named
  --require-wanted       fail when anything is not as it is wanted";

/// How much there is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Size {
    entries: usize,
    tools_each: usize,
    installations_each: usize,
    gateways: usize,
}

const WHOLE: Size = Size { entries: 10_000, tools_each: 10, installations_each: 5, gateways: 200 };

#[derive(Debug)]
struct Options {
    size: Size,
    changes: usize,
    require_postgres: bool,
    require_wanted: bool,
}

/// What was measured, in milliseconds and MiB.
#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    snapshot_ms: f64,
    snapshot_mib: f64,
    read_all_ms: f64,
    commit_ms: [f64; 2],
    followed_ms: [f64; 2],
    /// Until calls follow a changed rule, by what it is about.
    rules: Vec<(String, [f64; 2])>,
    /// A commit of a thousand records, and until calls follow it.
    thousand_ms: [f64; 2],
    /// Calls while nothing else goes on, and while everything is read again.
    calls: Vec<(String, [f64; 2])>,
    pages: Vec<(String, [f64; 2])>,
}

#[expect(clippy::print_stderr, reason = "a program tells the person who runs it what went wrong")]
fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // `cargo test --all-targets` starts bench targets without any argument, `cargo bench` always passes `--bench`.
    if arguments.is_empty() {
        eprintln!("stores: nothing measured; start it with `cargo bench -p archestra-benches --bench stores`");
        return ExitCode::SUCCESS;
    }
    match stores(&arguments) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("stores: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Measures what `arguments` (without the program's name) ask for and prints a table.
fn stores(arguments: &[String]) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut given = arguments.iter().map(String::as_str).filter(|argument| *argument != "--bench");
    let mut options = Options { size: WHOLE, changes: 50, require_postgres: false, require_wanted: false };
    while let Some(flag) = given.next() {
        match flag {
            "--help" => {
                say(HELP);
                return Ok(ExitCode::SUCCESS);
            }
            "--quick" => options.size = Size { entries: WHOLE.entries / 10, gateways: WHOLE.gateways / 10, ..WHOLE },
            "--changes" => options.changes = given.next().ok_or("--changes needs a number")?.parse()?,
            "--require-postgres" => options.require_postgres = true,
            "--require-wanted" => options.require_wanted = true,
            // The fresh process: where to measure, and how often.
            "--measure" => {
                let changes = given.next().ok_or("--measure needs a number")?.parse()?;
                let mut url = String::new();
                std::io::stdin().read_line(&mut url)?;
                let figures = runtime.block_on(measure::measure(url.trim(), changes))?;
                say(&serde_json::to_string(&figures)?);
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(format!("there is no flag {other}; try --help").into()),
        }
    }
    run(&runtime, &options)
}

fn run(runtime: &tokio::runtime::Runtime, options: &Options) -> Result<ExitCode, Failure> {
    let mut databases = vec![Database::sqlite()?];
    match server() {
        Some(server) => databases.push(Database::postgres(&server)?),
        None if options.require_postgres => return Err("ARCHESTRA_TEST_POSTGRES_URL is not set".into()),
        None => say("PostgreSQL is left out: ARCHESTRA_TEST_POSTGRES_URL is not set"),
    }
    let Size { entries, tools_each, installations_each, gateways } = options.size;
    let (tools, installations) = (entries * tools_each, entries * installations_each);
    say(&format!(
        "{entries} entries, {tools} tools, {installations} installations, {gateways} gateways with {tools} assignments; median and worst of {} each\n",
        options.changes
    ));
    let mut missed = Vec::new();
    for database in databases {
        let filled = runtime.block_on(async {
            let store = SqlStore::connect(SqlConfig::new(database.url())).await?;
            let filled = fill::fill(&store, options.size).await;
            store.close().await;
            filled
        })?;
        let figures = in_a_fresh_process(database.url(), options.changes)?;
        let verdicts = bounds::judge(&figures, options.size);
        missed.extend(verdicts.missed().into_iter().map(|what| format!("{what} on {}", database.name())));
        let mut table = format!("| {} | median | worst |\n|---|--:|--:|\n", database.name());
        let mut row = |what: &str, [median, worst]: [f64; 2], unit: &str| {
            table.push_str(&format!("| {what} | {median:.2} {unit} | {worst:.2} {unit} |\n"));
        };
        row("fill, one commit for each 500 records", [filled.as_secs_f64(); 2], "s");
        row("read everything, 1000 records a page", [figures.read_all_ms; 2], "ms");
        row("snapshot from nothing, reading included", [figures.snapshot_ms; 2], "ms");
        row("memory of the snapshot", [figures.snapshot_mib; 2], "MiB");
        row("commit of one changed entry", figures.commit_ms, "ms");
        row("from that commit until calls follow it", figures.followed_ms, "ms");
        for (rule, times) in figures.rules {
            row(&rule, times, "ms");
        }
        row("commit of 1000 changed tools", [figures.thousand_ms[0]; 2], "ms");
        row("from that commit until calls follow it", [figures.thousand_ms[1]; 2], "ms");
        for (what, times) in figures.calls.into_iter().chain(figures.pages) {
            row(&what, times, "ms");
        }
        say(&(table + &verdicts.section()));
    }
    if options.require_wanted && !missed.is_empty() {
        return Err(format!("not as wanted: {}", missed.join("; ")).into());
    }
    Ok(ExitCode::SUCCESS)
}

fn in_a_fresh_process(url: &str, changes: usize) -> Result<Figures, Failure> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--measure", &changes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    // Not as an argument: it holds a password.
    std::io::Write::write_all(&mut child.stdin.take().ok_or("no standard input")?, format!("{url}\n").as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("the measuring process ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[expect(clippy::disallowed_methods, reason = "the environment says where the server is")]
fn server() -> Option<String> {
    env::var("ARCHESTRA_TEST_POSTGRES_URL").ok()
}

#[expect(clippy::print_stdout, reason = "the benchmark is a program and this is its answer")]
fn say(text: &str) {
    println!("{text}");
}
