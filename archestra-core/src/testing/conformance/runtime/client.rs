//! A small MCP client for one channel, which speaks whatever era the server does.

use crate::runtime::stdio::Channel;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";

#[derive(Debug)]
pub(super) struct Client {
    channel: Channel,
    modern: bool,
    limit: Duration,
}

impl Client {
    /// Finds out the era, and does the handshake that it asks for.
    pub(super) async fn connect(channel: Channel, limit: Duration) -> Self {
        let mut client = Self { channel, modern: true, limit };
        let discovered = client.request(json!("discover"), "server/discover", json!({})).await;
        if discovered.get("result").is_none() {
            client.modern = false;
            let hello = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "conformance", "version": "1"}});
            let answer = client.request(json!("initialize"), "initialize", hello).await;
            assert!(
                answer["result"]["protocolVersion"].is_string(),
                "a server answers server/discover or initialize, not {answer}"
            );
            client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        }
        client
    }

    pub(super) async fn send(&self, message: &Value) {
        assert!(
            self.channel.send(message.to_string().into()).await.is_ok(),
            "a channel to a server that runs takes messages"
        );
    }

    /// The next message; `None` at the end of the channel.
    pub(super) async fn receive(&mut self) -> Option<Value> {
        let Ok(frame) = timeout(self.limit, self.channel.recv()).await else {
            panic!("nothing came over the channel within {:?}", self.limit)
        };
        frame.map(|frame| match serde_json::from_slice(&frame) {
            Ok(message) => message,
            Err(error) => panic!("each frame of a channel is one JSON message: {error}"),
        })
    }

    pub(super) fn request_of(&self, id: &Value, method: &str, mut params: Value) -> Value {
        if self.modern {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = MODERN.into();
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    }

    /// Sends a request and returns its answer; passes over notifications.
    pub(super) async fn request(&mut self, id: Value, method: &str, params: Value) -> Value {
        self.send(&self.request_of(&id, method, params)).await;
        loop {
            let Some(message) = self.receive().await else { panic!("a channel to a server that runs does not end") };
            if message.get("method").is_none() {
                assert_eq!(message["id"], id, "an answer has the id of its request");
                return message;
            }
        }
    }

    pub(super) fn echo_of(&self, id: &Value, text: &str) -> Value {
        self.request_of(id, "tools/call", json!({"name": "echo", "arguments": {"text": text}}))
    }

    /// Calls `echo` and checks that the answer is this call's own.
    pub(super) async fn echo(&mut self, id: Value, text: &str) {
        let answer = self.request(id, "tools/call", json!({"name": "echo", "arguments": {"text": text}})).await;
        assert!(echoes(&answer, text), "the tool echo answers with its own text {text:?}, not with {answer}");
    }
}

pub(super) fn echoes(answer: &Value, text: &str) -> bool {
    answer["result"]["content"][0]["text"].as_str().is_some_and(|answer| answer.contains(text))
}
