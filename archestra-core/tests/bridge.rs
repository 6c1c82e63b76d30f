//! The bridge as a program, with real servers and real connections: the servers are this test binary itself, started once
//! more with a `mode=`.

#![cfg(target_os = "linux")]

#[cfg(test)]
#[path = "bridge/help.rs"]
mod bridge_help;

#[cfg(test)]
#[path = "process/fixture.rs"]
mod fixture;
#[cfg(test)]
#[expect(dead_code, reason = "shared with the tests of the process runtime, which use all of it")]
#[path = "process/help.rs"]
mod help;

use archestra_core::bridge::{
    Refusal,
    client::{self, ConnectError},
};
use archestra_core::{runtime::stdio::MultiplexerOptions, secret::SecretValue};
use bridge_help::{Bridge, SECOND, answers, request};
use help::{call, until, until_begun};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

/// Not a test: what the bridges of the others run.
#[test]
fn fixture_process() {
    fixture::main();
}

#[tokio::test]
async fn a_server_is_called_over_tcp_by_many() {
    let bridge = Bridge::ready("mode=mcp", &[]).await;
    let mut first = bridge.channel().await;
    assert!(call(&mut first, 1, "echo", "hello").await.contains("hello"));
    let mut channels = Vec::new();
    for _ in 0..40 {
        channels.push(bridge.channel().await);
    }
    // All use the same ids, and each has its own answers.
    let callers = channels.into_iter().enumerate().map(|(caller, mut channel)| async move {
        for id in 0..10 {
            let text = format!("caller {caller} call {id}");
            assert!(call(&mut channel, id, "echo", &text).await.contains(&text));
        }
    });
    futures::future::join_all(callers).await;
    let (status, body) = bridge.health("/ready").await;
    assert_eq!((status, body.as_str()), (200, "ready"));
    assert_eq!(bridge.health("/live").await.0, 200);
    assert_eq!(bridge.health("/other").await.0, 404);
}

/// It stands beside every server, in that server's limit of memory: a few MiB, most of which is the program itself.
#[tokio::test]
async fn a_bridge_is_small() {
    const MIB: u64 = 1024;
    let bridge = Bridge::ready("mode=mcp", &[]).await;
    let idle = bridge.resident();
    let mut channels = Vec::new();
    for _ in 0..32 {
        channels.push(bridge.channel().await);
    }
    let text = "x".repeat(10_000);
    let callers = channels.iter_mut().map(async |channel| {
        for id in 0..20 {
            assert!(call(channel, id, "echo", &text).await.contains(&text));
        }
    });
    futures::future::join_all(callers).await;
    let used = bridge.resident();
    println!("resident: {idle} KiB at rest, {used} KiB with 32 connections after 640 calls");
    assert!(idle < 8 * MIB && used < 16 * MIB, "{idle} KiB at rest, {used} KiB in use");
}

#[tokio::test]
async fn calls_of_many_are_under_way_together() {
    let bridge = Bridge::ready("mode=mcp", &[]).await;
    let mut channels = Vec::new();
    for _ in 0..32 {
        channels.push(bridge.channel().await);
    }
    // None is answered before all have arrived.
    let calls = channels.iter_mut().map(|channel| call(channel, "same id", "meet", "32"));
    assert!(futures::future::join_all(calls).await.iter().all(|answer| answer.contains("met 32")));
}

#[tokio::test]
async fn nobody_comes_in_without_the_token() {
    let bridge = Bridge::ready("mode=mcp", &["--max-connections", "1"]).await;
    let wrong = SecretValue::new("another-token");
    let refused = client::connect(bridge.address, &wrong, 10 * SECOND).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused(Refusal::Unauthorized)), "{refused}");
    for opening in ["GET / HTTP/1.1\r\n\r\n", "{\"jsonrpc\":\"2.0\"}\n", &"x".repeat(100_000)] {
        let mut stream = bridge.connect_raw().await;
        let _refused_meanwhile = stream.write_all(opening.as_bytes()).await;
        let mut answer = String::new();
        let _reset = timeout(30 * SECOND, stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.is_empty() || answer.starts_with("refused malformed "), "{answer}");
    }
    let kept = bridge.channel().await;
    let busy = client::connect(bridge.address, &bridge.token, 10 * SECOND).await.unwrap_err();
    assert!(matches!(busy, ConnectError::Refused(Refusal::Busy(_))), "{busy}");
    drop(kept);
    until("the place of the first", || async {
        client::connect(bridge.address, &bridge.token, 10 * SECOND).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let bridge = Bridge::ready("mode=mcp", &[]).await;
    let mut stream = bridge.connect_raw().await;
    let began = Instant::now();
    assert_eq!(timeout(60 * SECOND, stream.read(&mut [0; 16])).await.unwrap().unwrap(), 0);
    assert!(began.elapsed() >= 4 * SECOND);
}

#[tokio::test]
async fn a_server_that_dies_answers_what_is_under_way_and_takes_the_bridge_with_it() {
    let mut bridge = Bridge::ready("mode=mcp", &[]).await;
    let mut under_way = bridge.channel().await;
    let mut idle = bridge.channel().await;
    let server = bridge.server();
    let (answer, ()) = tokio::join!(call(&mut under_way, "abc", "sleep", "60000"), async {
        until_begun(&mut idle, 1).await;
        rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
    });
    assert!(answer.contains("\"error\"") && answer.contains("the server process ended"), "{answer}");
    assert_eq!(timeout(30 * SECOND, under_way.recv()).await.unwrap(), None);
    assert_eq!(timeout(30 * SECOND, idle.recv()).await.unwrap(), None);
    let (code, log) = bridge.ended().await;
    assert_eq!(code, Some(137), "{log}");
    assert!(log.contains("archestra-bridge: the server was ended by signal 9\n"), "{log}");
}

#[tokio::test]
async fn a_server_that_ends_by_itself_gives_its_code() {
    let mut bridge = Bridge::start("mode=crash", &[]).await;
    let (code, log) = bridge.ended().await;
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("cannot go on with a value\n"), "the server's own log: {log}");
    assert!(log.ends_with("archestra-bridge: the server exited with code 3\n"), "{log}");
}

#[tokio::test]
async fn what_is_under_way_is_finished_when_it_is_told_to_end() {
    let mut bridge = Bridge::ready("mode=mcp", &["--drain", "60"]).await;
    let server = bridge.server();
    let (mut under_way, mut other) = (bridge.channel().await, bridge.channel().await);
    let (answer, ()) = tokio::join!(call(&mut under_way, 5, "sleep", "6000"), async {
        until_begun(&mut other, 1).await;
        bridge.signal(rustix::process::Signal::TERM);
        until("no more connections", || async {
            client::connect(bridge.address, &bridge.token, 10 * SECOND).await.is_err()
        })
        .await;
        assert_eq!(bridge.health("/ready").await.0, 503);
    });
    assert!(answer.contains("slept 6000"), "{answer}");
    assert_eq!(timeout(30 * SECOND, under_way.recv()).await.unwrap(), None);
    let (code, log) = bridge.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(rustix::process::test_kill_process(server).is_err(), "the server is gone");
}

#[tokio::test]
async fn whoever_has_not_heard_yet_that_it_ends_is_served() {
    let mut bridge = Bridge::ready("mode=mcp", &["--drain", "10", "--linger", "5"]).await;
    bridge.signal(rustix::process::Signal::TERM);
    until("it is not ready", || async { bridge.try_health("/ready").await.is_some_and(|(status, _)| status == 503) })
        .await;
    let mut late = bridge.channel().await;
    assert!(call(&mut late, 1, "echo", "late").await.contains("late"));
    let (code, log) = bridge.ended().await;
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test]
async fn what_is_not_finished_in_time_is_answered_with_an_error() {
    let mut bridge = Bridge::ready("mode=mcp", &["--drain", "1"]).await;
    let (mut under_way, mut other) = (bridge.channel().await, bridge.channel().await);
    let (answer, ()) = tokio::join!(call(&mut under_way, 5, "sleep", "60000"), async {
        until_begun(&mut other, 1).await;
        bridge.signal(rustix::process::Signal::TERM);
    });
    assert!(answer.contains("the server is being stopped"), "{answer}");
    let (code, log) = bridge.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("still under way after 1s"), "{log}");
}

#[tokio::test]
async fn a_server_that_dies_of_the_probe_is_started_again() {
    let bridge = Bridge::ready("mode=dies-of-probe", &[]).await;
    let mut channel = bridge.channel().await;
    assert!(call(&mut channel, 1, "echo", "hello").await.contains("hello"));
}

#[tokio::test]
async fn a_server_that_never_answers_is_never_ready() {
    let mut bridge = Bridge::start("mode=silent", &["--init-timeout", "2"]).await;
    until("the health port", || async { bridge.try_health("/live").await.is_some() }).await;
    assert_eq!(bridge.health("/ready").await, (503, "the server is starting".to_owned()));
    let refused = client::connect(bridge.address, &bridge.token, 10 * SECOND).await.unwrap_err();
    assert!(matches!(&refused, ConnectError::Refused(Refusal::NotReady(_))), "{refused}");
    let (code, log) = bridge.ended().await;
    assert_eq!(code, Some(76), "{log}");
    assert!(log.contains("neither `server/discover` nor `initialize` within 2s"), "{log}");
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_named() {
    let mut bridge = Bridge::of_command(&["/nowhere/server"], &[]);
    let (code, log) = bridge.ended().await;
    assert_eq!(code, Some(127), "{log}");
    assert!(log.contains("the command /nowhere/server cannot be started"), "{log}");
}

#[tokio::test]
async fn announcements_reach_whoever_asked_for_them() {
    let bridge = Bridge::ready("mode=mcp", &[]).await;
    let mut events = client::events(bridge.address, &bridge.token, 10 * SECOND).await.unwrap();
    assert_eq!(timeout(10 * SECOND, events.tools_changed()).await.unwrap(), Some(0));
    let mut channel = bridge.channel().await;
    assert!(call(&mut channel, 1, "change", "").await.contains("changed"));
    assert_eq!(timeout(10 * SECOND, events.tools_changed()).await.unwrap(), Some(1));
    let mut late = client::events(bridge.address, &bridge.token, 10 * SECOND).await.unwrap();
    assert_eq!(timeout(10 * SECOND, late.tools_changed()).await.unwrap(), Some(1));
    bridge.signal(rustix::process::Signal::TERM);
    assert_eq!(timeout(30 * SECOND, late.tools_changed()).await.unwrap(), None);
}

#[tokio::test]
async fn many_callers_share_one_connection() {
    let bridge = Bridge::ready("mode=mcp", &["--max-connections", "1"]).await;
    let stream = bridge.connect_raw().await;
    let options = MultiplexerOptions::default();
    let multiplexer = client::multiplexer(stream, &bridge.token, 10 * SECOND, options).await.unwrap();
    let negotiated = multiplexer.ready().await.unwrap();
    assert_eq!(negotiated.protocol_version, "2025-06-18");
    let callers = (0..40).map(|caller| {
        let mut channel = multiplexer.channel().unwrap();
        async move {
            for id in 0..10 {
                let text = format!("caller {caller} call {id}");
                assert!(call(&mut channel, id, "echo", &text).await.contains(&text));
            }
        }
    });
    futures::future::join_all(callers).await;
    let (mut under_way, mut other) = (multiplexer.channel().unwrap(), multiplexer.channel().unwrap());
    let (answer, ()) = tokio::join!(call(&mut under_way, "abc", "sleep", "60000"), async {
        until_begun(&mut other, 1).await;
        bridge.signal(rustix::process::Signal::KILL);
    });
    assert!(
        answer.contains("\"abc\"") && answer.contains("\"error\""),
        "also without a last word of the bridge: {answer}"
    );
    assert_eq!(timeout(30 * SECOND, under_way.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn an_exclusive_server_has_one_caller_at_a_time_and_forgets_those_that_left_the_queue() {
    let bridge = Bridge::ready("mode=mcp", &["--exclusive"]).await;
    let mut first = bridge.channel().await;
    assert!(call(&mut first, 1, "echo", "first").await.contains("first"));
    let impatient = bridge.channel().await;
    impatient.send(request(1, "echo", "impatient")).await.unwrap();
    let mut second = bridge.channel().await;
    second.send(request(1, "echo", "second")).await.unwrap();
    assert!(timeout(Duration::from_millis(300), second.recv()).await.is_err(), "it is not its turn");
    drop(impatient);
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(first);
    assert!(answers(&mut second, 1).await.contains("second"));
}

#[tokio::test]
async fn a_client_that_does_not_read_disturbs_nobody() {
    let bridge = Bridge::ready("mode=mcp", &[]).await;
    let mut deaf = bridge.connect_raw().await;
    deaf.write_all(format!("ARCHESTRA-BRIDGE/1 {}\n", bridge.token.expose()).as_bytes()).await.unwrap();
    let text = "x".repeat(100_000);
    let talks = tokio::spawn(async move {
        for id in 0..500 {
            let mut line = request(id, "echo", &text).to_vec();
            line.push(b'\n');
            if deaf.write_all(&line).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut channel = bridge.channel().await;
    for id in 0..20 {
        let answered = timeout(30 * SECOND, call(&mut channel, id, "echo", "hello")).await;
        assert!(answered.is_ok_and(|answer| answer.contains("hello")));
    }
    talks.abort();
}

#[tokio::test]
async fn a_dropped_channel_cancels_and_its_place_is_free() {
    let bridge = Bridge::ready("mode=mcp", &[]).await;
    let channel = bridge.channel().await;
    let (sender, mut receiver) = channel.split();
    sender.send(request(1, "sleep", "700")).await.unwrap();
    // Nobody sends any more, which ends nothing.
    drop(sender);
    let answer = timeout(30 * SECOND, receiver.recv()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("slept 700"));
    drop(receiver);
    let mut other = bridge.channel().await;
    assert!(call(&mut other, 1, "echo", "hello").await.contains("hello"));
}

#[tokio::test]
async fn the_program_copies_itself() {
    let directory =
        std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("install-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let bridge = env!("CARGO_BIN_EXE_archestra-bridge");
    let installed = tokio::process::Command::new(bridge).arg("--install").arg(&directory).status().await.unwrap();
    assert!(installed.success());
    let copy =
        tokio::process::Command::new(directory.join("archestra-bridge")).arg("--version").output().await.unwrap();
    assert!(String::from_utf8_lossy(&copy.stdout).starts_with("archestra-bridge "));
    std::fs::remove_dir_all(&directory).unwrap();
    let wrong = tokio::process::Command::new(bridge).args(["--listen", "x"]).output().await.unwrap();
    assert_eq!(wrong.status.code(), Some(64));
}
