//! Connections: any number, independent, and never each other's answers.

use super::{
    RuntimeFixture,
    client::{Client, echoes},
};
use crate::testing::conformance::{RACERS, race, works};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

async fn client(fixture: &RuntimeFixture, id: &crate::runtime::WorkloadId) -> Client {
    Client::connect(fixture.channel(id).await, fixture.limit).await
}

/// A connection lists the server's tools and calls them, with ids of any shape.
pub async fn answers_calls(fixture: &RuntimeFixture) {
    let workload = fixture.running().await;
    let mut client = client(fixture, &workload.id).await;
    let listed = client.request(json!(0), "tools/list", json!({})).await;
    let names: Vec<_> =
        listed["result"]["tools"].as_array().into_iter().flatten().filter_map(|tool| tool["name"].as_str()).collect();
    assert!(names.contains(&"echo"), "a connection lists the server's tools: {listed}");
    for id in [json!(1), json!("1"), json!("a \"quoted\" id"), json!(9_007_199_254_740_991_i64)] {
        client.echo(id, "text with \u{1F511} and \"quotes\"\nand lines").await;
    }
    let unknown = client.request(json!(2), "conformance/no-such-method", json!({})).await;
    assert!(unknown["error"]["code"].is_i64(), "an unknown method is an error: {unknown}");
}

/// Calls that two connections make at once, with the same ids, get their own answers.
pub async fn interleaved_calls_never_cross(fixture: &RuntimeFixture) {
    const CALLS: i64 = 25;
    let workload = fixture.running().await;
    let (left, right) = tokio::join!(client(fixture, &workload.id), client(fixture, &workload.id));
    let converse = async |mut client: Client, side: &str| {
        for id in 0..CALLS {
            client.send(&client.echo_of(&json!(id), &format!("{side} {id};"))).await;
        }
        let mut answers: BTreeMap<i64, Value> = BTreeMap::new();
        while answers.len() < usize::try_from(CALLS).expect("few calls") {
            let Some(message) = client.receive().await else { panic!("a channel to a server that runs does not end") };
            if message.get("method").is_none() {
                let id =
                    message["id"].as_i64().unwrap_or_else(|| panic!("an answer has the id of its request: {message}"));
                assert!(answers.insert(id, message).is_none(), "each request is answered once");
            }
        }
        for (id, answer) in answers {
            assert!(
                echoes(&answer, &format!("{side} {id};")),
                "an answer never reaches another connection or request: {answer}"
            );
        }
    };
    tokio::join!(converse(left, "left"), converse(right, "right"));
}

/// Dropping a connection with calls under way leaves others alone.
pub async fn connections_are_independent(fixture: &RuntimeFixture) {
    let workload = fixture.running().await;
    let mut stays = client(fixture, &workload.id).await;
    for round in 0..5 {
        let dropped = client(fixture, &workload.id).await;
        dropped.send(&dropped.echo_of(&json!(round), "nobody waits for this")).await;
        drop(dropped);
        stays.echo(json!(round), &format!("round {round}")).await;
    }
}

/// Many may connect at once.
pub async fn many_connect_at_once(fixture: &RuntimeFixture) {
    let workload = fixture.running().await;
    let limit = fixture.limit;
    let channels = race((0..RACERS).map(|_| {
        let (runtime, id) = (Arc::clone(&fixture.runtime), workload.id.clone());
        async move { works(runtime.connect(&id).await, "a workload can be connected to any number of times") }
    }))
    .await;
    let mut clients = Vec::new();
    for connection in channels {
        match connection {
            crate::runtime::Connection::Stdio(channel) => clients.push(Client::connect(channel, limit).await),
            crate::runtime::Connection::Http(_) => panic!("a workload that speaks stdio is reached over a channel"),
        }
    }
    for (n, client) in clients.iter_mut().enumerate() {
        client.echo(json!(1), &format!("client {n};")).await;
    }
}

/// When a workload is removed its connections end.
pub async fn a_removal_ends_connections(fixture: &RuntimeFixture) {
    let workload = fixture.running().await;
    let mut client = client(fixture, &workload.id).await;
    works(fixture.runtime.remove(&workload.id).await, "a workload can be removed");
    while client.receive().await.is_some() {}
}
