//! Real clients and servers from npm and PyPI, where `.ci/parts` put them.

use std::{path::PathBuf, process::Output, time::Duration};
use tokio::process::Command;

fn env(name: &str) -> PathBuf {
    std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run .ci/parts and source target/parts/env"))
        .into()
}

/// `node_modules`.
pub fn npm() -> PathBuf {
    env("ARCHESTRA_TEST_NPM")
}

/// Node.js of a version that all parts accept.
pub fn node() -> PathBuf {
    env("ARCHESTRA_TEST_NODE")
}

/// Python with the MCP SDK and servers.
pub fn python() -> PathBuf {
    env("ARCHESTRA_TEST_PYTHON")
}

/// A program beside that Python.
pub fn python_bin(name: &str) -> PathBuf {
    python().parent().unwrap().join(name)
}

/// Runs a program to its end.
pub async fn run(command: &mut Command) -> Output {
    let ended = tokio::time::timeout(Duration::from_secs(180), command.kill_on_drop(true).output()).await;
    ended.unwrap_or_else(|_| panic!("{command:?} does not end")).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a program to its end, which must be a success, and returns what it printed.
pub async fn printed(command: &mut Command) -> String {
    let output = run(command).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed with {}\n{out}\n{err}", output.status);
    out.into_owned()
}
