//! Entry point of the workloads benchmark: hands the flags and the built servers to the library.

use std::process::ExitCode;

use archestra_benches::{Programs, workloads};

#[expect(clippy::print_stderr, reason = "a program tells the person who runs it what went wrong")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` starts bench targets without any argument, `cargo bench` always passes `--bench`.
    if arguments.is_empty() {
        eprintln!(
            "workloads: nothing measured; start it with `cargo bench -p archestra-benches --features workloads --bench workloads`"
        );
        return ExitCode::SUCCESS;
    }
    let programs = Programs {
        fast_upstream: env!("CARGO_BIN_EXE_fast-upstream").into(),
        fast_stdio: env!("CARGO_BIN_EXE_fast-stdio").into(),
    };
    match workloads(&programs, &arguments) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("workloads: {failure}");
            ExitCode::FAILURE
        }
    }
}
