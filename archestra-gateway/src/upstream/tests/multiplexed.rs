//! The whole way to a stdio process, with the real multiplexer in between.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use archestra_core::runtime::Connection;
use archestra_core::runtime::stdio::{Multiplexer, MultiplexerOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, duplex, split};

use super::peer::result;
use super::support::{Caller, legacy_call, modern_call};
use super::workloads::{Connects, hosted, old, runtime, said as echo, with_runtime};
use crate::upstream::{Answer, UpstreamError};

type Log = Arc<Mutex<Vec<Value>>>;

/// A legacy process that says what it is told, after some progress; it works for ever on 1000 and dies of 2000.
async fn process() -> (Arc<Connects>, Log) {
    let (ours, theirs) = duplex(64 * 1024);
    let log = Log::default();
    let kept = Arc::clone(&log);
    tokio::spawn(async move {
        let (reader, mut writer) = split(theirs);
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let message: Value = serde_json::from_str(&line).unwrap();
            log.lock().unwrap().push(message.clone());
            let said = message["params"]["arguments"]["a"].clone();
            if said == 2000 {
                return;
            }
            let answers = old(&message, |call| match call["method"].as_str() {
                Some("initialize") => vec![result(
                    &call["id"],
                    &json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": { "name": "old", "version": "1" } }),
                )],
                _ => {
                    let token = &call["params"]["_meta"]["progressToken"];
                    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": said } });
                    let mut answers = if token.is_null() { Vec::new() } else { vec![progress] };
                    if said != 1000 {
                        answers.push(echo(call));
                    }
                    answers
                }
            });
            for answer in answers {
                writer.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
            }
        }
    });
    let (stdout, stdin) = split(ours);
    let multiplexer = Multiplexer::start(stdout, stdin, MultiplexerOptions::default());
    multiplexer.ready().await.unwrap();
    let connects = runtime(move |_| match multiplexer.channel() {
        Ok(channel) => Ok(Connection::Stdio(channel)),
        Err(error) => Err(archestra_core::Error::unavailable("the workload", error)),
    });
    (connects, kept)
}

fn call_of(number: u64) -> String {
    legacy_call("1", r#","_meta":{"progressToken":"t"}"#).replace(r#""a":1"#, &format!(r#""a":{number}"#))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_one_process_do_not_mix() {
    let (runtime, log) = process().await;
    let (upstreams, target) = (with_runtime(&runtime), hosted(&json!({})));
    let calls = (0..64).map(|number| {
        let (upstreams, target) = (upstreams.clone(), Arc::clone(&target));
        tokio::spawn(async move {
            for _ in 0..5 {
                let messages = Caller::legacy(call_of(number)).messages(&upstreams, &target).await.unwrap();
                assert_eq!(messages[0]["params"], json!({ "progressToken": "t", "progress": number }));
                assert_eq!(messages[1], result(&json!(1), &json!({ "said": number })));
            }
        })
    });
    futures::future::join_all(calls).await.into_iter().for_each(|call| call.unwrap());
    let message = Caller::modern(modern_call("\"m\"", "")).message(&upstreams, &target).await;
    assert_eq!(message["result"], json!({ "resultType": "complete", "said": 1 }));
    let initialized = log.lock().unwrap().iter().filter(|message| message["method"] == "initialize").count();
    assert_eq!(initialized, 1);
}

#[tokio::test]
async fn what_is_dropped_is_cancelled_in_the_process_and_what_it_takes_down_is_gone() {
    let (runtime, log) = process().await;
    let (upstreams, target) = (with_runtime(&runtime), hosted(&json!({})));
    let answer = Caller::legacy(call_of(1000)).call(&upstreams, &target).await.unwrap();
    assert!(matches!(answer, Answer::Stream(_)), "{answer:?}");
    drop(answer);
    let find = |method: &str| log.lock().unwrap().iter().find(|message| message["method"] == method).cloned();
    let cancelled = loop {
        match find("notifications/cancelled") {
            Some(cancelled) => break cancelled,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(cancelled["params"]["requestId"], find("tools/call").unwrap()["id"]);

    let outcome = Caller::legacy(call_of(2000)).messages(&upstreams, &target).await;
    assert!(matches!(outcome, Err(UpstreamError::Gone { .. })), "{outcome:?}");
    let outcome = Caller::legacy(call_of(1)).messages(&upstreams, &target).await;
    assert!(matches!(outcome, Err(UpstreamError::Unreachable { .. })), "{outcome:?}");
}
