//! A small MCP server for suites that need an image: linked statically it needs nothing beside it. Over stdio or streamable HTTP.
//!
//! `mcp-echo` speaks stdio; `mcp-echo http PORT` serves `/mcp`; `mcp-echo silent` never answers; `mcp-echo exit CODE` ends at
//! once. Its tools are `echo` (argument `text`), `env` (`name`), `read` (`path`), `sleep` (`millis`), `exit` (`code`) and
//! `whoami`, which names the host and the process.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a fixture that fails should fail loudly, writes to its log, ends when told to and shows its environment"
)]

use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    thread,
    time::Duration,
};

static OUT: Mutex<()> = Mutex::new(());

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    eprintln!("mcp-echo is up");
    match arguments.as_slice() {
        ["exit", code] => {
            eprintln!("mcp-echo was told to end");
            std::process::exit(code.parse().unwrap());
        }
        ["silent"] => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        ["http", port] => serve(port.parse().unwrap()),
        _ => stdio(),
    }
}

/// Each request is answered by a thread of its own, so that a slow one holds up nobody.
fn stdio() {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        thread::spawn(move || {
            if let Some(answer) = answer(&message) {
                let _one_at_a_time = OUT.lock().unwrap();
                let mut out = std::io::stdout();
                out.write_all(format!("{answer}\n").as_bytes()).unwrap();
                out.flush().unwrap();
            }
        });
    }
}

fn answer(message: &Value) -> Option<Value> {
    let id = message.get("id")?;
    let params = &message["params"];
    let result = match message["method"].as_str()? {
        "initialize" => json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "mcp-echo", "version": "1"},
        }),
        "ping" => json!({}),
        "tools/list" => tools(),
        "tools/call" => {
            let text = call(params["name"].as_str().unwrap_or_default(), &params["arguments"]);
            json!({"content": [{"type": "text", "text": text}]})
        }
        _ => {
            return Some(json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "method not found"}}));
        }
    };
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn tools() -> Value {
    let tool = |name: &str, argument: &str, kind: &str| {
        json!({"name": name, "description": name,
            "inputSchema": {"type": "object", "properties": {argument: {"type": kind}}}})
    };
    json!({"tools": [
        tool("echo", "text", "string"), tool("env", "name", "string"), tool("read", "path", "string"),
        tool("sleep", "millis", "integer"), tool("exit", "code", "integer"), tool("whoami", "ignored", "string"),
    ]})
}

fn call(name: &str, arguments: &Value) -> String {
    let text = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
    match name {
        "echo" => text("text"),
        "env" => std::env::var(text("name")).unwrap_or_else(|_| "(unset)".to_owned()),
        "read" => std::fs::read_to_string(text("path")).unwrap_or_else(|error| format!("({error})")),
        "sleep" => {
            thread::sleep(Duration::from_millis(arguments["millis"].as_u64().unwrap_or_default()));
            "slept".to_owned()
        }
        "exit" => std::process::exit(i32::try_from(arguments["code"].as_i64().unwrap_or(1)).unwrap_or(1)),
        "whoami" => {
            let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
            format!("{} {}", host.trim(), std::process::id())
        }
        other => format!("no tool {other}"),
    }
}

/// As much of HTTP/1.1 as a client of streamable HTTP needs: requests with a length, one after the other.
fn serve(port: u16) {
    for stream in TcpListener::bind(("0.0.0.0", port)).unwrap().incoming().map_while(Result::ok) {
        thread::spawn(move || serve_connection(stream));
    }
}

fn serve_connection(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut line, mut length) = (String::new(), 0);
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let post = line.starts_with("POST ");
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            if header.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let answer = serde_json::from_slice::<Value>(&body).ok().and_then(|message| answer(&message));
        let (status, body) = match (post, answer) {
            (false, _) => ("405 Method Not Allowed", String::new()),
            (true, None) => ("202 Accepted", String::new()),
            (true, Some(answer)) => ("200 OK", answer.to_string()),
        };
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}
