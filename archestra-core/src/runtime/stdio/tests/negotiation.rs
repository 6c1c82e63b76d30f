//! How the era is found out, and what channels are told about it.

use super::{
    super::{ChannelError, Closed, Era, Multiplexer, MultiplexerOptions, NegotiationError},
    Process, discovered, initialized, recv, request, send,
};
use serde_json::json;
use std::time::Duration;

fn with_era(era: Era) -> MultiplexerOptions {
    MultiplexerOptions { era: Some(era), ..MultiplexerOptions::default() }
}

#[tokio::test]
async fn a_legacy_process_is_initialized_once_and_described_to_each_channel() {
    let (multiplexer, mut process) = Process::start(MultiplexerOptions::default());
    assert_eq!(multiplexer.channel().unwrap_err(), ChannelError::NotReady);
    process.become_legacy().await;
    let negotiated = multiplexer.ready().await.unwrap();
    assert_eq!((negotiated.era, negotiated.protocol_version.as_str()), (Era::Legacy, "2025-06-18"));
    assert_eq!(negotiated.instructions.as_deref(), Some("be kind"));
    assert_eq!(multiplexer.negotiated().unwrap().protocol_version, "2025-06-18");

    let mut channel = multiplexer.channel().unwrap();
    send(&channel, &request("a", "server/discover", json!({}))).await;
    assert_eq!(recv(&mut channel).await["error"]["code"], -32601);
    send(&channel, &request(0, "initialize", json!({"capabilities": {"roots": {}}}))).await;
    assert_eq!(recv(&mut channel).await, json!({"jsonrpc": "2.0", "id": 0, "result": initialized()}));
    send(&channel, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    send(&channel, &request(1, "ping", json!({}))).await;
    assert_eq!(recv(&mut channel).await, json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    send(&channel, &request(1, "tools/list", json!({}))).await;
    assert_eq!(process.read().await["method"], "tools/list", "nothing before reached the process");
}

#[tokio::test]
async fn a_modern_process_is_described_in_both_eras() {
    let (multiplexer, mut process) = Process::modern(MultiplexerOptions::default(), json!({"tools": {}})).await;
    let negotiated = multiplexer.negotiated().unwrap();
    assert_eq!((negotiated.era, negotiated.protocol_version.as_str()), (Era::Modern, "2026-07-28"));
    assert_eq!(negotiated.server_info.as_ref().unwrap().get(), r#"{"name":"m","version":"2"}"#);

    let mut channel = multiplexer.channel().unwrap();
    send(&channel, &request("a", "server/discover", json!({}))).await;
    assert_eq!(recv(&mut channel).await["result"], discovered(json!({"tools": {}})));
    send(&channel, &request("b", "initialize", json!({}))).await;
    assert_eq!(
        recv(&mut channel).await["result"],
        json!({
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "m", "version": "2"},
            "instructions": "say \"please\"",
        })
    );
    send(&channel, &request(1, "tools/list", json!({}))).await;
    assert_eq!(process.read().await["method"], "tools/list");
}

#[tokio::test]
async fn only_a_modern_error_or_a_discover_result_is_modern() {
    for (answer, era) in [
        (json!({"error": {"code": -32021, "message": "x"}}), Era::Modern),
        (json!({"error": {"code": -32020, "message": "x"}}), Era::Modern),
        (json!({"error": {"code": -32022, "message": "x", "data": {"supported": ["2025-11-25"]}}}), Era::Legacy),
        (json!({"error": {"code": -32600, "message": "x"}}), Era::Legacy),
        (json!({"error": {}}), Era::Legacy),
        (json!({"result": {}}), Era::Legacy),
        (json!({"result": {"supportedVersions": ["2025-11-25"]}}), Era::Legacy),
        (json!({"result": {"supportedVersions": ["2027-01-01"]}}), Era::Modern),
    ] {
        let (multiplexer, mut process) = Process::start(MultiplexerOptions::default());
        let discover = process.read().await;
        let mut message = answer.clone();
        message["jsonrpc"] = json!("2.0");
        message["id"] = discover["id"].clone();
        process.write(&message).await;
        if era == Era::Legacy {
            let initialize = process.read().await;
            assert_eq!(initialize["method"], "initialize", "{answer}");
            process.answer(&initialize, initialized()).await;
        }
        assert_eq!(multiplexer.ready().await.unwrap().era, era, "{answer}");
    }
}

#[tokio::test]
async fn another_modern_version_is_asked_for() {
    let (multiplexer, mut process) = Process::start(MultiplexerOptions::default());
    let discover = process.read().await;
    let error = json!({"code": -32022, "message": "x", "data": {"supported": ["2025-11-25", "2027-03-01"], "requested": "2026-07-28"}});
    process.write(&json!({"jsonrpc": "2.0", "id": discover["id"], "error": error})).await;
    let again = process.read().await;
    assert_eq!(again["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], "2027-03-01");
    let mut result = discovered(json!({}));
    result["supportedVersions"] = json!(["2027-03-01"]);
    process.answer(&again, result).await;
    assert_eq!(multiplexer.ready().await.unwrap().protocol_version, "2027-03-01");
}

#[tokio::test]
async fn another_legacy_version_is_asked_for() {
    let (multiplexer, mut process) = Process::start(with_era(Era::Legacy));
    let initialize = process.read().await;
    assert_eq!(initialize["params"]["protocolVersion"], "2025-11-25");
    let error =
        json!({"code": -32602, "message": "x", "data": {"supported": ["2024-11-05"], "requested": "2025-11-25"}});
    process.write(&json!({"jsonrpc": "2.0", "id": initialize["id"], "error": error})).await;
    let again = process.read().await;
    assert_eq!(again["params"]["protocolVersion"], "2024-11-05");
    process.answer(&again, initialized()).await;
    assert_eq!(multiplexer.ready().await.unwrap().era, Era::Legacy);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ignores_discover_is_initialized_after_the_probe_timeout() {
    let (multiplexer, mut process) = Process::start(MultiplexerOptions::default());
    assert_eq!(process.read().await["method"], "server/discover");
    let initialize = process.read().await;
    process.answer(&initialize, initialized()).await;
    assert_eq!(multiplexer.ready().await.unwrap().era, Era::Legacy);
}

#[tokio::test(start_paused = true)]
async fn a_slow_modern_process_answers_both_in_turn() {
    let (multiplexer, mut process) = Process::start(MultiplexerOptions::default());
    let discover = process.read().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let initialize = process.read().await;
    process.answer(&discover, discovered(json!({}))).await;
    process.refuse(&initialize, -32601).await;
    assert_eq!(multiplexer.ready().await.unwrap().era, Era::Modern);

    let (multiplexer, mut process) = Process::start(MultiplexerOptions::default());
    let discover = process.read().await;
    let initialize = process.read().await;
    process.refuse(&initialize, -32601).await;
    process.answer(&discover, discovered(json!({}))).await;
    assert_eq!(multiplexer.ready().await.unwrap().era, Era::Modern, "in either order");

    let (multiplexer, mut process) = Process::start(MultiplexerOptions::default());
    let discover = process.read().await;
    process.read().await;
    process.answer(&discover, discovered(json!({}))).await;
    assert_eq!(multiplexer.ready().await.unwrap().era, Era::Modern, "and without an answer to the other");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_refuses_both_is_refused() {
    let (multiplexer, mut process) = Process::start(MultiplexerOptions::default());
    let discover = process.read().await;
    let initialize = process.read().await;
    process.refuse(&discover, -32601).await;
    process.refuse(&initialize, -32000).await;
    let error = multiplexer.ready().await.unwrap_err();
    assert_eq!(error, NegotiationError::Refused { code: -32000, message: "no".to_owned() });
    assert!(matches!(multiplexer.closed().await, Closed::NotNegotiated(_)));
    assert!(process.read_line().await.is_none(), "stdin is closed");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_answers_nothing_runs_into_the_deadline() {
    let (multiplexer, _process) = Process::start(MultiplexerOptions::default());
    let error = multiplexer.ready().await.unwrap_err();
    assert_eq!(error, NegotiationError::TimedOut { after: Duration::from_secs(60) });
    assert!(matches!(multiplexer.channel(), Err(ChannelError::Closed(Closed::NotNegotiated(_)))));
}

#[tokio::test]
async fn a_process_that_dies_of_the_probe_is_told_from_one_that_dies_otherwise() {
    let died = async |options: MultiplexerOptions, refuse_first: bool| {
        let (multiplexer, mut process): (Multiplexer, _) = Process::start(options);
        let first = process.read().await;
        if refuse_first {
            process.refuse(&first, -32601).await;
            process.read().await;
        }
        drop(process);
        multiplexer.ready().await.unwrap_err()
    };
    assert_eq!(died(MultiplexerOptions::default(), false).await, NegotiationError::DiedWhileProbing);
    assert_eq!(died(MultiplexerOptions::default(), true).await, NegotiationError::DiedWhileProbing);
    assert_eq!(died(with_era(Era::Modern), false).await, NegotiationError::DiedWhileProbing);
    assert_eq!(died(with_era(Era::Legacy), false).await, NegotiationError::Ended(Closed::ProcessEnded));
}

#[tokio::test(start_paused = true)]
async fn hints_are_followed_and_corrected() {
    let (multiplexer, mut process) = Process::start(with_era(Era::Legacy));
    let initialize = process.read().await;
    assert_eq!(initialize["method"], "initialize");
    process.refuse(&initialize, -32601).await;
    let discover = process.read().await;
    process.answer(&discover, discovered(json!({}))).await;
    assert_eq!(multiplexer.ready().await.unwrap().era, Era::Modern);

    let (multiplexer, mut process) = Process::start(with_era(Era::Modern));
    let discover = process.read().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    process.answer(&discover, discovered(json!({}))).await;
    assert_eq!(multiplexer.ready().await.unwrap().era, Era::Modern, "no probe timeout");

    let (multiplexer, mut process) = Process::start(with_era(Era::Modern));
    process.become_legacy().await;
    assert_eq!(multiplexer.ready().await.unwrap().era, Era::Legacy);
}

#[tokio::test]
async fn banners_and_questions_before_initialization_do_no_harm() {
    let (multiplexer, mut process) = Process::start(MultiplexerOptions::default());
    process.write_text("Starting\u{1F680}\r\n\n[]\n{\"id\":\n").await;
    process.write(&request(7, "ping", json!({}))).await;
    let (first, second) = (process.read().await, process.read().await);
    let (discover, pong) = if first["id"] == 7 { (second, first) } else { (first, second) };
    assert_eq!(pong, json!({"jsonrpc": "2.0", "id": 7, "result": {}}));
    process.write(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})).await;
    process.refuse(&discover, -32601).await;
    let initialize = process.read().await;
    process.answer(&initialize, initialized()).await;
    multiplexer.ready().await.unwrap();
}

#[tokio::test]
async fn changes_of_the_tools_are_announced_in_both_eras() {
    let (multiplexer, mut process) = Process::legacy(MultiplexerOptions::default()).await;
    let mut changed = multiplexer.tools_changed();
    process.write(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})).await;
    changed.changed().await.unwrap();
    assert_eq!(*changed.borrow(), 1);

    let capabilities = json!({"tools": {"listChanged": true}});
    let (multiplexer, mut process) = Process::modern(MultiplexerOptions::default(), capabilities).await;
    let mut changed = multiplexer.tools_changed();
    let mut bystander = multiplexer.channel().unwrap();
    let listen = process.read().await;
    assert_eq!(listen["method"], "subscriptions/listen");
    assert_eq!(listen["params"]["notifications"], json!({"toolsListChanged": true}));
    let about = json!({"_meta": {"io.modelcontextprotocol/subscriptionId": listen["id"]}});
    for method in ["notifications/subscriptions/acknowledged", "notifications/tools/list_changed"] {
        process.write(&json!({"jsonrpc": "2.0", "method": method, "params": about})).await;
    }
    changed.changed().await.unwrap();
    super::assert_silent(&mut bystander).await;
    assert_eq!(multiplexer.stats().under_way, 1);
}
