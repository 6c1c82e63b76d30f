//! Who sees and changes what.

use super::*;
use archestra_core::identity::IdentityStoreExt as _;

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

#[tokio::test]
async fn admins_make_tokens_of_machine_clients_for_what_these_may_use() {
    use archestra_core::id::ConsumerId;
    let rig = Rig::new().await;
    let gateway = |slug: &str| json!({"slug": slug, "scope": "organization"});
    let made = rig.post(&rig.admin, "/gateways", gateway("ours")).await.expect(201);
    rig.post(&rig.admin, "/gateways", gateway("other")).await.expect(201);
    let consumer: ConsumerId = made["id"].as_str().unwrap().parse().unwrap();
    let client = fixtures::machine_client("ci", [consumer]);
    let public = fixtures::client("public");
    let changes = IdentityChanges::new().create(client.clone()).create(public.clone());
    rig.state.identity.commit(changes).await.unwrap();

    let token = |client: &str| json!({"name": "ci", "client": client, "consumer": "ours"});
    let problem = rig.post(&rig.editor, "/tokens", token("ci")).await.problem(403);
    assert!(problem.detail.contains("token:admin"), "{}", problem.detail);
    let new = rig.post(&rig.admin, "/tokens", token("ci")).await.expect(201);
    assert!(new["token"].as_str().unwrap().starts_with("arch_"));
    assert_eq!((&new["client"], &new["consumer"], &new["scope"]), (&json!("ci"), &json!("ours"), &Value::Null));
    assert_eq!(new["owner"], json!({"kind": "client", "id": client.id.to_string(), "name": "ci"}));
    rig.post(&rig.admin, "/tokens", token(&client.id.to_string())).await.expect(201);

    let refused = async |body: Value, field: &str| {
        let problem = rig.post(&rig.admin, "/tokens", body).await.problem(422);
        let fields: Vec<_> = problem.findings.iter().map(|finding| finding.field.as_str()).collect();
        assert_eq!(fields, [field], "{}", problem.detail);
    };
    refused(json!({"name": "ci", "client": "ci"}), "consumer").await;
    refused(json!({"name": "ci", "client": "ci", "consumer": "other"}), "consumer").await;
    refused(token("public"), "consumer").await;
    refused(token("nothing"), "client").await;
    refused(json!({"name": "ci", "client": "ci", "consumer": "ours", "scope": "organization"}), "client").await;

    let path = format!("/tokens/{}", new["id"].as_str().unwrap());
    rig.get(&rig.editor, &path).await.problem(404);
    assert_eq!(rig.get(&rig.admin, "/tokens").await.expect(200)["items"].as_array().unwrap().len(), 2);
    rig.delete(&rig.admin, &path).await.expect(204);
}

#[tokio::test]
async fn access_tokens_are_listed_and_revoked_by_their_users() {
    let rig = Rig::new().await;
    let client = fixtures::client("app");
    let user = rig.state.identity.get_one::<User>(rig.alice.user().unwrap()).await.unwrap().value;
    let (_, mut grant) = fixtures::grant(&user, &client, archestra_core::id::ConsumerId::new());
    grant.scopes.insert("mcp".to_owned());
    let (plain, token) = fixtures::access_token(&grant);
    let changes = IdentityChanges::new().create(client).create(grant.clone()).create(token.clone());
    rig.state.identity.commit(changes).await.unwrap();
    let path = format!("/tokens/{}", token.id);
    let answer = rig.get(&rig.alice, "/tokens").await;
    assert!(!answer.text.contains(plain.expose()) && !answer.text.contains(&token.hash.to_string()));
    let listed = answer.expect(200)["items"][0].clone();
    assert_eq!((&listed["grant"], &listed["scopes"]), (&json!(grant.id.to_string()), &json!(["mcp"])));
    assert_eq!(listed["scope"], json!({"user": "alice@example.com"}));
    rig.get(&rig.bob, &path).await.problem(404);
    rig.delete(&rig.alice, &path).await.expect(204);
    assert!(rig.state.identity.get_one::<archestra_core::identity::Grant>(grant.id).await.is_ok());
}

#[tokio::test]
async fn a_credential_for_one_consumer_opens_nothing_here() {
    let rig = Rig::new().await;
    let bound = Principal { consumer: Some(archestra_core::id::ConsumerId::new()), ..(*rig.admin).clone() };
    let problem = rig.get(&Arc::new(bound), "/entries").await.problem(403);
    assert!(problem.detail.contains("consumer"), "{}", problem.detail);
}

#[tokio::test]
async fn what_serves_everybody_is_operated_by_those_who_change_the_entry() {
    let rig = Rig::new().await;
    let mut entry = hosted("local");
    entry["sharedDeployment"] = json!(true);
    entry["selfHosted"] = json!({"command": ["server"], "transport": "streamable-http"});
    entry["scope"] = json!({"team": "finance"});
    rig.post(&rig.admin, "/entries", entry).await.expect(201);
    let own = rig.post(&rig.alice, "/installations", json!({"entry": "local"})).await.expect(201);
    let path = format!("/installations/{}", own["id"].as_str().unwrap());
    for (operation, body) in [("restart", None), ("update", None), ("rollback", Some(json!({"revision": 1})))] {
        let problem = rig.call(&rig.alice, "POST", &format!("{path}/{operation}"), body).await.problem(403);
        assert!(problem.detail.contains("entry:update"), "{}", problem.detail);
    }
    for what in ["logs", "revisions"] {
        let problem = rig.get(&rig.alice, &format!("{path}/{what}")).await.problem(403);
        assert!(problem.detail.contains("entry:update"), "{}", problem.detail);
    }
    rig.get(&rig.alice, &format!("{path}/status")).await.expect(200);
    rig.get(&rig.admin, &format!("{path}/revisions")).await.expect(200);

    let theirs = json!({"entry": "local", "scope": {"user": "editor@example.com"}});
    let theirs = rig.post(&rig.editor, "/installations", theirs).await.expect(201);
    let path = format!("/installations/{}", theirs["id"].as_str().unwrap());
    rig.get(&rig.editor, &format!("{path}/revisions")).await.expect(200);

    rig.post(&rig.admin, "/entries", hosted("apart")).await.expect(201);
    let apart = json!({"entry": "apart", "values": {"API_KEY": "k"}});
    let apart = rig.post(&rig.alice, "/installations", apart).await.expect(201);
    rig.get(&rig.alice, &format!("/installations/{}/revisions", apart["id"].as_str().unwrap())).await.expect(200);
}

#[tokio::test]
async fn only_what_an_admin_saved_last_may_name_private_hosts() {
    use archestra_core::catalog::{CatalogStoreExt as _, Lookup};
    let rig = Rig::new().await;
    let saved_by_admin = async || {
        let found = rig.state.catalog.find_one::<Entry>(Lookup::EntryNamed("own".to_owned())).await.unwrap();
        found.unwrap().value.saved_by_admin
    };
    let own = scoped(remote("own"), json!({"team": "finance"}));
    let other = |n: u8| {
        let mut other = own.clone();
        other["description"] = json!(format!("number {n}"));
        other
    };
    let document = |entry: &Value| format!("apiVersion: archestra.dev/v1\nentries: [{entry}]");
    rig.post(&rig.editor, "/entries", own.clone()).await.expect(201);
    assert!(!saved_by_admin().await);
    rig.put(&rig.admin, "/entries/own", own.clone()).await.expect(200);
    assert!(saved_by_admin().await, "an admin vouches for what is there");
    rig.put(&rig.editor, "/entries/own", own.clone()).await.expect(200);
    assert!(saved_by_admin().await, "and nothing was changed since");
    rig.put(&rig.editor, "/entries/own", other(1)).await.expect(200);
    assert!(!saved_by_admin().await);
    rig.apply(&rig.admin, "", &document(&other(2))).await.expect(200);
    assert!(saved_by_admin().await);
    rig.apply(&rig.editor, "", &document(&other(3))).await.expect(200);
    assert!(!saved_by_admin().await);
    let claimed = rig.put(&rig.editor, "/entries/own", scoped(other(4), json!({"team": "finance"}))).await.expect(200);
    let mut claimed = claimed.clone();
    claimed["savedByAdmin"] = json!(true);
    rig.put(&rig.editor, "/entries/own", claimed).await.problem(422);
}

#[tokio::test]
async fn a_dry_run_tells_nothing_about_what_one_may_not_write() {
    let rig = Rig::new().await;
    let mut entry = scoped(remote("theirs"), json!({"team": "finance"}));
    entry["credential"]["static"][0] =
        json!({"name": "token", "header": "Authorization", "secret": true, "value": "s3cret"});
    rig.post(&rig.admin, "/entries", entry.clone()).await.expect(201);
    let mut prompts = scoped(remote("prompts"), json!("organization"));
    prompts["credential"]["static"][0]["secret"] = json!(true);
    rig.post(&rig.admin, "/entries", prompts).await.expect(201);
    let of_team = json!({"entry": "prompts", "scope": {"team": "finance"}, "values": {"token": "s3cret"}});
    rig.post(&rig.admin, "/installations", of_team.clone()).await.expect(201);
    let dry = async |who: &Arc<Principal>, kind: &str, item: &Value| {
        rig.apply(who, "dryRun=true", &format!("apiVersion: archestra.dev/v1\n{kind}: [{item}]")).await
    };
    let refused = async |who: &Arc<Principal>, kind: &str, right: &Value| {
        let wrong: Value = serde_json::from_str(&right.to_string().replace("s3cret", "guess")).unwrap();
        let (right, wrong) = (dry(who, kind, right).await, dry(who, kind, &wrong).await);
        assert!(right.status.is_client_error(), "{}", right.text);
        assert_eq!((right.status, right.text.replace("s3cret", "")), (wrong.status, wrong.text.replace("guess", "")));
    };
    refused(&rig.alice, "entries", &entry).await;
    refused(&rig.alice, "installations", &of_team).await;
    refused(&rig.bob, "installations", &of_team).await;
    let report = dry(&rig.admin, "installations", &of_team).await.expect(200);
    assert_eq!(report["changes"][0]["action"], "unchanged");

    let unseen = scoped(remote("theirs"), json!("organization"));
    let (there, absent) = (dry(&rig.bob, "entries", &unseen).await, {
        let absent = scoped(remote("absent"), json!("organization"));
        dry(&rig.bob, "entries", &absent).await
    });
    assert_eq!((there.problem(403).detail), (absent.problem(403).detail), "what one may not see does not exist");
}
