//! The binary `archestra`: flags become backends, backends a platform, and the platform serves. What an embedder would need is
//! in the libraries.

mod announce;
mod apply;
mod backup;
mod bootstrap;
mod config;
mod demo_server;
mod environment;
mod failure;
mod flags;
mod key_file;
mod kubernetes;
mod logging;
mod quickstart;
mod secrets;
mod serve;
mod signals;
mod supervise;
mod vault;
mod yaml;

use config::{ServeConfig, Surroundings};
use environment::Environment;
use failure::Failure;
use flags::{Command, SecretsCommand};
use std::{future::Future, io::Write, process::ExitCode, time::Duration};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    if supervise::is_asked_for() {
        return supervise::run();
    }
    match flags::parse(std::env::args_os()) {
        Ok(command) => {
            run(command, &Environment::of_process()).err().map_or(ExitCode::SUCCESS, |failure| failure.report())
        }
        Err(error) => {
            let _closed = error.print();
            u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn run(command: Command, environment: &Environment) -> Result<(), Failure> {
    match command {
        Command::Serve(settings) => {
            let config =
                ServeConfig::decide(flags::resolve(*settings, environment)?, environment, Surroundings::seen())?;
            logging::install(config.log_format, &config.log)?;
            install_tls()?;
            in_threads(serve::run(config, environment))
        }
        Command::Apply(flags) => {
            install_tls()?;
            in_one_thread(apply::run(flags, environment))
        }
        Command::Secrets(SecretsCommand::Migrate(flags)) => {
            install_tls()?;
            in_one_thread(secrets::migrate(*flags, environment))
        }
        Command::Backup(flags) => {
            install_tls()?;
            in_one_thread(backup::backup(*flags, environment))
        }
        Command::Restore(flags) => {
            install_tls()?;
            in_one_thread(backup::restore(*flags, environment))
        }
        Command::DemoServer => in_one_thread(demo_server::run()),
        Command::Version => {
            let _closed = writeln!(std::io::stdout().lock(), "archestra {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

/// How long threads that are still at work may take once everything is shut down.
const LAST_WORK: Duration = Duration::from_secs(1);

fn in_threads(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("the runtime cannot start", &error))?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_WORK);
    done
}

fn in_one_thread(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("the runtime cannot start", &error))?;
    let done = runtime.block_on(work);
    // A thread that waits for standard input must not keep the process.
    runtime.shutdown_timeout(Duration::ZERO);
    done
}

fn install_tls() -> Result<(), Failure> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| Failure::failed("a TLS provider was installed before"))
}
