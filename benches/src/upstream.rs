//! Starts the fast streamable-http upstream as a process of its own.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    Failure,
    cpu::Charge,
    process::{Running, first_line},
    target::{Endpoint, Era},
};

const START_DEADLINE: Duration = Duration::from_secs(10);

/// A running `fast-upstream` of one era.
#[derive(Debug)]
pub(crate) struct FastUpstream {
    process: Running,
    pub(crate) endpoint: Endpoint,
}

impl FastUpstream {
    pub(crate) fn start(program: &Path, era: Era, threads: usize) -> Result<Self, Failure> {
        // It ends when its stdin does, so it also goes when the harness is killed.
        let mut process = Running::spawn(
            Command::new(program)
                .args(["--listen", "127.0.0.1:0", "--until-eof", "--era", era.as_str()])
                .args(["--threads", &threads.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        )?;
        let output = process.child().stdout.take().ok_or("fast-upstream has no stdout")?;
        let line = first_line(output, START_DEADLINE).map_err(|error| format!("fast-upstream: {error}"))?;
        let address = line.strip_prefix("listening ").and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| format!("fast-upstream printed `{line}` instead of its address"))?;
        Ok(Self { process, endpoint: Endpoint { address, path: "/mcp".to_owned(), bearer: None } })
    }

    pub(crate) fn charge(&self) -> Charge {
        Charge::process(self.process.id())
    }
}
