//! What applying a workload would start, for people to read.

use super::plan::Directories;
use crate::runtime::{EnvValue, Manifest, Workload, WorkloadTransport};
use std::fmt::Write;

/// One YAML document. JSON strings are YAML scalars, so nothing a person wrote can break out of its place.
pub(super) fn render(workload: &Workload, directories: &Directories) -> Manifest {
    let spec = &workload.spec;
    let mut out = String::new();
    let mut line = |indent: usize, key: &str, value: &str| {
        writeln!(out, "{:indent$}{key}{value}", "").expect("writing to a string cannot fail");
    };
    line(0, "process: ", &quoted(workload.id.as_str()));
    line(0, "revision: ", &workload.revision.to_string());
    line(0, "command:", "");
    for word in spec.command.iter().chain(&spec.args) {
        line(0, "- ", &quoted(word));
    }
    line(0, "workingDirectory: ", &quoted(&directories.home.to_string_lossy()));
    match &spec.transport {
        WorkloadTransport::Stdio => line(0, "transport: stdio", ""),
        WorkloadTransport::StreamableHttp { port, path } => {
            line(0, "transport: streamable-http", "");
            line(
                0,
                "port: ",
                &port.map_or_else(|| "a free one on the loopback interface".to_owned(), |port| port.to_string()),
            );
            line(0, "path: ", &quoted(path));
        }
    }
    line(0, "environment:", if spec.env.is_empty() { " []" } else { "" });
    for variable in &spec.env {
        line(0, "- name: ", &quoted(&variable.name));
        match &variable.value {
            EnvValue::Plain(text) => line(2, "value: ", &quoted(text)),
            EnvValue::Secret(key) | EnvValue::Mounted(key) => {
                line(2, "secret: ", &quoted(key));
                line(2, "value: ", "<redacted>");
            }
        }
    }
    Manifest { documents: vec![out] }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}
