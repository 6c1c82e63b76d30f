//! Clients that take more than their share, stop reading, or close their window.

use crate::{assert_error, installed, start, until};
use archestra_tests::{
    Home,
    binary::ADMIN,
    mcp::{modern, text},
    remote::{Mood, Remote},
};
use http::Method;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

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
    // Both are taken back when what is asked meanwhile has been answered.
    let wait = |say: &str| json!({ "name": "peer__wait", "arguments": { "ms": 600_000, "say": say } });
    let (caller, params) = (gateway.clone(), wait("modern"));
    calls.spawn(async move { caller.modern("tools/call", params).await });
    let (caller, params) = (session.clone(), wait("legacy"));
    calls.spawn(async move { caller.request(1, "tools/call", params).await });
    let more = || json!({ "name": "peer__wait", "arguments": { "ms": 0, "say": "more" } });
    until(async || std::fs::read_to_string(&notes).is_ok_and(|noted| noted.matches("begun").count() == 2), 30).await;
    let refused = gateway.modern("tools/call", more()).await;
    assert!(assert_error(&refused, 429, 429).contains("2 calls"), "{}", refused.text());
    assert_eq!(refused.headers["retry-after"], "1");
    assert_error(&session.request(2, "tools/call", more()).await, 429, 429);
    assert_eq!(gateway.modern("tools/list", json!({})).await.status, 200);
    assert_eq!(text(&other.call("peer__wait", json!({ "ms": 0, "say": "other" })).await), "waited for other");
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    assert_eq!(session.post(&cancelled).await.status, 202);
    calls.shutdown().await;
    let noted = || std::fs::read_to_string(&notes).unwrap_or_default();
    until(async || noted().contains("cancelled modern") && noted().contains("cancelled legacy"), 30).await;
    until(async || gateway.modern("tools/call", more()).await.status == 200, 30).await;

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
    until(async || follow().await.unwrap().status() == 200, 30).await;
    let followed = follow().await.unwrap();
    assert_eq!((followed.status().as_u16(), listen().await.unwrap().status().as_u16()), (200, 429));
    drop(followed);
    until(async || listen().await.unwrap().status() == 200, 30).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_gives_its_servers_connection_back() {
    let home = Home::new();
    let binary = start(&home, &["--write-timeout", "3s"]).await;
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
    while begun.elapsed() < Duration::from_secs(8) {
        client.read_exact(&mut part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(remote.flowing(), 1);
    until(async || remote.flowing() == 0, 30).await;
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
        let ended = tokio::time::timeout(Duration::from_secs(60), down).await;
        drop(ended.unwrap_or_else(|_| panic!("{mood:?} through a window of {window}: the connection is still there")));
        up.abort();
        connection.abort();
        until(async || remote.flowing() == 0, 30).await;
        drop(unread);
    }
    remote.be(Mood::Well);
    assert_eq!(text(&gateway.call("remote__wait", json!({ "say": "on" })).await), "waited for on");
}
