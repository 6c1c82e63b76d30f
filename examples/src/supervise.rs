//! `archestra supervise`: the hidden command under which the process runtime starts this binary beside each workload.

use archestra_core::runtime::process::supervisor;
use std::{io::Write, process::ExitCode};

/// The command's name.
pub(crate) const COMMAND: &str = "supervise";

/// Whether this process is meant to be a supervisor. It looks at the first argument only.
pub(crate) fn is_asked_for() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == COMMAND)
}

/// Supervises until nothing of the workload is left.
pub(crate) fn run() -> ExitCode {
    supervisor::run().unwrap_or_else(|error| {
        let _closed = writeln!(std::io::stderr().lock(), "archestra: {error}");
        ExitCode::FAILURE
    })
}
