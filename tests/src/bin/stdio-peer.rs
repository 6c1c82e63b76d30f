//! A stdio MCP server for the suites: it waits, reports progress, notes what happens to its calls, and grows tools.
//!
//! `stdio-peer FILE` speaks the legacy era and appends a line to FILE for each call that begins, ends or is cancelled. Calls of
//! `meet` are answered when as many as they say are under way.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a fixture that fails should fail loudly, and complains on standard error when told to"
)]

use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{BufRead as _, Write as _},
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
    time::Duration,
};

struct Peer {
    notes: String,
    out: Mutex<std::io::Stdout>,
    waiting: Mutex<HashMap<String, mpsc::Sender<()>>>,
    met: Mutex<u64>,
    joined: Condvar,
    grown: Mutex<bool>,
}

impl Peer {
    fn send(&self, message: &Value) {
        let mut out = self.out.lock().unwrap();
        writeln!(out, "{message}").unwrap();
        out.flush().unwrap();
    }

    fn answer(&self, id: &Value, result: &Value) {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    }

    fn note(&self, line: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.notes).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    /// Waits until so many calls are under way at once; whether they came.
    fn meet(&self, wanted: u64) -> bool {
        let mut met = self.met.lock().unwrap();
        *met += 1;
        self.joined.notify_all();
        let waited = self.joined.wait_timeout_while(met, Duration::from_secs(300), |met| *met < wanted);
        !waited.unwrap().1.timed_out()
    }

    fn tools(&self) -> Value {
        let tool = |name: &str| json!({ "name": name, "description": name, "inputSchema": { "type": "object" } });
        let mut tools = vec![tool("wait"), tool("meet"), tool("progress"), tool("complain"), tool("grow")];
        if *self.grown.lock().unwrap() {
            tools.push(tool("grown"));
        }
        json!({ "tools": tools })
    }

    fn call(self: &Arc<Self>, id: Value, params: &Value) {
        let arguments = params["arguments"].clone();
        let said = arguments["say"].as_str().map_or_else(|| arguments["say"].to_string(), str::to_owned);
        match params["name"].as_str().unwrap_or_default() {
            "wait" => {
                let (sender, cancelled) = mpsc::channel();
                self.waiting.lock().unwrap().insert(id.to_string(), sender);
                let peer = Arc::clone(self);
                thread::spawn(move || {
                    peer.note(&format!("begun {said}"));
                    let wait = Duration::from_millis(arguments["ms"].as_u64().unwrap_or_default());
                    if cancelled.recv_timeout(wait).is_ok() {
                        peer.note(&format!("cancelled {said}"));
                    } else {
                        peer.answer(&id, &text(&format!("waited for {said}")));
                        peer.note(&format!("done {said}"));
                    }
                    peer.waiting.lock().unwrap().remove(&id.to_string());
                });
            }
            "meet" => {
                let peer = Arc::clone(self);
                thread::spawn(move || {
                    let wanted = arguments["count"].as_u64().unwrap_or_default();
                    let all = peer.meet(wanted);
                    peer.answer(&id, &text(&if all { format!("met as {said}") } else { format!("{said} waited in vain") }));
                });
            }
            "progress" => {
                let steps = arguments["steps"].as_u64().unwrap_or_default();
                for step in 1..=steps {
                    let params = json!({ "progressToken": params["_meta"]["progressToken"], "progress": step, "total": steps });
                    self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }));
                }
                self.answer(&id, &text("done"));
            }
            "complain" => {
                eprintln!("{said}");
                self.answer(&id, &text("complained"));
            }
            "grow" => {
                *self.grown.lock().unwrap() = true;
                self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }));
                self.answer(&id, &text("grown"));
            }
            name => self.send(&json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32602, "message": format!("no tool {name}") } })),
        }
    }
}

fn text(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

fn main() {
    let peer = Arc::new(Peer {
        notes: std::env::args().nth(1).unwrap_or_else(|| "/dev/null".to_owned()),
        out: Mutex::new(std::io::stdout()),
        waiting: Mutex::default(),
        met: Mutex::default(),
        joined: Condvar::new(),
        grown: Mutex::default(),
    });
    for line in std::io::stdin().lock().lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
        let id = message["id"].clone();
        match message["method"].as_str().unwrap_or_default() {
            "initialize" => peer.answer(
                &id,
                &json!({
                    "protocolVersion": "2025-11-25",
                    "capabilities": { "tools": { "listChanged": true } },
                    "serverInfo": { "name": "stdio-peer", "version": "1" },
                }),
            ),
            "tools/list" => peer.answer(&id, &peer.tools()),
            "tools/call" => peer.call(id, &message["params"]),
            "ping" => peer.answer(&id, &json!({})),
            "notifications/cancelled" => {
                if let Some(call) = peer.waiting.lock().unwrap().get(&message["params"]["requestId"].to_string()) {
                    let _ = call.send(());
                }
            }
            method if !id.is_null() => {
                peer.send(&json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": format!("no method {method}") } }));
            }
            _ => {}
        }
    }
}
