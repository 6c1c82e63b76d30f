//! What this binary is when it is started with a `mode=`: MCP servers of several tempers, and a runtime to be killed.

use super::help::{Place, ready, until, workload};
use serde_json::{Value, json};
use std::{
    io::{self, BufRead, Write},
    net::TcpListener,
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

const FOR_EVER: Duration = Duration::from_secs(3600);

pub(crate) fn main() {
    let Some(mode) = argument("mode=") else { return };
    // The harness may have begun a line of its own.
    io::stdout().lock().write_all(b"\n").unwrap();
    match mode.as_str() {
        "mcp" => serve(Temper::Patient),
        "dies-of-probe" => serve(Temper::DiesOfProbe),
        "silent" => thread::sleep(FOR_EVER),
        "mute" => drop(io::copy(&mut io::stdin().lock(), &mut io::sink())),
        "crash" => crash(),
        "http" => listen("127.0.0.1"),
        "http6" => listen("[::1]"),
        "tree" => {
            grow_tree();
            serve(Temper::Patient);
        }
        "leaver" => leave(),
        "parent" => be_parent(),
        other => panic!("no such mode: {other}"),
    }
    std::process::exit(0);
}

fn argument(prefix: &str) -> Option<String> {
    std::env::args().find_map(|argument| argument.strip_prefix(prefix).map(str::to_owned))
}

#[derive(Clone, Copy, PartialEq)]
enum Temper {
    Patient,
    DiesOfProbe,
}

/// A legacy stdio server with the tools `echo`, `sleep`, `begun` (how many calls of `sleep` have), `meet` (answers when so many
/// of its calls are under way), `change` and `env`; calls run at the same time.
#[expect(clippy::disallowed_methods, reason = "the environment is what the test asks for")]
fn serve(temper: Temper) {
    eprintln!("fixture is up");
    let mut begun = 0;
    let meeting = Arc::new((Mutex::new(0_u64), Condvar::new()));
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let id = message["id"].clone();
        if id.is_null() {
            continue;
        }
        let text = message["params"]["arguments"]["text"].as_str().unwrap_or_default().to_owned();
        match (message["method"].as_str().unwrap_or_default(), message["params"]["name"].as_str().unwrap_or_default()) {
            ("initialize", _) => {
                let info = json!({"name": "fixture", "version": "1"});
                answer(
                    &id,
                    "result",
                    &json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {"listChanged": true}}, "serverInfo": info}),
                );
            }
            ("ping", _) => answer(&id, "result", &json!({})),
            ("tools/list", _) => {
                let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
                let tools = ["echo", "sleep", "begun", "meet", "change", "env"].map(tool);
                answer(&id, "result", &json!({"tools": tools}));
            }
            ("tools/call", "echo") => say(&id, &text),
            ("tools/call", "change") => {
                line_out(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
                say(&id, "changed");
            }
            ("tools/call", "env") => say(&id, &std::env::var(text).unwrap_or_else(|_| "<unset>".to_owned())),
            ("tools/call", "sleep") => {
                begun += 1;
                drop(thread::spawn(move || {
                    thread::sleep(Duration::from_millis(text.parse().unwrap()));
                    say(&id, &format!("slept {text}"));
                }));
            }
            ("tools/call", "begun") => say(&id, &format!("begun: {begun}")),
            ("tools/call", "meet") => {
                let meeting = Arc::clone(&meeting);
                drop(thread::spawn(move || {
                    let wanted = text.parse().unwrap();
                    let (count, arrived) = &*meeting;
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    arrived.notify_all();
                    drop(arrived.wait_while(count, |count| *count < wanted).unwrap());
                    say(&id, &format!("met {text}"));
                }));
            }
            ("server/discover", _) if temper == Temper::DiesOfProbe => return,
            (method, _) => answer(&id, "error", &json!({"code": -32601, "message": format!("no method {method}")})),
        }
    }
}

fn say(id: &Value, text: &str) {
    answer(id, "result", &json!({"content": [{"type": "text", "text": text}]}));
}

fn answer(id: &Value, key: &str, value: &Value) {
    line_out(&json!({"jsonrpc": "2.0", "id": id, key: value}));
}

fn line_out(message: &Value) {
    let line = format!("{message}\n");
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
}

#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "a server that prints its environment and ends as it likes"
)]
fn crash() {
    eprintln!("cannot go on with {}", std::env::var("API_KEY").unwrap());
    std::process::exit(3);
}

#[expect(clippy::disallowed_methods, reason = "the port comes in the environment")]
fn listen(address: &str) {
    let port = std::env::var("PORT").unwrap();
    assert_eq!(argument("port="), Some(port.clone()));
    let listener = TcpListener::bind(format!("{address}:{port}")).unwrap();
    io::stdout().lock().write_all(b"on standard output\n").unwrap();
    for connection in listener.incoming() {
        drop(connection);
    }
}

/// A child in the group, and one that leaves it, which has a child of its own that ignores SIGTERM.
fn grow_tree() {
    spawn(Command::new("sleep").arg("3600"));
    spawn(Command::new(std::env::current_exe().unwrap()).args([
        "fixture_process",
        "--exact",
        "--nocapture",
        "mode=leaver",
    ]));
}

fn leave() {
    rustix::process::setsid().unwrap();
    spawn(Command::new("sh").args(["-c", "trap '' TERM; while :; do sleep 1; done"]));
    thread::sleep(FOR_EVER);
}

/// With none of our streams, so that nobody ends for lack of them.
fn spawn(command: &mut Command) {
    drop(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
}

fn be_parent() {
    let place = Place::at(argument("state=").unwrap().into(), argument("id=").unwrap().parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let processes = place.runtime().await;
        let work = workload(&place, "mode=tree");
        archestra_core::runtime::Runtime::apply(&processes, &work).await.unwrap();
        ready(&processes, &work.id).await;
        until("the whole tree", || async { place.alive().len() >= 4 }).await;
        io::stdout().lock().write_all(b"the tree is up\n").unwrap();
        tokio::time::sleep(FOR_EVER).await;
    });
}
