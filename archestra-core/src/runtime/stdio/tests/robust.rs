//! Death, silence, noise and size on either side.

use super::{
    super::{Closed, MultiplexerOptions},
    Process, assert_silent, recording, recv, request, send, try_recv,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test]
async fn the_end_of_the_process_answers_what_is_under_way_and_ends_the_channels() {
    let (multiplexer, mut process) = Process::legacy(MultiplexerOptions::default()).await;
    let (mut alice, mut bob) = (multiplexer.channel().unwrap(), multiplexer.channel().unwrap());
    send(&alice, &request("a", "tools/call", json!({}))).await;
    send(&alice, &request(2, "tools/call", json!({}))).await;
    let first = process.read().await;
    process.write_text(&json!({"jsonrpc": "2.0", "id": first["id"], "result": "no line end"}).to_string()).await;
    drop(process);
    assert_eq!(recv(&mut alice).await["result"], "no line end");
    let answer = recv(&mut alice).await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(2), &json!(-32000)));
    assert_eq!(answer["error"]["message"], "the server process ended and the call was not completed");
    assert!(try_recv(&mut alice).await.is_none());
    assert!(try_recv(&mut bob).await.is_none());
    assert!(alice.send(Bytes::from(request(3, "tools/call", json!({})).to_string())).await.is_err());
    assert_eq!(multiplexer.closed().await, Closed::ProcessEnded);
    assert!(multiplexer.channel().is_err());
    assert_eq!(multiplexer.stats().under_way, 0);
    multiplexer.shutdown().await;
}

#[tokio::test]
async fn shutdown_and_drop_close_stdin_and_end_the_channels() {
    let (multiplexer, mut process) = Process::legacy(MultiplexerOptions::default()).await;
    let mut channel = multiplexer.channel().unwrap();
    send(&channel, &request(1, "tools/call", json!({}))).await;
    process.read().await;
    multiplexer.shutdown().await;
    assert_eq!(
        recv(&mut channel).await["error"]["message"],
        "the server is being stopped and the call was not completed"
    );
    assert!(try_recv(&mut channel).await.is_none());
    assert!(process.read_line().await.is_none());
    assert_eq!(multiplexer.closed().await, Closed::Shutdown);

    let (multiplexer, mut process) = Process::legacy(MultiplexerOptions::default()).await;
    let mut channel = multiplexer.channel().unwrap();
    drop(multiplexer);
    assert!(try_recv(&mut channel).await.is_none());
    assert!(process.read_line().await.is_none());
}

#[tokio::test]
async fn a_line_that_is_too_long_is_an_error_for_its_caller_only() {
    let (mut options, seen) = recording();
    options.max_line = 10_000;
    let (multiplexer, mut process) = Process::legacy(options).await;
    let mut channel = multiplexer.channel().unwrap();
    let text = "x".repeat(200_000);
    for (id, result_first) in [(1, false), (2, true)] {
        send(&channel, &request(id, "tools/call", json!({}))).await;
        let number = process.read().await["id"].clone();
        let line = if result_first {
            format!("{{\"result\":{{\"id\":9,\"text\":\"{text}\"}},\"jsonrpc\":\"2.0\",\"id\":{number}}}\n")
        } else {
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{number},\"result\":\"{text}\"}}\n")
        };
        process.write_text(&line).await;
        let answer = recv(&mut channel).await;
        assert_eq!(answer["id"], id);
        assert!(answer["error"]["message"].as_str().unwrap().contains("limit of 10000"), "{answer}");
    }
    send(&channel, &request(3, "tools/call", json!({}))).await;
    let call = process.read().await;
    process.answer(&call, json!("x".repeat(9_000))).await;
    assert_eq!(recv(&mut channel).await["id"], 3);
    assert_eq!(multiplexer.stats().too_long, 2);
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn noise_goes_to_the_output_and_questions_are_refused() {
    let (options, seen) = recording();
    let (multiplexer, mut process) = Process::legacy(options).await;
    let mut channel = multiplexer.channel().unwrap();
    process.write_text("listening on stdio\n{\"a\":1}\n").await;
    process.write(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": 1}})).await;
    process.write(&request("q", "elicitation/create", json!({}))).await;
    process.write(&request(5, "ping", json!({}))).await;
    let refusal = process.read().await;
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!("q"), &json!(-32601)));
    assert_eq!(process.read().await["result"], json!({}));
    assert_silent(&mut channel).await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[0].starts_with("Text(") && seen[1].contains("notifications/message"));
    drop(seen);
    let stats = multiplexer.stats();
    assert_eq!((stats.not_json, stats.ignored), (1, 1));
}

#[tokio::test]
async fn what_a_caller_sends_cannot_break_out_of_its_line() {
    let (multiplexer, mut process) = Process::legacy(MultiplexerOptions::default()).await;
    let mut channel = multiplexer.channel().unwrap();
    let pretty = "{\"jsonrpc\":\"2.0\",\r\n\"id\":1,\n\"method\":\"tools/call\",\"params\":{\"x\":\n{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"evil\"}\n}}";
    channel.send(Bytes::from_static(pretty.as_bytes())).await.unwrap();
    let call = process.read().await;
    assert_eq!((&call["method"], &call["params"]["x"]["method"]), (&json!("tools/call"), &json!("evil")));
    for bad in ["{\"jsonrpc\":\"2.0\",\"id\":1", "x", "[]", "{\"jsonrpc\":\"2.0\",\"id\":1,\"Id\":2,\"method\":\"m\"}"]
    {
        channel.send(Bytes::from_static(bad.as_bytes())).await.unwrap();
        assert!(recv(&mut channel).await["error"]["code"].is_i64(), "{bad}");
    }
    for unsolicited in [
        json!({"jsonrpc": "2.0", "id": 1, "result": {}}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}),
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1}}),
    ] {
        send(&channel, &unsolicited).await;
    }
    send(&channel, &json!({"jsonrpc": "2.0", "method": "notifications/own"})).await;
    assert_eq!(process.read().await["method"], "notifications/own", "the others went nowhere");
}

#[tokio::test]
async fn a_channel_that_does_not_read_loses_progress_but_no_answer_and_delays_nobody() {
    let options = MultiplexerOptions { max_in_flight: 4, ..MultiplexerOptions::default() };
    let (multiplexer, mut process) = Process::legacy(options).await;
    let (mut slow, mut quick) = (multiplexer.channel().unwrap(), multiplexer.channel().unwrap());
    let mut calls = Vec::new();
    for id in 0..4 {
        send(&slow, &request(id, "tools/call", json!({"_meta": {"progressToken": id}}))).await;
        calls.push(process.read().await);
    }
    let fifth = request(4, "tools/call", json!({}));
    assert!(
        timeout(Duration::from_millis(50), slow.send(fifth.to_string().into())).await.is_err(),
        "it has to read first"
    );
    for progress in 0..1000 {
        let params = json!({"progressToken": calls[0]["id"], "progress": progress});
        process.write(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})).await;
    }
    for call in &calls {
        process.answer(call, json!({})).await;
    }
    send(&quick, &request(1, "tools/call", json!({}))).await;
    let call = process.read().await;
    process.answer(&call, json!({})).await;
    assert_eq!(recv(&mut quick).await["id"], 1);
    let mut frames = Vec::new();
    for _ in 0..68 {
        frames.push(recv(&mut slow).await);
    }
    let answered: Vec<&Value> = frames.iter().filter_map(|frame| frame.get("id")).collect();
    assert_eq!(answered, [&json!(0), &json!(1), &json!(2), &json!(3)]);
    send(&slow, &fifth).await;
    drop(slow);
    assert_eq!(multiplexer.stats().dropped_notifications, 1000 - 64);
}

#[tokio::test]
async fn a_process_that_does_not_read_delays_senders_but_is_still_read() {
    let (multiplexer, mut process) = Process::start_with_pipe(MultiplexerOptions::default(), 1024);
    process.become_legacy().await;
    multiplexer.ready().await.unwrap();
    let (sender, mut receiver) = multiplexer.channel().unwrap().split();
    sender.send(request(0, "tools/call", json!({})).to_string().into()).await.unwrap();
    let call = process.read().await;
    let big = Bytes::from(request(1, "tools/call", json!({"x": "x".repeat(300_000)})).to_string());
    let flood = tokio::spawn(async move {
        let mut sent = 0;
        while timeout(Duration::from_millis(100), sender.send(big.clone())).await.is_ok() {
            sent += 1;
        }
        sent
    });
    process.answer(&call, json!("still read")).await;
    let answer: Value = serde_json::from_slice(&receiver.recv().await.unwrap()).unwrap();
    assert_eq!(answer["result"], "still read");
    assert!((1..8).contains(&flood.await.unwrap()));
    for _ in 0..5000 {
        process.write(&request(7, "ping", json!({"x": "y"}))).await;
    }
    drop(receiver);
    assert_eq!(multiplexer.stats().under_way, 0);
    assert_eq!(process.read().await["params"]["x"].as_str().unwrap().len(), 300_000);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_closes_its_stdin_only_ends_after_its_last_words() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let (stdout, mut process_stdout) = tokio::io::simplex(4096);
    let multiplexer = super::Multiplexer::start(stdout, ours, MultiplexerOptions::default());
    drop(theirs);
    let closed = multiplexer.closed().await;
    assert!(matches!(closed, Closed::WriteFailed(_)), "{closed:?}");
    assert!(multiplexer.ready().await.is_err());
    let _rest = tokio::io::AsyncWriteExt::shutdown(&mut process_stdout).await;
}

#[tokio::test]
async fn large_messages_pass_in_both_directions() {
    let (multiplexer, mut process) = Process::legacy(MultiplexerOptions::default()).await;
    let mut channel = multiplexer.channel().unwrap();
    let text = "ü\u{2028}".repeat(1_000_000);
    let large = request(1, "tools/call", json!({"text": text}));
    let ((), call) = tokio::join!(send(&channel, &large), process.read());
    assert_eq!(call["params"]["text"], text);
    let (answer, ()) = tokio::join!(recv(&mut channel), process.answer(&call, json!({"text": text})));
    assert_eq!(answer["result"]["text"], text);
}
