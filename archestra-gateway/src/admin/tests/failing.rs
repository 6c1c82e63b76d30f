//! An apply that fails half-way leaves everything as it was.

use super::*;
use archestra_core::event::Outcome;

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
pub(super) async fn seen(rig: &Rig) -> Value {
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
    prepare(&rig).await;
    let field = json!({"name": "token", "header": "Authorization", "value": "s3cret"});
    let old = json!({"name": "old", "remote": {"url": "https://old.example.com"}, "credential": {"static": [field]}});
    let before = seen(&rig).await;
    *rig.tools.0.lock().unwrap() = Some(DiscoverError::Unreachable { reason: "connection refused".to_owned() });
    let recorded = || {
        let records = std::mem::take(&mut *rig.records.lock().unwrap());
        records.into_iter().map(|record| (record.action, record.outcome)).collect::<Vec<_>>()
    };
    recorded();
    let problem = rig.apply(&rig.admin, "set=s", DOCUMENT).await.problem(503);
    assert_eq!(recorded(), [("apply".to_owned(), Outcome::Error)], "what was undone is no success");
    assert!(problem.detail.starts_with("create installation new for organization: "), "{}", problem.detail);
    assert!(
        problem.detail.contains("connection refused") && problem.detail.ends_with("has been undone"),
        "{}",
        problem.detail
    );
    assert_eq!(problem.undone, Some(Undone::Complete));
    assert_eq!(seen(&rig).await, before);
    let document = json!({"apiVersion": "archestra.dev/v1", "entries": [old]});
    let report = rig.post(&rig.admin, "/apply?dryRun=true", document).await.expect(200);
    assert_eq!(report["changes"][0]["action"], "unchanged", "the former secret is back too");
    *rig.tools.0.lock().unwrap() = None;
    recorded();
    rig.apply(&rig.admin, "set=s", DOCUMENT).await.expect(200);
    let recorded = recorded();
    let done = ["team.create", "team.update", "entry.update", "entry.create", "installation.create", "gateway.create"];
    for action in done.into_iter().chain(["apply"]) {
        assert!(recorded.contains(&(action.to_owned(), Outcome::Success)), "{action} in {recorded:?}");
    }
    assert_eq!(recorded.len(), done.len() + 1, "{recorded:?}");
}

#[tokio::test]
async fn values_that_a_changed_entry_took_away_are_given_back() {
    const BEFORE: &str = r#"
apiVersion: archestra.dev/v1
entries:
- {name: files, selfHosted: {command: [node], env: [{name: KEY, secret: true, prompt: true, required: true}, {name: TENANT, prompt: true}, {name: PIN, secret: true, prompt: true}]}}
installations: [{entry: files, scope: organization, values: {KEY: k3y, TENANT: t1, PIN: p1n}}]
"#;
    const AFTER: &str = r#"
apiVersion: archestra.dev/v1
entries:
- {name: files, selfHosted: {command: [node], env: [{name: PIN, secret: true, prompt: true}]}}
- {name: new, remote: {url: "https://new.example.com"}}
installations: [{entry: files, scope: organization, values: {PIN: n3w}}, {entry: new, scope: organization}]
"#;
    let rig = Rig::new().await;
    rig.apply(&rig.admin, "", BEFORE).await.expect(200);
    *rig.tools.0.lock().unwrap() = Some(DiscoverError::Unreachable { reason: "connection refused".to_owned() });
    let problem = rig.apply(&rig.admin, "", AFTER).await.problem(503);
    assert_eq!(problem.undone, Some(Undone::Complete), "{}", problem.detail);
    let found = rig.get(&rig.admin, "/installations").await.expect(200)["items"][0].clone();
    assert_eq!((&found["values"], &found["secretFields"]), (&json!({ "TENANT": "t1" }), &json!(["KEY", "PIN"])));
    assert_eq!(found.get("reinstallRequired"), None);
    let report = rig.apply(&rig.admin, "dryRun=true", BEFORE).await.expect(200);
    let actions: Vec<_> = report["changes"].as_array().unwrap().iter().map(|change| &change["action"]).collect();
    assert_eq!(actions, ["unchanged", "unchanged"], "{report}");
}

/// What must be there before: the entry `old` with a secret, and a gateway.
async fn prepare(rig: &Rig) {
    let field = json!({"name": "token", "header": "Authorization", "value": "s3cret"});
    let old = json!({"name": "old", "remote": {"url": "https://old.example.com"}, "credential": {"static": [field]}});
    rig.post(&rig.admin, "/entries", old).await.expect(201);
}

#[tokio::test]
async fn a_store_that_fails_once_at_any_point_leaves_no_half_applied_document() {
    for healthy in 0.. {
        let rig = Rig::new().await;
        prepare(&rig).await;
        let (before, secrets) = (seen(&rig).await, rig.secrets.list("").await.unwrap().len());
        let (base, faults) = (rig.catalog.calls(), rig.catalog.clone());
        faults.delay(std::time::Duration::from_millis(1));
        faults.fail_after(healthy);
        let healing = tokio::spawn(async move {
            // The call that fails takes a moment, so that the store is well again before the next one.
            while faults.calls() <= base + healthy {
                tokio::task::yield_now().await;
            }
            faults.heal();
        });
        let outcome = rig.apply(&rig.admin, "", DOCUMENT).await;
        if !healing.is_finished() {
            healing.abort();
            assert!(healthy > 10, "something must have failed before");
            assert_eq!(outcome.status, StatusCode::OK, "{}", outcome.text);
            return;
        }
        if outcome.status == StatusCode::OK {
            continue;
        }
        let after = seen(&rig).await;
        assert_eq!(after, before, "after {healthy} calls: {}", outcome.text);
        assert!(!outcome.text.contains("but for this"), "after {healthy} calls: {}", outcome.text);
        // What a write without an answer would have named is left to the sweep.
        killed::restarted(&rig).await;
        assert_eq!(rig.secrets.list("").await.unwrap().len(), secrets, "after {healthy} calls");
    }
}

#[tokio::test]
async fn a_store_that_is_gone_for_good_is_told() {
    let rig = Rig::new().await;
    prepare(&rig).await;
    let base = rig.catalog.calls();
    rig.apply(&rig.admin, "dryRun=true", DOCUMENT).await.expect(200);
    let planning = rig.catalog.calls() - base;
    let mut told = false;
    for more in 0..40 {
        rig.catalog.fail_after(planning + more);
        let outcome = rig.apply(&rig.admin, "", DOCUMENT).await;
        rig.catalog.heal();
        if outcome.status == StatusCode::OK {
            break;
        }
        let undone = outcome.json()["undone"].clone();
        assert_eq!(undone == "incomplete", outcome.text.contains("but for this"), "{}", outcome.text);
        told |= undone == "incomplete";
        assert!(outcome.text.contains("undone"), "{}", outcome.text);
    }
    assert!(told);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_changes_meanwhile_is_not_written_over() {
    use archestra_core::{
        catalog::{CatalogChanges, CatalogStoreExt as _, Entry, Kind, Lookup, Query},
        consumer::Consumer,
    };
    let rig = Rig::new().await;
    rig.apply(&rig.admin, "", "apiVersion: archestra.dev/v1\ngateways: [{slug: g, scope: organization}]")
        .await
        .expect(200);
    rig.catalog.delay(std::time::Duration::from_millis(10));
    let entries: String =
        (0..20).map(|n| format!("- {{name: e{n}, remote: {{url: 'https://{n}.example.com'}}}}\n")).collect();
    let document = format!(
        "apiVersion: archestra.dev/v1\nentries:\n{entries}gateways: [{{slug: g, scope: organization, description: theirs}}]"
    );
    let meanwhile = async {
        // Everything has been planned once the first step is done.
        while rig.state.catalog.list_all::<Entry>(Query::all(Kind::Entry)).await.unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let found = rig.state.catalog.find_one::<Consumer>(Lookup::ConsumerAt("g".to_owned())).await.unwrap().unwrap();
        let expect = found.expect();
        let mut consumer = found.value;
        consumer.spec.description = Some("ours".to_owned());
        rig.state.catalog.commit(CatalogChanges::new().put(consumer, expect)).await.unwrap();
    };
    let (answer, ()) = tokio::join!(rig.apply(&rig.admin, "", &document), meanwhile);
    let problem = answer.problem(409);
    assert_eq!(problem.undone, Some(Undone::Complete), "{}", problem.detail);
    assert_eq!(rig.get(&rig.admin, "/gateways/g").await.expect(200)["description"], "ours");
    assert_eq!(rig.get(&rig.admin, "/entries").await.expect(200)["items"], json!([]));
}
