//! Lists inside of one thing are paged as all others are.

use super::{applying::settled, *};
use archestra_core::runtime::PullSecret;

impl Rig {
    /// Follows the cursors from page to page, each of which is as long as was asked for.
    async fn paged(&self, path: &str, limit: usize) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&self.admin, &format!("{path}?limit={limit}{cursor}")).await.expect(200);
            let items = page["items"].as_array().unwrap();
            all.extend(items.iter().cloned());
            let Some(next) = page["nextCursor"].as_str() else { return all };
            assert_eq!(items.len(), limit, "{path}");
            cursor = format!("&cursor={next}");
        }
    }

    /// The pages of a list are the list, and what is asked wrongly is refused.
    async fn is_paged(&self, path: &str, count: usize) -> Vec<Value> {
        let whole = self.get(&self.admin, path).await.expect(200);
        assert_eq!(whole.get("nextCursor"), None, "{path}");
        let whole = whole["items"].as_array().unwrap().clone();
        assert_eq!(whole.len(), count, "{path}: {whole:?}");
        for limit in 1..=count + 1 {
            assert_eq!(self.paged(path, limit).await, whole, "{path} by {limit}");
        }
        self.get(&self.admin, &format!("{path}?limit=0")).await.problem(400);
        let foreign = self.get(&self.admin, &format!("{path}?cursor=%00")).await.problem(422);
        assert_eq!(foreign.findings[0].field, "cursor", "{path}");
        whole
    }
}

#[tokio::test]
async fn members_of_a_team() {
    let rig = Rig::new().await;
    let members = ["admin@example.com", "alice@example.com", "bob@example.com", "editor@example.com"];
    rig.post(&rig.admin, "/teams", json!({"name": "sales", "members": members})).await.expect(201);
    rig.is_paged("/teams/sales/members", members.len()).await;

    // Whoever takes out what a page names goes on where it ended.
    let mut cursor = String::new();
    let mut removed = 0;
    loop {
        let page = rig.get(&rig.admin, &format!("/teams/sales/members?limit=1{cursor}")).await.expect(200);
        let member = page["items"][0]["id"].as_str().unwrap();
        rig.delete(&rig.admin, &format!("/teams/sales/members/{member}")).await.expect(204);
        removed += 1;
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(removed, members.len());
    assert_eq!(rig.get(&rig.admin, "/teams/sales").await.expect(200)["members"], json!([]));
}

#[tokio::test]
async fn fields_of_an_entry_come_in_its_own_order() {
    let rig = Rig::new().await;
    let names: Vec<String> = (0..12).rev().map(|n| format!("FIELD_{n}")).collect();
    let env: Vec<Value> = names.iter().map(|name| json!({"name": name, "prompt": true})).collect();
    let entry = json!({"name": "local", "selfHosted": {"command": ["node"], "env": env}});
    rig.post(&rig.admin, "/entries", entry).await.expect(201);
    let fields = rig.is_paged("/entries/local/fields", names.len()).await;
    assert_eq!(fields.iter().map(|field| field["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
}

#[tokio::test]
async fn revisions_of_an_installation() {
    let rig = Rig::new().await;
    let env = json!([{"name": "LEVEL", "prompt": true}]);
    let entry = json!({"name": "local", "selfHosted": {"command": ["node"], "env": env}});
    rig.post(&rig.admin, "/entries", entry).await.expect(201);
    let values = |level: u32| json!({"LEVEL": level.to_string()});
    let installation =
        rig.post(&rig.admin, "/installations", json!({"entry": "local", "values": values(0)})).await.expect(201);
    let path = format!("/installations/{}", installation["id"].as_str().unwrap());
    for level in 1..4 {
        settled(&rig).await;
        rig.post(&rig.admin, &format!("{path}/reinstall"), json!({"values": values(level)})).await.expect(200);
    }
    settled(&rig).await;
    let revisions = rig.is_paged(&format!("{path}/revisions"), 4).await;
    assert_eq!(revisions.iter().map(|one| one["number"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn pull_secrets() {
    let secret = |name: &str| PullSecret { name: name.to_owned(), servers: vec!["registry.example.com".to_owned()] };
    let secrets = ["zeta", "alpha", "mid/é"].map(secret).into();
    let rig = Rig::on(ScriptedRuntime::new(ScriptedServer::new("any")).with_pull_secrets(secrets)).await;
    let names = rig.is_paged("/pull-secrets", 3).await;
    assert_eq!(names.iter().map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>(), ["alpha", "mid/é", "zeta"]);
}

#[tokio::test]
async fn an_audit_log_of_no_items_is_refused() {
    let rig = Rig::new().await;
    rig.get(&rig.admin, "/audit?limit=0").await.problem(400);
}
