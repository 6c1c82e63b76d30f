//! The supervisor of the process runtime as a program of its own, for tests and for embedders without a hidden command.

use std::{io, process::ExitCode};

fn main() -> io::Result<ExitCode> {
    archestra_core::runtime::process::supervisor::run()
}
