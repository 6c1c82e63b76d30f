//! What the runtime and a supervisor tell each other over the control socket: one JSON document in each line.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The longest line that either side reads: the largest environment and argument list an operating system takes is smaller.
pub(super) const MAX_LINE: u64 = 16 * 1024 * 1024;

/// From the runtime.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Order<'a> {
    /// The first, once. The child's standard streams came as file descriptors with the byte before it.
    Start(Start<'a>),
    /// Ends everything.
    Stop {
        /// How long the child may take to end by itself after its standard input has ended.
        drain_ms: u64,
        /// How long it may take after SIGTERM.
        grace_ms: u64,
    },
}

/// What to start. It holds secrets, so it has no `Debug`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Start<'a> {
    /// An absolute path.
    pub(super) program: Cow<'a, str>,
    /// The arguments.
    pub(super) args: Vec<Cow<'a, str>>,
    /// The whole environment.
    pub(super) env: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The working directory.
    pub(super) directory: Cow<'a, str>,
    /// The workload's own directory, where the record of this run is.
    pub(super) root: Cow<'a, str>,
    /// How long everything may take to end after SIGTERM when the runtime is gone.
    pub(super) orphan_grace_ms: u64,
}

/// From the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Report {
    /// The child runs; its process group has the same number.
    Started {
        /// Its process id.
        pid: i32,
    },
    /// It could not be started.
    Failed {
        /// What the operating system said.
        reason: String,
    },
    /// It ended. What it left behind is being ended, and then the socket closes.
    Exited(Exit),
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody knows: its supervisor was killed.
    Unknown,
}

impl Exit {
    /// As a sentence about the server: `exited with code 1`.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Code(code) => format!("exited with code {code}"),
            Self::Signal(signal) => match signal_name(signal) {
                Some(name) => format!("was ended by signal {signal} ({name})"),
                None => format!("was ended by signal {signal}"),
            },
            Self::Unknown => "was ended because its supervisor was killed".to_owned(),
        }
    }

    /// What a person can do about it, where the code or signal itself says so.
    pub(super) fn hint(self) -> Option<&'static str> {
        match self {
            Self::Code(126) => Some("the command was found but may not be executed: check its permissions"),
            Self::Code(127) => Some("a command was not found: install it, or give an absolute path"),
            Self::Signal(9) => Some("it was killed from outside: the machine may be short of memory"),
            Self::Code(_) | Self::Signal(_) | Self::Unknown => None,
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}
