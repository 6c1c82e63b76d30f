//! Starts the release binary `archestra` in a scratch directory and installs the fast upstreams into it.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use hyper::StatusCode;
use serde_json::json;
use tokio::{runtime::Builder, time::Instant};

use crate::{
    Failure,
    cpu::{Charge, resident_mib},
    http::Connection,
    process::{Running, Scratch, bound_to_us, free_address, tail},
    target::{Endpoint, Era, StdioServer, Upstream},
};

const SLUG: &str = "bench";
const READY_DEADLINE: Duration = Duration::from_secs(30);
const APPLY_DEADLINE: Duration = Duration::from_secs(60);
const TOOLS_DEADLINE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(100);
/// Memory is read this long after the start, before anything is installed.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// The kernel keeps 15 bytes of a program's name; this one fits.
const STDIO_NAME: &str = "fast-stdio";

/// The servers to install.
#[derive(Clone, Debug)]
pub(crate) struct Installs {
    pub(crate) modern: Endpoint,
    pub(crate) legacy: Endpoint,
    pub(crate) stdio: StdioServer,
}

/// A running gateway whose consumer exposes the echo tool of every upstream.
#[derive(Debug)]
pub(crate) struct Gateway {
    process: Running,
    pub(crate) endpoint: Endpoint,
    idle_mib: Option<f64>,
    _scratch: Scratch,
}

impl Gateway {
    pub(crate) fn start(program: &Path, installs: &Installs) -> Result<Self, Failure> {
        let scratch = Scratch::new("archestra")?;
        let log = scratch.join("archestra.log");
        Self::start_in(scratch, program, installs).map_err(|(scratch, failure)| {
            let text = tail(&log);
            drop(scratch);
            format!("archestra: {failure}\nthe end of its log:\n{text}").into()
        })
    }

    fn start_in(scratch: Scratch, program: &Path, installs: &Installs) -> Result<Self, (Scratch, Failure)> {
        match bring_up(&scratch, program, installs) {
            Ok((process, endpoint, idle_mib)) => Ok(Self { process, endpoint, idle_mib, _scratch: scratch }),
            Err(failure) => Err((scratch, failure)),
        }
    }

    /// The gateway and its supervisors, without the stdio upstream it runs.
    pub(crate) fn charge(&self) -> Charge {
        Charge { root: self.process.id(), except: Some(STDIO_NAME) }
    }

    /// The exposed name of an upstream's echo tool.
    pub(crate) fn tool(upstream: Upstream) -> String {
        format!("{}__echo", entry(upstream))
    }

    /// Resident memory five seconds after the start, with nothing installed.
    pub(crate) fn idle_mib(&self) -> Option<f64> {
        self.idle_mib
    }

    /// Resident memory at this moment.
    pub(crate) fn resident_mib(&self) -> Option<f64> {
        resident_mib(self.process.id())
    }
}

const fn entry(upstream: Upstream) -> &'static str {
    match upstream {
        Upstream::Http(Era::Modern) => "modern",
        Upstream::Http(Era::Legacy) => "legacy",
        Upstream::Stdio => "stdio",
    }
}

fn bring_up(
    scratch: &Scratch,
    program: &Path,
    installs: &Installs,
) -> Result<(Running, Endpoint, Option<f64>), Failure> {
    let token = admin_token()?;
    let listen = free_address()?;
    let log = File::create(scratch.join("archestra.log"))?;
    let mut process = Running::spawn(
        bound_to_us(program)
            .args(["--listen", &listen.to_string()])
            .args(["--metrics-listen", &free_address()?.to_string()])
            .args(["--runtime", "process", "--private-networks", "127.0.0.0/8"])
            .arg("--data-dir")
            .arg(scratch.path())
            .current_dir(scratch.path())
            .env("ARCHESTRA_ADMIN_TOKEN", &token)
            .env("ARCHESTRA_QUICKSTART", "false")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log),
    )?;
    let started = Instant::now();
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let health = Endpoint { address: listen, path: "/health/ready".to_owned(), bearer: None };
    until(READY_DEADLINE, &mut process, || {
        match runtime.block_on(async { Connection::open(&health).await?.get().await }) {
            Ok(StatusCode::OK) => Ok(()),
            Ok(other) => Err(format!("/health/ready answers {other}").into()),
            Err(failure) => Err(failure),
        }
    })?;
    thread::sleep(IDLE_AFTER.saturating_sub(started.elapsed()));
    let idle_mib = resident_mib(process.id());
    apply(scratch, program, &format!("http://{listen}"), &token, installs)?;
    let endpoint = Endpoint { address: listen, path: format!("/v1/mcp/{SLUG}"), bearer: Some(token) };
    until(TOOLS_DEADLINE, &mut process, || {
        let list = runtime.block_on(async { Connection::open(&endpoint).await?.request("tools/list").await })?;
        let list = String::from_utf8_lossy(&list);
        for upstream in [Upstream::Http(Era::Modern), Upstream::Http(Era::Legacy), Upstream::Stdio] {
            let tool = Gateway::tool(upstream);
            if !list.contains(&format!("\"{tool}\"")) {
                return Err(format!("tools/list of /v1/mcp/{SLUG} lacks {tool}: {list}").into());
            }
        }
        Ok(())
    })?;
    Ok((process, endpoint, idle_mib))
}

/// `archestra apply -f` with every upstream, one gateway that offers all their tools, and rules about them.
fn apply(scratch: &Scratch, program: &Path, server: &str, token: &str, installs: &Installs) -> Result<(), Failure> {
    let entries = [Upstream::Http(Era::Modern), Upstream::Http(Era::Legacy), Upstream::Stdio].map(entry);
    let url = |endpoint: &Endpoint| format!("http://{}{}", endpoint.address, endpoint.path);
    let installations = entries.map(|entry| json!({"entry": entry, "scope": "organization"}));
    let tools = entries.map(|entry| json!({"entry": entry, "tool": "*", "credential": "resolveAtCallTime"}));
    // For each call one rule that judges its caller and does not match, and one that allows it.
    let policies: Vec<_> = entries
        .iter()
        .flat_map(|entry| {
            let rule = |name: &str, priority: u32, callers: &[&str], action: &str| {
                json!({
                    "name": format!("{entry}: {name}"), "entry": entry, "tool": "echo", "priority": priority,
                    "callers": callers, "action": action,
                })
            };
            [rule("no machines", 10, &["organization", "clients"], "block"), rule("everybody", 0, &[], "allow")]
        })
        .collect();
    let StdioServer { program: program_path, args } = &installs.stdio;
    // JSON is YAML, and a serializer does the quoting.
    let document = json!({
        "apiVersion": "archestra.dev/v1",
        "entries": [
            {"name": entries[0], "remote": {"url": url(&installs.modern)}},
            {"name": entries[1], "remote": {"url": url(&installs.legacy)}},
            {"name": entries[2], "selfHosted": {"command": [program_path], "args": args, "transport": "stdio"}},
        ],
        "installations": installations,
        "gateways": [{"slug": SLUG, "scope": "organization", "tools": tools}],
        "policies": policies,
    });
    let file = scratch.join("bench.yaml");
    fs::write(&file, serde_json::to_vec_pretty(&document)?)?;
    let log_path = scratch.join("apply.log");
    let log = File::create(&log_path)?;
    let mut client = Running::spawn(
        Command::new(program)
            .args(["apply", "--server", server, "-f"])
            .arg(&file)
            .current_dir(scratch.path())
            .env("ARCHESTRA_TOKEN", token)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log),
    )?;
    match client.wait(APPLY_DEADLINE) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("`archestra apply` ended with {status}:\n{}", tail(&log_path)).into()),
        None => Err(format!("`archestra apply` took longer than {APPLY_DEADLINE:?}:\n{}", tail(&log_path)).into()),
    }
}

/// Tries until it works, the time is over or the process has ended.
fn until(
    limit: Duration,
    process: &mut Running,
    mut attempt: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    loop {
        let Err(failure) = attempt() else {
            return Ok(());
        };
        if let Some(status) = process.ended() {
            return Err(format!("it ended with {status}").into());
        }
        if Instant::now() >= deadline {
            return Err(format!("not ready after {limit:?}: {failure}").into());
        }
        thread::sleep(PAUSE);
    }
}

fn admin_token() -> Result<String, Failure> {
    let mut random = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("arch_{digits}"))
}
