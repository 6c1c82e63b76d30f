//! Servers that cannot be installed, never answer, or break off.

use crate::{assert_error, installed, start, until};
use archestra_tests::{
    Home,
    remote::{Mood, Remote},
};
use serde_json::{Value, json};

#[tokio::test]
async fn what_cannot_be_installed_leaves_nothing_behind() {
    let home = Home::new();
    let binary = home.bare().await;
    let api = binary.api();
    let entry = async |spec: Value| api.post("/api/v1/entries", &spec).await;
    let install = async |spec: Value| api.post("/api/v1/installations", &spec).await;

    let silent = archestra_tests::binary::free_port();
    entry(json!({ "name": "gone", "scope": "organization", "remote": { "url": format!("http://127.0.0.1:{silent}/mcp") } })).await.ok();
    let refused = install(json!({ "entry": "gone", "scope": "organization" })).await;
    assert!(refused.status >= 400, "{}", refused.text());
    assert!(refused.text().contains("reach") || refused.text().contains("refused"), "{}", refused.text());

    let missing = entry(json!({ "name": "nocommand", "scope": "organization", "selfHosted": { "command": ["archestra-no-such-command"] } })).await;
    if missing.status < 300 {
        let refused = install(json!({ "entry": "nocommand", "scope": "organization" })).await;
        assert_eq!(refused.status, 422, "{}", refused.text());
        assert!(refused.text().contains("archestra-no-such-command"), "{}", refused.text());
    } else {
        assert_eq!(missing.status, 422, "{}", missing.text());
    }

    let prompted = json!({
        "name": "prompted", "scope": "organization",
        "selfHosted": { "command": ["sleep", "100"], "env": [{ "name": "API_KEY", "secret": true, "prompt": true, "required": true }] },
    });
    entry(prompted).await.ok();
    let refused = install(json!({ "entry": "prompted", "scope": "organization", "values": {} })).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("API_KEY"), "{}", refused.text());

    let listed = api.get("/api/v1/installations").await.ok();
    assert_eq!(listed["items"], json!([]));
    assert!(binary.descendants().is_empty(), "{:#?}", binary.descendants());

    let made = install(json!({ "entry": "prompted", "scope": "organization", "values": { "API_KEY": "canary-7f3a" } }))
        .await
        .ok();
    let again = install(json!({ "entry": "prompted", "scope": "organization", "values": { "API_KEY": "x" } })).await;
    assert_eq!(again.status, 409, "{}", again.text());
    for path in ["/api/v1/installations", "/api/v1/entries", "/api/v1/audit"] {
        assert!(!api.get(path).await.text().contains("canary-7f3a"), "{path} shows a secret");
    }
    assert!(!binary.log().contains("canary-7f3a"));
    for process in binary.descendants() {
        assert!(!process.command.contains("canary-7f3a"), "{process:?}");
    }
    let data = std::fs::read_dir(home.path().join("data")).unwrap();
    for file in data.flatten().filter(|file| file.file_name().to_string_lossy().contains(".db")) {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(
            !bytes.windows(11).any(|part| part == b"canary-7f3a"),
            "{} holds a secret in clear",
            file.path().display()
        );
    }
    api.delete(&format!("/api/v1/installations/{}", made["id"].as_str().unwrap())).await.ok();
    until(async || binary.descendants().is_empty(), 30).await;
}

#[tokio::test]
async fn a_server_that_never_answers_initialize_is_an_error_in_time_and_is_ended() {
    let home = Home::new();
    let binary = start(&home, &["--start-timeout", "1s"]).await;
    let api = binary.api();
    // It reads its input and never says a word.
    let command = ["sh", "-c", "while read -r line; do :; done"];
    let entry = json!({ "name": "mute", "scope": "organization", "selfHosted": { "command": command } });
    api.post("/api/v1/entries", &entry).await.ok();
    let made = api.post("/api/v1/installations", &json!({ "entry": "mute", "scope": "organization" })).await.ok();
    let path = format!("/api/v1/installations/{}", made["id"].as_str().unwrap());
    let mut last = Value::Null;
    until(
        async || {
            last = api.get(&path).await.ok();
            last["state"]["phase"] == "error"
        },
        60,
    )
    .await;
    assert!(last["state"]["reason"].as_str().unwrap().contains("initialize"), "{last}");

    let tools = [json!({ "entry": "mute", "tool": "*", "credential": "resolveAtCallTime" })];
    api.post("/api/v1/gateways", &json!({ "slug": "mute", "scope": "organization", "tools": tools })).await.ok();
    let gateway = binary.gateway("mute");
    until(async || gateway.modern("tools/list", json!({})).await.status == 200, 30).await;
    assert_eq!(gateway.tools().await, Vec::<String>::new());
    let answer = gateway.modern("tools/call", json!({ "name": "mute__wait", "arguments": {} })).await;
    assert!(assert_error(&answer, 200, -32602).contains("mute__wait"));

    api.delete(&path).await.ok();
    until(async || binary.descendants().is_empty(), 30).await;
    assert_eq!(api.get("/api/v1/installations").await.ok()["items"], json!([]));
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    let home = Home::new();
    let binary = start(&home, &[]).await;
    let remote = Remote::start().await;
    installed(&binary, "remote", &json!({ "remote": { "url": remote.url() } })).await;
    let gateway = binary.gateway("remote");
    gateway.until_listed("remote__wait").await;
    let params = || json!({ "name": "remote__wait", "arguments": { "say": "x" } });

    remote.be(Mood::CutShort);
    let answer = gateway.modern("tools/call", params()).await;
    let error = assert_error(&answer, 200, -32603);
    assert!(error.contains("broke off"), "{error}");

    remote.be(Mood::CutOpen);
    let opened = gateway.open("tools/call", params()).await;
    // Where the head had gone out already, the connection ends before the body does.
    if let Ok(opened) = opened {
        let whole = http_body_util::BodyExt::collect(opened.into_body()).await;
        assert!(whole.is_err(), "{whole:?}");
    }

    let session = gateway.session().await;
    for mood in [Mood::CutShort, Mood::CutOpen] {
        remote.be(mood);
        let result = session.call(7, "remote__wait", json!({ "say": "x" })).await;
        assert_eq!(result["isError"], true, "{result}");
    }

    until(
        async || {
            let records = binary.api().get("/api/v1/audit").await.ok();
            let calls = records["items"].as_array().unwrap().iter().filter(|record| record["action"] == "tools/call");
            let failed = calls.filter(|record| record["outcome"] == "error").count();
            failed == 4
        },
        30,
    )
    .await;
    let metrics = binary.metrics().await;
    assert!(!metrics.contains("status=\"success\""), "{metrics}");
    let failed =
        metrics.lines().find(|line| line.starts_with("mcp_tool_calls_total") && line.contains("status=\"error\""));
    assert!(failed.is_some_and(|line| line.ends_with(" 4")), "{metrics}");
}
