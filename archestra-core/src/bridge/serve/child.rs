//! The server's process, and every other one that is ours to wait for.
//!
//! In a container the bridge is process 1: whatever loses its parent becomes its child and must be waited for. So all
//! children are, by one loop, and the server's process is one of them.

use rustix::process::{Pid, Signal as ProcessSignal, WaitOptions, WaitStatus};
use std::{
    ffi::OsString,
    fmt, io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Command, Stdio},
};
use tokio::{
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
};

/// How the server's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
    Unknown,
}

impl Exit {
    /// The exit code that a shell would have.
    pub(super) fn code(self) -> u8 {
        let code = match self {
            Self::Code(code) => code & 0xff,
            Self::Signal(signal) => 128 + (signal & 0x7f),
            Self::Unknown => 1,
        };
        u8::try_from(code).unwrap_or(1)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::Unknown => f.write_str("ended"),
        }
    }
}

/// All children of the bridge.
pub(super) struct Processes {
    children: Signal,
    server: Option<Pid>,
    exit: Option<Exit>,
}

impl Processes {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { children: signal(SignalKind::child())?, server: None, exit: None })
    }

    /// Starts the server's process in a group of its own; gives our ends of its standard input and output.
    pub(super) fn spawn(&mut self, command: &[OsString]) -> io::Result<(pipe::Sender, pipe::Receiver)> {
        let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (child_stdin, stdin) = io::pipe()?;
        let (stdout, child_stdout) = io::pipe()?;
        let child = Command::new(program)
            .args(args)
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(child_stdin)))
            .stdout(Stdio::from(OwnedFd::from(child_stdout)))
            .stderr(Stdio::inherit())
            .spawn()?;
        self.server = Pid::from_raw(child.id().cast_signed());
        self.exit = None;
        Ok((pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?, pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?))
    }

    /// Waits until the server's process has ended, and for whatever else ends meanwhile. Dropping the future loses nothing.
    pub(super) async fn ended(&mut self) -> Exit {
        loop {
            self.reap();
            if let Some(exit) = self.exit {
                return exit;
            }
            self.children.recv().await;
        }
    }

    fn reap(&mut self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if Some(pid) == self.server => self.exit = Some(exit_of(status)),
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return,
                Err(_) => {
                    // There is no child at all: somebody else has waited for it.
                    self.exit = self.exit.or(Some(Exit::Unknown));
                    return;
                }
            }
        }
    }

    /// Signals the server's process and what it started.
    pub(super) fn signal(&self, signal: ProcessSignal) {
        if let Some(server) = self.server {
            let _gone_already = rustix::process::kill_process_group(server, signal);
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn codes_are_those_of_a_shell() {
        assert_eq!(Exit::Code(3).code(), 3);
        assert_eq!(Exit::Signal(9).code(), 137);
        assert_eq!(Exit::Signal(9).to_string(), "was ended by signal 9");
    }
}
