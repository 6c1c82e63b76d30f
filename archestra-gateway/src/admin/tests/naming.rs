//! Teams and users do not go while something names them.

use super::*;

#[tokio::test]
async fn a_team_goes_once_nothing_names_it() {
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/teams", json!({"name": "sales"})).await.expect(201);
    let document = r#"
apiVersion: archestra.dev/v1
entries: [{name: tracker, remote: {url: "https://mcp.example.com/mcp"}, scope: {team: sales}}]
gateways: [{slug: shop, scope: {teams: [sales, finance]}}]
agents: [{slug: bot, scope: {team: sales}}]
policies: [{name: no-writing, action: block, callers: [{team: sales}]}]
"#;
    rig.apply(&rig.admin, "", document).await.expect(200);
    let policy = rig.get(&rig.admin, "/policies").await.expect(200)["items"][0]["id"].as_str().unwrap().to_owned();
    let policy = format!("policies/{policy}");
    let naming = [
        ("gateways/shop", "gateway shop"),
        ("agents/bot", "agent bot"),
        ("entries/tracker", "entry tracker"),
        (policy.as_str(), "policy no-writing"),
    ];
    for (n, (path, name)) in naming.into_iter().enumerate() {
        let detail = rig.delete(&rig.admin, "/teams/sales").await.problem(409).detail;
        for (later, (_, other)) in naming.into_iter().enumerate() {
            assert_eq!(detail.contains(other), later >= n, "{detail}");
        }
        assert!(detail.contains(name) && detail.ends_with("change or delete those first"), "{detail}");
        rig.delete(&rig.admin, &format!("/{path}")).await.expect(204);
    }
    rig.delete(&rig.admin, "/teams/sales").await.expect(204);
}

#[tokio::test]
async fn a_user_goes_once_nothing_names_them() {
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/users", json!({"email": "dave@example.com"})).await.expect(201);
    let gateway = json!({"slug": "own", "scope": {"user": "dave@example.com"}});
    rig.post(&rig.admin, "/gateways", gateway).await.expect(201);
    let detail = rig.delete(&rig.admin, "/users/dave@example.com").await.problem(409).detail;
    assert!(detail.contains("gateway own"), "{detail}");
    rig.delete(&rig.admin, "/gateways/own").await.expect(204);
    rig.delete(&rig.admin, "/users/dave@example.com").await.expect(204);
}
