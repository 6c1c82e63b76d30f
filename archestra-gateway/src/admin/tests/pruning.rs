//! Teams and users go by hand and by pruning on the same terms: once nothing names them, which one plan may see to itself.

use super::*;

const HEAD: &str = "apiVersion: archestra.dev/v1\n";
const SALES: &str = "teams: [{name: sales}]\n";
const CAROL: &str = "users: [{email: carol@example.com}]\n";
const REST: &str = r#"
entries:
- {name: tracker, remote: {url: "https://mcp.example.com/mcp"}}
- {name: own, scope: {team: sales}, remote: {url: "https://mcp.example.com/mcp"}}
installations: [{entry: tracker, scope: {team: sales}}]
gateways: [{slug: g, scope: {teams: [sales, finance]}}]
agents: [{slug: robot, scope: {user: carol@example.com}}]
policies: [{name: p, callers: [{user: carol@example.com}, {team: sales}, {team: sales}], action: block}]
"#;

fn document(parts: &[&str]) -> String {
    format!("{HEAD}{}", parts.concat())
}

impl Rig {
    async fn prune(&self, parts: &[&str]) -> Answer {
        self.apply(&self.admin, "set=s&prune=true", &document(parts)).await
    }
}

fn deleted(report: &Value) -> Vec<&str> {
    let changes = report["changes"].as_array().unwrap().iter();
    changes.filter(|change| change["action"] == "delete").map(|change| change["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_names_a_team_or_user_keeps_them_from_going_however_they_are_deleted() {
    let rig = Rig::new().await;
    rig.apply(&rig.admin, "set=s", &document(&[CAROL, SALES])).await.expect(200);
    rig.apply(&rig.admin, "", &document(&[REST])).await.expect(200);
    let before = rig.everything().await;
    let refused = rig.prune(&[]).await.problem(422);
    let by_hand = [
        (
            "teams",
            "/teams/sales",
            "team sales is still named by its installation of tracker, gateway g, entry own, policy p",
        ),
        ("users", "/users/carol@example.com", "user carol@example.com is still named by agent robot, policy p"),
    ];
    for (n, (field, path, reason)) in by_hand.into_iter().enumerate() {
        assert_eq!((refused.findings[n].field.as_str(), refused.findings[n].reason.as_str()), (field, reason));
        let problem = rig.delete(&rig.admin, path).await.problem(409);
        assert_eq!(problem.detail, format!("{reason}; change or delete those first"));
    }
    assert_eq!((refused.findings.len(), rig.everything().await), (2, before));
}

#[tokio::test]
async fn a_team_goes_with_what_names_it_and_with_its_tokens() {
    let rig = Rig::new().await;
    rig.apply(&rig.admin, "set=s", &document(&[CAROL, SALES, REST])).await.expect(200);
    for scope in [json!({"team": "sales"}), json!({"user": "carol@example.com"})] {
        rig.post(&rig.admin, "/tokens", json!({"name": "ci", "scope": scope})).await.expect(201);
    }
    let report = rig.prune(&[]).await.expect(200);
    let names = ["g", "robot", "p", "tracker for team sales", "own", "tracker", "sales", "carol@example.com"];
    let (mut found, mut wanted) = (deleted(&report), names.to_vec());
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    assert_eq!(rig.get(&rig.admin, "/tokens").await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn a_document_that_names_somebody_else_instead_lets_a_team_go() {
    let rig = Rig::new().await;
    rig.apply(&rig.admin, "set=s", &document(&[CAROL, SALES, REST])).await.expect(200);
    let elsewhere = REST.replace("[sales, finance]", "[finance]").replace("sales", "finance");
    let report = rig.prune(&[CAROL, &elsewhere]).await.expect(200);
    assert_eq!(deleted(&report), ["tracker for team sales", "sales"]);
    let again = rig.prune(&[CAROL, &elsewhere]).await.expect(200);
    let changed = again["changes"].as_array().unwrap().iter().find(|change| change["action"] != "unchanged");
    assert_eq!(changed, None);
}

#[tokio::test]
async fn a_document_that_begins_to_name_somebody_keeps_them() {
    let rig = Rig::new().await;
    rig.apply(&rig.admin, "set=s", &document(&[CAROL, SALES])).await.expect(200);
    let before = rig.everything().await;
    for (rest, reason) in [
        ("gateways: [{slug: g, scope: {team: sales}}]", "team sales is still named by gateway g"),
        (
            "entries: [{name: e, scope: {team: sales}, remote: {url: \"https://mcp.example.com\"}}]",
            "team sales is still named by entry e",
        ),
        (
            "entries: [{name: e, remote: {url: \"https://mcp.example.com\"}}]\ninstallations: [{entry: e, scope: {team: sales}}]",
            "team sales is still named by its installation of e",
        ),
        ("policies: [{name: p, callers: [{team: sales}], action: block}]", "team sales is still named by policy p"),
    ] {
        let problem = rig.prune(&[CAROL, rest]).await.problem(422);
        assert_eq!(problem.findings.iter().map(|finding| finding.reason.as_str()).collect::<Vec<_>>(), [reason]);
    }
    let problem = rig.prune(&["teams: [{name: sales, members: [carol@example.com]}]"]).await.problem(422);
    assert_eq!(problem.findings[0].reason, "user carol@example.com is still named by team sales");
    assert_eq!(rig.everything().await, before);
}
