//! Servers that are dead, slow, in the way, or no MCP servers at all.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::peer::{Peer, json_reply, legacy, modern, reply, result};
use super::support::{
    Caller, client, entry, installation, legacy_call, modern_call, options, remote, upstreams, upstreams_with,
};
use crate::upstream::dial::DialPolicy;
use crate::upstream::{Target, UpstreamError, UpstreamOptions, UpstreamParts, Upstreams};

#[tokio::test]
async fn a_dead_port_is_unreachable_and_not_remembered_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, upstreams) = (listener.local_addr().unwrap().port(), upstreams());
    drop(listener);
    let target = remote(&format!("http://127.0.0.1:{port}/mcp"));
    let outcome = Caller::modern(modern_call("1", "")).messages(&upstreams, &target).await;
    let Err(error @ UpstreamError::Unreachable { .. }) = outcome else { panic!("{outcome:?}") };
    assert!(!error.client_text().contains("127.0.0.1"), "{}", error.client_text());
    assert!(error.client_text().contains("tracker"));

    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let _peer = Peer::on(listener, |seen| async move {
        let id = &seen.message["id"];
        json_reply(&if seen.method() == "server/discover" {
            super::peer::discovered(id)
        } else {
            result(id, &json!({}))
        })
    });
    Caller::modern(modern_call("1", "")).message(&upstreams, &target).await;
}

#[tokio::test]
async fn a_server_that_hangs_fails_its_own_callers_in_time_and_nobody_else() {
    let hanging = Peer::start(|_| async { std::future::pending().await }).await;
    let fine =
        modern(|seen| async move { json_reply(&result(&seen.message["id"], &json!({ "resultType": "complete" }))) })
            .await;
    let (upstreams, slow, fast) = (upstreams(), remote(&hanging.url()), remote(&fine.url()));
    let started = Instant::now();
    let stuck = (0..20).map(|_| {
        let (upstreams, slow) = (upstreams.clone(), Arc::clone(&slow));
        tokio::spawn(async move {
            Caller::modern(modern_call("1", "")).within(Duration::from_secs(2)).messages(&upstreams, &slow).await
        })
    });
    let stuck: Vec<_> = stuck.collect();
    Caller::modern(modern_call("2", "")).message(&upstreams, &fast).await;
    assert!(stuck.iter().all(|call| !call.is_finished()), "nobody waits for those that hang");
    for call in stuck {
        let outcome = call.await.unwrap();
        assert!(matches!(outcome, Err(UpstreamError::Timeout { .. })), "{outcome:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn refusals_are_told_apart() {
    for (status, content_type, body) in [
        (401, "application/json", r#"{"error":"invalid_token"}"#),
        (403, "text/plain", "no"),
        (503, "text/plain", "busy"),
        (302, "text/plain", ""),
        (200, "text/html", "<html>"),
        (500, "text/html", "<html>"),
    ] {
        let peer = modern(move |_| async move { reply(status, content_type, body) }).await;
        let outcome = Caller::modern(modern_call("1", "")).messages(&upstreams(), &remote(&peer.url())).await;
        let error = outcome.unwrap_err();
        let fits = match status {
            401 | 403 => matches!(error, UpstreamError::Unauthorized { .. }),
            503 => matches!(error, UpstreamError::Unreachable { .. }),
            _ => matches!(error, UpstreamError::Protocol { .. }),
        };
        assert!(fits, "{status} {content_type}: {error}");
        assert_eq!(peer.seen("tools/call").len(), 1, "{status}");
    }
}

#[tokio::test]
async fn what_is_no_mcp_server_says_so_before_anything_is_called() {
    for (status, content_type) in [(404, "text/html"), (405, "text/plain"), (200, "text/html"), (401, "text/plain")] {
        let peer = Peer::start(move |_| async move { reply(status, content_type, "<html>") }).await;
        let error =
            Caller::legacy(legacy_call("1", "")).messages(&upstreams(), &remote(&peer.url())).await.unwrap_err();
        let fits = match status {
            401 => matches!(error, UpstreamError::Unauthorized { .. }),
            _ => matches!(error, UpstreamError::Protocol { .. }),
        };
        assert!(fits, "{status}: {error}");
        assert!(peer.seen("tools/call").is_empty());
    }
}

#[tokio::test]
async fn a_message_that_must_be_read_whole_has_a_limit() {
    for streamed in [false, true] {
        let peer = legacy(move |seen| async move {
            let result =
                result(&seen.message["id"], &json!({ "content": [{ "type": "text", "text": "x".repeat(300_000) }] }));
            if streamed { super::peer::events(&[result]) } else { json_reply(&result) }
        })
        .await;
        let upstreams = upstreams_with(UpstreamOptions { message_limit: 100_000, ..options() }, None, Arc::default());
        let outcome = Caller::modern(modern_call("1", "")).messages(&upstreams, &remote(&peer.url())).await;
        assert!(matches!(outcome, Err(UpstreamError::TooLarge { limit: 100_000, .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn the_dial_policy_holds_and_names_its_setting() {
    let peer = modern(|seen| async move { json_reply(&result(&seen.message["id"], &json!({}))) }).await;
    let parts = UpstreamParts {
        client: client(DialPolicy::public_only()),
        runtime: None,
        secrets: Arc::<super::support::Secrets>::default(),
        options: options(),
    };
    let outcome = Caller::modern(modern_call("1", "")).messages(&Upstreams::new(parts), &remote(&peer.url())).await;
    let Err(error @ UpstreamError::Refused { .. }) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().contains("--private-networks") && error.client_text().contains("--private-networks"));
    assert!(!error.client_text().contains("127.0.0.1"));
    assert!(peer.all().is_empty());
}

#[tokio::test]
async fn a_private_host_that_no_admin_saved_is_refused_though_it_is_listed() {
    let peer = modern(|_| async { json_reply(&json!({})) }).await;
    let mut unvouched = entry(json!({ "name": "tracker", "remote": { "url": peer.url() } }));
    unvouched.saved_by_admin = false;
    let installation = installation(&unvouched);
    let target = Arc::new(Target::new(Arc::new(unvouched), Arc::new(installation)));
    let outcome = Caller::modern(modern_call("1", "")).messages(&upstreams(), &target).await;
    let Err(error @ UpstreamError::Refused { .. }) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().contains("entry:admin") && !error.client_text().contains("127.0.0.1"), "{error}");
    assert!(peer.all().is_empty());
}

#[tokio::test]
async fn an_answer_to_another_request_is_no_answer() {
    for body in [
        json!({ "jsonrpc": "2.0", "id": 4711, "result": {} }).to_string(),
        "{\"jsonrpc\":".to_owned(),
        "null".to_owned(),
    ] {
        let peer = legacy(move |_| {
            let body = body.clone();
            async move { reply(200, "application/json", body) }
        })
        .await;
        let outcome = Caller::modern(modern_call("1", "")).messages(&upstreams(), &remote(&peer.url())).await;
        assert!(matches!(outcome, Err(UpstreamError::Protocol { .. })), "{outcome:?}");
    }
}
