//! Who sees and changes what.

use super::*;

fn scoped(mut entry: Value, scope: Value) -> Value {
    entry["scope"] = scope;
    entry
}

#[tokio::test]
async fn what_one_may_not_see_does_not_exist() {
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/entries", scoped(remote("theirs"), json!({"team": "finance"}))).await.expect(201);
    rig.post(&rig.admin, "/entries", remote("ours")).await.expect(201);
    assert_eq!(rig.get(&rig.alice, "/entries").await.expect(200)["items"].as_array().unwrap().len(), 2);
    assert_eq!(rig.get(&rig.bob, "/entries").await.expect(200)["items"].as_array().unwrap().len(), 1);
    rig.get(&rig.bob, "/entries/theirs").await.problem(404);
    let install = json!({"entry": "theirs", "values": {"token": "t"}});
    assert!(rig.post(&rig.bob, "/installations", install.clone()).await.problem(422).detail.contains("may see"));
    let mine = rig.post(&rig.alice, "/installations", install).await.expect(201);
    assert_eq!(mine["scope"], json!({"user": "alice@example.com"}), "one's own is what nobody says otherwise");
    let path = format!("/installations/{}", mine["id"].as_str().unwrap());
    rig.get(&rig.bob, &path).await.problem(404);
    rig.delete(&rig.bob, &path).await.problem(404);
    rig.get(&rig.bob, &format!("{path}/logs")).await.problem(404);
    rig.get(&rig.editor, &path).await.problem(404);
    rig.get(&rig.admin, &path).await.expect(200);
    rig.get(&rig.bob, "/tools").await.expect(200);
    assert_eq!(rig.get(&rig.bob, "/tools").await.expect(200)["items"], json!([]));
    rig.delete(&rig.alice, &path).await.expect(204);
}

#[tokio::test]
async fn what_one_may_not_change_is_refused_with_the_permission_that_is_missing() {
    let rig = Rig::new().await;
    let refused = async |answer: Answer, permission: &str| {
        let problem = answer.problem(403);
        assert!(problem.detail.contains(permission), "{}", problem.detail);
    };
    refused(rig.post(&rig.alice, "/entries", remote("x")).await, "entry:create").await;
    refused(rig.post(&rig.editor, "/entries", remote("x")).await, "entry:admin").await;
    rig.post(&rig.editor, "/entries", scoped(remote("x"), json!({"team": "finance"}))).await.expect(201);
    rig.post(&rig.editor, "/entries", scoped(remote("y"), json!({"user": "editor@example.com"}))).await.expect(201);
    refused(rig.delete(&rig.alice, "/entries/x").await, "entry:delete").await;
    let widened = rig.put(&rig.editor, "/entries/y", scoped(remote("y"), json!("organization"))).await;
    refused(widened, "entry:admin").await;

    let install = |scope: Value| json!({"entry": "x", "scope": scope, "values": {"token": "t"}});
    refused(
        rig.post(&rig.alice, "/installations", install(json!({"team": "finance"}))).await,
        "installation:teamAdmin",
    )
    .await;
    refused(rig.post(&rig.alice, "/installations", install(json!("organization"))).await, "installation:admin").await;
    let team = rig.post(&rig.editor, "/installations", install(json!({"team": "finance"}))).await.expect(201);
    let path = format!("/installations/{}", team["id"].as_str().unwrap());
    rig.get(&rig.alice, &path).await.expect(200);
    refused(rig.call(&rig.alice, "POST", &format!("{path}/refresh-tools"), None).await, "installation:teamAdmin").await;
    rig.post(&rig.alice, "/installations", install(json!({"user": "bob@example.com"}))).await.problem(422);

    refused(rig.post(&rig.alice, "/gateways", json!({"slug": "g", "scope": "organization"})).await, "gateway:admin")
        .await;
    rig.post(&rig.alice, "/gateways", json!({"slug": "g"})).await.expect(201);
    rig.get(&rig.bob, "/gateways/g").await.problem(404);
    refused(rig.get(&rig.alice, "/audit").await, "auditLog:read").await;
    refused(rig.get(&rig.alice, "/users").await, "user:read").await;
    refused(rig.post(&rig.editor, "/teams", json!({"name": "t"})).await, "team:create").await;
    let records = rig.records.lock().unwrap();
    let denied: Vec<_> =
        records.iter().filter(|record| record.outcome == archestra_core::event::Outcome::Denied).collect();
    assert_eq!(denied.len(), 9, "whoever was refused a change is on record: {denied:?}");
    assert_eq!((denied[0].subject.as_deref(), &*denied[0].actor.name), (Some("POST /entries"), "alice@example.com"));
}

#[tokio::test]
async fn only_admins_say_what_an_unisolated_runtime_runs() {
    let rig = Rig::new().await;
    let own = scoped(hosted("local"), json!({"user": "editor@example.com"}));
    let problem = rig.post(&rig.editor, "/entries", own.clone()).await.problem(403);
    assert!(
        problem.detail.contains("isolates nothing") && problem.detail.contains("entry:admin"),
        "{}",
        problem.detail
    );
    let document = format!("apiVersion: archestra.dev/v1\nentries: [{own}]");
    assert!(rig.apply(&rig.editor, "", &document).await.problem(403).detail.contains("entry:admin"));
    rig.post(&rig.admin, "/entries", own).await.expect(201);
}

#[tokio::test]
async fn nobody_pins_an_installation_that_is_not_theirs_to_give() {
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/entries", remote("tracker")).await.expect(201);
    let theirs =
        rig.post(&rig.alice, "/installations", json!({"entry": "tracker", "values": {"token": "t"}})).await.expect(201);
    let pin = |credential: Value| json!({"slug": "g", "tools": [{"entry": "tracker", "tool": "*", "credential": credential}]});
    let by_id = rig.post(&rig.bob, "/gateways", pin(json!({"installation": theirs["id"]}))).await.problem(422);
    assert!(by_id.detail.contains("no such installation"), "{}", by_id.detail);
    rig.post(&rig.bob, "/gateways", pin(json!({"installation": {"user": "alice@example.com"}}))).await.problem(422);
    rig.post(&rig.bob, "/gateways", pin(json!({"installation": {"team": "finance"}}))).await.problem(422);
    rig.post(&rig.alice, "/gateways", pin(json!({"installation": {"user": "alice@example.com"}}))).await.expect(201);
}

#[tokio::test]
async fn tokens_and_roles_give_nothing_that_their_maker_does_not_hold() {
    let rig = Rig::new().await;
    let own = rig.post(&rig.alice, "/tokens", json!({"name": "laptop"})).await.expect(201);
    assert_eq!(own["scope"], json!({"user": "alice@example.com"}));
    let path = format!("/tokens/{}", own["id"].as_str().unwrap());
    rig.get(&rig.bob, &path).await.problem(404);
    rig.delete(&rig.bob, &path).await.problem(404);
    assert_eq!(rig.get(&rig.bob, "/tokens").await.expect(200)["items"], json!([]));
    for scope in [json!({"team": "finance"}), json!("organization")] {
        let problem = rig.post(&rig.alice, "/tokens", json!({"name": "x", "scope": scope})).await.problem(403);
        assert!(problem.detail.contains("token:admin"), "{}", problem.detail);
    }
    rig.post(&rig.alice, "/tokens", json!({"name": "x", "scope": {"user": "admin@example.com"}})).await.problem(422);
    rig.delete(&rig.alice, &path).await.expect(204);
}
