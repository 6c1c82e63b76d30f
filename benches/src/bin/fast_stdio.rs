//! `fast-stdio`: an MCP server on stdin and stdout that echoes as fast as a pipe allows, both eras.
//!
//! It reads whatever the pipe holds and answers everything it read with one write. With `--work MICROSECONDS` it keeps
//! its core busy for so long on every message and writes each answer by itself, as servers built on the SDKs do.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
    time::Duration,
};

use archestra_benches::peer::{Carrier, Eras, answer};
use tokio::time::Instant;

const CHUNK: usize = 256 * 1024;
const LONGEST_LINE: usize = 64 * 1024 * 1024;

#[expect(clippy::print_stderr, reason = "a program tells the person who runs it what went wrong")]
fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        // The caller has gone, which is how a stdio server is ended.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fast-stdio: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut eras = Eras::Both;
    let mut work = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--era" => {
                let value = arguments.next().unwrap_or_default();
                eras = Eras::parse(&value).ok_or_else(|| usage("--era takes modern, legacy or both"))?;
            }
            "--work" => {
                let value = arguments.next().and_then(|value| value.parse().ok());
                let micros = value.ok_or_else(|| usage("--work takes a number of microseconds"))?;
                work = Some(Duration::from_micros(micros));
            }
            _ => {
                return Err(usage("flags: --era modern|legacy|both, --work MICROSECONDS"));
            }
        }
    }
    let mut input = io::stdin().lock();
    let mut output = io::stdout().lock();
    let mut pending = Vec::with_capacity(CHUNK);
    let mut answers = Vec::with_capacity(CHUNK);
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = input.read(&mut chunk)?;
        if length == 0 {
            return Ok(());
        }
        pending.extend_from_slice(&chunk[..length]);
        let mut done = 0;
        while let Some(end) = memchr::memchr(b'\n', &pending[done..]) {
            let start = Instant::now();
            let before = answers.len();
            answer(&pending[done..done + end], eras, Carrier::Pipe, &mut answers);
            if answers.len() > before {
                answers.push(b'\n');
            }
            done += end + 1;
            if let Some(work) = work {
                while start.elapsed() < work {
                    std::hint::spin_loop();
                }
                output.write_all(&answers)?;
                output.flush()?;
                answers.clear();
            }
        }
        pending.drain(..done);
        if pending.len() > LONGEST_LINE {
            return Err(usage("a line is longer than 64 MiB"));
        }
        output.write_all(&answers)?;
        output.flush()?;
        answers.clear();
    }
}

fn usage(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
