//! What a call through the gateway costs: the overhead harness and the protocol side of its fast upstreams; and, in
//! `workloads`, what the ways to a server on Kubernetes cost.
//!
//! `cargo bench -p archestra-benches --bench overhead -- --help` lists the flags. The harness measures `tools/call`
//! straight to a fast upstream, through a bare nginx and through the release binary `archestra`, all in one run on
//! loopback, because on a small machine only figures of the same run can be compared.

mod args;
mod cpu;
mod gateway;
mod http;
mod load;
mod message;
mod nginx;
pub mod peer;
mod pipe;
mod plan;
mod process;
mod report;
mod stats;
mod target;
mod upstream;
pub mod wanted;
#[cfg(feature = "workloads")]
mod workloads;

#[cfg(feature = "workloads")]
pub use workloads::workloads;

use std::{error::Error, path::PathBuf, process::ExitCode};

/// Why a measurement stopped: a text for the person who runs it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The programs the harness starts as upstreams, as Cargo built them for this run.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The streamable-http server `fast-upstream`.
    pub fast_upstream: PathBuf,
    /// The stdio server `fast-stdio`.
    pub fast_stdio: PathBuf,
}

/// Measures what `arguments` (without the program's name) ask for and prints the tables.
///
/// # Errors
///
/// A flag that does not parse, a process that does not start, or an answer that is not the one the call asked for:
/// a wrong answer ends the whole run, since figures about errors mean nothing.
pub fn overhead(programs: &Programs, arguments: &[String]) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    match args::parse(arguments)? {
        args::Command::Help => {
            #[expect(clippy::print_stdout, reason = "the harness is a program and this is its answer")]
            {
                println!("{}", args::HELP);
            }
            Ok(ExitCode::SUCCESS)
        }
        args::Command::Measure(options) => plan::run(programs, &options),
    }
}
