//! Load on a stdio server alone on its pipe: one writer and reader that keeps a number of calls outstanding.

use std::{
    io::{Read, Write},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use memchr::memmem;
use tokio::time::Instant;

use crate::{
    Failure,
    cpu::Charge,
    load::{Phase, Window},
    message::{self, CallTemplate, check, excerpt, first_id},
    process::{Running, first_line},
    stats::Sample,
    target::{Era, StdioServer},
};

/// Answers in flight must fit a pipe (64 KiB), or the server and the driver would wait for each other.
pub(crate) const MOST_OUTSTANDING: usize = 256;
const START_DEADLINE: Duration = Duration::from_secs(10);
const CHUNK: usize = 256 * 1024;

/// Starts the program, keeps `outstanding` calls in flight through one window, and ends the program.
pub(crate) fn measure(server: &StdioServer, era: Era, outstanding: usize, window: Window) -> Result<Sample, Failure> {
    if era == Era::Modern {
        greet(server)?;
    }
    let (mut process, input, output) = start(server)?;
    let charge = Charge::process(process.id());
    let phase = Arc::new(Phase::default());
    let driver = thread::spawn({
        let phase = Arc::clone(&phase);
        move || {
            let latencies = drive(input, output, era, outstanding, &phase);
            if latencies.is_err() {
                phase.end();
            }
            latencies
        }
    });
    let timing = phase.time(1, window, &charge);
    // The driver holds the server's stdin and ends with the answers in flight; a silent server is ended under it.
    let deadline = Instant::now() + START_DEADLINE;
    while !driver.is_finished() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    if !driver.is_finished() {
        process.child().kill()?;
    }
    let latencies = driver.join().map_err(|_| "the pipe driver panicked")??;
    Sample::from_window(latencies, timing.elapsed, timing.spent)
}

/// Asks the program for `server/discover` on a pipe of its own.
fn greet(server: &StdioServer) -> Result<(), Failure> {
    let (_process, mut input, output) = start(server)?;
    input.write_all(&message::request(Era::Modern, "server/discover", ""))?;
    input.write_all(b"\n")?;
    let line = first_line(output, START_DEADLINE).map_err(|error| format!("server/discover on a pipe: {error}"))?;
    match line.contains(r#""supportedVersions""#) {
        true => Ok(()),
        false => Err(format!("server/discover on a pipe got {}", excerpt(line.as_bytes())).into()),
    }
}

fn start(server: &StdioServer) -> Result<(Running, ChildStdin, ChildStdout), Failure> {
    let mut command = Command::new(&server.program);
    let mut process = Running::spawn(command.args(&server.args).stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let input = process.child().stdin.take().ok_or("the stdio server has no stdin")?;
    let output = process.child().stdout.take().ok_or("the stdio server has no stdout")?;
    Ok((process, input, output))
}

fn drive(
    mut input: ChildStdin,
    mut output: ChildStdout,
    era: Era,
    outstanding: usize,
    phase: &Phase,
) -> Result<Vec<u64>, Failure> {
    if era == Era::Legacy {
        for message in [message::initialize(), message::initialized()] {
            input.write_all(&message)?;
            input.write_all(b"\n")?;
        }
    }
    let template = CallTemplate::new(era, "echo");
    let first = first_id(0);
    let mut next = first;
    // Slot of a call in flight: the server answers in order, so ids modulo the number outstanding are unique.
    let mut started = vec![Instant::now(); outstanding];
    let mut requests = Vec::new();
    let mut answers = Vec::with_capacity(CHUNK);
    let mut chunk = vec![0; CHUNK];
    let mut latencies = Vec::new();
    let mut expected = first;
    for slot in &mut started {
        template.append_line(next, &mut requests);
        *slot = Instant::now();
        next += 1;
    }
    input.write_all(&requests)?;
    phase.caller_is_ready();
    while !phase.is_over() {
        let length = output.read(&mut chunk)?;
        if length == 0 {
            return Err("the stdio server closed its output".into());
        }
        answers.extend_from_slice(&chunk[..length]);
        let now = Instant::now();
        let measured = phase.is_measured();
        requests.clear();
        let mut done = 0;
        while let Some(end) = memchr::memchr(b'\n', &answers[done..]) {
            let line = &answers[done..done + end];
            done += end + 1;
            if is_beside(line) {
                continue;
            }
            check(expected, line)?;
            let slot = ((expected - first) % outstanding as u64) as usize;
            if measured {
                latencies.push(u64::try_from((now - started[slot]).as_nanos()).unwrap_or(u64::MAX));
            }
            expected += 1;
            template.append_line(next, &mut requests);
            started[slot] = now;
            next += 1;
        }
        answers.drain(..done);
        input.write_all(&requests)?;
    }
    Ok(latencies)
}

/// Whether a line answers no call: what the server announces, and its answer to `initialize`.
fn is_beside(line: &[u8]) -> bool {
    let has = |text: &[u8]| memmem::find(line, text).is_some();
    has(br#""method":"#) || has(br#""serverInfo":"#)
}
