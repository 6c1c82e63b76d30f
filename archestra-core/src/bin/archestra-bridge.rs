//! The bridge as a program: it stands beside a stdio server in its container and serves the server's channels over TCP.

use std::process::ExitCode;

fn main() -> ExitCode {
    archestra_core::bridge::run(std::env::args_os().skip(1))
}
