//! What goes wrong while others work: the binary is killed, processes die, servers fall ill, clients stall.
//!
//! `ARCHESTRA_TEST_SECONDS` says how long each kind of trouble lasts, 20 if it is absent.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "this is test code")]

use archestra_tests::{
    Api, Home, Mcp, Running,
    binary::ADMIN,
    load::{Dice, Load, Plan, Tally},
    mcp::{modern, text},
    processes::{self, Process, all_gone},
    remote::{Mood, Remote},
};
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::Instant,
};

/// How long a call of a gateway here may take, and how much later its end is a hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(10);
/// By how much the memory of the binary may have grown when trouble is over.
const GROWTH: u64 = 64 << 20;

#[tokio::test]
#[ignore = "needs time: .ci/soak"]
async fn killed_at_any_moment_it_comes_back_whole() {
    let home = Home::new();
    let ledger = Ledger::default();
    let mut dice = Dice::new(9);
    let rounds = seconds().clamp(2, 20);
    for round in 0..rounds {
        let binary = home.quickstart().await;
        is_whole(&home, &binary, &ledger).await;
        let mut trouble = JoinSet::new();
        trouble.spawn(install(binary.api(), home.path().to_path_buf(), round, ledger.clone()));
        trouble.spawn(remove(binary.api(), dice.below(u64::MAX), ledger.clone()));
        for _ in 0..4 {
            trouble.spawn(call(binary.gateway("demo")));
        }
        tokio::time::sleep(Duration::from_millis(dice.below(1200))).await;
        let children = binary.descendants();
        binary.kill().await;
        trouble.shutdown().await;
        all_gone(&children, Duration::from_secs(5)).await;
        until_empty("left behind", || processes::naming(&home.path().to_string_lossy()), 5).await;
    }
    let (there, gone) = ledger.counts();
    assert!(rounds < 10 || (there > 0 && gone > 0), "nothing was under way: {there} installed, {gone} removed");
    let binary = home.quickstart().await;
    is_whole(&home, &binary, &ledger).await;
    let children = binary.descendants();
    assert!(binary.stop().await.success());
    all_gone(&children, Duration::from_secs(5)).await;
}

#[tokio::test]
#[ignore = "needs time: .ci/soak"]
async fn processes_that_die_under_load_fail_their_calls_only() {
    let home = Home::new();
    let binary = home.bare().await;
    let names = ["north", "east", "south", "west"];
    for name in names {
        installed(&binary, name, &json!({ "selfHosted": { "command": command(&home, name) } })).await;
    }
    let gateway = behind(&binary, &names).await;
    let plan = plan(32, &names);
    let calm = Load::run(&gateway, &plan, Duration::from_secs(2)).await;
    assert!(calm.refused.is_empty(), "{calm:#?}");
    let before = processes::resident(binary.id());

    let load = Load::start(&gateway, &plan);
    let mut dice = Dice::new(4);
    // Few enough for the pauses between restarts to stay short.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(seconds() * 50)).await;
        let alive = servers(&binary);
        if !alive.is_empty() {
            alive[dice.below(alive.len() as u64) as usize].kill();
        }
    }
    let tally = load.end().await;
    assert!(tally.answered > 100, "{tally:#?}");
    assert!(tally.slowest < CALL_TIMEOUT + SLACK, "{tally:#?}");

    for name in names {
        let tool = format!("{name}__wait");
        until(&tool, async || gateway.call(&tool, json!({ "ms": 0, "say": 1 })).await["isError"] != true, 90).await;
    }
    let calm = Load::run(&gateway, &plan, Duration::from_secs(2)).await;
    assert!(calm.refused.is_empty(), "{calm:#?}");
    stays_small(&binary, before).await;
}

#[tokio::test]
#[ignore = "needs time: .ci/soak"]
async fn a_remote_server_that_is_ill_leaves_the_healthy_one_alone() {
    let home = Home::new();
    let binary = home.bare().await;
    let (ill, healthy) = (Remote::start().await, Remote::start().await);
    let names = ["ill", "healthy"];
    for (name, remote) in names.into_iter().zip([&ill, &healthy]) {
        // A second is short enough for every kind of illness to run into the deadline.
        installed(&binary, name, &json!({ "callTimeout": 1, "remote": { "url": remote.url() } })).await;
    }
    let gateway = behind(&binary, &names).await;
    let calm = Load::run(&gateway, &plan(16, &names), Duration::from_secs(2)).await;
    assert!(calm.refused.is_empty(), "{calm:#?}");
    let before = processes::resident(binary.id());

    let others = Load::start(&gateway, &plan(16, &names[1..]));
    let patients = Load::start(&gateway, &plan(32, &names[..1]));
    let moods = [Mood::Silent, Mood::Trickling, Mood::Dropping];
    for mood in moods {
        ill.be(mood);
        tokio::time::sleep(Duration::from_millis(seconds() * 1000 / moods.len() as u64)).await;
    }
    let patients = patients.end().await;
    let others = others.end().await;
    assert!(!patients.refused.is_empty(), "{patients:#?}");
    undisturbed(&others);

    ill.be(Mood::Well);
    until("the patient", async || gateway.call("ill__wait", json!({ "say": 1 })).await["isError"] != true, 60).await;
    let calm = Load::run(&gateway, &plan(16, &names), Duration::from_secs(2)).await;
    assert!(calm.refused.is_empty(), "{calm:#?}");
    stays_small(&binary, before).await;
}

#[tokio::test]
#[ignore = "needs time: .ci/soak"]
async fn two_hundred_clients_that_stall_disturb_nobody() {
    let home = Home::new();
    let binary = home.bare().await;
    installed(&binary, "peer", &json!({ "selfHosted": { "command": command(&home, "peer") } })).await;
    let gateway = behind(&binary, &["peer"]).await;
    let plan = plan(16, &["peer"]);
    let calm = Load::run(&gateway, &plan, Duration::from_secs(2)).await;
    assert!(calm.refused.is_empty(), "{calm:#?}");
    let before = processes::resident(binary.id());

    let mut stalled = JoinSet::new();
    for n in 0..200 {
        let address = binary.url().replace("http://", "").parse().unwrap();
        stalled.spawn(stall(address, Stall::ALL[n % Stall::ALL.len()]));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let tally = Load::run(&gateway, &plan, Duration::from_secs(seconds())).await;
    undisturbed(&tally);
    assert!(!stalled.is_empty());
    stalled.shutdown().await;
    undisturbed(&Load::run(&gateway, &plan, Duration::from_secs(2)).await);
    stays_small(&binary, before).await;
}

fn seconds() -> u64 {
    let text = std::env::var("ARCHESTRA_TEST_SECONDS").unwrap_or_else(|_| "20".to_owned());
    text.parse().expect("ARCHESTRA_TEST_SECONDS is a number of seconds")
}

fn plan(callers: usize, names: &[&str]) -> Plan {
    let tools = names.iter().map(|name| format!("{name}__wait")).collect();
    Plan { callers, tools, deadline: CALL_TIMEOUT + SLACK }
}

fn undisturbed(tally: &Tally) {
    assert!(tally.refused.is_empty() && tally.answered > 50 && tally.slowest < CALL_TIMEOUT, "{tally:#?}");
}

fn command(home: &Home, name: &str) -> [PathBuf; 2] {
    [PathBuf::from(env!("CARGO_BIN_EXE_stdio-peer")), home.path().join(format!("notes-{name}"))]
}

/// Saves an entry and installs it for all.
async fn installed(binary: &Running, name: &str, server: &Value) {
    let mut entry = server.clone();
    entry["name"] = name.into();
    entry["scope"] = "organization".into();
    binary.api().post("/api/v1/entries", &entry).await.ok();
    binary.api().post("/api/v1/installations", &json!({ "entry": name, "scope": "organization" })).await.ok();
}

/// A gateway with all tools of these entries, once it lists them.
async fn behind(binary: &Running, names: &[&str]) -> Mcp {
    let tools: Vec<_> = names.iter().map(|name| json!({ "entry": name, "tool": "*" })).collect();
    let spec = json!({
        "slug": "chaos", "scope": "organization", "callTimeout": CALL_TIMEOUT.as_secs(), "tools": tools,
    });
    binary.api().post("/api/v1/gateways", &spec).await.ok();
    let gateway = binary.gateway("chaos");
    until("the gateway", async || gateway.modern("tools/list", json!({})).await.status == 200, 30).await;
    for name in names {
        gateway.until_listed(&format!("{name}__wait")).await;
    }
    gateway
}

/// The fixture servers that a binary runs, their supervisors not included.
fn servers(binary: &Running) -> Vec<Process> {
    let is_server = |process: &Process| process.command.starts_with(env!("CARGO_BIN_EXE_stdio-peer"));
    binary.descendants().into_iter().filter(is_server).collect()
}

async fn stays_small(binary: &Running, before: u64) {
    let within = || processes::resident(binary.id()) <= before + GROWTH;
    until("the memory in use", async || within(), 60).await;
}

/// What has been confirmed to clients of a binary that is killed now and then.
#[derive(Debug, Clone, Default)]
struct Ledger(Arc<Mutex<Confirmed>>);

#[derive(Debug, Default)]
struct Confirmed {
    /// Installed.
    there: BTreeSet<String>,
    /// Somebody tried to remove it, perhaps before its installer heard that it is there.
    doomed: BTreeSet<String>,
    /// Removed.
    gone: BTreeSet<String>,
}

impl Ledger {
    fn counts(&self) -> (usize, usize) {
        let confirmed = self.0.lock().unwrap();
        (confirmed.there.len(), confirmed.gone.len())
    }
}

async fn install(api: Api, home: PathBuf, round: u64, ledger: Ledger) {
    for n in 0..3 {
        let name = format!("peer-{round}-{n}");
        let command = [PathBuf::from(env!("CARGO_BIN_EXE_stdio-peer")), home.join(format!("notes-{name}"))];
        let env = json!([{ "name": "KEY", "secret": true, "prompt": true, "required": true }]);
        let entry = json!({ "name": name, "scope": "organization", "selfHosted": { "command": command, "env": env } });
        if api.try_send(Method::POST, "/api/v1/entries", Some(&entry)).await.is_none() {
            return;
        }
        let wanted = json!({ "entry": name, "scope": "organization", "values": { "KEY": "value" } });
        let Some(answer) = api.try_send(Method::POST, "/api/v1/installations", Some(&wanted)).await else { return };
        answer.ok();
        ledger.0.lock().unwrap().there.insert(name);
    }
}

async fn remove(api: Api, seed: u64, ledger: Ledger) {
    let mut dice = Dice::new(seed);
    loop {
        tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        let Some(answer) = api.try_get("/api/v1/installations").await else { return };
        let listed = answer.ok();
        let peers: Vec<_> = listed["items"].as_array().unwrap().iter().filter(|one| one["entry"] != "demo").collect();
        if peers.len() < 3 {
            continue;
        }
        let one = peers[dice.below(peers.len() as u64) as usize];
        let name = one["entry"].as_str().unwrap().to_owned();
        ledger.0.lock().unwrap().doomed.insert(name.clone());
        let path = format!("/api/v1/installations/{}", one["id"].as_str().unwrap());
        let Some(answer) = api.try_send(Method::DELETE, &path, None).await else { return };
        answer.ok();
        ledger.0.lock().unwrap().gone.insert(name);
    }
}

async fn call(gateway: Mcp) {
    let params = json!({ "name": "demo__echo", "arguments": { "message": "x" } });
    while gateway.open("tools/call", params.clone()).await.is_ok() {}
}

/// What was confirmed holds, every installation is ready and has exactly its process, and the demo is callable.
async fn is_whole(home: &Home, binary: &Running, ledger: &Ledger) {
    let demo = binary.gateway("demo");
    demo.until_listed("demo__echo").await;
    let message = json!({ "message": "still here" });
    until("the demo", async || demo.call("demo__echo", message.clone()).await["isError"] != true, 60).await;
    assert!(text(&demo.call("demo__echo", message).await).contains("still here"));

    let mut listed = Value::Null;
    let ready = async || {
        listed = binary.api().get("/api/v1/installations?limit=1000").await.ok()["items"].take();
        let all = listed.as_array().unwrap();
        assert!(all.iter().all(|one| one["state"]["phase"] != "error"), "{listed:#}");
        all.iter().all(|one| one["state"]["phase"] == "ready")
    };
    until("every installation", ready, 120).await;
    let mut names: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["entry"].as_str().unwrap()).collect();
    names.retain(|name| *name != "demo");
    names.sort_unstable();
    {
        let confirmed = ledger.0.lock().unwrap();
        let lost: Vec<_> =
            confirmed.there.difference(&confirmed.doomed).filter(|name| !names.contains(&name.as_str())).collect();
        let risen: Vec<_> = confirmed.gone.iter().filter(|name| names.contains(&name.as_str())).collect();
        assert!(lost.is_empty() && risen.is_empty(), "lost: {lost:?}; removed and back: {risen:?}");
    }
    let prefix = format!("{}/notes-", home.path().display());
    let mut running = Vec::new();
    let as_listed = async || {
        let commands = servers(binary);
        running = commands
            .iter()
            .filter_map(|one| one.command.trim_end().split_once(&prefix))
            .map(|(_, name)| name.to_owned())
            .collect();
        running.sort_unstable();
        running == names
    };
    until("a process for each installation", as_listed, 60).await;
}

/// In which way a client stalls.
#[derive(Debug, Clone, Copy)]
enum Stall {
    /// It sends its head byte by byte.
    Head,
    /// It sends half of its body.
    Body,
    /// It listens for changes and reads nothing.
    Listen,
    /// It makes a call with a long stream of progress, and reads nothing.
    Progress,
}

impl Stall {
    const ALL: [Self; 4] = [Self::Head, Self::Body, Self::Listen, Self::Progress];
}

/// Stalls for ever, in a new connection whenever the server has had enough.
async fn stall(address: SocketAddr, how: Stall) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        // What is not read must not hide in the kernel.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let _ended = match how {
            Stall::Head => drip(&mut stream, address).await,
            Stall::Body => {
                let (head, body) = request(address, "tools/list", json!({}));
                stream.write_all(&[head.as_bytes(), &body[..10]].concat()).await.and(read_one(&mut stream).await)
            }
            Stall::Listen => {
                let params = json!({ "notifications": { "toolsListChanged": true } });
                silent(stream, &request(address, "subscriptions/listen", params)).await
            }
            Stall::Progress => {
                let arguments = json!({ "steps": 2000 });
                let params =
                    json!({ "name": "peer__progress", "arguments": arguments, "_meta": { "progressToken": 1 } });
                silent(stream, &request(address, "tools/call", params)).await
            }
        };
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn drip(stream: &mut TcpStream, address: SocketAddr) -> std::io::Result<()> {
    for byte in request(address, "tools/list", json!({})).0.bytes().cycle() {
        stream.write_all(&[byte]).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Sends a request and reads nothing of its answer for a minute.
async fn silent(mut stream: TcpStream, (head, body): &(String, bytes::Bytes)) -> std::io::Result<()> {
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(())
}

async fn read_one(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.read(&mut [0]).await.map(drop)
}

/// The head and the body of a modern request of the admin.
fn request(address: SocketAddr, method: &str, params: Value) -> (String, bytes::Bytes) {
    let (headers, body) = modern(method, params, 1);
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST /v1/mcp/chaos HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {ADMIN}\r\naccept: application/json, text/event-stream\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    (head, body)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds().await {
        assert!(Instant::now() < end, "{what}: not as it should be after {seconds} s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_empty(what: &str, mut found: impl FnMut() -> Vec<Process>, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let found = found();
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{what} after {seconds} s: {found:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
