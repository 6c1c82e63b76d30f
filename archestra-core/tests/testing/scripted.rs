//! Scripted servers: eras, pages, progress, cancellation, crashes; and what the runtime records.

use archestra_core::{
    ErrorKind,
    runtime::{Connection, HttpEndpoint, Phase, Runtime, RuntimeCapabilities, Workload, WorkloadEvent, stdio::Channel},
    testing::{Answer, Eras, Script, ScriptedRuntime, ScriptedServer, fixtures},
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::time::Duration;

async fn running(script: impl Into<Script>) -> (ScriptedRuntime, Workload, Channel) {
    let runtime = ScriptedRuntime::new(script);
    let workload = fixtures::workload(fixtures::workload_spec("server", &["server"]));
    runtime.apply(&workload).await.unwrap();
    runtime.until(&workload.id, Phase::Running).await;
    let channel = connect(&runtime, &workload).await;
    (runtime, workload, channel)
}

async fn connect(runtime: &ScriptedRuntime, workload: &Workload) -> Channel {
    match runtime.connect(&workload.id).await.unwrap() {
        Connection::Stdio(channel) => channel,
        Connection::Http(endpoint) => panic!("reached at {}", endpoint.url),
    }
}

async fn send(channel: &Channel, message: &Value) {
    channel.send(message.to_string().into()).await.unwrap();
}

async fn receive(channel: &mut Channel) -> Value {
    serde_json::from_slice(&channel.recv().await.expect("the channel goes on")).unwrap()
}

async fn request(channel: &mut Channel, method: &str, params: Value) -> Value {
    send(channel, &json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).await;
    receive(channel).await
}

fn modern(mut params: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
    params
}

fn call(id: i64, tool: &str, meta: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {}, "_meta": meta}})
}

#[tokio::test]
async fn a_server_of_both_eras_answers_each_in_its_own_way() {
    let (_runtime, _, mut channel) = running(ScriptedServer::new("both").tool("echo", |_| "hi")).await;
    let discovered = request(&mut channel, "server/discover", modern(json!({}))).await;
    assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]));
    let initialized = request(&mut channel, "initialize", json!({"protocolVersion": "2025-06-18"})).await;
    assert_eq!(initialized["result"]["protocolVersion"], "2025-06-18");
    let listed = request(&mut channel, "tools/list", modern(json!({}))).await;
    assert_eq!(
        (&listed["result"]["resultType"], &listed["result"]["cacheScope"]),
        (&json!("complete"), &json!("private"))
    );
    let listed = request(&mut channel, "tools/list", json!({})).await;
    assert_eq!(listed["result"].get("resultType"), None);
    assert_eq!(request(&mut channel, "ping", json!({})).await["result"], json!({}));
}

#[tokio::test]
async fn servers_of_one_era_refuse_the_other() {
    let (_runtime, _, mut channel) = running(ScriptedServer::new("legacy").eras(Eras::Legacy)).await;
    assert_eq!(request(&mut channel, "server/discover", modern(json!({}))).await["error"]["code"], -32601);
    let (_runtime, _, mut channel) = running(ScriptedServer::new("modern").eras(Eras::Modern)).await;
    let refused = request(&mut channel, "initialize", json!({"protocolVersion": "2025-11-25"})).await;
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["data"]["supported"]),
        (&json!(-32022), &json!(["2026-07-28"]))
    );
}

#[tokio::test]
async fn tools_are_listed_in_pages() {
    let server = ["a", "b", "c"]
        .into_iter()
        .fold(ScriptedServer::new("pages").page_size(2), |server, name| server.tool(name, |_| "x"));
    let (_runtime, _, mut channel) = running(server).await;
    let first = request(&mut channel, "tools/list", json!({})).await;
    assert_eq!(first["result"]["tools"].as_array().unwrap().len(), 2);
    let second = request(&mut channel, "tools/list", json!({"cursor": first["result"]["nextCursor"]})).await;
    assert_eq!((&second["result"]["tools"][0]["name"], second["result"].get("nextCursor")), (&json!("c"), None));
    assert_eq!(request(&mut channel, "tools/list", json!({"cursor": "nonsense"})).await["error"]["code"], -32602);
}

#[tokio::test]
async fn calls_are_answered_as_scripted_and_recorded() {
    let server = ScriptedServer::new("answers")
        .tool("structured", |arguments: &Value| Answer::structured(&json!({"got": arguments["n"]})))
        .tool("fails", |_| Answer::tool_error("no such file"))
        .tool("refuses", |_| Answer::error(-32050, "not today"))
        .tool("panics", |arguments: &Value| {
            arguments["absent"].as_str().expect("this test panics on purpose").to_owned()
        });
    let (runtime, workload, mut channel) = running(server).await;
    let answer = request(&mut channel, "tools/call", json!({"name": "structured", "arguments": {"n": 7}})).await;
    assert_eq!(answer["result"]["structuredContent"], json!({"got": 7}));
    assert_eq!(request(&mut channel, "tools/call", json!({"name": "fails"})).await["result"]["isError"], true);
    assert_eq!(request(&mut channel, "tools/call", json!({"name": "refuses"})).await["error"]["code"], -32050);
    assert_eq!(request(&mut channel, "tools/call", json!({"name": "absent"})).await["error"]["code"], -32602);
    assert_eq!(request(&mut channel, "tools/call", json!({"name": "panics"})).await["error"]["code"], -32603);
    let calls = runtime.calls();
    assert_eq!(
        (calls.len(), &calls[0].workload, calls[0].tool.as_str(), &calls[0].arguments),
        (4, &workload.id, "structured", &json!({"n": 7}))
    );
}

#[tokio::test(start_paused = true)]
async fn progress_comes_before_the_answer_and_only_if_asked_for() {
    let slow = |_: &Value| Answer::text("done").after(Duration::from_secs(9)).with_progress([(1, 2), (2, 2)]);
    let (_runtime, _, mut channel) = running(ScriptedServer::new("progress").tool("slow", slow)).await;
    send(&channel, &call(1, "slow", &json!({"progressToken": "p1"}))).await;
    for n in [1, 2] {
        let message = receive(&mut channel).await;
        assert_eq!((&message["params"]["progressToken"], &message["params"]["progress"]), (&json!("p1"), &json!(n)));
    }
    assert_eq!(receive(&mut channel).await["id"], 1);
    send(&channel, &call(2, "slow", &json!({}))).await;
    assert_eq!(receive(&mut channel).await["id"], 2);
}

#[tokio::test]
async fn a_cancelled_call_has_no_answer() {
    let (_runtime, _, mut channel) =
        running(ScriptedServer::new("hangs").tool("hang", |_| Answer::never()).tool("echo", |_| "hi")).await;
    send(&channel, &call(1, "hang", &json!({}))).await;
    send(&channel, &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})).await;
    send(&channel, &call(2, "echo", &json!({}))).await;
    assert_eq!(receive(&mut channel).await["id"], 2);
}

#[tokio::test]
async fn a_crash_answers_what_is_under_way_and_the_server_comes_back() {
    let server =
        ScriptedServer::new("fragile").tool("hang", |_| Answer::never()).tool("crash", |_| Answer::crash("signal 11"));
    let (runtime, workload, mut channel) = running(server).await;
    let mut watch = runtime.watch();
    send(&channel, &call(1, "hang", &json!({}))).await;
    send(&channel, &call(2, "crash", &json!({}))).await;
    let mut failed: Vec<_> = [receive(&mut channel).await, receive(&mut channel).await]
        .iter()
        .map(|answer| (answer["id"].as_i64(), answer["error"]["code"].as_i64()))
        .collect();
    failed.sort_unstable();
    assert_eq!(failed, [(Some(1), Some(-32000)), (Some(2), Some(-32000))]);
    assert_eq!(channel.recv().await, None);
    let mut phases = Vec::new();
    while phases.last() != Some(&Phase::Running) || phases.len() < 2 {
        match watch.next().await.unwrap().unwrap() {
            WorkloadEvent::Snapshot(all) => phases.extend(all.into_iter().map(|summary| summary.status.phase)),
            WorkloadEvent::Changed(summary) => phases.push(summary.status.phase),
            _ => {}
        }
    }
    assert!(phases.contains(&Phase::Restarting), "{phases:?}");
    assert_eq!(runtime.status(&workload.id).await.unwrap().restarts, 1);
    let mut channel = connect(&runtime, &workload).await;
    assert_eq!(request(&mut channel, "ping", json!({})).await["result"], json!({}));
    runtime.shutdown().await;
    assert_eq!(channel.recv().await, None);
}

#[tokio::test]
async fn a_runtime_refuses_as_scripted() {
    let runtime = ScriptedRuntime::new(Script::RefuseApply("no room".to_owned()));
    let mut workload = fixtures::workload(fixtures::workload_spec("server", &["server"]));
    assert_eq!(runtime.apply(&workload).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(runtime.list().await.unwrap().is_empty());

    let without = RuntimeCapabilities { images: false, ..runtime.capabilities() };
    let runtime = ScriptedRuntime::new(ScriptedServer::new("server")).with_capabilities(without);
    workload.spec.image = Some("registry.example.com/server:1".to_owned());
    assert_eq!(runtime.apply(&workload).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn an_http_workload_is_reached_at_its_url_with_a_generation_of_its_own() {
    let endpoint = HttpEndpoint { url: "http://127.0.0.1:4711/mcp".to_owned(), headers: Vec::new(), generation: 0 };
    let runtime = ScriptedRuntime::new(Script::Http(endpoint));
    let workload = fixtures::workload(fixtures::workload_spec("server", &["server"]));
    runtime.apply(&workload).await.unwrap();
    let mut generations = Vec::new();
    for _ in 0..2 {
        runtime.until(&workload.id, Phase::Running).await;
        match runtime.connect(&workload.id).await.unwrap() {
            Connection::Http(endpoint) => generations.push(endpoint.generation),
            Connection::Stdio(_) => panic!("an http workload has a URL"),
        }
        runtime.restart(&workload.id).await.unwrap();
    }
    assert_ne!(generations[0], generations[1]);
}

#[tokio::test]
async fn a_watcher_that_lags_is_given_everything_anew_and_told_of_everybody_s_tools() {
    let (runtime, workload, _channel) = running(ScriptedServer::new("server")).await;
    let mut watch = runtime.watch();
    assert!(matches!(watch.next().await.unwrap().unwrap(), WorkloadEvent::Snapshot(all) if all.len() == 1));
    for _ in 0..1000 {
        runtime.tools_changed(&workload.id);
    }
    assert!(matches!(watch.next().await.unwrap().unwrap(), WorkloadEvent::Snapshot(all) if all.len() == 1));
    assert_eq!(watch.next().await.unwrap().unwrap(), WorkloadEvent::ToolsChanged(workload.id.clone()));
    runtime.remove(&workload.id).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap(), WorkloadEvent::Removed(workload.id));
}
