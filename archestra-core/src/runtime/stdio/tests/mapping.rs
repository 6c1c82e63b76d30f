//! Each channel sees its own answers and progress, under its own ids, and nothing else.

use super::{super::MultiplexerOptions, Process, assert_silent, recv, request, send};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashSet;

#[tokio::test]
async fn equal_ids_and_tokens_of_two_channels_are_kept_apart() {
    let (multiplexer, mut process) = Process::legacy(MultiplexerOptions::default()).await;
    let (mut alice, mut bob) = (multiplexer.channel().unwrap(), multiplexer.channel().unwrap());
    let call = |who: &str| request(1, "tools/call", json!({"name": who, "_meta": {"progressToken": "t", "x": 1}}));
    send(&alice, &call("alice")).await;
    send(&bob, &call("bob")).await;
    let (first, second) = (process.read().await, process.read().await);
    assert_ne!(first["id"], second["id"]);
    assert_ne!(first["params"]["_meta"]["progressToken"], second["params"]["_meta"]["progressToken"]);
    assert_eq!(first["params"]["_meta"]["x"], 1);
    for call in [&second, &first] {
        let params =
            json!({"progressToken": call["params"]["_meta"]["progressToken"], "message": call["params"]["name"]});
        process.write(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})).await;
        process.answer(call, call["params"]["name"].clone()).await;
        process.answer(call, json!("a second answer")).await;
    }
    for (channel, name) in [(&mut alice, "alice"), (&mut bob, "bob")] {
        let progress = recv(channel).await;
        assert_eq!(progress["params"], json!({"progressToken": "t", "message": name}));
        assert_eq!(recv(channel).await, json!({"jsonrpc": "2.0", "id": 1, "result": name}));
        assert_silent(channel).await;
    }
    assert_eq!(multiplexer.stats().under_way, 0);
    assert_eq!(multiplexer.stats().ignored, 2);
}

#[tokio::test]
async fn a_cancellation_is_only_valid_for_the_own_request() {
    let (multiplexer, mut process) = Process::legacy(MultiplexerOptions::default()).await;
    let (mut alice, bob) = (multiplexer.channel().unwrap(), multiplexer.channel().unwrap());
    send(&alice, &request("x", "tools/call", json!({}))).await;
    let call = process.read().await;
    let cancel = |id: &Value| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id, "reason": "r"}});
    send(&bob, &cancel(&json!("x"))).await;
    send(&bob, &cancel(&call["id"])).await;
    send(&alice, &cancel(&json!("y"))).await;
    send(&alice, &cancel(&json!("x"))).await;
    let cancelled = process.read().await;
    assert_eq!(cancelled["params"], json!({"requestId": call["id"], "reason": "r"}));
    process.answer(&call, json!({})).await;
    assert_silent(&mut alice).await;
    assert_eq!(multiplexer.stats().under_way, 0);
}

#[tokio::test]
async fn dropping_a_channel_cancels_what_it_had_under_way() {
    let (multiplexer, mut process) = Process::legacy(MultiplexerOptions::default()).await;
    let (alice, mut bob) = (multiplexer.channel().unwrap(), multiplexer.channel().unwrap());
    for id in 0..3 {
        send(&alice, &request(id, "tools/call", json!({}))).await;
    }
    send(&bob, &request(0, "tools/call", json!({}))).await;
    let calls = [process.read().await, process.read().await, process.read().await, process.read().await];
    let (sender, receiver) = alice.split();
    drop(receiver);
    assert!(sender.send(request(9, "tools/call", json!({})).to_string().into()).await.is_err());
    let mut cancelled = HashSet::new();
    for _ in 0..3 {
        let message = process.read().await;
        assert_eq!(message["method"], "notifications/cancelled");
        cancelled.insert(message["params"]["requestId"].as_u64().unwrap());
    }
    assert_eq!(cancelled, calls[..3].iter().map(|call| call["id"].as_u64().unwrap()).collect());
    assert_eq!((multiplexer.stats().under_way, multiplexer.stats().channels), (1, 1));
    for call in &calls {
        process.answer(call, json!({})).await;
    }
    assert_eq!(recv(&mut bob).await["id"], 0);
    assert_eq!(multiplexer.stats().under_way, 0);
}

#[tokio::test]
async fn a_subscription_is_named_as_its_channel_named_it() {
    const ID: &str = "io.modelcontextprotocol/subscriptionId";
    let (multiplexer, mut process) = Process::modern(MultiplexerOptions::default(), json!({})).await;
    let (mut alice, mut bob) = (multiplexer.channel().unwrap(), multiplexer.channel().unwrap());
    send(&alice, &request("sub", "subscriptions/listen", json!({"notifications": {"promptsListChanged": true}}))).await;
    let listen = process.read().await;
    let method = "notifications/prompts/list_changed";
    process.write(&json!({"jsonrpc": "2.0", "method": method, "params": {"_meta": {ID: listen["id"]}}})).await;
    process.answer(&listen, json!({"resultType": "complete", "_meta": {ID: listen["id"]}})).await;
    process.write(&json!({"jsonrpc": "2.0", "method": method, "params": {"_meta": {ID: listen["id"]}}})).await;
    assert_eq!(recv(&mut alice).await["params"]["_meta"][ID], "sub");
    let end = recv(&mut alice).await;
    assert_eq!((&end["id"], &end["result"]["_meta"][ID]), (&json!("sub"), &json!("sub")));
    assert_silent(&mut alice).await;
    assert_silent(&mut bob).await;
}

#[tokio::test]
async fn queues_before_a_channel_behave_as_the_channel_does() {
    let (multiplexer, mut process) = Process::legacy(MultiplexerOptions::default()).await;
    let (to_server, mut from_server) = multiplexer.channel().unwrap().into_parts();
    to_server.send(request(5, "tools/call", json!({})).to_string().into()).await.unwrap();
    let call = process.read().await;
    process.answer(&call, json!("r")).await;
    let answer: Value = serde_json::from_slice(&from_server.recv().await.unwrap()).unwrap();
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 5, "result": "r"}));
    to_server.send(request(6, "tools/call", json!({})).to_string().into()).await.unwrap();
    process.read().await;
    drop(from_server);
    assert_eq!(process.read().await["method"], "notifications/cancelled");
    multiplexer.shutdown().await;
}

/// One step of a random conversation.
#[derive(Debug, Clone)]
enum Step {
    Call { channel: usize, id: Value, token: Option<Value> },
    Answer(prop::sample::Index),
    Progress(prop::sample::Index),
    Cancel { channel: usize, which: prop::sample::Index },
    Stray(u64),
}

fn id() -> impl Strategy<Value = Value> {
    prop_oneof![(0i64..4).prop_map(Value::from), any::<i64>().prop_map(Value::from), ".{0,30}".prop_map(Value::from)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..3, id(), prop::option::of(id())).prop_map(|(channel, id, token)| Step::Call { channel, id, token }),
        3 => any::<prop::sample::Index>().prop_map(Step::Answer),
        2 => any::<prop::sample::Index>().prop_map(Step::Progress),
        1 => (0usize..3, any::<prop::sample::Index>()).prop_map(|(channel, which)| Step::Cancel { channel, which }),
        1 => any::<u64>().prop_map(Step::Stray),
    ]
}

/// A call as both sides know it.
struct Known {
    channel: usize,
    id: Value,
    token: Option<Value>,
    at_process: Value,
}

async fn converse(steps: Vec<Step>) {
    let (multiplexer, mut process) = Process::legacy(MultiplexerOptions::default()).await;
    let mut channels: Vec<_> = (0..3).map(|_| multiplexer.channel().unwrap()).collect();
    let mut under_way: Vec<Known> = Vec::new();
    let mut numbers = HashSet::new();
    for (serial, step) in steps.into_iter().enumerate() {
        match step {
            Step::Call { channel, id, token } => {
                if under_way.iter().any(|known| known.channel == channel && known.id == id) {
                    continue;
                }
                let mut params = json!({"serial": serial, "arguments": {"id": 1, "progressToken": 2}});
                if let Some(token) = &token {
                    params["_meta"] = json!({"progressToken": token});
                }
                send(&channels[channel], &request(id.clone(), "tools/call", params.clone())).await;
                let at_process = process.read().await;
                assert!(numbers.insert(at_process["id"].as_u64().unwrap()), "numbers are unique");
                if token.is_some() {
                    params["_meta"]["progressToken"] = at_process["id"].clone();
                }
                assert_eq!(at_process["params"], params);
                under_way.push(Known { channel, id, token, at_process });
            }
            Step::Answer(which) if !under_way.is_empty() => {
                let known = under_way.swap_remove(which.index(under_way.len()));
                process.answer(&known.at_process, json!({"serial": serial, "id": known.at_process["id"]})).await;
                let answer = recv(&mut channels[known.channel]).await;
                let result = json!({"serial": serial, "id": known.at_process["id"]});
                assert_eq!(answer, json!({"jsonrpc": "2.0", "id": known.id, "result": result}));
            }
            Step::Progress(which) if !under_way.is_empty() => {
                let known = &under_way[which.index(under_way.len())];
                let params = json!({"progressToken": known.at_process["id"], "progress": serial});
                process.write(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})).await;
                if let Some(token) = &known.token {
                    let progress = recv(&mut channels[known.channel]).await;
                    assert_eq!(progress["params"], json!({"progressToken": token, "progress": serial}));
                }
            }
            Step::Cancel { channel, which } if !under_way.is_empty() => {
                let index = which.index(under_way.len());
                let id = under_way[index].id.clone();
                let params = json!({"requestId": id});
                send(
                    &channels[channel],
                    &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}),
                )
                .await;
                if let Some(own) = under_way.iter().position(|known| known.channel == channel && known.id == id) {
                    let cancelled = under_way.swap_remove(own);
                    assert_eq!(process.read().await["params"]["requestId"], cancelled.at_process["id"]);
                    process.answer(&cancelled.at_process, json!("late")).await;
                }
            }
            Step::Stray(number) => {
                process.write(&json!({"jsonrpc": "2.0", "id": number >> 12, "result": {}})).await;
                let params = json!({"progressToken": number >> 12});
                process.write(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})).await;
            }
            Step::Answer(_) | Step::Progress(_) | Step::Cancel { .. } => {}
        }
        assert_eq!(multiplexer.stats().under_way, under_way.len());
    }
    for channel in &mut channels {
        send(channel, &request("fence", "ping", json!({}))).await;
        assert_eq!(recv(channel).await["id"], "fence", "nothing else was delivered");
    }
    drop(channels);
    assert_eq!((multiplexer.stats().under_way, multiplexer.stats().channels), (0, 0));
    multiplexer.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn each_channel_sees_exactly_what_is_its_own(steps in prop::collection::vec(step(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(converse(steps));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_at_once_each_get_their_own_answers() {
    let (multiplexer, process) = Process::legacy(MultiplexerOptions::default()).await;
    let Process { mut stdin, mut stdout } = process;
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
        let mut held: Vec<Value> = Vec::new();
        let mut line = String::new();
        while stdin.read_line(&mut line).await.unwrap() > 0 {
            let call: Value = serde_json::from_str(&line).unwrap();
            line.clear();
            held.push(json!({"jsonrpc": "2.0", "id": call["id"], "result": call["params"]}));
            if held.len() >= 7 || call["params"]["n"] == 199 {
                for answer in held.drain(..).rev() {
                    stdout.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
                }
            }
        }
    });
    let callers: Vec<_> = (0..32)
        .map(|who| {
            let mut channel = multiplexer.channel().unwrap();
            tokio::spawn(async move {
                let calls = (0..200).map(|n| request(n, "tools/call", json!({"who": who, "n": n})));
                for call in calls {
                    send(&channel, &call).await;
                }
                let mut seen = HashSet::new();
                for _ in 0..200 {
                    let answer = recv(&mut channel).await;
                    assert_eq!((&answer["result"]["who"], &answer["result"]["n"]), (&json!(who), &answer["id"]));
                    seen.insert(answer["id"].as_u64().unwrap());
                }
                assert_eq!(seen.len(), 200);
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(multiplexer.stats().under_way, 0);
    multiplexer.shutdown().await;
    server.await.unwrap();
}
