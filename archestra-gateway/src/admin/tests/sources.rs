//! What entries may take variables from.

use super::*;
use archestra_core::catalog::{EnvFrom, EnvFromKind};

fn entry(sources: &Value) -> Value {
    json!({"name": "files", "selfHosted": {"command": ["serve"], "envFrom": sources}})
}

async fn rig() -> Rig {
    let shared = EnvFrom { kind: EnvFromKind::Secret, name: "shared".to_owned(), prefix: None };
    Rig::on(ScriptedRuntime::new(ScriptedServer::new("any")).with_env_sources(vec![shared])).await
}

#[tokio::test]
async fn only_what_may_be_used_can_be_named_and_the_place_is_told() {
    let rig = rig().await;
    let before = rig.everything().await;
    let shared = json!({"type": "secret", "name": "shared", "prefix": "APP_"});
    let sources = json!([shared, {"type": "configMap", "name": "shared"}, {"type": "secret", "name": "other"}]);
    let problem = rig.post(&rig.admin, "/entries", entry(&sources)).await.problem(422);
    let fields: Vec<_> = problem.findings.iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(fields, ["selfHosted.envFrom[1].name", "selfHosted.envFrom[2].name"]);
    let malformed = json!([{"type": "secret", "name": "../other"}]);
    let problem = rig.post(&rig.admin, "/entries", entry(&malformed)).await.problem(422);
    assert!(problem.findings[0].reason.contains("is not the name of a Secret"), "{problem:?}");
    let document = json!({"apiVersion": "archestra.dev/v1", "entries": [entry(&sources)]}).to_string();
    let problem = rig.apply(&rig.admin, "", &document).await.problem(422);
    assert_eq!(problem.findings[1].field, "entries[0].selfHosted.envFrom[2].name");
    assert_eq!(rig.everything().await, before, "nothing is left");

    let saved = rig.post(&rig.admin, "/entries", entry(&json!([shared]))).await.expect(201);
    assert_eq!(saved["selfHosted"]["envFrom"], json!([shared]));
    let document = json!({"apiVersion": "archestra.dev/v1", "entries": [entry(&json!([shared]))]}).to_string();
    let report = rig.apply(&rig.admin, "", &document).await.expect(200);
    assert_eq!(report["changes"][0]["action"], "unchanged");
}

#[tokio::test]
async fn what_an_entry_names_already_it_names_for_what_runs_already_only() {
    let rig = rig().await;
    let spec: archestra_core::catalog::EntrySpec =
        serde_json::from_value(entry(&json!([{"type": "secret", "name": "once"}]))).unwrap();
    let draft = crate::lifecycle::EntryDraft {
        spec,
        scope: archestra_core::catalog::Scope::Organization,
        author: None,
        apply_set: None,
        saved_by_admin: true,
    };
    let absent = archestra_core::feed::Expect::Absent;
    rig.state.lifecycle.save_entry(None, draft, absent).await.unwrap();
    let once = json!([{"type": "secret", "name": "once"}]);
    let mut described = entry(&once);
    described["description"] = "The same server".into();
    rig.put(&rig.admin, "/entries/files", described).await.expect(200);

    let mut printing = entry(&once);
    printing["selfHosted"]["command"] = json!(["env"]);
    let document = json!({"apiVersion": "archestra.dev/v1", "entries": [printing]}).to_string();
    let problem = rig.apply(&rig.admin, "", &document).await.problem(422);
    assert_eq!(problem.findings[0].field, "entries[0].selfHosted.envFrom[0].name");
    let problem = rig.put(&rig.admin, "/entries/files", printing).await.problem(422);
    assert_eq!(problem.findings[0].field, "selfHosted.envFrom[0].name");
    let more =
        entry(&json!([{"type": "secret", "name": "shared"}, {"type": "secret", "name": "once", "prefix": "A_"}]));
    let problem = rig.put(&rig.admin, "/entries/files", more).await.problem(422);
    assert_eq!(problem.findings[0].field, "selfHosted.envFrom[1].name");
}
