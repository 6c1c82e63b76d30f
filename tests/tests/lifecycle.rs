//! Servers under load and under attack: many calls on one process, cancellation, death and restart, logs.
#![expect(clippy::unwrap_used, reason = "this is test code")]

use archestra_tests::{
    Home, Mcp, Running,
    load::Dice,
    mcp::{messages, modern, text},
    processes,
};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};

#[tokio::test]
async fn sixty_four_slow_calls_are_under_way_on_one_process_at_once() {
    let home = Home::new();
    let (_binary, gateway) = fixture(&home).await;
    // None is answered before all have arrived: one after the other they would never be.
    let mut calls = JoinSet::new();
    for n in 0..64 {
        let gateway = gateway.clone();
        calls.spawn(async move {
            let result = gateway.call("peer__meet", json!({ "count": 64, "say": n })).await;
            assert_eq!(text(&result), format!("met as {n}"), "{result}");
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_modern_caller_that_closes_its_stream_is_cancelled_upstream() {
    let home = Home::new();
    let (_binary, gateway) = fixture(&home).await;
    let caller = gateway.clone();
    let params = json!({ "name": "peer__wait", "arguments": { "ms": 60000, "say": "gone" } });
    let call = tokio::spawn(async move { caller.open("tools/call", params).await.map(drop) });
    until_noted(&home, "begun gone").await;
    call.abort();
    until_noted(&home, "cancelled gone").await;
}

#[tokio::test]
async fn a_legacy_caller_cancels_by_notification_and_not_by_going_away() {
    let home = Home::new();
    let (_binary, gateway) = fixture(&home).await;
    let session = gateway.session().await;
    let waiting = session.clone();
    let call = tokio::spawn(async move {
        waiting
            .request(
                41,
                "tools/call",
                json!({ "name": "peer__wait", "arguments": { "ms": 60000, "say": "taken back" } }),
            )
            .await
    });
    until_noted(&home, "begun taken back").await;
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 41 } });
    assert_eq!(session.post(&cancelled).await.status, 202);
    until_noted(&home, "cancelled taken back").await;
    let answer = tokio::time::timeout(Duration::from_secs(60), call).await.unwrap().unwrap();
    assert!(messages(&answer).is_empty(), "a cancelled request gets no response: {}", answer.text());

    let left = session.clone();
    let call = async move {
        left.request(
            42,
            "tools/call",
            json!({ "name": "peer__wait", "arguments": { "ms": 4000, "say": "left alone" } }),
        )
        .await
    };
    let call = tokio::spawn(call);
    until_noted(&home, "begun left alone").await;
    call.abort();
    until_noted(&home, "done left alone").await;
    assert!(!noted(&home).contains("cancelled left alone"));
}

#[tokio::test]
async fn when_the_process_dies_calls_under_way_fail_clearly_and_the_next_ones_work() {
    let home = Home::new();
    let (binary, gateway) = fixture(&home).await;
    let waiting = gateway.clone();
    let call = tokio::spawn(async move { waiting.call("peer__wait", json!({ "ms": 60000, "say": "doomed" })).await });
    until_noted(&home, "begun doomed").await;
    let server = binary.descendants().into_iter().rfind(|process| process.command.contains("stdio-peer")).unwrap();
    server.kill();
    let failed = tokio::time::timeout(Duration::from_secs(60), call).await.unwrap().unwrap();
    assert_eq!(failed["isError"], true, "{failed}");
    assert!(text(&failed).contains("ended"), "{failed}");
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let result = gateway.call("peer__wait", json!({ "ms": 1, "say": "alive" })).await;
        if result["isError"] != true {
            assert_eq!(text(&result), "waited for alive");
            break;
        }
        assert!(Instant::now() < until, "{result}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let id = installation(&binary).await;
    let status = binary.api().get(&format!("/api/v1/installations/{id}/status")).await.ok();
    assert_eq!(status["workload"]["phase"], "running", "{status}");
    assert!(status["workload"]["restarts"].as_u64().unwrap() >= 1, "{status}");
}

#[tokio::test]
async fn progress_reaches_the_caller_under_its_own_token() {
    let home = Home::new();
    let (_binary, gateway) = fixture(&home).await;
    let params = json!({ "name": "peer__progress", "arguments": { "steps": 3 }, "_meta": { "progressToken": "mine" } });
    let answer = gateway.modern("tools/call", params.clone()).await;
    let progress: Vec<_> =
        messages(&answer).iter().filter_map(|message| message["params"]["progress"].as_u64()).collect();
    assert_eq!(progress, [1, 2, 3], "{}", answer.text());
    assert!(messages(&answer).iter().rev().skip(1).all(|message| message["params"]["progressToken"] == "mine"));
    let answer = gateway.session().await.request(5, "tools/call", params).await;
    assert_eq!(messages(&answer).len(), 4, "{}", answer.text());
    assert_eq!(messages(&answer)[3]["id"], 5);
}

#[tokio::test]
async fn equal_ids_of_different_callers_never_cross() {
    let home = Home::new();
    let (_binary, gateway) = fixture(&home).await;
    let mut calls = JoinSet::new();
    for n in 0..200 {
        let gateway = gateway.clone();
        calls.spawn(async move {
            let result = if n % 2 == 0 {
                gateway.call("peer__wait", json!({ "ms": n % 7, "say": n })).await
            } else {
                gateway.session().await.call(1, "peer__wait", json!({ "ms": n % 5, "say": n })).await
            };
            assert_eq!(text(&result), format!("waited for {n}"));
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn clients_hear_of_changed_tools() {
    let home = Home::new();
    let (binary, gateway) = fixture(&home).await;
    let (headers, body) = modern("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }), 9);
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.extend([("accept", "application/json, text/event-stream"), ("content-type", "application/json")]);
    let response = binary.api().open(Method::POST, "/v1/mcp/peer", &headers, body).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut stream = response.into_body();
    let first = next_message(&mut stream).await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(first["params"]["notifications"]["toolsListChanged"], true);
    assert_eq!(first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 9);

    gateway.call("peer__grow", json!({})).await;
    let changed = next_message(&mut stream).await;
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    gateway.until_listed("peer__grown").await;
}

#[tokio::test]
async fn a_legacy_client_hears_of_changed_tools_on_the_stream_that_it_gets() {
    let home = Home::new();
    let (binary, gateway) = fixture(&home).await;
    let session = gateway.session().await;
    let headers = [
        ("accept", "text/event-stream"),
        ("mcp-session-id", session.id.as_str()),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    let response = binary.api().open(Method::GET, "/v1/mcp/peer", &headers, bytes()).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut stream = response.into_body();
    gateway.call("peer__grow", json!({})).await;
    let changed = next_message(&mut stream).await;
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    let tools = session.tools().await;
    assert!(tools.iter().any(|tool| tool == "peer__grown"), "{tools:?}");
}

#[tokio::test]
async fn the_apply_command_says_what_it_did_and_ends_with_what_that_means() {
    let home = Home::new();
    let binary = home.bare().await;
    let at = |name: &str| home.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
    write("token", archestra_tests::binary::ADMIN);
    write("two.yaml", "apiVersion: archestra.dev/v1\nteams: [{name: red}, {name: blue}]\n");
    write("one.yaml", "apiVersion: archestra.dev/v1\nteams: [{name: red}]\n");
    write("ill.yaml", "apiVersion: archestra.dev/v1\nteams: [{name: red, colour: blue}]\n");
    write("none.yaml", "teams: [\n");
    let apply = |server: &str, file: &str, flags: &[&str]| {
        let mut command = std::process::Command::new(archestra_tests::binary::path());
        command
            .args(["apply", "--server", server, "--token-file"])
            .arg(at("token"))
            .arg("-f")
            .arg(at(file))
            .args(flags);
        let output = command.env_remove("ARCHESTRA_TOKEN").output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(!text.contains(archestra_tests::binary::ADMIN), "{text}");
        (output.status.code().unwrap(), text)
    };
    let here = binary.url();
    let teams = async || binary.api().get("/api/v1/teams").await.ok()["items"].as_array().unwrap().len();

    let (code, said) = apply(&here, "two.yaml", &["--set", "s", "--dry-run"]);
    assert_eq!((code, said.as_str()), (0, "would create team red\nwould create team blue\n"));
    assert_eq!(teams().await, 0);
    let (code, said) = apply(&here, "two.yaml", &["--set", "s"]);
    assert_eq!((code, said.as_str()), (0, "created team red\ncreated team blue\n"));
    let (code, said) = apply(&here, "one.yaml", &["--set", "s"]);
    assert_eq!((code, said.as_str()), (0, "nothing to change\n"));
    let (code, said) = apply(&here, "one.yaml", &["--set", "s", "--prune"]);
    assert_eq!((code, said.as_str()), (0, "deleted team blue\n"));
    assert_eq!(teams().await, 1);

    for (server, file, flags, code, text) in [
        (here.as_str(), "ill.yaml", [].as_slice(), 1, "unknown field `colour`"),
        (here.as_str(), "one.yaml", &["--prune"], 2, "--set"),
        (here.as_str(), "none.yaml", &[], 2, "none.yaml"),
        (here.as_str(), "absent.yaml", &[], 2, "absent.yaml"),
        ("http://127.0.0.1:1", "one.yaml", &[], 1, "127.0.0.1:1"),
    ] {
        let (ended, said) = apply(server, file, flags);
        assert!(ended == code && said.contains(text), "{file} {flags:?}: {ended} {said}");
    }
    write("token", "arch_0000000000000000000000000000000000000000");
    let (code, said) = apply(&here, "one.yaml", &[]);
    assert!(code == 1 && said.contains("token"), "{code} {said}");
    assert_eq!(teams().await, 1);
}

#[tokio::test]
async fn logs_are_read_and_followed_over_a_restart() {
    let home = Home::new();
    let (binary, gateway) = fixture(&home).await;
    gateway.call("peer__complain", json!({ "say": "first complaint" })).await;
    let id = installation(&binary).await;
    let path = format!("/api/v1/installations/{id}/logs");
    until(async || binary.api().get(&path).await.text().contains("first complaint"), 30).await;
    let followed = binary.api().open(Method::GET, &format!("{path}?follow=true"), &[], bytes()).await.unwrap();
    let mut followed = followed.into_body();
    binary.api().post(&format!("/api/v1/installations/{id}/restart"), &json!({})).await.ok();
    until(async || gateway.call("peer__complain", json!({ "say": "second complaint" })).await["isError"] != true, 30)
        .await;
    let mut seen = String::new();
    let until = Instant::now() + Duration::from_secs(60);
    while !seen.contains("second complaint") {
        let frame = tokio::time::timeout_at(until, followed.frame()).await.unwrap().unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
    }
    assert!(seen.contains("first complaint"), "{seen}");
}

#[tokio::test]
async fn a_server_that_crashes_says_why() {
    let home = Home::new();
    let binary = home.bare().await;
    let api = binary.api();
    let entry = json!({ "name": "crash", "scope": "organization", "selfHosted": { "command": ["sh", "-c", "echo 'no licence found' >&2; exit 3"] } });
    api.post("/api/v1/entries", &entry).await.ok();
    let made = api.post("/api/v1/installations", &json!({ "entry": "crash", "scope": "organization" })).await.ok();
    let path = format!("/api/v1/installations/{}/status", made["id"].as_str().unwrap());
    let mut last = Value::Null;
    until(
        async || {
            last = api.get(&path).await.ok();
            last.to_string().contains("3") && last.to_string().contains("no licence found")
        },
        30,
    )
    .await;
    api.delete(&format!("/api/v1/installations/{}", made["id"].as_str().unwrap())).await.ok();
    until(async || binary.descendants().is_empty(), 30).await;
}

/// The binary with the fixture server `peer` behind the gateway `peer`.
#[tokio::test]
async fn an_apply_that_is_killed_half_way_is_made_whole_by_the_next_one() {
    const PRUNED: &str = "/api/v1/apply?set=s&prune=true";
    let home = Home::new();
    let mut dice = Dice::new(3);
    let documents = [document(&home, &["one", "two", "three"]), document(&home, &["three", "four"])];
    for round in 0..6 {
        let binary = home.bare().await;
        let (api, document) = (binary.api(), documents[round % 2].clone());
        let applying = tokio::spawn(async move { api.try_send(Method::POST, PRUNED, Some(&document)).await });
        tokio::time::sleep(Duration::from_millis(dice.below(250))).await;
        let children = binary.descendants();
        binary.kill().await;
        drop(applying.await);
        processes::all_gone(&children, Duration::from_secs(5)).await;
    }
    let binary = home.bare().await;
    let api = binary.api();
    api.post(PRUNED, &documents[1]).await.ok();
    let ready = async || {
        let all = api.get("/api/v1/installations").await.ok();
        all["items"].as_array().unwrap().iter().all(|one| one["state"]["phase"] == "ready")
    };
    until(ready, 60).await;
    let again = api.post(PRUNED, &documents[1]).await.ok();
    let changes = again["changes"].as_array().unwrap();
    assert!(changes.iter().all(|change| change["action"] == "unchanged"), "{again}");
    for (kind, count) in [("entries", 2), ("installations", 2), ("gateways", 1), ("teams", 1), ("policies", 1)] {
        let all = api.get(&format!("/api/v1/{kind}")).await.ok();
        assert_eq!(all["items"].as_array().unwrap().len(), count, "{all}");
    }
    let running =
        || binary.descendants().iter().filter(|one| one.command.starts_with(peer().to_str().unwrap())).count();
    until(async || running() == 2, 30).await;
    let gateway = binary.gateway("all");
    for name in ["three", "four"] {
        let tool = format!("{name}__wait");
        gateway.until_listed(&tool).await;
        assert_eq!(text(&gateway.call(&tool, json!({ "ms": 0, "say": name })).await), format!("waited for {name}"));
    }
}

/// Entries with these names and a secret each, one installation of each, and a gateway to them all.
fn document(home: &Home, names: &[&str]) -> Value {
    let entry = |name: &&str| {
        let env = json!([{ "name": "KEY", "secret": true, "prompt": true, "required": true }]);
        let command = [peer().to_path_buf(), home.path().join("notes")];
        json!({ "name": name, "selfHosted": { "command": command, "env": env } })
    };
    let installation = |name: &&str| json!({ "entry": name, "scope": { "team": "t" }, "values": { "KEY": format!("{} keys", names.len()) } });
    let tools = |name: &&str| json!({ "entry": name, "tool": "*", "credential": { "installation": { "team": "t" } } });
    let each = |make: &dyn Fn(&&str) -> Value| names.iter().map(make).collect::<Vec<_>>();
    json!({
        "apiVersion": "archestra.dev/v1",
        "teams": [{ "name": "t" }],
        "entries": each(&entry),
        "installations": each(&installation),
        "gateways": [{ "slug": "all", "scope": "organization", "tools": each(&tools) }],
        "policies": [{ "name": "p", "entry": names[0], "tool": "progress", "action": "block" }],
    })
}

async fn fixture(home: &Home) -> (Running, Mcp) {
    let binary = home.bare().await;
    let api = binary.api();
    let command = [peer().to_path_buf(), home.path().join("notes")];
    let entry = json!({ "name": "peer", "scope": "organization", "selfHosted": { "command": command } });
    api.post("/api/v1/entries", &entry).await.ok();
    api.post("/api/v1/installations", &json!({ "entry": "peer", "scope": "organization" })).await.ok();
    let tools = [json!({ "entry": "peer", "tool": "*", "credential": "resolveAtCallTime" })];
    api.post("/api/v1/gateways", &json!({ "slug": "peer", "scope": "organization", "tools": tools })).await.ok();
    let gateway = binary.gateway("peer");
    until(async || gateway.modern("tools/list", json!({})).await.status == 200, 30).await;
    gateway.until_listed("peer__wait").await;
    (binary, gateway)
}

fn peer() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_stdio-peer"))
}

async fn installation(binary: &Running) -> String {
    binary.api().get("/api/v1/installations").await.ok()["items"][0]["id"].as_str().unwrap().to_owned()
}

/// What the fixture server wrote down of its calls.
fn noted(home: &Home) -> String {
    let path: PathBuf = home.path().join("notes");
    std::fs::read_to_string(path).unwrap_or_default()
}

async fn until_noted(home: &Home, line: &str) {
    until(async || noted(home).lines().any(|noted| noted == line), 60).await;
}

async fn until(mut holds: impl AsyncFnMut() -> bool, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds().await {
        assert!(Instant::now() < end, "it does not hold after {seconds} s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn next_message(stream: &mut hyper::body::Incoming) -> Value {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let frame = tokio::time::timeout_at(until, stream.frame()).await.unwrap().unwrap().unwrap();
        let text = String::from_utf8_lossy(frame.data_ref().unwrap()).into_owned();
        let data = text.lines().find_map(|line| serde_json::from_str(line.strip_prefix("data:")?.trim()).ok());
        if let Some(message) = data {
            return message;
        }
    }
}

const fn bytes() -> bytes::Bytes {
    bytes::Bytes::new()
}
