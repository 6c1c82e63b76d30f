//! The real `archestra` binary, run in a folder of its own and never left behind.

use crate::{Api, Mcp, processes};
use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
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
        let own = std::env::current_exe().unwrap();
        let built = BuiltAs::of(&own);
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = std::process::Command::new(cargo)
            .args(["build", "--quiet", "--locked", "-p", "archestra-examples", "--bin", "archestra"])
            .args(["--profile", built.profile])
            .arg("--target-dir")
            .arg(built.target_dir)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(status.unwrap().success(), "the archestra binary does not build");
        built.directory.join("archestra")
    })
}

/// How a test was built, so that the binary is built the same way and beside it.
#[derive(Debug, PartialEq)]
struct BuiltAs<'a> {
    profile: &'a str,
    directory: &'a Path,
    target_dir: &'a Path,
}

impl<'a> BuiltAs<'a> {
    /// By where the test is: `<target dir>/<directory of the profile>/deps/<test>`.
    fn of(test: &'a Path) -> Self {
        let directory = test.parent().and_then(Path::parent).expect("a test is in the target directory");
        let target_dir = directory.parent().expect("a profile has its directory in the target directory");
        let profile = match directory.file_name().and_then(|name| name.to_str()) {
            // The profiles whose directory has another name.
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        Self { profile, directory, target_dir }
    }
}

/// A folder that holds everything of one installation of the binary.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
    starts: AtomicU32,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), starts: AtomicU32::new(0) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A new key file of this name, made as the documentation says.
    pub fn key_file(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        let script = format!("(umask 077; echo \"k1 $(head -c 32 /dev/urandom | base64)\" > {})", path.display());
        assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
        path
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
                let log = running.log();
                // Somebody else took the port between the time it was free and now.
                let taken = log.contains("--metrics-listen") && log.contains("in use");
                assert!(taken && Instant::now() < until, "the binary ended at start with {status}:\n{log}");
                running = self.spawn(start);
            }
            if running.port == 0 {
                running.port = announced(&running.log()).unwrap_or(0);
            } else if demo_settled(&running.log())
                && running.api().try_get("/health/ready").await.is_some_and(|answer| answer.status == 200)
            {
                return running;
            }
            assert!(Instant::now() < until, "the binary is not ready after {START:?}:\n{}", running.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts the binary and waits for nothing.
    pub fn begin(&self, start: &Start) -> Running {
        self.spawn(start)
    }

    /// A command of the binary on the data that is here.
    pub fn command(&self, arguments: &[&str], start: &Start) -> std::process::Command {
        let mut command = std::process::Command::new(path());
        command.args(arguments).arg("--data-dir").arg(self.path().join("data")).args(&start.args);
        command.envs(start.env.iter().map(|(name, value)| (*name, value.clone()))).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; its exit code, and what it says.
    pub fn run(&self, arguments: &[&str], start: &Start) -> (i32, String) {
        let output = self.command(arguments, start).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code().unwrap(), text)
    }

    /// Starts the binary, which says where it listens when it does.
    fn spawn(&self, start: &Start) -> Running {
        let metrics = free_port();
        let log = self.path().join(format!("log-{}", self.starts.fetch_add(1, Ordering::Relaxed)));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(path());
        command
            .args(["--listen", "127.0.0.1:0"])
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
        Running { child, id, port: 0, metrics, log }
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

    /// Where it writes that.
    pub fn log_file(&self) -> PathBuf {
        self.log.clone()
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

/// The port that a start says it listens on: `archestra 0.1.0 listens on http://127.0.0.1:9000`.
fn announced(log: &str) -> Option<u16> {
    // The last line may be half written.
    let (whole, _) = log.rsplit_once('\n')?;
    let (_, place) = whole.lines().find_map(|line| line.split_once(" listens on "))?;
    let place = place.strip_prefix("http://").unwrap_or(place);
    let address: SocketAddr = place.split([',', ' ', '/']).next()?.parse().ok()?;
    Some(address.port())
}

/// Whether a start that made the demo gateway has said what to try, which it does once that works.
fn demo_settled(log: &str) -> bool {
    !log.contains("\n  gateway ") || log.contains("\n  or ")
}

/// A port that was free just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[cfg(test)]
mod tests {
    use super::{BuiltAs, announced};
    use std::path::Path;

    #[test]
    fn the_port_is_read_from_the_first_line() {
        assert_eq!(announced("warning\narchestra 0.1.0 listens on http://127.0.0.1:4711\n  token"), Some(4711));
        let elsewhere = "archestra 0.1.0 listens on 127.0.0.1:4711, for clients at http://localhost/base\n";
        assert_eq!(announced(elsewhere), Some(4711));
        for none in ["", "archestra 0.1.0 listens on", "archestra 0.1.0 listens on http://127.0.0.1:47"] {
            assert_eq!(announced(none), None, "{none}");
        }
    }

    #[test]
    fn the_binary_is_built_as_the_test_was() {
        for (test, profile, directory, target_dir) in [
            ("/w/target/debug/deps/t-1", "dev", "/w/target/debug", "/w/target"),
            ("/w/target/release/deps/t-1", "release", "/w/target/release", "/w/target"),
            ("/elsewhere/soak/deps/t-1", "soak", "/elsewhere/soak", "/elsewhere"),
        ] {
            let expected = BuiltAs { profile, directory: Path::new(directory), target_dir: Path::new(target_dir) };
            assert_eq!(BuiltAs::of(Path::new(test)), expected);
        }
    }
}
