//! An apply that fails half-way leaves everything as it was.

use super::*;

const DOCUMENT: &str = r#"
apiVersion: archestra.dev/v1
teams: [{name: sales}, {name: finance, priority: 7}]
entries:
- {name: old, description: changed, remote: {url: "https://old.example.com"}, credential: {static: [{name: token, header: Authorization, value: new-s3cret}]}}
- {name: new, remote: {url: "https://new.example.com"}}
gateways: [{slug: g, scope: {team: sales}, tools: [{entry: new, tool: "*"}]}]
installations: [{entry: new, scope: organization}]
"#;

/// What people see: everything but versions and times.
async fn seen(rig: &Rig) -> Value {
    let mut all = Vec::new();
    for path in ["/users", "/teams", "/entries", "/installations", "/gateways", "/policies"] {
        let mut page = rig.get(&rig.admin, path).await.expect(200);
        for item in page["items"].as_array_mut().unwrap() {
            let item = item.as_object_mut().unwrap();
            item.remove("resourceVersion");
            item.remove("updatedAt");
        }
        all.push(page);
    }
    json!(all)
}

#[tokio::test]
async fn an_unreachable_server_takes_everything_back() {
    let rig = Rig::new().await;
    let old = json!({"name": "old", "remote": {"url": "https://old.example.com"}, "credential": {"static": [{"name": "token", "header": "Authorization", "value": "s3cret"}]}});
    rig.post(&rig.admin, "/entries", old.clone()).await.expect(201);
    let before = seen(&rig).await;
    *rig.tools.0.lock().unwrap() = Some(DiscoverError::Unreachable { reason: "connection refused".to_owned() });
    let problem = rig.apply(&rig.admin, "set=s", DOCUMENT).await.problem(503);
    assert!(problem.detail.starts_with("create installation new for organization: "), "{}", problem.detail);
    assert!(
        problem.detail.contains("connection refused") && problem.detail.ends_with("has been undone"),
        "{}",
        problem.detail
    );
    assert_eq!(seen(&rig).await, before);
    let entry = rig.state.lifecycle.clone();
    drop(entry);
    let document = json!({"apiVersion": "archestra.dev/v1", "entries": [old]});
    let report = rig.post(&rig.admin, "/apply?dryRun=true", document).await.expect(200);
    assert_eq!(report["changes"][0]["action"], "unchanged", "the former secret is back too");
    *rig.tools.0.lock().unwrap() = None;
    rig.apply(&rig.admin, "set=s", DOCUMENT).await.expect(200);
}

#[tokio::test]
async fn a_store_that_fails_at_any_point_leaves_no_half_applied_document() {
    let mut calls = 0;
    loop {
        let rig = Rig::new().await;
        let before = seen(&rig).await;
        rig.catalog.fail_after(calls);
        let outcome = rig.apply(&rig.admin, "", DOCUMENT.replace("description: changed, ", "").as_str()).await;
        rig.catalog.heal();
        if outcome.status == StatusCode::OK {
            assert!(calls > 5, "something must have failed before");
            return;
        }
        let whole = seen(&rig).await == before;
        // With the store gone for good, what was done cannot be undone; then the answer says so.
        let told = outcome.text.contains("but for this");
        assert!(whole || told, "after {calls} calls: {}", outcome.text);
        calls += 1;
    }
}
