//! The multiplexer against scripted processes.

mod exclusive;
mod mapping;
mod negotiation;
mod robust;

use super::{Channel, Multiplexer, MultiplexerOptions, OutputSink};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    time::timeout,
};

/// The process's end of the stream.
struct Process {
    stdin: BufReader<ReadHalf<DuplexStream>>,
    stdout: WriteHalf<DuplexStream>,
}

impl Process {
    fn start(options: MultiplexerOptions) -> (Multiplexer, Self) {
        Self::start_with_pipe(options, 64 * 1024)
    }

    fn start_with_pipe(options: MultiplexerOptions, size: usize) -> (Multiplexer, Self) {
        let (ours, theirs) = duplex(size);
        let (stdout, stdin) = split(ours);
        let (reader, writer) = split(theirs);
        (Multiplexer::start(stdout, stdin, options), Self { stdin: BufReader::new(reader), stdout: writer })
    }

    /// A legacy process that is ready.
    async fn legacy(options: MultiplexerOptions) -> (Multiplexer, Self) {
        let (multiplexer, mut process) = Self::start(options);
        process.become_legacy().await;
        multiplexer.ready().await.unwrap();
        (multiplexer, process)
    }

    /// A modern process that is ready.
    async fn modern(options: MultiplexerOptions, capabilities: Value) -> (Multiplexer, Self) {
        let (multiplexer, mut process) = Self::start(options);
        let discover = process.read().await;
        process.answer(&discover, discovered(capabilities)).await;
        multiplexer.ready().await.unwrap();
        (multiplexer, process)
    }

    async fn become_legacy(&mut self) {
        let discover = self.read().await;
        assert_eq!(discover["method"], "server/discover");
        self.refuse(&discover, -32601).await;
        let initialize = self.read().await;
        assert_eq!(initialize["params"]["capabilities"], json!({}));
        self.answer(&initialize, initialized()).await;
        assert_eq!(self.read().await["method"], "notifications/initialized");
    }

    async fn read_line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(Duration::from_secs(120), self.stdin.read_line(&mut line));
        (read.await.expect("the process is sent something").unwrap() > 0).then_some(line)
    }

    async fn read(&mut self) -> Value {
        serde_json::from_str(&self.read_line().await.expect("stdin is open")).expect("a message in each line")
    }

    async fn write_text(&mut self, text: &str) {
        self.stdout.write_all(text.as_bytes()).await.unwrap();
    }

    async fn write(&mut self, message: &Value) {
        self.write_text(&format!("{message}\n")).await;
    }

    async fn answer(&mut self, request: &Value, result: Value) {
        self.write(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).await;
    }

    async fn refuse(&mut self, request: &Value, code: i64) {
        self.write(&json!({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": "no"}})).await;
    }
}

fn initialized() -> Value {
    json!({
        "protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"},
        "instructions": "be kind", "future": [1],
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it reads better where it is called with `json!`")]
fn discovered(capabilities: Value) -> Value {
    json!({
        "resultType": "complete", "supportedVersions": ["2025-11-25", "2026-07-28"], "capabilities": capabilities,
        "instructions": "say \"please\"", "ttlMs": 5, "cacheScope": "public",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "m", "version": "2"}},
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it reads better where it is called with `json!`")]
fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})
}

async fn send(channel: &Channel, message: &Value) {
    let sent = timeout(Duration::from_secs(120), channel.send(Bytes::from(message.to_string())));
    sent.await.expect("there is room").expect("the channel is open");
}

async fn recv(channel: &mut Channel) -> Value {
    let frame = try_recv(channel).await.expect("the channel is open");
    serde_json::from_slice(&frame).unwrap()
}

async fn try_recv(channel: &mut Channel) -> Option<Bytes> {
    timeout(Duration::from_secs(120), channel.recv()).await.expect("something arrives")
}

/// Nothing is there to be received.
async fn assert_silent(channel: &mut Channel) {
    let waited = timeout(Duration::from_millis(50), channel.recv()).await;
    assert!(waited.is_err(), "{waited:?}");
}

/// Options whose output goes into a list.
fn recording() -> (MultiplexerOptions, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let output = OutputSink::new(move |output| sink.lock().unwrap().push(format!("{output:?}")));
    (MultiplexerOptions { output: Some(output), ..MultiplexerOptions::default() }, seen)
}
