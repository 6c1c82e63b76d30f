//! What is sent wrongly gets an answer that says what to change, repeats no secret, and leaves nothing behind.

use super::*;

async fn raw(rig: &Rig, path: &str, content_type: Option<&str>, body: impl Into<Body>) -> Answer {
    let mut request = Request::builder().method("POST").uri(path).extension(Arc::clone(&rig.admin));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    rig.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn malformed_bodies() {
    let rig = Rig::new().await;
    let before = rig.everything().await;
    let problem =
        raw(&rig, "/entries", Some("application/json"), "{\"name\": \"s3cret\",\n \"remote\": }").await.problem(400);
    assert!(problem.detail.contains("line 2, column"), "{}", problem.detail);
    assert!(!problem.detail.contains("s3cret"));
    raw(&rig, "/entries", Some("application/json"), "").await.problem(400);
    raw(&rig, "/entries", Some("application/json"), vec![0xff, 0xfe]).await.problem(400);
    raw(&rig, "/entries", Some("text/plain"), "{}").await.problem(415);
    raw(&rig, "/entries", None, "{}").await.problem(415);
    let twice = raw(&rig, "/entries", Some("application/json"), r#"{"name": "a", "name": "b"}"#).await.problem(400);
    assert!(twice.detail.contains("\"name\" is there twice"), "{}", twice.detail);
    raw(&rig, "/entries", Some("application/json"), "[".repeat(10_000)).await.problem(400);
    raw(&rig, "/entries", Some("application/json; charset=utf-8"), "[1]").await.problem(422);
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(MAX_BODY));
    assert!(raw(&rig, "/entries", Some("application/json"), large).await.problem(413).detail.contains("4194304"));
    assert_eq!(rig.everything().await, before);
}

#[tokio::test]
async fn unknown_and_ill_typed_fields_are_named_and_values_are_not_repeated() {
    let rig = Rig::new().await;
    let case = async |path: &str, body: Value| {
        let mut problem = rig.post(&rig.admin, path, body).await.problem(422);
        assert!(!problem.detail.contains("s3cret"), "{}", problem.detail);
        problem.findings.remove(0)
    };
    let mut entry = remote("tracker");
    entry["remot"] = json!("s3cret");
    let finding = case("/entries", entry).await;
    assert!(finding.reason.contains("`remot`") && finding.remedy.contains("`remote`"), "{finding}");
    let mut entry = hosted("local");
    entry["selfHosted"]["port"] = json!("s3cret");
    assert_eq!(case("/entries", entry).await.field, "selfHosted.port");
    let mut entry = hosted("local");
    entry["selfHosted"]["env"][0]["secrt"] = json!(true);
    let finding = case("/entries", entry).await;
    assert!(finding.field.starts_with("selfHosted.env[0]") && finding.reason.contains("secrt"), "{finding}");
    let mut entry = remote("tracker");
    entry["scope"] = json!({"tem": "finance"});
    assert!(case("/entries", entry).await.field.starts_with("scope"));
    let finding = case("/gateways", json!({"slug": "g", "toolz": []})).await;
    assert!(finding.reason.contains("`toolz`"), "{finding}");
    assert!(case("/users", json!({})).await.reason.contains("email"));
    let finding =
        case("/gateways", json!({"slug": "g", "tools": [{"entry": "x", "tool": "*", "credential": "resolve"}]})).await;
    assert!(
        finding.field.starts_with("tools[0].credential") && finding.remedy.contains("resolveAtCallTime"),
        "{finding}"
    );
    let finding = case("/installations", json!({"entry": "tracker", "values": {"token": ["s3cret"]}})).await;
    assert!(finding.field.starts_with("values"), "{finding}");
}

#[tokio::test]
async fn entries_are_validated_whole() {
    let rig = Rig::new().await;
    let entry = json!({"name": " ", "selfHosted": {"command": [], "env": [{"name": "1BAD", "value": "x"}]}});
    let problem = rig.post(&rig.admin, "/entries", entry).await.problem(422);
    let fields: Vec<_> = problem.findings.iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(fields, ["name", "selfHosted.command", "selfHosted.env[0].name"]);
    assert!(problem.findings.iter().all(|finding| !finding.remedy.is_empty()));
}

#[tokio::test]
async fn failed_installations_leave_nothing() {
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/entries", remote("tracker")).await.expect(201);
    let before = rig.everything().await;
    let missing = rig.post(&rig.admin, "/installations", json!({"entry": "tracker"})).await.problem(422);
    assert_eq!(missing.findings[0].field, "values.token");
    let unknown = rig
        .post(&rig.admin, "/installations", json!({"entry": "tracker", "values": {"token": "t", "tokn": "t"}}))
        .await
        .problem(422);
    assert_eq!(unknown.findings[0].field, "values.tokn");
    rig.post(&rig.admin, "/installations", json!({"entry": "nothing"})).await.problem(422);
    *rig.tools.0.lock().unwrap() = Some(DiscoverError::Unreachable { reason: "connection refused".to_owned() });
    let answer = rig.post(&rig.admin, "/installations", json!({"entry": "tracker", "values": {"token": "t"}})).await;
    assert_eq!(answer.headers["retry-after"], "5");
    assert!(answer.problem(503).detail.contains("connection refused"));
    *rig.tools.0.lock().unwrap() = Some(DiscoverError::Unauthorized { reason: "401".to_owned() });
    rig.post(&rig.admin, "/installations", json!({"entry": "tracker", "values": {"token": "t"}})).await.problem(422);
    assert_eq!(rig.everything().await, before);
}

#[tokio::test]
async fn paths_methods_and_queries() {
    let rig = Rig::new().await;
    rig.get(&rig.admin, "/nothing").await.problem(404);
    rig.delete(&rig.admin, "/entries").await.problem(405);
    assert!(rig.get(&rig.admin, "/entries?serch=x").await.problem(400).detail.contains("serch"));
    rig.get(&rig.admin, "/entries?label=nocolon").await.problem(400);
    rig.get(&rig.admin, "/installations/not-an-id").await.problem(404);
    let leaked = rig.get(&rig.admin, "/tokens/arch_0123456789012345678901234567890123").await.problem(404);
    assert!(!leaked.detail.contains("arch_"), "{}", leaked.detail);
    let anonymous = rig.send(Request::builder().uri("/entries").body(Body::empty()).unwrap()).await;
    assert!(anonymous.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    anonymous.problem(401);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_not_waited_for() {
    let rig = Rig::new().await;
    let begun = tokio::time::Instant::now();
    let silent = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let request = Request::post("/users").extension(Arc::clone(&rig.admin)).header("content-type", "application/json");
    rig.send(request.body(silent).unwrap()).await.problem(408);
    assert_eq!(begun.elapsed().as_secs(), 30);
}
