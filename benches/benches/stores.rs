//! Entry point of the stores benchmark: hands the flags to the library.

use std::process::ExitCode;

use archestra_benches::stores;

#[expect(clippy::print_stderr, reason = "a program tells the person who runs it what went wrong")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` starts bench targets without any argument, `cargo bench` always passes `--bench`.
    if arguments.is_empty() {
        eprintln!("stores: nothing measured; start it with `cargo bench -p archestra-benches --bench stores`");
        return ExitCode::SUCCESS;
    }
    match stores(&arguments) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("stores: {failure}");
            ExitCode::FAILURE
        }
    }
}
