//! Child processes and scratch directories that are gone when their guard is, also after a panic.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::Failure;

const POLL: Duration = Duration::from_millis(20);
const TERM_GRACE: Duration = Duration::from_secs(8);

/// A child that is told to end when this value goes, and killed if it does not listen.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, Failure> {
        let child = command.spawn().map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it has ended already.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, up to `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        // nginx and archestra must end their own children, which only the polite signal lets them do.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        if asked && self.wait(TERM_GRACE).is_some() {
            return;
        }
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// A command for a program that gets SIGTERM also when the harness is killed and no guard runs.
///
/// Must be spawned on the main thread: the kernel watches the thread that made the child. Without `setpriv`
/// (util-linux) the program is merely started.
pub(crate) fn bound_to_us(program: &Path) -> Command {
    const SETPRIV: &str = "/usr/bin/setpriv";
    if !Path::new(SETPRIV).is_file() {
        return Command::new(program);
    }
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

/// The first line a child prints, within `limit`.
pub(crate) fn first_line<R: Read + Send + 'static>(output: R, limit: Duration) -> Result<String, Failure> {
    let (sender, receiver) = mpsc::sync_channel(1);
    // The thread ends with the child's output at the latest.
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        sender.send(read.map(|_| line)).ok();
    });
    let line = receiver.recv_timeout(limit).map_err(|_| "it printed nothing in time")??;
    Ok(line.trim().to_owned())
}

/// A directory of our own under the system's temporary one.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn new(purpose: &str) -> Result<Self, Failure> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("overhead-{purpose}-{}-{number}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok();
    }
}

/// A loopback address nobody listens on at this moment.
pub(crate) fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The last lines of a log file, for error texts.
pub(crate) fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
