//! Replicas that prove themselves to each other, and what others learn: nothing.

use super::{Subject, Visitor, channel, events, multiplexer, receive};
use crate::{
    bridge::{Refusal, client::ConnectError},
    runtime::stdio::{Channel, Multiplexer, MultiplexerOptions},
    secret::{Derived, KeyRing, Purpose},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, duplex, split},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(20);

/// A replica that has the stream of a server which answers every call with its arguments.
struct Replica {
    address: String,
    /// Its tasks end with it.
    _tasks: JoinSet<()>,
}

impl Replica {
    async fn start(ring: &KeyRing, holder: &'static str) -> Self {
        let (ours, theirs) = duplex(64 * 1024);
        let (stdout, stdin) = split(ours);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(theirs));
        let multiplexer = Arc::new(Multiplexer::start(stdout, stdin, MultiplexerOptions::default()));
        multiplexer.ready().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let keys = Arc::new(ring.derive(Purpose::Peers));
        tasks.spawn(async move {
            let mut visits = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (keys, multiplexer) = (Arc::clone(&keys), Arc::clone(&multiplexer));
                visits.spawn(async move {
                    let Some(visitor) = receive(stream, &keys, holder).await else { return };
                    visit(visitor, &multiplexer).await;
                });
            }
        });
        Self { address, _tasks: tasks }
    }
}

async fn visit(visitor: Visitor, multiplexer: &Multiplexer) {
    let workload = visitor.subject().workload.clone();
    match workload.as_str() {
        "echo" => visitor.serve(multiplexer).await,
        other => visitor.refuse(&Refusal::NotReady(format!("there is no {other}"))).await,
    }
}

async fn serve(stream: tokio::io::DuplexStream) {
    let (reader, mut writer) = split(stream);
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let message: Value = serde_json::from_str(&line).unwrap();
        let result = match message["method"].as_str() {
            Some("initialize") => {
                json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "e", "version": "1"}})
            }
            Some("tools/call") => message["params"]["arguments"].clone(),
            _ if message.get("id").is_none() => continue,
            _ => {
                let error = json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}});
                writer.write_all(format!("{error}\n").as_bytes()).await.unwrap();
                continue;
            }
        };
        let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
        if writer.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

fn subject(holder: &str) -> Subject {
    Subject { holder: holder.to_owned(), namespace: "mcp".to_owned(), workload: "echo".to_owned() }
}

async fn call(channel: &mut Channel, id: u32, text: &str) -> Value {
    let params = json!({"name": "echo", "arguments": {"text": text}});
    let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
    channel.send(request.to_string().into()).await.unwrap();
    let answer = tokio::time::timeout(LIMIT, channel.recv()).await.unwrap().expect("an answer");
    serde_json::from_slice(&answer).unwrap()
}

fn keys(ring: &KeyRing) -> Derived {
    ring.derive(Purpose::Peers)
}

#[tokio::test]
async fn a_replica_with_the_same_keys_is_served() {
    let ring = KeyRing::generate().unwrap();
    let replica = Replica::start(&ring, "one").await;
    let (keys, subject) = (keys(&ring), subject("one"));
    let shared = multiplexer(&replica.address, &keys, &subject, LIMIT, MultiplexerOptions::default()).await.unwrap();
    shared.ready().await.unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..40 {
        let mut channel = shared.channel().unwrap();
        callers.spawn(async move {
            for id in 0..10 {
                let text = format!("{caller} {id}");
                assert_eq!(call(&mut channel, id, &text).await["result"]["text"], text);
            }
        });
    }
    callers.join_all().await;
    let (mut own, driver) = channel(&replica.address, &keys, &subject, LIMIT).await.unwrap();
    let driver = tokio::spawn(driver);
    assert_eq!(call(&mut own, 1, "own").await["result"]["text"], "own");
    let mut events = events(&replica.address, &keys, &subject, LIMIT).await.unwrap();
    assert_eq!(events.tools_changed().await, Some(0));
    drop(replica);
    assert_eq!(events.tools_changed().await, None, "the end of the other replica is the end of the announcements");
    shared.closed().await;
    driver.await.unwrap();
}

#[tokio::test]
async fn keys_can_be_rotated_one_replica_after_the_other() {
    let (old, new) = (KeyRing::generate().unwrap(), KeyRing::generate().unwrap());
    let both = KeyRing::parse(&format!("{}{}", *old.to_text(), *new.to_text())).unwrap();
    let turned = KeyRing::parse(&format!("{}{}", *new.to_text(), *old.to_text())).unwrap();
    let replica = Replica::start(&both, "one").await;
    for ring in [both, turned] {
        events(&replica.address, &keys(&ring), &subject("one"), LIMIT).await.unwrap();
    }
}

#[tokio::test]
async fn strangers_and_calls_for_somebody_else_are_sent_away() {
    let ring = KeyRing::generate().unwrap();
    let replica = Replica::start(&ring, "one").await;
    let refused = |outcome: Result<_, ConnectError>| match outcome {
        Err(ConnectError::Refused(refusal)) => refusal,
        other => panic!("it should be refused: {other:?}"),
    };
    let other_keys = keys(&KeyRing::generate().unwrap());
    assert_eq!(refused(events(&replica.address, &other_keys, &subject("one"), SECOND).await), Refusal::Unauthorized);
    let keys = keys(&ring);
    assert_eq!(refused(events(&replica.address, &keys, &subject("two"), SECOND).await), Refusal::Unauthorized);
    let unknown = Subject { workload: "none".to_owned(), ..subject("one") };
    let refusal = refused(events(&replica.address, &keys, &unknown, SECOND).await);
    assert_eq!(refusal, Refusal::NotReady("there is no none".to_owned()));
    for opening in ["GET / HTTP/1.1\r\n\r\n", "channel a b c d e\n", "events\n", &"x".repeat(100_000)] {
        let mut stream = TcpStream::connect(&replica.address).await.unwrap();
        stream.write_all(opening.as_bytes()).await.unwrap();
        let mut said = String::new();
        // A connection that is closed with unread input may be reset.
        let _reset = stream.read_to_string(&mut said).await;
        assert!(!said.contains("ok "), "{said}");
    }
}

#[tokio::test]
async fn whoever_is_at_an_old_address_is_told_nothing_of_use() {
    let ring = KeyRing::generate().unwrap();
    let keys = keys(&ring);
    // It passes everything on to a real replica, whose name is another one by now.
    let real = Replica::start(&ring, "two").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let target = real.address.clone();
    let between = tokio::spawn(async move {
        let (mut caller, _) = listener.accept().await.unwrap();
        let mut real = TcpStream::connect(target).await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut caller, &mut real).await);
    });
    let error = events(&address, &keys, &subject("one"), SECOND).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(Refusal::Unauthorized)), "{error}");
    between.await.unwrap();
    // One that answers by itself cannot prove anything.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let imposter = tokio::spawn(async move {
        let (mut caller, _) = listener.accept().await.unwrap();
        caller.write_all(b"ARCHESTRA-PEER/1 AAAAAAAAAAAAAAAAAAAAAAAA\n").await.unwrap();
        let mut hello = [0; 512];
        let read = caller.read(&mut hello).await.unwrap();
        let hello = String::from_utf8_lossy(&hello[..read]).into_owned();
        let proof = hello.trim_end().splitn(5, ' ').nth(4).unwrap().to_owned();
        caller.write_all(format!("ok {proof}\n").as_bytes()).await.unwrap();
        drop(caller.read(&mut [0; 1]).await);
    });
    let error = events(&address, &keys, &subject("one"), SECOND).await.unwrap_err();
    assert!(error.to_string().contains("did not prove"), "{error}");
    imposter.await.unwrap();
}
