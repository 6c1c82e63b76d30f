//! Legacy servers over HTTP: sessions, ids, streams and cancellation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use archestra_core::credential::CredentialPlan;
use futures::StreamExt;
use serde_json::{Value, json};

use super::peer::{Peer, Reply, Seen, error, event, events, json_reply, legacy, legacy_handshake, live, reply, result};
use super::support::{Caller, legacy_call, modern_call, options, remote, upstreams, upstreams_with};
use crate::upstream::{Answer, UpstreamError, UpstreamOptions};

fn progress(token: &Value, progress: u32) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": progress } })
}

fn token(seen: &Seen) -> Value {
    seen.message["params"]["_meta"]["progressToken"].clone()
}

#[tokio::test]
async fn a_modern_caller_is_translated_for_a_legacy_server() {
    let peer = legacy(|seen| async move {
        match seen.message["params"]["arguments"]["a"].as_u64() {
            Some(1) => json_reply(&result(&seen.message["id"], &json!({ "content": [], "isError": false }))),
            _ => json_reply(&error(&seen.message["id"], -32002)),
        }
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let caller = Caller::modern(modern_call("\"a-b\"", r#","progressToken":"p","traceparent":"00-x""#));
    let message = caller.message(&upstreams, &target).await;
    assert_eq!(message, result(&json!("a-b"), &json!({ "resultType": "complete", "content": [], "isError": false })));

    let seen = peer.seen("tools/call").remove(0);
    assert_eq!(seen.message["params"]["_meta"], json!({ "progressToken": seen.message["id"], "traceparent": "00-x" }));
    assert_eq!(seen.message["params"]["name"], "echo");
    assert_eq!((seen.header("mcp-session-id"), seen.header("mcp-protocol-version")), ("session-0", "2025-11-25"));
    let initialize = peer.seen("initialize").remove(0);
    assert_eq!(initialize.message["params"]["capabilities"], json!({}));
    assert_eq!(initialize.message["params"]["protocolVersion"], "2025-11-25");
    assert_eq!(peer.seen("notifications/initialized")[0].header("mcp-session-id"), "session-0");

    let other = modern_call("9", "").replace(r#"{"a":1}"#, r#"{"a":2}"#);
    let message = Caller::modern(other).message(&upstreams, &target).await;
    assert_eq!((&message["id"], &message["error"]["code"]), (&json!(9), &json!(-32602)));
}

#[tokio::test]
async fn callers_with_the_same_ids_and_tokens_share_a_session_without_mixing() {
    let peer = legacy(|seen| async move {
        let (id, token) = (seen.message["id"].clone(), token(&seen));
        let said = seen.message["params"]["arguments"]["a"].clone();
        tokio::time::sleep(Duration::from_millis(said.as_u64().unwrap() % 7)).await;
        let foreign = json!(token.as_u64().unwrap() + 1);
        events(&[
            progress(&foreign, 9),
            progress(&token, said.as_u64().unwrap() as u32),
            result(&json!(id.as_u64().unwrap() + 1), &json!({ "said": "foreign" })),
            result(&id, &json!({ "said": said })),
        ])
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let calls = (0..40).map(|number| {
        let (upstreams, target) = (upstreams.clone(), Arc::clone(&target));
        tokio::spawn(async move {
            let body =
                legacy_call("1", r#","_meta":{"progressToken":"t"}"#).replace(r#""a":1"#, &format!(r#""a":{number}"#));
            (number, Caller::legacy(body).messages(&upstreams, &target).await.unwrap())
        })
    });
    for call in futures::future::join_all(calls).await {
        let (number, messages) = call.unwrap();
        assert_eq!(messages, [progress(&json!("t"), number), result(&json!(1), &json!({ "said": number }))]);
    }
    assert_eq!(peer.seen("initialize").len(), 1);
    let mut ids: Vec<_> = peer.seen("tools/call").iter().map(|seen| seen.message["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40);
}

#[tokio::test]
async fn each_credential_has_its_own_session() {
    let peer = legacy(|seen| async move {
        json_reply(&result(&seen.message["id"], &json!({ "session": seen.header("mcp-session-id") })))
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let plan = |token: &str| CredentialPlan::Headers {
        headers: vec![("authorization".to_owned(), format!("Bearer {token}").as_str().into())],
        expires_at: None,
    };
    let mut sessions = Vec::new();
    for token in ["a", "b", "a"] {
        let caller = Caller::legacy(legacy_call("1", "")).with(plan(token));
        sessions.push(caller.message(&upstreams, &target).await["result"]["session"].clone());
    }
    assert_eq!(sessions, ["session-0", "session-1", "session-0"]);
    assert_eq!(peer.seen("initialize")[1].header("authorization"), "Bearer b");
}

#[tokio::test]
async fn requests_of_the_server_are_answered_and_its_logs_go_to_who_wants_them() {
    let peer = legacy(|seen| async move {
        events(&[
            json!({ "jsonrpc": "2.0", "id": "q1", "method": "sampling/createMessage", "params": {} }),
            json!({ "jsonrpc": "2.0", "id": 7, "method": "ping" }),
            json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": "x" } }),
            json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }),
            result(&seen.message["id"], &json!({ "content": [] })),
        ])
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let mut changed = upstreams.tools_changed();
    assert_eq!(Caller::modern(modern_call("1", "")).messages(&upstreams, &target).await.unwrap().len(), 1);
    let wants = r#","io.modelcontextprotocol/logLevel":"info""#;
    assert_eq!(Caller::modern(modern_call("1", wants)).messages(&upstreams, &target).await.unwrap().len(), 2);
    assert_eq!(Caller::legacy(legacy_call("1", "")).messages(&upstreams, &target).await.unwrap().len(), 2);
    assert_eq!(changed.recv().await.unwrap(), target.installation().id);
    for _ in 0..200 {
        let answers: Vec<_> = peer.seen("").into_iter().filter(|seen| seen.http_method == "POST").collect();
        if answers.len() == 6 {
            let refused = answers.iter().filter(|seen| seen.message["id"] == "q1");
            assert!(
                refused.clone().count() == 3 && refused.clone().all(|seen| seen.message["error"]["code"] == -32601)
            );
            assert!(answers.iter().any(|seen| seen.message == json!({ "jsonrpc": "2.0", "id": 7, "result": {} })));
            assert!(answers.iter().all(|seen| seen.header("mcp-session-id") == "session-0"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", peer.all());
}

/// A server that reports progress of a call once and then works for ever.
async fn never_done() -> Peer {
    legacy(|seen| {
        let (sender, mut reply) = live();
        if seen.method() == "tools/list" {
            reply = json_reply(&result(&seen.message["id"], &json!({ "tools": [] })));
        }
        let wants_progress = !token(&seen).is_null();
        if wants_progress {
            sender.send(event(&progress(&token(&seen), 1))).unwrap();
        }
        tokio::spawn(async move { sender.closed().await });
        async move {
            if seen.message["params"]["arguments"]["a"] == 2 {
                std::future::pending::<()>().await;
            }
            reply
        }
    })
    .await
}

#[tokio::test]
async fn whoever_drops_a_call_cancels_it_upstream() {
    let peer = never_done().await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let caller = Caller::legacy(legacy_call("77", r#","_meta":{"progressToken":"t"}"#));
    let answer = caller.call(&upstreams, &target).await.unwrap();
    let Answer::Stream(mut stream) = answer else { panic!("{answer:?}") };
    assert!(stream.next().await.unwrap().is_ok());
    assert!(peer.seen("notifications/cancelled").is_empty());
    drop(stream);
    let cancelled = peer.wait_for("notifications/cancelled").await;
    assert_eq!(cancelled.message["params"]["requestId"], peer.seen("tools/call")[0].message["id"]);
    assert_eq!(cancelled.header("mcp-session-id"), "session-0");
}

#[tokio::test]
async fn a_call_that_runs_out_of_time_or_is_taken_back_is_cancelled_upstream() {
    let waiting_for_head = legacy_call("1", "").replace(r#""a":1"#, r#""a":2"#);
    for body in [legacy_call("1", ""), waiting_for_head] {
        let peer = never_done().await;
        let (upstreams, target) = (upstreams(), remote(&peer.url()));
        // The session is there before, so that the short time has only the call itself in it.
        upstreams.list_tools(&target, &CredentialPlan::None).await.unwrap();
        let outcome = Caller::legacy(body.clone()).within(Duration::from_secs(2)).messages(&upstreams, &target).await;
        assert!(matches!(outcome, Err(UpstreamError::Timeout { .. })), "{outcome:?}");
        peer.wait_for("notifications/cancelled").await;

        let caller = Caller::legacy(body);
        let (outcome, ()) = tokio::join!(caller.messages(&upstreams, &target), async {
            peer.wait_for_number("tools/call", 2).await;
            caller.cancel.cancel();
        });
        assert!(matches!(outcome, Err(UpstreamError::Cancelled)), "{outcome:?}");
        peer.wait_for_number("notifications/cancelled", 2).await;
    }
}

#[tokio::test]
async fn a_lost_session_is_opened_again_and_the_request_sent_once_more() {
    let calls = AtomicUsize::new(0);
    let peer = legacy(move |seen| {
        let lost = calls.fetch_add(1, Ordering::SeqCst) == 1;
        async move {
            if lost {
                return reply(404, "application/json", error(&Value::Null, -32001).to_string());
            }
            json_reply(&result(&seen.message["id"], &json!({ "session": seen.header("mcp-session-id") })))
        }
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    for expected in ["session-0", "session-1", "session-1"] {
        let message = Caller::legacy(legacy_call("1", "")).message(&upstreams, &target).await;
        assert_eq!(message["result"]["session"], expected);
    }
    assert_eq!(peer.seen("server/discover").len(), 1);
}

#[tokio::test]
async fn a_session_that_is_refused_with_400_is_opened_again() {
    for (echoes, code, text) in [
        (true, -32000, "Bad Request: No valid session ID provided"),
        (false, -32000, "Bad Request: No valid session ID provided"),
        (true, -32000, "Bad Request: Server not INITIALIZED"),
        (true, -32001, "Session not found"),
        (false, -32000, "no"),
    ] {
        let calls = AtomicUsize::new(0);
        let peer = legacy(move |seen| {
            let lost = calls.fetch_add(1, Ordering::SeqCst) == 1;
            async move {
                if lost {
                    let id = if echoes { seen.message["id"].clone() } else { Value::Null };
                    return refusal(&id, code, text);
                }
                json_reply(&result(&seen.message["id"], &json!({ "session": seen.header("mcp-session-id") })))
            }
        })
        .await;
        let (upstreams, target) = (upstreams(), remote(&peer.url()));
        for expected in ["session-0", "session-1", "session-1"] {
            let message = Caller::legacy(legacy_call("1", "")).message(&upstreams, &target).await;
            assert_eq!(message["result"]["session"], expected, "{code} {text:?}, the id is echoed: {echoes}");
        }
        assert_eq!(peer.seen("initialize").len(), 2);
    }
}

#[tokio::test]
async fn a_call_that_failed_with_400_is_not_made_again() {
    for (code, text) in [(-32000, "the ticket is closed"), (-32001, "no"), (-32003, "session"), (4711, "session")] {
        let peer = legacy(move |seen| async move { refusal(&seen.message["id"], code, text) }).await;
        let message = Caller::legacy(legacy_call("1", "")).message(&upstreams(), &remote(&peer.url())).await;
        assert_eq!((&message["id"], &message["error"]["code"]), (&json!(1), &json!(code)));
        assert_eq!((peer.seen("tools/call").len(), peer.seen("initialize").len()), (1, 1), "{code} {text:?}");
    }
}

#[tokio::test]
async fn a_400_that_a_new_session_does_not_mend_is_the_servers_answer() {
    let peer = legacy(|seen| async move {
        let code = if seen.message["params"]["arguments"]["a"] == 1 { -32000 } else { -32603 };
        refusal(&seen.message["id"], code, "No valid session ID provided")
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let message = Caller::legacy(legacy_call("1", "")).message(&upstreams, &target).await;
    assert_eq!((&message["id"], &message["error"]["code"]), (&json!(1), &json!(-32000)));
    assert_eq!((peer.seen("tools/call").len(), peer.seen("initialize").len()), (2, 2));

    // What is about the request costs no session.
    let other = legacy_call("2", "").replace(r#""a":1"#, r#""a":2"#);
    let message = Caller::legacy(other).message(&upstreams, &target).await;
    assert_eq!((&message["id"], &message["error"]["code"]), (&json!(2), &json!(-32603)));
    assert_eq!((peer.seen("tools/call").len(), peer.seen("initialize").len()), (3, 2));
}

/// A JSON-RPC error with status 400.
fn refusal(id: &Value, code: i64, text: &str) -> Reply {
    let message = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": text } });
    reply(400, "application/json", message.to_string())
}

#[tokio::test]
async fn a_server_that_never_knows_its_sessions_is_tried_twice_and_no_more() {
    let peer = legacy(|_| async { reply(404, "text/plain", "gone") }).await;
    let outcome = Caller::legacy(legacy_call("1", "")).messages(&upstreams(), &remote(&peer.url())).await;
    assert!(matches!(outcome, Err(UpstreamError::Protocol { .. })), "{outcome:?}");
    assert_eq!(peer.seen("tools/call").len(), 2);
    assert_eq!(peer.seen("initialize").len(), 2);
}

#[tokio::test]
async fn idle_sessions_are_deleted_and_so_are_those_too_many() {
    let peer = legacy(|seen| async move { json_reply(&result(&seen.message["id"], &json!({}))) }).await;
    let deleted = || peer.all().into_iter().filter(|seen| seen.http_method == "DELETE").collect::<Vec<_>>();
    let short = UpstreamOptions { idle_after: Duration::from_millis(100), max_sessions: 1, ..options() };
    let (upstreams, target) = (upstreams_with(short, None, Arc::default()), remote(&peer.url()));
    let other = remote(&peer.url());
    Caller::legacy(legacy_call("1", "")).message(&upstreams, &target).await;
    // Which of the two was used longer ago is told in milliseconds.
    upstreams.skip(Duration::from_millis(10));
    Caller::legacy(legacy_call("1", "")).message(&upstreams, &other).await;
    for _ in 0..3000 {
        if deleted().len() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(deleted()[0].header("mcp-session-id"), "session-0");
    assert_eq!(deleted()[1].header("mcp-session-id"), "session-1");

    Caller::legacy(legacy_call("1", "")).message(&upstreams, &target).await;
    upstreams.shutdown().await;
    assert_eq!(deleted().len(), 3, "shutting down ends sessions");
    let outcome = Caller::legacy(legacy_call("1", "")).messages(&upstreams, &other).await;
    assert!(matches!(outcome, Err(UpstreamError::Stopping)), "{outcome:?}");
}

#[tokio::test]
async fn a_stream_that_is_cut_is_resumed_after_its_last_event() {
    let sessions = AtomicUsize::new(0);
    let call = Arc::new(std::sync::Mutex::new(Value::Null));
    let peer = Peer::start(move |seen| {
        let reply = if seen.http_method == "GET" && !seen.header("last-event-id").is_empty() {
            let id = call.lock().unwrap().clone();
            events(&[result(&id, &json!({ "after": seen.header("last-event-id") }))])
        } else if let Some(handshake) = legacy_handshake(&seen, &sessions) {
            handshake
        } else {
            *call.lock().unwrap() = seen.message["id"].clone();
            reply(200, "text/event-stream", "id: e7\nretry: 10\ndata: \n\n")
        };
        async { reply }
    })
    .await;
    let message = Caller::legacy(legacy_call("1", "")).message(&upstreams(), &remote(&peer.url())).await;
    assert_eq!(message["result"], json!({ "after": "e7" }));
}

#[tokio::test]
async fn changed_tools_are_heard_of_while_the_session_lasts() {
    let sessions = AtomicUsize::new(0);
    let peer = Peer::start(move |seen| {
        let id = &seen.message["id"];
        let reply = match (seen.http_method.as_str(), seen.method()) {
            ("GET", _) => {
                let (sender, reply) = live();
                tokio::spawn(async move {
                    sender
                        .send(event(&json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })))
                        .unwrap();
                    sender.closed().await;
                });
                reply
            }
            (_, "initialize") => json_reply(&result(
                id,
                &json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": { "listChanged": true } } }),
            )),
            (_, "tools/call") => json_reply(&result(id, &json!({}))),
            _ => legacy_handshake(&seen, &sessions).unwrap(),
        };
        async { reply }
    })
    .await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let mut changed = upstreams.tools_changed();
    for _ in 0..3 {
        Caller::legacy(legacy_call("1", "")).message(&upstreams, &target).await;
    }
    assert_eq!(changed.recv().await.unwrap(), target.installation().id);
    let listening: Vec<_> = peer.all().into_iter().filter(|seen| seen.http_method == "GET").collect();
    assert_eq!(listening.len(), 1);
    assert_eq!(listening[0].header("mcp-protocol-version"), "2025-06-18", "the revision that was agreed on");
    upstreams.shutdown().await;
}

#[tokio::test]
async fn tools_are_listed_page_by_page() {
    let peer = legacy(|seen| async move {
        let tool = |name: &str, header: Value| json!({ "name": name, "inputSchema": { "type": "object", "properties": { "a": { "type": "string", "x-mcp-header": header } } } });
        let page = match seen.message["params"]["cursor"].as_str() {
            None => json!({ "tools": [tool("one", json!("Region")), tool("bad", json!("not a token"))], "nextCursor": "p2" }),
            Some("p2") => json!({ "tools": [tool("two", json!("Region")), { "title": "nameless" }] }),
            Some(_) => json!({}),
        };
        events(&[result(&seen.message["id"], &page)])
    })
    .await;
    let tools = upstreams().list_tools(&remote(&peer.url()), &CredentialPlan::None).await.unwrap();
    assert_eq!(tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect::<Vec<_>>(), ["one", "two"]);
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let pages = AtomicUsize::new(0);
    let peer = legacy(move |seen| {
        let next = pages.fetch_add(1, Ordering::SeqCst).to_string();
        async move { json_reply(&result(&seen.message["id"], &json!({ "tools": [], "nextCursor": next }))) }
    })
    .await;
    let outcome = upstreams().list_tools(&remote(&peer.url()), &CredentialPlan::None).await;
    assert!(matches!(outcome, Err(UpstreamError::Protocol { .. })), "{outcome:?}");
    assert_eq!(peer.seen("tools/list").len(), 100);
}

#[tokio::test]
async fn a_list_that_is_too_large_as_a_whole_is_refused() {
    let pages = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pages);
    let peer = legacy(move |seen| {
        let page = count.fetch_add(1, Ordering::Relaxed);
        let description = "x".repeat(12 << 20);
        let tools = json!([{ "name": format!("t{page}"), "description": description, "inputSchema": {} }]);
        let listed = json!({ "tools": tools, "nextCursor": format!("p{page}") });
        async move { json_reply(&result(&seen.message["id"], &listed)) }
    })
    .await;
    let error = upstreams().list_tools(&remote(&peer.url()), &CredentialPlan::None).await.unwrap_err();
    assert!(error.to_string().contains("32 MiB"), "{error}");
    assert_eq!(pages.load(Ordering::Relaxed), 3);
}
