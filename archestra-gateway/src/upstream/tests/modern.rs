//! Modern servers over HTTP, for callers of both eras.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::peer::{Peer, discovered, error, event, events, json_reply, legacy_handshake, live, modern, reply, result};
use super::support::{Caller, legacy_call, modern_call, remote, target_of, upstreams, upstreams_with};
use crate::upstream::{Answer, UpstreamError, UpstreamOptions};

fn complete(text: &str) -> Value {
    json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] })
}

#[tokio::test]
async fn between_modern_sides_only_the_name_and_the_capabilities_change() {
    const ANSWER: &str =
        "{ \"jsonrpc\" : \"2.0\",\"result\":{\"resultType\":\"complete\",\"future\":[1.0e2]}, \"id\":\"x\\u0041\"}";
    let peer = modern(|_| async { reply(200, "application/json; charset=utf-8", ANSWER) }).await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let sent = r#"{ "id":"x\u0041", "params":{"arguments":{"k":[1,  2]},"name" : "t__\u0065cho","_meta":{"x":1,"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{}},"progressToken":7}},"method":"tools/call","jsonrpc":"2.0"}"#;
    let expected = sent.replace(r#""t__\u0065cho""#, r#""echo""#).replace(r#"{"elicitation":{}}"#, "{}");
    let Answer::Body { content_type, content_length, body } =
        Caller::modern(sent).call(&upstreams, &target).await.unwrap()
    else {
        panic!("not streamed");
    };
    assert_eq!(content_type, "application/json; charset=utf-8");
    assert_eq!(content_length, Some(ANSWER.len() as u64));
    assert_eq!(body.collect().await.unwrap().to_bytes(), ANSWER);

    let seen = peer.seen("tools/call").remove(0);
    assert_eq!(seen.body, expected);
    for (name, value) in [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
        ("mcp-session-id", ""),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    upstreams.shutdown().await;
}

#[tokio::test]
async fn credential_wins_over_additional_over_forwarded() {
    let peer = modern(|seen| async move { json_reply(&result(&seen.message["id"], &complete("ok"))) }).await;
    let target = target_of(json!({
        "name": "tracker", "remote": { "url": peer.url() },
        "credential": { "static": [{ "name": "token", "header": "X-One", "value": "credential", "secret": false }] },
        "additionalHeaders": [{ "name": "x-two", "value": "additional" }, { "name": "mcp-method", "value": "evil" }, { "name": "User-Agent", "value": "us" }],
    }));
    let mut caller = Caller::modern(modern_call("1", ""))
        .with(archestra_core::credential::CredentialPlan::Static { installation: None, entry: None });
    for name in ["x-one", "x-two", "x-three", "mcp-param-region", "mcp-tenant", "mcp-session-id", "host", "connection"]
    {
        caller.forwarded.insert(http::HeaderName::from_static(name), "forwarded".parse().unwrap());
    }
    caller.message(&upstreams(), &target).await;
    let seen = peer.seen("tools/call").remove(0);
    for (name, value) in [
        ("x-one", "credential"),
        ("x-two", "additional"),
        ("x-three", "forwarded"),
        ("mcp-param-region", "forwarded"),
        ("mcp-tenant", "forwarded"),
        ("mcp-method", "tools/call"),
        ("connection", ""),
        ("mcp-session-id", ""),
        ("user-agent", "us"),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert!(seen.header("host").starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn an_event_stream_is_passed_on_as_it_comes_and_dropping_it_reaches_the_server() {
    let open = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&open);
    let peer = modern(move |_| {
        let (sender, reply) = live();
        let counter = Arc::clone(&counter);
        counter.fetch_add(1, Ordering::SeqCst);
        sender.send(": hello\n\n".to_owned()).unwrap();
        tokio::spawn(async move {
            sender.closed().await;
            counter.fetch_sub(1, Ordering::SeqCst);
        });
        async { reply }
    })
    .await;
    let upstreams = upstreams();
    let answer = Caller::modern(modern_call("1", "")).call(&upstreams, &remote(&peer.url())).await.unwrap();
    let Answer::Body { content_type, mut body, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(content_type, "text/event-stream");
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), ": hello\n\n");
    assert_eq!(open.load(Ordering::SeqCst), 1);
    drop(body);
    for _ in 0..200 {
        if open.load(Ordering::SeqCst) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the server's stream is still open");
}

#[tokio::test]
async fn a_legacy_caller_is_translated_for_a_modern_server() {
    let peer = modern(|seen| async move {
        json_reply(&result(
            &seen.message["id"],
            &json!({ "content": [], "resultType": "complete", "ttlMs": 5, "cacheScope": "private", "kept": 1 }),
        ))
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let message = Caller::legacy(legacy_call("\"abc\"", "")).message(&upstreams, &target).await;
    assert_eq!(message, result(&json!("abc"), &json!({ "content": [], "kept": 1 })));
    let seen = peer.seen("tools/call").remove(0);
    let meta = &seen.message["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
    assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "archestra");
    assert_eq!(seen.message["params"]["name"], "echo");
    assert_eq!(seen.header("mcp-name"), "echo");
}

#[tokio::test]
async fn a_legacy_caller_gets_the_progress_of_a_modern_server_and_no_unfinished_result() {
    let peer = modern(|seen| async move {
        let progress = |token: Value| json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": 1 } });
        let unfinished = json!({ "resultType": "input_required", "inputRequests": { "a": { "method": "elicitation/create", "params": { "mode": "url", "url": "https://x.example/", "message": "log in" } } } });
        events(&[
            progress(json!("other")),
            progress(seen.message["params"]["_meta"]["progressToken"].clone()),
            json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": "x" } }),
            result(&seen.message["id"], &unfinished),
        ])
    })
    .await;
    let caller = Caller::legacy(legacy_call("5", r#","_meta":{"progressToken":"mine"}"#));
    let messages = caller.messages(&upstreams(), &remote(&peer.url())).await.unwrap();
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert_eq!(messages[0]["params"]["progressToken"], "mine");
    assert_eq!(messages[1]["method"], "notifications/message");
    assert_eq!((&messages[2]["id"], &messages[2]["result"]["isError"]), (&json!(5), &json!(true)));
    assert!(messages[2].to_string().contains("https://x.example/"));
}

#[tokio::test]
async fn one_probe_serves_all_who_wait_and_each_has_its_own_deadline() {
    let peer = Peer::start(|seen| async move {
        if seen.method() == "server/discover" {
            tokio::time::sleep(Duration::from_millis(300)).await;
            return json_reply(&discovered(&seen.message["id"]));
        }
        json_reply(&result(&seen.message["id"], &complete("ok")))
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let calls = (0..32).map(|number| {
        let (upstreams, target) = (upstreams.clone(), Arc::clone(&target));
        tokio::spawn(async move {
            let within = Duration::from_millis(if number % 2 == 0 { 50 } else { 5000 });
            let caller = Caller::modern(modern_call(&number.to_string(), "")).within(within);
            (number, caller.messages(&upstreams, &target).await)
        })
    });
    for call in futures::future::join_all(calls).await {
        let (number, outcome) = call.unwrap();
        match outcome {
            Ok(messages) => assert_eq!((number % 2, &messages[0]["id"]), (1, &json!(number))),
            Err(error) => {
                assert!(matches!(error, UpstreamError::Timeout { .. }), "{error}");
                assert_eq!(number % 2, 0);
            }
        }
    }
    assert_eq!(peer.seen("server/discover").len(), 1);
    assert_eq!(peer.seen("tools/call").len(), 16);
}

#[tokio::test]
async fn a_json_rpc_error_with_an_http_status_is_an_answer() {
    let peer = modern(|seen| async move {
        let code = if seen.message["id"] == 1 { -32602 } else { -32021 };
        reply(400, "application/json", error(&seen.message["id"], code).to_string())
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    for (id, code) in [(1, -32602), (2, -32021)] {
        let message = Caller::modern(modern_call(&id.to_string(), "")).message(&upstreams, &target).await;
        assert_eq!((&message["id"], &message["error"]["code"]), (&json!(id), &json!(code)));
    }
    assert_eq!(peer.seen("server/discover").len(), 1, "an error of the tool puts nothing in doubt");
}

#[tokio::test]
async fn a_server_that_turns_legacy_is_asked_once_and_served_on() {
    let old = Arc::new(AtomicBool::new(false));
    let sessions = AtomicUsize::new(0);
    let now = Arc::clone(&old);
    let peer = Peer::start(move |seen| {
        let id = seen.message["id"].clone();
        let reply = if !now.load(Ordering::SeqCst) {
            json_reply(&if seen.method() == "server/discover" {
                discovered(&id)
            } else {
                result(&id, &complete("new"))
            })
        } else if let Some(handshake) = legacy_handshake(&seen, &sessions) {
            handshake
        } else if seen.header("mcp-session-id").is_empty() {
            reply(400, "application/json", error(&Value::Null, -32000).to_string())
        } else {
            json_reply(&result(&id, &json!({ "content": [], "from": "old" })))
        };
        async { reply }
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let caller = Caller::modern(modern_call("1", ""));
    assert_eq!(caller.message(&upstreams, &target).await["result"], complete("new"));
    old.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let message = caller.message(&upstreams, &target).await;
        assert_eq!(message["result"], json!({ "resultType": "complete", "content": [], "from": "old" }));
    }
    assert_eq!(peer.seen("server/discover").len(), 2);
    assert_eq!(peer.seen("initialize").len(), 1);
}

#[tokio::test]
async fn changed_tools_are_heard_of_while_the_server_is_used() {
    let peer = Peer::start(|seen| {
        let id = seen.message["id"].clone();
        let reply = match seen.method() {
            "server/discover" => json_reply(&result(&id, &json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": { "listChanged": true } } }))),
            "subscriptions/listen" => {
                let (sender, reply) = live();
                tokio::spawn(async move {
                    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": { "_meta": { "io.modelcontextprotocol/subscriptionId": "archestra-listen" } } });
                    sender.send(event(&changed)).unwrap();
                    sender.closed().await;
                });
                reply
            }
            _ => json_reply(&result(&id, &complete("ok"))),
        };
        async { reply }
    })
    .await;
    let idle_after = Duration::from_millis(200);
    let upstreams = upstreams_with(UpstreamOptions { idle_after, ..UpstreamOptions::default() }, None, Arc::default());
    let target = remote(&peer.url());
    let mut changed = upstreams.tools_changed();
    for _ in 0..3 {
        Caller::modern(modern_call("1", "")).message(&upstreams, &target).await;
    }
    let heard = tokio::time::timeout(Duration::from_secs(5), changed.recv()).await.unwrap().unwrap();
    assert_eq!(heard, target.installation().id);
    let listen = peer.seen("subscriptions/listen");
    assert_eq!(listen.len(), 1);
    assert_eq!(listen[0].message["params"]["notifications"], json!({ "toolsListChanged": true }));
    upstreams.shutdown().await;
}

#[tokio::test]
async fn a_stream_for_a_legacy_caller_ends_with_its_response() {
    let peer = modern(|seen| {
        let (sender, reply) = live();
        let (id, token) = (seen.message["id"].clone(), seen.message["params"]["_meta"]["progressToken"].clone());
        tokio::spawn(async move {
            for progress in 0..3 {
                let message = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": progress } });
                sender.send(event(&message)).unwrap();
            }
            sender.send(event(&result(&id, &complete("done")))).unwrap();
            sender.closed().await;
        });
        async { reply }
    })
    .await;
    let caller = Caller::legacy(legacy_call("1", r#","_meta":{"progressToken":4}"#));
    let answer = caller.call(&upstreams(), &remote(&peer.url())).await.unwrap();
    let Answer::Stream(stream) = answer else { panic!("{answer:?}") };
    assert_eq!(stream.collect::<Vec<_>>().await.len(), 4);
}

#[tokio::test]
async fn a_server_that_turns_modern_is_asked_once_and_served_on() {
    let new = Arc::new(AtomicBool::new(false));
    let sessions = AtomicUsize::new(0);
    let now = Arc::clone(&new);
    let peer = Peer::start(move |seen| {
        let id = seen.message["id"].clone();
        let is_modern = !seen.header("mcp-method").is_empty();
        let reply = match now.load(Ordering::SeqCst) {
            false => legacy_handshake(&seen, &sessions)
                .unwrap_or_else(|| json_reply(&result(&id, &json!({ "from": "old" })))),
            true if !is_modern => reply(400, "application/json", error(&id, -32602).to_string()),
            true if seen.method() == "server/discover" => json_reply(&discovered(&id)),
            true => json_reply(&result(&id, &complete("new"))),
        };
        async { reply }
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let caller = Caller::modern(modern_call("1", ""));
    assert_eq!(caller.message(&upstreams, &target).await["result"]["from"], "old");
    new.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(caller.message(&upstreams, &target).await["result"], complete("new"));
    }
    assert_eq!(peer.seen("server/discover").len(), 2);
}
