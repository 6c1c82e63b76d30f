//! Bad input, foreign credentials and hostile requests: each gets an error that helps, and nothing is left half done.
#![expect(clippy::unwrap_used, reason = "this is test code")]

use archestra_tests::{
    Answer, Home, Mcp, Running, Start,
    binary::ADMIN,
    mcp::{modern, response, text},
    remote::{Mood, Remote},
};
use http::Method;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

#[tokio::test]
async fn messages_that_are_wrong_get_the_protocols_own_errors() {
    let home = Home::new();
    let binary = demo(&home).await;
    let gateway = binary.gateway("demo");

    let answer = gateway.raw(&[], "{\"jsonrpc\": \"2.0\", \"id\": 1,").await;
    assert_error(&answer, 400, -32700);
    let answer = gateway.raw(&[], "[]").await;
    assert_error(&answer, 400, -32600);
    let answer = gateway.bare(&[("content-type", "text/plain"), ("accept", "application/json")], "{}").await;
    assert_eq!(answer.status, 415, "{}", answer.text());
    assert!(answer.text().contains("application/json"));
    let answer = gateway.bare(&[("content-type", "application/json"), ("accept", "image/png")], "{}").await;
    assert_eq!(answer.status, 406, "{}", answer.text());

    assert_error(&gateway.modern("tools/fly", json!({})).await, 404, -32601);
    let answer = gateway.modern("tools/call", json!({ "name": "demo__nothing", "arguments": {} })).await;
    let error = assert_error(&answer, 200, -32602);
    assert!(error.contains("demo__nothing"), "{error}");

    let session = gateway.session().await;
    assert_error(&session.request(2, "tools/fly", json!({})).await, 200, -32601);
    assert_error(&session.request(3, "tools/call", json!({ "name": "nothing" })).await, 200, -32602);
    assert_error(&session.request(4, "tools/call", json!({})).await, 200, -32602);

    let large = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": { "x": "y".repeat(5 << 20) } });
    let answer = gateway.raw(&[], large.to_string()).await;
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("4194304"), "{}", answer.text());
}

#[tokio::test]
async fn headers_that_differ_from_the_body_are_refused_before_any_policy() {
    let home = Home::new();
    let binary = demo(&home).await;
    let gateway = binary.gateway("demo");
    let params = || json!({ "name": "demo__echo", "arguments": { "message": "x" } });
    for (name, value) in
        [("mcp-name", "demo__add"), ("mcp-method", "tools/list"), ("mcp-protocol-version", "2025-11-25")]
    {
        let (mut headers, body) = modern("tools/call", params(), 5);
        headers.iter_mut().filter(|(key, _)| *key == name).for_each(|(_, old)| *old = value.to_owned());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_error(&gateway.raw(&headers, body).await, 400, -32020);
    }
    let (headers, body) = modern("tools/call", params(), 5);
    let headers: Vec<_> =
        headers.iter().filter(|(key, _)| *key != "mcp-name").map(|(name, value)| (*name, value.as_str())).collect();
    assert_error(&gateway.raw(&headers, body).await, 400, -32020);
    let doubled = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"demo__add","name":"demo__echo"}}"#;
    assert_error(&gateway.raw(&[], doubled).await, 400, -32600);
}

#[tokio::test]
async fn the_door_opens_to_valid_tokens_only() {
    let home = Home::new();
    let binary = demo(&home).await;
    let gateway = binary.gateway("demo");

    let none = gateway.as_token(None).modern("tools/list", json!({})).await;
    assert_eq!(none.status, 401);
    let challenge = none.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("Bearer"), "{challenge}");
    let foreign =
        gateway.as_token(Some("arch_0000000000000000000000000000000000")).modern("tools/list", json!({})).await;
    assert_eq!(foreign.status, 401);
    assert!(foreign.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"));

    let api = binary.api();
    let made =
        api.post("/api/v1/tokens", &json!({ "name": "short", "scope": "organization", "expiresIn": 2 })).await.ok();
    let short = made["token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.as_token(Some(&short)).modern("tools/list", json!({})).await.status, 200);
    until(async || gateway.as_token(Some(&short)).modern("tools/list", json!({})).await.status == 401, 10).await;

    let made = api.post("/api/v1/tokens", &json!({ "name": "revoked", "scope": "organization" })).await.ok();
    let token = made["token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.as_token(Some(&token)).modern("tools/list", json!({})).await.status, 200);
    api.delete(&format!("/api/v1/tokens/{}", made["id"].as_str().unwrap())).await.ok();
    until(async || gateway.as_token(Some(&token)).modern("tools/list", json!({})).await.status == 401, 5).await;

    let unknown = binary.gateway("nowhere").modern("tools/list", json!({})).await;
    assert_eq!(unknown.status, 404, "{}", unknown.text());
}

#[tokio::test]
async fn a_session_belongs_to_its_caller_and_its_gateway() {
    let home = Home::new();
    let binary = demo(&home).await;
    let api = binary.api();
    let token = api.post("/api/v1/tokens", &json!({ "name": "other", "scope": "organization" })).await.ok();
    api.post("/api/v1/gateways", &json!({ "slug": "second", "scope": "organization" })).await.ok();
    let session = binary.gateway("demo").session().await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let header = [("mcp-session-id", session.id.as_str())];
    let other = binary.gateway("demo").as_token(token["token"].as_str());
    assert_eq!(other.raw(&header, ping.clone()).await.status, 404);
    until(async || binary.gateway("second").modern("tools/list", json!({})).await.status == 200, 5).await;
    assert_eq!(binary.gateway("second").raw(&header, ping.clone()).await.status, 404);
    let tampered = format!("{}x", session.id);
    assert_eq!(binary.gateway("demo").raw(&[("mcp-session-id", &tampered)], ping.clone()).await.status, 404);
    assert_eq!(binary.gateway("demo").raw(&header, ping.clone()).await.status, 200);
    let ended = api.send(Method::DELETE, "/v1/mcp/demo", &header, None).await;
    assert_eq!(ended.status, 204);
    assert_eq!(binary.gateway("demo").raw(&header, ping).await.status, 404);
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let home = Home::new();
    let binary = demo(&home).await;
    let gateway = binary.gateway("demo");
    let (headers, body) = modern("tools/list", json!({}), 1);
    for (name, value) in [("host", "evil.example"), ("origin", "https://evil.example"), ("origin", "null")] {
        let mut all: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.push((name, value));
        assert_eq!(gateway.raw(&all, body.clone()).await.status, 403, "{name}: {value}");
    }
    let answer = binary.api().send(Method::GET, "/api/v1/entries", &[("origin", "https://evil.example")], None).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn what_cannot_be_installed_leaves_nothing_behind() {
    let home = Home::new();
    let binary = home.bare().await;
    let api = binary.api();
    let entry = async |spec: Value| api.post("/api/v1/entries", &spec).await;
    let install = async |spec: Value| api.post("/api/v1/installations", &spec).await;

    let silent = archestra_tests::binary::free_port();
    entry(json!({ "name": "gone", "scope": "organization", "remote": { "url": format!("http://127.0.0.1:{silent}/mcp") } })).await.ok();
    let refused = install(json!({ "entry": "gone", "scope": "organization" })).await;
    assert!(refused.status >= 400, "{}", refused.text());
    assert!(refused.text().contains("reach") || refused.text().contains("refused"), "{}", refused.text());

    let missing = entry(json!({ "name": "nocommand", "scope": "organization", "selfHosted": { "command": ["archestra-no-such-command"] } })).await;
    if missing.status < 300 {
        let refused = install(json!({ "entry": "nocommand", "scope": "organization" })).await;
        assert_eq!(refused.status, 422, "{}", refused.text());
        assert!(refused.text().contains("archestra-no-such-command"), "{}", refused.text());
    } else {
        assert_eq!(missing.status, 422, "{}", missing.text());
    }

    let prompted = json!({
        "name": "prompted", "scope": "organization",
        "selfHosted": { "command": ["sleep", "100"], "env": [{ "name": "API_KEY", "secret": true, "prompt": true, "required": true }] },
    });
    entry(prompted).await.ok();
    let refused = install(json!({ "entry": "prompted", "scope": "organization", "values": {} })).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("API_KEY"), "{}", refused.text());

    let listed = api.get("/api/v1/installations").await.ok();
    assert_eq!(listed["items"], json!([]));
    assert!(binary.descendants().is_empty(), "{:#?}", binary.descendants());

    let made = install(json!({ "entry": "prompted", "scope": "organization", "values": { "API_KEY": "canary-7f3a" } }))
        .await
        .ok();
    let again = install(json!({ "entry": "prompted", "scope": "organization", "values": { "API_KEY": "x" } })).await;
    assert_eq!(again.status, 409, "{}", again.text());
    for path in ["/api/v1/installations", "/api/v1/entries", "/api/v1/audit"] {
        assert!(!api.get(path).await.text().contains("canary-7f3a"), "{path} shows a secret");
    }
    assert!(!binary.log().contains("canary-7f3a"));
    for process in binary.descendants() {
        assert!(!process.command.contains("canary-7f3a"), "{process:?}");
    }
    let data = std::fs::read_dir(home.path().join("data")).unwrap();
    for file in data.flatten().filter(|file| file.file_name().to_string_lossy().contains(".db")) {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(
            !bytes.windows(11).any(|part| part == b"canary-7f3a"),
            "{} holds a secret in clear",
            file.path().display()
        );
    }
    api.delete(&format!("/api/v1/installations/{}", made["id"].as_str().unwrap())).await.ok();
    until(async || binary.descendants().is_empty(), 10).await;
}

#[tokio::test]
async fn apply_refuses_what_it_cannot_do_whole() {
    let home = Home::new();
    let binary = home.bare().await;
    let api = binary.api();
    let yaml = async |text: &str| {
        api.raw(Method::POST, "/api/v1/apply", &[("content-type", "application/yaml")], text.to_owned().into()).await
    };
    let broken = yaml("apiVersion: archestra.dev/v1\nentries:\n  - name: [unclosed\n").await;
    assert_eq!(broken.status, 400, "{}", broken.text());
    assert!(broken.text().contains("line"), "{}", broken.text());
    let half = "apiVersion: archestra.dev/v1\nteams: [{name: finance, priority: 1}]\nentries:\n- {name: ok, remote: {url: 'https://mcp.example.com/mcp'}}\n- {name: bad, remote: {url: 'ftp://x'}}\n";
    let refused = yaml(half).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("entries[1].remote.url"), "{}", refused.text());
    assert_eq!(api.get("/api/v1/entries").await.ok()["items"], json!([]));
    assert_eq!(api.get("/api/v1/teams").await.ok()["items"], json!([]));
}

#[tokio::test]
async fn rules_block_by_tool_and_by_principal() {
    let home = Home::new();
    let binary = demo(&home).await;
    let (api, gateway) = (binary.api(), binary.gateway("demo"));
    let rule = json!({ "name": "no echo", "entry": "demo", "tool": "echo", "action": "block", "message": "echo is closed today" });
    let made = api.post("/api/v1/policies", &rule).await.ok();
    until(async || gateway.call("demo__echo", json!({ "message": "x" })).await["isError"] == true, 5).await;
    let blocked = gateway.call("demo__echo", json!({ "message": "x" })).await;
    assert_eq!(text(&blocked), "echo is closed today");
    assert_eq!(text(&gateway.call("demo__add", json!({ "a": 1, "b": 2 })).await), "3");
    let token = api.post("/api/v1/tokens", &json!({ "name": "machine", "scope": "organization" })).await.ok();
    let machine = gateway.as_token(token["token"].as_str());
    let admit = json!({ "name": "machines may", "entry": "demo", "tool": "echo", "priority": 10, "callers": ["organization"], "action": "allow" });
    api.post("/api/v1/policies", &admit).await.ok();
    until(async || machine.call("demo__echo", json!({ "message": "x" })).await["isError"] != true, 5).await;
    assert_eq!(gateway.call("demo__echo", json!({ "message": "x" })).await["isError"], true);
    api.delete(&format!("/api/v1/policies/{}", made["id"].as_str().unwrap())).await.ok();
    until(async || gateway.call("demo__echo", json!({ "message": "x" })).await["isError"] != true, 5).await;
}

#[tokio::test]
async fn a_server_that_never_answers_initialize_is_an_error_in_time_and_is_ended() {
    let home = Home::new();
    let binary = start(&home, &["--start-timeout", "1s"]).await;
    let api = binary.api();
    // It reads its input and never says a word.
    let command = ["sh", "-c", "while read -r line; do :; done"];
    let entry = json!({ "name": "mute", "scope": "organization", "selfHosted": { "command": command } });
    api.post("/api/v1/entries", &entry).await.ok();
    let begun = Instant::now();
    let made = api.post("/api/v1/installations", &json!({ "entry": "mute", "scope": "organization" })).await.ok();
    let path = format!("/api/v1/installations/{}", made["id"].as_str().unwrap());
    let mut last = Value::Null;
    until(
        async || {
            last = api.get(&path).await.ok();
            last["state"]["phase"] == "error"
        },
        20,
    )
    .await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{last}");
    assert!(last["state"]["reason"].as_str().unwrap().contains("initialize"), "{last}");

    let tools = [json!({ "entry": "mute", "tool": "*", "credential": "resolveAtCallTime" })];
    api.post("/api/v1/gateways", &json!({ "slug": "mute", "scope": "organization", "tools": tools })).await.ok();
    let gateway = binary.gateway("mute");
    until(async || gateway.modern("tools/list", json!({})).await.status == 200, 10).await;
    assert_eq!(gateway.tools().await, Vec::<String>::new());
    let answer = gateway.modern("tools/call", json!({ "name": "mute__wait", "arguments": {} })).await;
    assert!(assert_error(&answer, 200, -32602).contains("mute__wait"));

    api.delete(&path).await.ok();
    until(async || binary.descendants().is_empty(), 10).await;
    assert_eq!(api.get("/api/v1/installations").await.ok()["items"], json!([]));
}

#[tokio::test]
async fn no_caller_makes_more_calls_or_opens_more_streams_than_it_may() {
    let home = Home::new();
    let binary = start(&home, &["--max-calls-per-caller", "2", "--max-streams-per-caller", "1"]).await;
    let api = binary.api();
    let notes = home.path().join("notes");
    let command = [env!("CARGO_BIN_EXE_stdio-peer"), notes.to_str().unwrap()];
    installed(&binary, "peer", &json!({ "selfHosted": { "command": command } })).await;
    let gateway = binary.gateway("peer");
    gateway.until_listed("peer__wait").await;
    let session = gateway.session().await;
    let token = api.post("/api/v1/tokens", &json!({ "name": "other", "scope": "organization" })).await.ok();
    let other = gateway.as_token(token["token"].as_str());

    let mut calls = JoinSet::new();
    let modern = gateway.clone();
    calls.spawn(async move { modern.call("peer__wait", json!({ "ms": 3000, "say": "modern" })).await });
    let legacy = session.clone();
    calls.spawn(async move { legacy.call(1, "peer__wait", json!({ "ms": 3000, "say": "legacy" })).await });
    let more = || json!({ "name": "peer__wait", "arguments": { "ms": 0, "say": "more" } });
    until(async || std::fs::read_to_string(&notes).is_ok_and(|noted| noted.matches("begun").count() == 2), 10).await;
    let refused = gateway.modern("tools/call", more()).await;
    assert!(assert_error(&refused, 429, 429).contains("2 calls"), "{}", refused.text());
    assert_eq!(refused.headers["retry-after"], "1");
    assert_error(&session.request(2, "tools/call", more()).await, 429, 429);
    assert_eq!(gateway.modern("tools/list", json!({})).await.status, 200);
    assert_eq!(text(&other.call("peer__wait", json!({ "ms": 0, "say": "other" })).await), "waited for other");
    while let Some(done) = calls.join_next().await {
        assert_ne!(done.unwrap()["isError"], true);
    }
    until(async || gateway.modern("tools/call", more()).await.status == 200, 5).await;

    let listen = || gateway.open("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }));
    let stream = listen().await.unwrap();
    assert_eq!(stream.status(), 200);
    let refused = listen().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (429, b"1".as_slice()));
    let headers = [("accept", "text/event-stream"), ("mcp-session-id", session.id.as_str())];
    let refused = api.send(Method::GET, "/v1/mcp/peer", &headers, None).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.text().contains("1 stream"), "{}", refused.text());
    let id = api.get("/api/v1/installations").await.ok()["items"][0]["id"].as_str().unwrap().to_owned();
    let logs = format!("/api/v1/installations/{id}/logs?follow=true");
    let follow = || api.open(Method::GET, &logs, &[], bytes::Bytes::new());
    let refused = api.get(&logs).await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_bytes()), (429, b"1".as_slice()));
    assert!(refused.text().contains("1 stream"), "{}", refused.text());
    assert_eq!(api.get(&logs.replace("follow=true", "follow=false")).await.status, 200);
    drop(stream);
    until(async || follow().await.unwrap().status() == 200, 5).await;
    let followed = follow().await.unwrap();
    assert_eq!((followed.status().as_u16(), listen().await.unwrap().status().as_u16()), (200, 429));
    drop(followed);
    until(async || listen().await.unwrap().status() == 200, 5).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_gives_its_servers_connection_back() {
    let home = Home::new();
    let binary = start(&home, &["--write-timeout", "1s"]).await;
    let remote = Remote::start().await;
    installed(&binary, "remote", &json!({ "remote": { "url": remote.url() } })).await;
    let gateway = binary.gateway("remote");
    gateway.until_listed("remote__wait").await;
    remote.be(Mood::Flooding);
    let address = binary.url().trim_start_matches("http://").to_owned();
    let (headers, body) = modern("tools/call", json!({ "name": "remote__wait", "arguments": {} }), 1);
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST /v1/mcp/remote HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {ADMIN}\r\naccept: application/json, text/event-stream\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    let mut client = TcpStream::connect(&address).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&body).await.unwrap();
    // Whoever goes on reading, however slowly, is served on.
    let begun = Instant::now();
    let mut part = vec![0; 1 << 20];
    while begun.elapsed() < Duration::from_secs(3) {
        client.read_exact(&mut part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(remote.flowing(), 1);
    until(async || remote.flowing() == 0, 10).await;
    remote.be(Mood::Well);
    assert_eq!(text(&gateway.call("remote__wait", json!({ "say": "on" })).await), "waited for on");
    drop(client);
}

#[tokio::test]
async fn a_client_that_closes_its_window_loses_its_connection() {
    let home = Home::new();
    let binary = start(&home, &["--write-timeout", "1s"]).await;
    let remote = Remote::start().await;
    installed(&binary, "remote", &json!({ "remote": { "url": remote.url() } })).await;
    let gateway = binary.gateway("remote");
    gateway.until_listed("remote__wait").await;
    let address = binary.url().trim_start_matches("http://").to_owned();
    let (headers, body) = modern("tools/call", json!({ "name": "remote__wait", "arguments": {} }), 1);
    for (mood, window) in [(Mood::Flooding, 0), (Mood::Flooding, 1), (Mood::Flooding, 100_000), (Mood::Well, 1)] {
        remote.be(mood);
        // What the server sends is passed on by a task of its own, which sees how it ends.
        let (mut sent, mut sending) = TcpStream::connect(&address).await.unwrap().into_split();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut from_client, mut to_client) = tokio::io::split(theirs);
        let down = tokio::spawn(async move { tokio::io::copy(&mut sent, &mut to_client).await });
        let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut sending).await });
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let shaken = builder.initial_stream_window_size(window).handshake(TokioIo::new(ours)).await;
        let (mut sender, connection) = shaken.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = http::Request::post(format!("http://{address}/v1/mcp/remote"));
        let own = [
            ("authorization", format!("Bearer {ADMIN}")),
            ("accept", "application/json, text/event-stream".to_owned()),
            ("content-type", "application/json".to_owned()),
        ];
        for (name, value) in headers.iter().chain(&own) {
            request = request.header(*name, value);
        }
        let request = request.body(http_body_util::Full::new(body.clone())).unwrap();
        let unread = sender.send_request(request).await.unwrap();
        assert_eq!(unread.status(), 200);
        let ended = tokio::time::timeout(Duration::from_secs(10), down).await;
        drop(ended.unwrap_or_else(|_| panic!("{mood:?} through a window of {window}: the connection is still there")));
        up.abort();
        connection.abort();
        until(async || remote.flowing() == 0, 5).await;
        drop(unread);
    }
    remote.be(Mood::Well);
    assert_eq!(text(&gateway.call("remote__wait", json!({ "say": "on" })).await), "waited for on");
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    let home = Home::new();
    let binary = start(&home, &[]).await;
    let remote = Remote::start().await;
    installed(&binary, "remote", &json!({ "remote": { "url": remote.url() } })).await;
    let gateway = binary.gateway("remote");
    gateway.until_listed("remote__wait").await;
    let params = || json!({ "name": "remote__wait", "arguments": { "say": "x" } });

    remote.be(Mood::CutShort);
    let answer = gateway.modern("tools/call", params()).await;
    let error = assert_error(&answer, 200, -32603);
    assert!(error.contains("broke off"), "{error}");

    remote.be(Mood::CutOpen);
    let opened = gateway.open("tools/call", params()).await;
    // Where the head had gone out already, the connection ends before the body does.
    if let Ok(opened) = opened {
        let whole = http_body_util::BodyExt::collect(opened.into_body()).await;
        assert!(whole.is_err(), "{whole:?}");
    }

    let session = gateway.session().await;
    for mood in [Mood::CutShort, Mood::CutOpen] {
        remote.be(mood);
        let result = session.call(7, "remote__wait", json!({ "say": "x" })).await;
        assert_eq!(result["isError"], true, "{result}");
    }

    until(
        async || {
            let records = binary.api().get("/api/v1/audit").await.ok();
            let calls = records["items"].as_array().unwrap().iter().filter(|record| record["action"] == "tools/call");
            let failed = calls.filter(|record| record["outcome"] == "error").count();
            failed == 4
        },
        10,
    )
    .await;
    let metrics = binary.metrics().await;
    assert!(!metrics.contains("status=\"success\""), "{metrics}");
    let failed =
        metrics.lines().find(|line| line.starts_with("mcp_tool_calls_total") && line.contains("status=\"error\""));
    assert!(failed.is_some_and(|line| line.ends_with(" 4")), "{metrics}");
}

/// A server behind a gateway of its own.
async fn installed(binary: &Running, name: &str, kind: &Value) {
    let api = binary.api();
    let mut entry = json!({ "name": name, "scope": "organization" });
    entry.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
    api.post("/api/v1/entries", &entry).await.ok();
    api.post("/api/v1/installations", &json!({ "entry": name, "scope": "organization" })).await.ok();
    let tools = [json!({ "entry": name, "tool": "*", "credential": "resolveAtCallTime" })];
    api.post("/api/v1/gateways", &json!({ "slug": name, "scope": "organization", "tools": tools })).await.ok();
    let gateway: Mcp = binary.gateway(name);
    until(async || gateway.modern("tools/list", json!({})).await.status == 200, 10).await;
}

async fn start(home: &Home, args: &[&str]) -> Running {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    home.start(&Start { args, env: vec![("ARCHESTRA_QUICKSTART", "false".to_owned())] }).await
}

async fn demo(home: &Home) -> Running {
    let binary = home.quickstart().await;
    binary.gateway("demo").until_listed("demo__echo").await;
    binary
}

async fn until(mut holds: impl AsyncFnMut() -> bool, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds().await {
        assert!(Instant::now() < end, "it does not hold after {seconds} s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn assert_error(answer: &Answer, status: u16, code: i64) -> String {
    let error = response(answer)["error"].clone();
    assert_eq!((answer.status, error["code"].as_i64()), (status, Some(code)), "{}", answer.text());
    error["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_challenge_leads_to_the_metadata_also_below_a_path() {
    let home = Home::new();
    let args = vec!["--public-url".to_owned(), "http://localhost/base".to_owned()];
    let binary = home.start(&Start { args, env: Vec::new() }).await;
    binary.gateway("demo").until_listed("demo__echo").await;
    let refused = binary.gateway("demo").as_token(None).modern("tools/list", json!({})).await;
    let challenge = refused.headers["www-authenticate"].to_str().unwrap();
    let path = "/.well-known/oauth-protected-resource/base/v1/mcp/demo";
    assert!(challenge.contains(&format!("resource_metadata=\"http://localhost{path}\"")), "{challenge}");
    let metadata = binary.api().as_token(None).get(path).await.ok();
    assert_eq!(metadata["resource"], "http://localhost/base/v1/mcp/demo");
}
