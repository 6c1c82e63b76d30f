//! Each resource from its creation to its end, as an admin sees it.

use super::*;
use futures::StreamExt as _;

#[tokio::test]
async fn an_entry_can_be_made_read_changed_and_deleted() {
    let rig = Rig::new().await;
    let answer = rig.post(&rig.admin, "/entries", remote("tracker")).await;
    assert_eq!(answer.headers["etag"], "\"1\"");
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let made = answer.expect(201);
    assert_eq!(location, format!("/api/v1/entries/{}", made["id"].as_str().unwrap()));
    assert_eq!((&made["scope"], &made["author"]["name"]), (&json!("organization"), &json!("admin@example.com")));

    let read = rig.get(&rig.admin, "/entries/tracker").await.expect(200);
    assert_eq!(read, made, "the name leads to it as the id does");
    let mut changed = read.clone();
    changed["description"] = json!("tracks");
    let put = rig.put(&rig.admin, "/entries/tracker", changed.clone()).await.expect(200);
    assert_eq!(
        (&put["description"], &put["resourceVersion"]),
        (&json!("tracks"), &json!(2)),
        "an answer, edited, can be sent back"
    );
    let lost = rig.put(&rig.admin, "/entries/tracker", changed).await.problem(412);
    assert!(lost.detail.contains("now at version 2"), "{}", lost.detail);

    let fields = rig.get(&rig.admin, "/entries/tracker/fields").await.expect(200);
    assert_eq!(fields["items"][0]["name"], "token");
    rig.post(&rig.admin, "/entries", remote("tracker")).await.problem(409);
    assert_eq!(rig.get(&rig.admin, "/entries?search=track").await.expect(200)["items"].as_array().unwrap().len(), 1);
    rig.delete(&rig.admin, "/entries/tracker").await.expect(204);
    rig.get(&rig.admin, "/entries/tracker").await.problem(404);
    let actions: Vec<_> =
        rig.records.lock().unwrap().iter().map(|record| (record.action.clone(), record.outcome)).collect();
    use archestra_core::event::Outcome::{Error, Success};
    let actions: Vec<_> = actions.iter().map(|(action, outcome)| (action.as_str(), *outcome)).collect();
    assert_eq!(
        actions,
        [("entry.create", Success), ("entry.update", Success), ("entry.create", Error), ("entry.delete", Success)]
    );
}

#[tokio::test]
async fn if_match_is_honoured() {
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/entries", remote("tracker")).await.expect(201);
    let delete = |tag: &str| {
        Request::builder()
            .method("DELETE")
            .uri("/entries/tracker")
            .extension(Arc::clone(&rig.admin))
            .header("if-match", tag)
            .body(Body::empty())
            .unwrap()
    };
    rig.send(delete("\"7\"")).await.problem(412);
    rig.send(delete("seven")).await.problem(400);
    rig.send(delete("\"1\"")).await.expect(204);
}

#[tokio::test]
async fn secret_values_of_an_entry_never_come_back_and_stay_when_sent_back() {
    let rig = Rig::new().await;
    let mut entry = remote("tracker");
    entry["credential"]["static"][0] = json!({"name": "token", "header": "Authorization", "value": "hunter2hunter2"});
    let answer = rig.post(&rig.admin, "/entries", entry).await;
    assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    let mut made = answer.expect(201);
    assert_eq!(made["credential"]["static"][0]["value"], json!({"stored": true}));
    made["description"] = json!("tracks");
    rig.put(&rig.admin, "/entries/tracker", made).await.expect(200);
    assert!(!format!("{:?}", rig.records.lock().unwrap()).contains("hunter2"));
}

#[tokio::test]
async fn a_remote_server_is_installed_and_its_tools_are_assigned() {
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/entries", remote("tracker")).await.expect(201);
    let install = json!({"entry": "tracker", "scope": {"team": "finance"}, "values": {"token": "t0k3n"}});
    let answer = rig.post(&rig.admin, "/installations", install.clone()).await;
    assert!(!answer.text.contains("t0k3n"));
    let installation = answer.expect(201);
    let id = installation["id"].as_str().unwrap();
    assert_eq!((&installation["entry"], &installation["scope"]), (&json!("tracker"), &json!({"team": "finance"})));
    assert_eq!((&installation["state"]["phase"], &installation["tools"]), (&json!("ready"), &json!(["add", "echo"])));
    assert_eq!(installation["secretFields"], json!(["token"]));
    let twice = rig.post(&rig.admin, "/installations", install).await.problem(409);
    assert!(twice.detail.contains("exists already"), "{}", twice.detail);

    let tools = rig.get(&rig.admin, "/tools?entry=tracker").await.expect(200);
    assert_eq!((&tools["items"][0]["name"], &tools["items"][0]["definition"]["name"]), (&json!("add"), &json!("add")));
    let tool = tools["items"][0]["id"].as_str().unwrap();
    assert_eq!(rig.get(&rig.admin, &format!("/tools/{tool}")).await.expect(200)["entry"], "tracker");
    assert_eq!(rig.get(&rig.admin, "/entries/tracker/tools").await.expect(200)["items"].as_array().unwrap().len(), 2);

    let gateway =
        rig.post(&rig.admin, "/gateways", json!({"slug": "mixed", "scope": "organization"})).await.expect(201);
    assert_eq!(gateway["url"], "http://127.0.0.1:9000/v1/mcp/mixed");
    let selector = json!({"entry": "tracker", "tool": "echo", "credential": {"installation": {"team": "finance"}}});
    let given = rig.post(&rig.admin, "/gateways/mixed/assignments", selector.clone()).await.expect(201);
    assert_eq!(
        (&given["items"][0]["exposedName"], &given["items"][0]["credential"]),
        (&json!("tracker__echo"), &selector["credential"])
    );
    let gateway = rig.get(&rig.admin, "/gateways/mixed").await.expect(200);
    assert_eq!(gateway["tools"], json!([selector]));
    rig.put(&rig.admin, "/gateways/mixed", gateway).await.expect(200);
    assert_eq!(rig.get(&rig.admin, "/gateways/mixed/tools").await.expect(200)["items"][0]["name"], "tracker__echo");
    let unknown = rig
        .post(&rig.admin, "/gateways/mixed/assignments", json!({"entry": "tracker", "tool": "ehco"}))
        .await
        .problem(422);
    assert!(unknown.detail.contains("has no tool ehco") && unknown.detail.contains("add, echo"), "{}", unknown.detail);

    let assignment = given["items"][0]["id"].as_str().unwrap();
    rig.delete(&rig.admin, &format!("/gateways/mixed/assignments/{assignment}")).await.expect(204);
    assert_eq!(rig.get(&rig.admin, "/gateways/mixed/assignments").await.expect(200)["items"], json!([]));
    let all =
        rig.post(&rig.admin, "/gateways/mixed/assignments", json!({"entry": "tracker", "tool": "*"})).await.expect(201);
    let assignment = all["items"][0]["id"].as_str().unwrap();
    let starred = rig.delete(&rig.admin, &format!("/gateways/mixed/assignments/{assignment}")).await.problem(409);
    assert!(starred.detail.contains('*'), "{}", starred.detail);

    assert_eq!(rig.get(&rig.admin, &format!("/installations/{id}/status")).await.expect(200)["tools"], 2);
    rig.call(&rig.admin, "POST", &format!("/installations/{id}/reinstall"), None).await.expect(200);
    rig.call(&rig.admin, "POST", &format!("/installations/{id}/refresh-tools"), None).await.expect(200);
    rig.call(&rig.admin, "POST", &format!("/installations/{id}/restart"), None).await.problem(409);
    rig.delete(&rig.admin, "/entries/tracker").await.problem(409);
    rig.delete(&rig.admin, &format!("/installations/{id}")).await.expect(204);
    rig.delete(&rig.admin, "/entries/tracker").await.expect(204);
    assert!(!format!("{:?}", rig.records.lock().unwrap()).contains("t0k3n"));
}

#[tokio::test]
async fn labels_decide_for_an_automatic_consumer() {
    let rig = Rig::new().await;
    let mut entry = remote("tracker");
    entry["labels"] = json!({"department": "finance"});
    rig.post(&rig.admin, "/entries", entry).await.expect(201);
    rig.post(&rig.admin, "/installations", json!({"entry": "tracker", "values": {"token": "t"}})).await.expect(201);
    let agent = json!({"slug": "auto", "scope": "organization", "toolAssignment": "automatic", "labels": {"department": "finance"}});
    rig.post(&rig.admin, "/agents", agent).await.expect(201);
    assert_eq!(rig.get(&rig.admin, "/agents/auto/tools").await.expect(200)["items"].as_array().unwrap().len(), 2);
    let refused = rig
        .post(&rig.admin, "/agents/auto/assignments", json!({"entry": "tracker", "tool": "echo"}))
        .await
        .problem(409);
    assert!(refused.detail.contains("labels decide"), "{}", refused.detail);
    rig.get(&rig.admin, "/gateways/auto").await.problem(404);
    let both = json!({"slug": "both", "scope": "organization", "toolAssignment": "automatic", "labels": {"a": "b"}, "tools": [{"entry": "tracker", "tool": "*"}]});
    rig.post(&rig.admin, "/gateways", both).await.problem(422);
}

#[tokio::test]
async fn a_self_hosted_server_is_installed_in_the_background_and_logs_are_read() {
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/entries", hosted("local")).await.expect(201);
    let installation =
        rig.post(&rig.admin, "/installations", json!({"entry": "local", "values": {"API_KEY": 5}})).await.expect(201);
    let id = installation["id"].as_str().unwrap();
    let path = |rest: &str| format!("/installations/{id}/{rest}");
    for _ in 0..100 {
        if rig.get(&rig.admin, &path("status")).await.expect(200)["state"]["phase"] == "ready" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let status = rig.get(&rig.admin, &path("status")).await.expect(200);
    assert_eq!((&status["state"]["phase"], &status["workload"]["phase"]), (&json!("ready"), &json!("running")));
    let text = rig.get(&rig.admin, &path("logs")).await;
    assert_eq!(
        (text.status, text.headers["content-type"].to_str().unwrap()),
        (StatusCode::OK, "text/plain; charset=utf-8")
    );
    rig.get(&rig.admin, &path("logs?tail=many")).await.problem(400);

    let follow = Request::builder()
        .uri(path("logs?follow=true&tail=0"))
        .extension(Arc::clone(&rig.admin))
        .header("accept", "application/x-ndjson")
        .body(Body::empty())
        .unwrap();
    let mut stream = rig.router.clone().oneshot(follow).await.unwrap().into_body().into_data_stream();
    rig.call(&rig.admin, "POST", &path("restart"), None).await.expect(202);
    let line: Value = serde_json::from_slice(&stream.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(line["source"], "platform");
    rig.state.shutdown.cancel();
    while stream.next().await.is_some() {}

    let revisions = rig.get(&rig.admin, &path("revisions")).await.expect(200);
    assert_eq!(revisions["items"][0]["number"], 1);
    rig.call(&rig.admin, "POST", &path("update"), None).await.expect(200);
    rig.post(&rig.admin, &path("rollback"), json!({"revision": 99})).await.problem(404);
    rig.delete(&rig.admin, &format!("/installations/{id}")).await.expect(204);
}

#[tokio::test]
async fn teams_users_and_tokens() {
    let rig = Rig::new().await;
    let user =
        rig.post(&rig.admin, "/users", json!({"email": "Carol@Example.com", "role": "editor"})).await.expect(201);
    assert_eq!(user["email"], "carol@example.com");
    rig.post(&rig.admin, "/users", json!({"email": "carol@example.com"})).await.problem(409);
    rig.post(&rig.admin, "/users", json!({"email": "dave@example.com", "role": "boss"})).await.problem(422);
    rig.put(&rig.admin, "/users/admin@example.com", json!({"email": "admin@example.com", "role": "member"}))
        .await
        .problem(409);
    rig.delete(&rig.admin, "/users/admin@example.com").await.problem(409);

    let team = rig
        .post(&rig.admin, "/teams", json!({"name": "sales", "priority": 10, "members": ["carol@example.com"]}))
        .await
        .expect(201);
    assert_eq!(team["members"], json!(["carol@example.com"]));
    let unknown =
        rig.post(&rig.admin, "/teams", json!({"name": "other", "members": ["nobody@example.com"]})).await.problem(422);
    assert_eq!(unknown.findings[0].field, "members[0]");
    rig.post(&rig.admin, "/teams/sales/members", json!({"user": "bob@example.com"})).await.expect(200);
    assert_eq!(rig.get(&rig.admin, "/teams/sales/members").await.expect(200)["items"].as_array().unwrap().len(), 2);
    rig.delete(&rig.admin, "/teams/sales/members/bob@example.com").await.expect(204);
    rig.delete(&rig.admin, "/teams/sales/members/bob@example.com").await.problem(404);

    let token = rig
        .post(&rig.admin, "/tokens", json!({"name": "ci", "scope": {"team": "sales"}, "expiresIn": "30d"}))
        .await
        .expect(201);
    assert!(token["token"].as_str().unwrap().starts_with("arch_") && token["expiresAt"].is_string());
    let id = token["id"].as_str().unwrap();
    let read = rig.get(&rig.admin, &format!("/tokens/{id}")).await;
    assert!(!read.text.contains("arch_") && !read.text.contains("hash"), "{}", read.text);
    rig.post(&rig.admin, "/tokens", json!({"name": "ci", "expiresIn": "soon"})).await.problem(422);
    for (write, field) in [(json!({"name": " ci"}), "name"), (json!({"name": "ci", "consumer": "nowhere"}), "consumer")]
    {
        assert_eq!(rig.post(&rig.admin, "/tokens", write).await.problem(422).findings[0].field, field);
    }
    rig.post(&rig.admin, "/gateways", json!({"slug": "only", "scope": "organization"})).await.expect(201);
    let bound = rig.post(&rig.admin, "/tokens", json!({"name": "bound", "consumer": "only"})).await.expect(201);
    assert_eq!(bound["consumer"], "only");
    rig.delete(&rig.admin, &format!("/tokens/{id}")).await.expect(204);
    rig.delete(&rig.admin, "/teams/sales").await.expect(204);
    rig.delete(&rig.admin, "/users/carol@example.com").await.expect(204);
}

#[tokio::test]
async fn policies_speak_in_names() {
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/entries", remote("tracker")).await.expect(201);
    let policy = json!({"name": "no deletes", "entry": "tracker", "tool": "delete*", "callers": [{"team": "finance"}, "clients"], "action": "block"});
    let made = rig.post(&rig.admin, "/policies", policy).await.expect(201);
    assert_eq!((&made["entry"], &made["callers"]), (&json!("tracker"), &json!([{"team": "finance"}, "clients"])));
    let path = format!("/policies/{}", made["id"].as_str().unwrap());
    let mut changed = made.clone();
    changed["priority"] = json!(5);
    assert_eq!(rig.put(&rig.admin, &path, changed).await.expect(200)["priority"], 5);
    rig.post(&rig.admin, "/policies", json!({"name": "x", "tool": "a*b", "entry": "tracker", "action": "block"}))
        .await
        .problem(422);
    rig.delete(&rig.admin, &path).await.expect(204);
    rig.get(&rig.admin, &path).await.problem(404);
}

#[tokio::test]
async fn lists_are_paged() {
    let rig = Rig::new().await;
    for n in 0..5 {
        rig.post(&rig.admin, "/entries", remote(&format!("e{n}"))).await.expect(201);
    }
    let mut seen = Vec::new();
    let mut path = "/entries?limit=2".to_owned();
    loop {
        let page = rig.get(&rig.admin, &path).await.expect(200);
        seen.extend(page["items"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()));
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("/entries?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["e0", "e1", "e2", "e3", "e4"]);
    rig.get(&rig.admin, "/entries?limit=0").await.problem(400);
}

#[tokio::test]
async fn me_says_who_i_am() {
    let rig = Rig::new().await;
    let me = rig.get(&rig.alice, "/me").await.expect(200);
    assert_eq!(
        (&me["kind"], &me["name"], &me["teams"][0]["name"]),
        (&json!("user"), &json!("alice@example.com"), &json!("finance"))
    );
    assert!(me["permissions"].as_array().unwrap().contains(&json!("entry:read")));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_followed_ends_when_its_reader_is_locked_out() {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/entries", hosted("local")).await.expect(201);
    let installation =
        rig.post(&rig.admin, "/installations", json!({"entry": "local", "values": {"API_KEY": 5}})).await.expect(201);
    let id = installation["id"].as_str().unwrap();
    let valid = Arc::new(AtomicBool::new(true));
    let (asked, admin) = (Arc::clone(&valid), Arc::clone(&rig.admin));
    let recheck = Recheck::new(move || {
        let now = asked.load(Ordering::SeqCst).then(|| Arc::clone(&admin));
        Box::pin(async move { now })
    });
    let follow = Request::builder()
        .uri(format!("/installations/{id}/logs?follow=true"))
        .extension(Arc::clone(&rig.admin))
        .extension(recheck)
        .body(Body::empty())
        .unwrap();
    let mut stream = rig.router.clone().oneshot(follow).await.unwrap().into_body().into_data_stream();
    let ended = async { while stream.next().await.is_some() {} };
    tokio::pin!(ended);
    tokio::time::timeout(Duration::from_secs(30), &mut ended).await.unwrap_err();
    valid.store(false, Ordering::SeqCst);
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
}
