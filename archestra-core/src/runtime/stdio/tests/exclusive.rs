//! One session at a time, with its own client's capabilities.

use super::{
    super::{Channel, Mode, Multiplexer, MultiplexerOptions},
    Process, assert_silent, initialized, recv, request, send,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

fn exclusive() -> MultiplexerOptions {
    MultiplexerOptions { mode: Mode::Exclusive, max_waiting: 2, ..MultiplexerOptions::default() }
}

/// A channel whose first request waits for its turn in a task; gives the channel back when it was sent.
fn queue_up(multiplexer: &Multiplexer, name: &'static str) -> JoinHandle<Channel> {
    let channel = multiplexer.channel().unwrap();
    tokio::spawn(async move {
        send(&channel, &request(1, "tools/call", json!({"name": name}))).await;
        channel
    })
}

async fn initialize(channel: &mut Channel, process: &mut Process, capabilities: Value) {
    send(channel, &request("init", "initialize", json!({"capabilities": capabilities}))).await;
    let message = process.read().await;
    assert_eq!(message["params"]["capabilities"], capabilities);
    process.answer(&message, initialized()).await;
    assert_eq!(recv(channel).await, json!({"jsonrpc": "2.0", "id": "init", "result": initialized()}));
    send(channel, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    assert_eq!(process.read().await["method"], "notifications/initialized");
}

#[tokio::test]
async fn turns_are_given_in_the_order_they_are_asked_for() {
    let (multiplexer, mut process) = Process::legacy(exclusive()).await;
    let mut first = queue_up(&multiplexer, "first").await.unwrap();
    let call = process.read().await;
    let second = queue_up(&multiplexer, "second");
    tokio::task::yield_now().await;
    let third = queue_up(&multiplexer, "third");
    tokio::task::yield_now().await;
    let mut fourth = multiplexer.channel().unwrap();
    send(&fourth, &request(1, "ping", json!({}))).await;
    assert_eq!(recv(&mut fourth).await["result"], json!({}), "what needs no process needs no turn");
    send(&fourth, &request(2, "tools/call", json!({}))).await;
    let refusal = recv(&mut fourth).await;
    assert!(refusal["error"]["message"].as_str().unwrap().contains("one session at a time"), "{refusal}");

    process.answer(&call, json!("done")).await;
    assert_eq!(recv(&mut first).await["result"], "done");
    assert!(
        timeout(Duration::from_millis(50), process.read_line()).await.is_err(),
        "the turn lasts as long as the channel"
    );
    drop(first);
    let call = process.read().await;
    assert_eq!(call["params"]["name"], "second");
    process.answer(&call, json!({})).await;
    let mut second = second.await.unwrap();
    recv(&mut second).await;
    drop(second);
    assert_eq!(process.read().await["params"]["name"], "third");
    drop(third.await.unwrap());
    assert_eq!(process.read().await["method"], "notifications/cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_turn_ends_when_what_was_left_under_way_has_ended_or_the_grace_is_over() {
    let (multiplexer, mut process) = Process::legacy(exclusive()).await;
    let first = queue_up(&multiplexer, "first").await.unwrap();
    let call = process.read().await;
    let second = queue_up(&multiplexer, "second");
    tokio::task::yield_now().await;
    drop(first);
    assert_eq!(process.read().await["method"], "notifications/cancelled");
    process.write(&request(1, "roots/list", json!({}))).await;
    assert_eq!(process.read().await["error"]["code"], -32601, "nobody has the process");
    process.answer(&call, json!("late")).await;
    assert_eq!(process.read().await["params"]["name"], "second");
    let mut second = second.await.unwrap();
    assert_silent(&mut second).await;

    let third = queue_up(&multiplexer, "third");
    tokio::task::yield_now().await;
    let before = Instant::now();
    drop(second);
    assert_eq!(process.read().await["method"], "notifications/cancelled");
    assert_eq!(process.read().await["params"]["name"], "third");
    assert!(before.elapsed() >= Duration::from_secs(5));
    drop(third);
}

#[tokio::test]
async fn a_session_that_gives_up_waiting_leaves_the_queue() {
    let (multiplexer, mut process) = Process::legacy(exclusive()).await;
    let mut first = queue_up(&multiplexer, "first").await.unwrap();
    let call = process.read().await;
    let second = queue_up(&multiplexer, "second");
    tokio::task::yield_now().await;
    let third = queue_up(&multiplexer, "third");
    tokio::task::yield_now().await;
    second.abort();
    assert!(second.await.is_err());
    process.answer(&call, json!({})).await;
    recv(&mut first).await;
    drop(first);
    assert_eq!(process.read().await["params"]["name"], "third");
    drop(third.await.unwrap());
}

#[tokio::test]
async fn the_process_asks_the_session_that_has_it_if_that_offered_it() {
    let (multiplexer, mut process) = Process::legacy(exclusive()).await;
    let mut alice = multiplexer.channel().unwrap();
    let mut bob = multiplexer.channel().unwrap();
    initialize(&mut alice, &mut process, json!({"elicitation": {}})).await;

    process.write(&request("q1", "elicitation/create", json!({"message": "?"}))).await;
    process.write(&request("q2", "sampling/createMessage", json!({}))).await;
    let refusal = process.read().await;
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!("q2"), &json!(-32601)));
    let question = recv(&mut alice).await;
    assert_eq!((&question["method"], &question["params"]["message"]), (&json!("elicitation/create"), &json!("?")));
    assert_ne!(question["id"], "q1");

    let answer = |id: &Value, text: &str| json!({"jsonrpc": "2.0", "id": id, "result": {"action": text}});
    send(&bob, &answer(&question["id"], "forged")).await;
    send(&alice, &answer(&json!("q1"), "wrong id")).await;
    send(&alice, &answer(&question["id"], "accept")).await;
    send(&alice, &answer(&question["id"], "twice")).await;
    assert_eq!(process.read().await, answer(&json!("q1"), "accept"));

    process.write(&request("q3", "elicitation/create", json!({}))).await;
    let question = recv(&mut alice).await;
    let params = json!({"requestId": "q3"});
    process.write(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
    assert_eq!(recv(&mut alice).await["params"]["requestId"], question["id"]);
    process.write(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": 1}})).await;
    assert_eq!(recv(&mut alice).await["method"], "notifications/message");
    assert_silent(&mut bob).await;
    assert_eq!(multiplexer.stats().under_way, 0);

    process.write(&request("q4", "elicitation/create", json!({}))).await;
    recv(&mut alice).await;
    drop(alice);
    let gone = process.read().await;
    assert_eq!((&gone["id"], &gone["error"]["message"]), (&json!("q4"), &json!("the client is gone")));
    initialize(&mut bob, &mut process, json!({"roots": {}})).await;
    process.write(&request("q5", "elicitation/create", json!({}))).await;
    assert_eq!(process.read().await["error"]["code"], -32601, "bob's client cannot");
}

#[tokio::test]
async fn a_process_that_refuses_to_be_initialized_again_goes_on_as_it_is() {
    let (multiplexer, mut process) = Process::legacy(exclusive()).await;
    let mut channel = multiplexer.channel().unwrap();
    send(&channel, &request(1, "initialize", json!({"capabilities": {}}))).await;
    let again = process.read().await;
    process.refuse(&again, -32600).await;
    assert_eq!(recv(&mut channel).await, json!({"jsonrpc": "2.0", "id": 1, "result": initialized()}));
}

#[tokio::test]
async fn the_end_of_the_process_ends_waiting_sessions_too() {
    let (multiplexer, mut process) = Process::legacy(exclusive()).await;
    let mut first = queue_up(&multiplexer, "first").await.unwrap();
    process.read().await;
    let waiting = multiplexer.channel().unwrap();
    let waiting =
        tokio::spawn(async move { waiting.send(Bytes::from(request(1, "tools/call", json!({})).to_string())).await });
    tokio::task::yield_now().await;
    drop(process);
    assert_eq!(recv(&mut first).await["error"]["code"], -32000);
    assert!(waiting.await.unwrap().is_err());
}
