//! `apply`: what it makes, that it is idempotent, that a dry run writes nothing, and pruning.

use super::*;

const WHOLE: &str = r#"
apiVersion: archestra.dev/v1
users:  [{email: carol@example.com, role: member}]
teams:  [{name: sales, priority: 10, members: [carol@example.com, Alice@example.com]}]
entries:
- name: everything
  labels: {department: sales}
  scope: {team: sales}
  selfHosted:
    command: [node]
    args: [/srv/server.js, stdio]
    env:
    - {name: LOG_LEVEL, value: info}
    - {name: FIXED, secret: true, value: fixed-s3cret}
    - {name: API_KEY, secret: true, prompt: true, required: true}
- name: tracker
  remote: {url: "https://mcp.example.com/mcp"}
  credential: {static: [{name: token, header: Authorization, prefix: "Bearer ", secret: true, required: true}]}
  additionalHeaders: [{name: x-tenant, value: acme}]
installations:
- {entry: everything, scope: {team: sales}, values: {API_KEY: k3y}}
- {entry: tracker, scope: {user: carol@example.com}, values: {token: t0k}}
gateways:
- slug: sales
  scope: {team: sales}
  toolAssignment: automatic
  labels: {department: sales}
- slug: mixed
  scope: organization
  tools: [{entry: everything, tool: echo, credential: {installation: {team: sales}}}, {entry: tracker, tool: "*", credential: resolveAtCallTime}]
agents:
- {slug: robot, scope: organization, tools: [{entry: tracker, tool: "*"}]}
policies:
- {name: no robots, consumer: robot, entry: tracker, callers: [{team: sales}], action: block}
"#;

fn actions(report: &Value) -> Vec<String> {
    let line = |change: &Value| {
        format!(
            "{} {} {}",
            change["action"].as_str().unwrap(),
            change["kind"].as_str().unwrap(),
            change["name"].as_str().unwrap()
        )
    };
    report["changes"].as_array().unwrap().iter().map(line).collect()
}

pub(super) async fn settled(rig: &Rig) {
    for _ in 0..200 {
        let all = rig.get(&rig.admin, "/installations").await.expect(200);
        if all["items"].as_array().unwrap().iter().all(|one| one["state"]["phase"] == "ready") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("not everything became ready");
}

#[tokio::test]
async fn a_document_is_applied_whole_and_a_second_time_nothing_is_written() {
    let rig = Rig::new().await;
    let before = rig.everything().await;
    let wanted = [
        "create user carol@example.com",
        "create team sales",
        "create entry everything",
        "create entry tracker",
        "create installation everything for team sales",
        "create installation tracker for user carol@example.com",
        "create gateway sales",
        "create gateway mixed",
        "create agent robot",
        "create policy no robots",
    ];
    let dry = rig.apply(&rig.admin, "dryRun=true", WHOLE).await.expect(200);
    assert_eq!((actions(&dry), &dry["dryRun"]), (wanted.map(str::to_owned).into(), &json!(true)));
    assert_eq!(rig.everything().await, before, "a dry run writes nothing");

    let done = rig.apply(&rig.admin, "dryRun=false", WHOLE).await.expect(200);
    assert_eq!(actions(&done), wanted);
    settled(&rig).await;
    let report: apply::ApplyReport =
        serde_json::from_value(rig.apply(&rig.admin, "dryRun=true", WHOLE).await.expect(200)).unwrap();
    assert!(report.is_unchanged(), "{report:?}");
    let stored = rig.everything().await;
    let records = rig.records.lock().unwrap().len();
    let again = rig.apply(&rig.admin, "", WHOLE).await.expect(200);
    assert!(actions(&again).iter().all(|line| line.starts_with("unchanged ")), "{again}");
    assert_eq!((rig.everything().await, rig.records.lock().unwrap().len()), (stored, records));

    assert_eq!(rig.get(&rig.admin, "/gateways/sales/tools").await.expect(200)["items"].as_array().unwrap().len(), 2);
    assert_eq!(rig.get(&rig.admin, "/teams/sales").await.expect(200)["members"].as_array().unwrap().len(), 2);
    let texts = format!("{:?}", rig.records.lock().unwrap());
    assert!(["s3cret", "k3y", "t0k"].iter().all(|secret| !texts.contains(secret)));
}

#[tokio::test]
async fn what_changed_is_changed_and_nothing_else() {
    let rig = Rig::new().await;
    rig.apply(&rig.admin, "", WHOLE).await.expect(200);
    settled(&rig).await;
    let secret = rig.apply(&rig.admin, "", &WHOLE.replace("fixed-s3cret", "other-s3cret")).await.expect(200);
    let changed =
        |report: &Value| actions(report).into_iter().filter(|line| !line.starts_with("unchanged ")).collect::<Vec<_>>();
    assert_eq!(changed(&secret), ["update entry everything"], "a fixed secret is compared too");
    settled(&rig).await;
    let rest = WHOLE
        .replace("fixed-s3cret", "other-s3cret")
        .replace("t0k", "n3w")
        .replace("priority: 10", "priority: 20")
        .replace("tool: echo", "tool: add")
        .replace("action: block", "action: allow");
    let report = rig.apply(&rig.admin, "", &rest).await.expect(200);
    assert_eq!(
        changed(&report),
        [
            "update team sales",
            "update installation tracker for user carol@example.com",
            "update gateway mixed",
            "update policy no robots"
        ]
    );
    settled(&rig).await;
    assert_eq!(changed(&rig.apply(&rig.admin, "", &rest).await.expect(200)), [""; 0]);
    let absent = rig
        .apply(&rig.admin, "", "apiVersion: archestra.dev/v1\ngateways: [{slug: mixed, scope: organization}]")
        .await
        .expect(200);
    assert_eq!(actions(&absent), ["unchanged gateway mixed"], "tools that are not named stay");
}

#[tokio::test]
async fn json_is_as_good_as_yaml() {
    let rig = Rig::new().await;
    let document = json!({"apiVersion": "archestra.dev/v1", "teams": [{"name": "sales"}]});
    assert_eq!(actions(&rig.post(&rig.admin, "/apply", document).await.expect(200)), ["create team sales"]);
}

#[tokio::test]
async fn everything_that_is_wrong_is_named_at_its_place_and_nothing_is_written() {
    let rig = Rig::new().await;
    let before = rig.everything().await;
    let fields = async |yaml: &str| {
        let problem = rig.apply(&rig.admin, "", yaml).await.problem(422);
        assert!(!problem.detail.contains("s3cret"), "{}", problem.detail);
        problem.findings.into_iter().map(|finding| finding.field).collect::<Vec<_>>()
    };
    assert_eq!(fields("users: []\nextra: 1").await, ["apiVersion", "extra"]);
    assert_eq!(fields("apiVersion: v2").await, ["apiVersion"]);
    let shapes = "apiVersion: archestra.dev/v1\nusers: {a: b}\nteams: [{name: a, prio: 1}]\nentries: [{name: x, remote: {url: 's3cret', prt: 1}}]";
    assert_eq!(fields(shapes).await.len(), 3);
    let twice = r#"
apiVersion: archestra.dev/v1
users: [{email: a@b.c}, {email: A@B.C}]
entries: [{name: x, remote: {url: "https://x.example.com"}}, {name: x, remote: {url: "https://x.example.com"}}]
gateways: [{slug: g}]
agents: [{slug: g}]
"#;
    assert_eq!(fields(twice).await, ["users[1]", "entries[1]", "agents[0]"]);
    let wrong = r#"
apiVersion: archestra.dev/v1
users: [{email: nobody, role: boss}]
teams: [{name: ok, members: [ghost@example.com]}]
entries:
- {name: fine, remote: {url: "https://x.example.com"}}
- {name: broken, selfHosted: {command: [node], env: [{name: "1BAD", value: x}], deploymentYaml: "a: [b"}}
- {name: tracker, remote: {url: "https://x.example.com"}, credential: {static: [{name: token, header: Authorization, required: true}]}}
installations:
- {entry: tracker, scope: {team: ok}}
- {entry: ghost, scope: organization}
- {entry: fine, scope: organization}
- {entry: fine, scope: organization}
gateways:
- {slug: g, scope: organization, tools: [{entry: ghost, tool: "*"}, {entry: fine, tool: "*", credential: {installation: {team: finance}}}]}
- {slug: Bad Slug, scope: organization}
- {slug: both, scope: organization, toolAssignment: automatic, labels: {a: b}, tools: [{entry: fine, tool: "*"}]}
policies: [{name: p, entry: ghost, action: block}]
"#;
    let found = fields(wrong).await;
    let wanted = [
        "users[0].role",
        "teams[0].members[0]",
        "entries[1].selfHosted.env[0].name",
        "entries[1].selfHosted.deploymentYaml",
        "installations[0].scope.team",
        "installations[1].entry",
        "installations[3]",
        "gateways[0].tools[0].entry",
        "gateways[1].slug",
        "gateways[2].tools",
        "policies[0].entry",
    ];
    assert_eq!(found, wanted);
    assert_eq!(rig.everything().await, before);
}

#[tokio::test]
async fn yaml_that_cannot_be_read() {
    let rig = Rig::new().await;
    let problem =
        rig.apply(&rig.admin, "", "apiVersion: archestra.dev/v1\nusers: [{email: s3cret\n").await.problem(400);
    assert!(problem.detail.contains("not YAML at line") && !problem.detail.contains("s3cret"), "{}", problem.detail);
    let twice = rig.apply(&rig.admin, "", "apiVersion: archestra.dev/v1\nusers: []\nusers: []\n").await.problem(400);
    assert!(twice.detail.contains("line 3"), "{}", twice.detail);
    rig.apply(&rig.admin, "", "").await.problem(400);
    rig.apply(&rig.admin, "", "a: 1\n---\nb: 2\n").await.problem(400);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..10 {
        let before = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{before}]\n"));
    }
    rig.apply(&rig.admin, "", &bomb).await.problem(400);
    let source = rig
        .apply(
            &rig.admin,
            "",
            "apiVersion: archestra.dev/v1\ninstallations: [{entry: x, values: {a: {valueFrom: {env: HOME}}}}]",
        )
        .await
        .problem(422);
    assert_eq!(source.findings[0].field, "installations[0].values.a");
    assert!(source.detail.contains("resolved by the client"));
    rig.apply(&rig.admin, "prune=true", WHOLE).await.problem(400);
    rig.apply(&rig.admin, "dryrun=true", WHOLE).await.problem(400);
}

#[tokio::test]
async fn pruning_deletes_what_the_set_made_and_no_longer_names() {
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/entries", remote("by-hand")).await.expect(201);
    rig.apply(&rig.admin, "set=one", WHOLE).await.expect(200);
    settled(&rig).await;
    let smaller = "apiVersion: archestra.dev/v1\nteams: [{name: sales}]\nusers: [{email: carol@example.com}]";
    let without = rig.apply(&rig.admin, "set=one", smaller).await.expect(200);
    assert_eq!(
        actions(&without),
        ["unchanged user carol@example.com", "unchanged team sales"],
        "absent means untouched"
    );
    let other = rig.apply(&rig.admin, "set=two&prune=true", smaller).await.expect(200);
    assert_eq!(actions(&other).len(), 2, "another set made none of it");
    let kept = "apiVersion: archestra.dev/v1\ninstallations: [{entry: tracker, scope: {user: carol@example.com}}]";
    let refused = rig.apply(&rig.admin, "set=one&prune=true", kept).await.problem(422);
    assert!(
        refused.detail.contains("entry tracker cannot be deleted") && refused.detail.contains("carol"),
        "{}",
        refused.detail
    );

    let dry = rig.apply(&rig.admin, "set=one&prune=true&dryRun=true", smaller).await.expect(200);
    let done = rig.apply(&rig.admin, "set=one&prune=true", smaller).await.expect(200);
    assert_eq!(actions(&dry), actions(&done));
    let deleted: Vec<_> = actions(&done).into_iter().filter(|line| line.starts_with("delete ")).collect();
    assert_eq!(deleted.len(), 8, "{deleted:?}");
    assert!(deleted.contains(&"delete installation everything for team sales".to_owned()));
    assert_eq!(
        rig.get(&rig.admin, "/entries").await.expect(200)["items"].as_array().unwrap().len(),
        1,
        "what was made by hand stays"
    );
    rig.get(&rig.admin, "/teams/sales").await.expect(200);
    assert_eq!(rig.state.secrets.list("").await.unwrap(), []);
    let all = rig.apply(&rig.admin, "set=one&prune=true", "apiVersion: archestra.dev/v1").await.expect(200);
    assert_eq!(actions(&all), ["delete team sales", "delete user carol@example.com"]);
}

#[test]
fn a_client_resolves_value_from() {
    use apply::{RawDocument, ValueSource};
    let yaml = b"installations: [{values: {a: {valueFrom: {file: key.txt}}, b: {valueFrom: {env: B}}, c: {valueFrom: {vault: x}}}}]";
    let mut document = RawDocument::parse(yaml, Format::Yaml).unwrap();
    let problem = document.resolve(|source| match source {
        ValueSource::File(path) => Ok(format!("content of {path}")),
        ValueSource::Env(name) => Err(format!("{name} is not set")),
    });
    let problem = problem.unwrap_err();
    let fields: Vec<_> = problem.findings().iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(fields, ["installations[0].values.b", "installations[0].values.c"]);
    assert!(String::from_utf8(document.to_json()).unwrap().contains("content of key.txt"));
    assert!(!format!("{document:?}").contains("key.txt"));
}

#[tokio::test]
async fn a_member_applies_what_a_member_may_do() {
    let rig = Rig::new().await;
    rig.post(&rig.admin, "/entries", remote("tracker")).await.expect(201);
    let own = r#"
apiVersion: archestra.dev/v1
installations: [{entry: tracker, values: {token: t}}]
gateways: [{slug: alice, tools: [{entry: tracker, tool: "*", credential: {installation: {user: alice@example.com}}}]}]
"#;
    let report = rig.apply(&rig.alice, "", own).await.expect(200);
    assert_eq!(actions(&report), ["create installation tracker for alice@example.com", "create gateway alice"]);
    let again = rig.apply(&rig.alice, "", own).await.expect(200);
    assert!(actions(&again).iter().all(|line| line.starts_with("unchanged ")), "{again}");
    let before = rig.everything().await;
    for (document, permission) in [
        ("users: [{email: x@example.com}]", "user:create"),
        ("teams: [{name: finance, priority: 3}]", "team:update"),
        ("entries: [{name: x, remote: {url: \"https://x.example.com\"}}]", "entry:create"),
        ("installations: [{entry: tracker, scope: {team: finance}, values: {token: t}}]", "installation:teamAdmin"),
        ("gateways: [{slug: g, scope: organization}]", "gateway:admin"),
        ("policies: [{name: p, action: block}]", "policy:create"),
    ] {
        let document = format!("apiVersion: archestra.dev/v1\n{document}");
        let problem = rig.apply(&rig.alice, "", &document).await.problem(403);
        assert!(problem.detail.contains(permission), "{}", problem.detail);
    }
    assert_eq!(rig.everything().await, before);
}

#[tokio::test]
async fn users_and_teams_of_a_document_are_named_and_never_by_id() {
    let rig = Rig::new().await;
    rig.apply(&rig.admin, "set=s", "apiVersion: archestra.dev/v1\nteams: [{name: sales}]").await.expect(200);
    let before = rig.everything().await;
    let team = rig.get(&rig.admin, "/teams/sales").await.expect(200);
    let user = rig.get(&rig.admin, "/users/bob@example.com").await.expect(200);
    for item in [
        format!("teams: [{{name: {}, priority: 5}}]", team["id"]),
        format!("users: [{{email: {}, role: admin}}]", user["id"]),
    ] {
        let document = format!("apiVersion: archestra.dev/v1\n{item}");
        let problem = rig.apply(&rig.admin, "set=s&prune=true", &document).await.problem(422);
        assert_eq!(problem.findings.len(), 1, "{problem:?}");
    }
    assert_eq!(rig.everything().await, before);
}
