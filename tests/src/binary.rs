//! The real `archestra` binary, run in a folder of its own and never left behind.

use crate::{Api, Mcp, processes};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::Instant,
};

/// The admin token of every binary that a test starts.
pub const ADMIN: &str = "arch_test0000test0000test0000test0000";

/// How long a start may take on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// The binary under test: the one that `ARCHESTRA_TEST_BINARY` names, else the one of this workspace, built if need be.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("ARCHESTRA_TEST_BINARY") {
            return path.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let args = ["build", "--quiet", "-p", "archestra-examples", "--bin", "archestra"];
        let built = std::process::Command::new(cargo).args(args).status().unwrap();
        assert!(built.success(), "the archestra binary does not build");
        // target/debug/deps/<this test> → target/debug/archestra
        let own = std::env::current_exe().unwrap();
        own.parent().unwrap().parent().unwrap().join("archestra")
    })
}

/// A folder that holds everything of one installation of the binary.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the binary with the quickstart's demo server and waits until it is ready.
    pub async fn quickstart(&self) -> Running {
        self.start(&Start::default()).await
    }

    /// Starts the binary without the quickstart and waits until it is ready.
    pub async fn bare(&self) -> Running {
        self.start(&Start { env: vec![("ARCHESTRA_QUICKSTART", "false".to_owned())], ..Start::default() }).await
    }

    /// Starts the binary and waits until it is ready.
    pub async fn start(&self, start: &Start) -> Running {
        let mut running = self.spawn(start);
        let until = Instant::now() + START;
        loop {
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("the binary ended at start with {status}:\n{}", running.log());
            }
            if running.api().try_get("/health/ready").await.is_some_and(|answer| answer.status == 200) {
                return running;
            }
            assert!(Instant::now() < until, "the binary is not ready after {START:?}:\n{}", running.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts the binary and waits for nothing.
    pub fn spawn(&self, start: &Start) -> Running {
        let (port, metrics) = (free_port(), free_port());
        let log = self.path().join(format!("log-{port}"));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(path());
        command
            .arg("--listen")
            .arg(format!("127.0.0.1:{port}"))
            .arg("--metrics-listen")
            .arg(format!("127.0.0.1:{metrics}"))
            .arg("--data-dir")
            .arg(self.path().join("data"))
            .args(&start.args)
            .env("ARCHESTRA_ADMIN_TOKEN", ADMIN)
            .envs(start.env.iter().map(|(name, value)| (*name, value.clone())))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .kill_on_drop(true);
        let child = command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", path().display()));
        let id = child.id().unwrap();
        Running { child, id, port, metrics, log }
    }
}

/// How a binary is started.
#[derive(Debug, Default, Clone)]
pub struct Start {
    /// Further flags.
    pub args: Vec<String>,
    /// Further variables.
    pub env: Vec<(&'static str, String)>,
}

/// A running binary. Dropped, it is killed, and so is everything it started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    id: u32,
    port: u16,
    metrics: u16,
    log: PathBuf,
}

impl Running {
    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it says on its metrics listener.
    pub async fn metrics(&self) -> String {
        Api::new(format!("http://127.0.0.1:{}", self.metrics), None).get("/metrics").await.text()
    }

    /// Its API, as the admin.
    pub fn api(&self) -> Api {
        Api::new(self.url(), Some(ADMIN.to_owned()))
    }

    /// The endpoint of one gateway, as the admin.
    pub fn gateway(&self, slug: &str) -> Mcp {
        Mcp::new(self.api(), slug)
    }

    /// Its process id.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Everything that descends from it.
    pub fn descendants(&self) -> Vec<processes::Process> {
        processes::descendants(self.id)
    }

    /// Tells it to end, and waits until it has.
    pub async fn stop(mut self) -> std::process::ExitStatus {
        processes::terminate(self.id);
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("the binary does not end:\n{}", self.log())).unwrap()
    }

    /// Kills it as `kill -9` does.
    pub async fn kill(mut self) {
        self.child.start_kill().unwrap();
        drop(self.child.wait().await);
    }
}

/// A port that was free just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
