//! An apply that is killed half-way, and a pruning that fails half-way: what is left, and what a second apply makes of it.

use super::{failing::seen, *};
use archestra_core::identity::IdentityStore;
use std::time::Duration;

const BEFORE: &str = r#"
apiVersion: archestra.dev/v1
teams: [{name: gone}]
entries:
- {name: files, selfHosted: {command: [node], env: [{name: KEY, secret: true, prompt: true, required: true}, {name: FIXED, secret: true, value: fixed}]}}
- {name: tracker, remote: {url: "https://old.example.com"}, credential: {static: [{name: token, header: Authorization, required: true, secret: true}]}}
- {name: left, remote: {url: "https://left.example.com"}, credential: {static: [{name: token, header: Authorization, required: true, secret: true}]}}
- {name: stopped, selfHosted: {command: [node], env: [{name: KEY, secret: true, prompt: true, required: true}]}}
installations:
- {entry: files, scope: organization, values: {KEY: k3y}}
- {entry: tracker, scope: organization, values: {token: t0k}}
- {entry: left, scope: organization, values: {token: t0k}}
- {entry: stopped, scope: organization, values: {KEY: k3y}}
gateways:
- {slug: g, scope: organization, tools: [{entry: files, tool: "*"}, {entry: left, tool: add, credential: {installation: organization}}]}
- {slug: dropped, scope: organization, tools: [{entry: stopped, tool: "*", credential: {installation: organization}}]}
policies: [{name: former, action: block, entry: left}]
"#;

const AFTER: &str = r#"
apiVersion: archestra.dev/v1
users: [{email: carol@example.com}]
teams: [{name: sales, members: [carol@example.com]}]
entries:
- {name: files, selfHosted: {command: [node], args: [x], env: [{name: KEY, secret: true, prompt: true, required: true}, {name: FIXED, secret: true, value: renewed}]}}
- {name: tracker, remote: {url: "https://new.example.com"}, credential: {static: [{name: token, header: Authorization, required: true, secret: true}, {name: tenant, header: x-tenant, required: true}]}}
- {name: new, selfHosted: {command: [node], env: [{name: KEY, secret: true, prompt: true, required: true}]}}
installations:
- {entry: files, scope: organization, values: {KEY: n3w}}
- {entry: tracker, scope: organization, values: {token: t1k, tenant: acme}}
- {entry: new, scope: {team: sales}, values: {KEY: own}}
gateways:
- {slug: g, scope: organization, tools: [{entry: new, tool: "*", credential: {installation: {team: sales}}}]}
- {slug: second, scope: {team: sales}, toolAssignment: automatic, labels: {a: b}}
policies: [{name: later, action: block, entry: new}]
"#;

const QUICK: Duration = Duration::from_millis(1);

/// A platform on the stores of `rig`, which all fail at once when `faults` say so.
fn doomed(rig: &Rig, faults: &Faults) -> AdminState {
    let catalog = Faulty::<dyn CatalogStore>::sharing(Arc::clone(&rig.state.catalog), faults.clone());
    let identity = Faulty::<dyn IdentityStore>::sharing(Arc::clone(&rig.state.identity), faults.clone());
    let secrets = Faulty::<dyn SecretStore>::sharing(Arc::clone(&rig.state.secrets), faults.clone());
    let (catalog, secrets): (Arc<dyn CatalogStore>, Arc<dyn SecretStore>) = (Arc::new(catalog), Arc::new(secrets));
    let identity = Arc::new(identity);
    let lifecycle = lifecycle(rig, &catalog, &secrets, Duration::from_secs(3600));
    AdminState { catalog, identity, secrets, lifecycle, ..rig.state.clone() }
}

fn lifecycle(
    rig: &Rig,
    catalog: &Arc<dyn CatalogStore>,
    secrets: &Arc<dyn SecretStore>,
    sweep_grace: Duration,
) -> Lifecycle {
    Lifecycle::new(LifecycleParts {
        catalog: Arc::clone(catalog),
        secrets: Arc::clone(secrets),
        runtime: rig.state.runtime.clone(),
        discover: Arc::clone(&rig.tools) as Arc<dyn Discover>,
        options: LifecycleOptions { sweep_grace, debounce: QUICK, ..LifecycleOptions::default() },
    })
}

async fn apply(rig: &Rig, state: &AdminState, yaml: &str) -> Answer {
    let request = Request::builder().method("POST").uri("/apply?set=s&prune=true").extension(Arc::clone(&rig.admin));
    let request = request.header("content-type", "application/yaml").body(Body::from(yaml.to_owned())).unwrap();
    let response = router(state.clone()).oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

/// What people see, with neither ids nor times, once everything is ready.
async fn settled(rig: &Rig) -> Value {
    for _ in 0..2000 {
        let mut all = seen(rig).await;
        strip(&mut all, &["id", "entryId", "createdAt", "workload"]);
        if all[3]["items"].as_array().unwrap().iter().all(|one| one["state"]["phase"] == "ready") {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("not everything became ready: {:#}", seen(rig).await[3]);
}

fn strip(value: &mut Value, keys: &[&str]) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !keys.contains(&key.as_str()));
            map.values_mut().for_each(|value| strip(value, keys));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| strip(item, keys)),
        _ => {}
    }
}

/// The references that rows name, and those that are stored.
async fn references(rig: &Rig) -> (Vec<String>, Vec<String>) {
    use archestra_core::catalog::{CatalogStoreExt as _, Kind, Query};
    let entries = rig.state.catalog.list_all::<Entry>(Query::all(Kind::Entry)).await.unwrap();
    let installations = rig.state.catalog.list_all::<Installation>(Query::all(Kind::Installation)).await.unwrap();
    let named = entries.into_iter().filter_map(|one| one.value.secrets);
    let named = named.chain(installations.into_iter().filter_map(|one| one.value.secrets));
    let mut named: Vec<_> = named.map(|reference| reference.to_string()).collect();
    let mut stored: Vec<_> =
        rig.state.secrets.list("").await.unwrap().iter().map(|reference| reference.to_string()).collect();
    named.sort();
    stored.sort();
    (named, stored)
}

/// Runs a lifecycle until what it finds is in order, as the start of a platform does.
pub(super) async fn restarted(rig: &Rig) {
    let (catalog, secrets) = (&rig.state.catalog, &rig.state.secrets);
    let begun = lifecycle(rig, catalog, secrets, Duration::ZERO);
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (begun, stop) = (begun.clone(), stop.clone());
        async move { begun.run(stop).await }
    });
    for tries in 0.. {
        let (named, stored) = references(rig).await;
        if named == stored {
            break;
        }
        assert!(tries < 200, "secrets stay behind: {stored:?} are stored, {named:?} are named");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    running.await.unwrap();
}

async fn wanted() -> Value {
    let rig = Rig::new().await;
    rig.apply(&rig.admin, "set=s", BEFORE).await.expect(200);
    settled(&rig).await;
    rig.apply(&rig.admin, "set=s&prune=true", AFTER).await.expect(200);
    settled(&rig).await
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_point_a_second_apply_makes_what_the_document_says() {
    let wanted = wanted().await;
    // Every third point, as there are some hundred.
    for healthy in (0..).step_by(3) {
        let rig = Rig::new().await;
        rig.apply(&rig.admin, "set=s", BEFORE).await.expect(200);
        settled(&rig).await;
        let faults = Faults::default();
        let state = doomed(&rig, &faults);
        faults.fail_after(healthy);
        let outcome = apply(&rig, &state, AFTER).await;
        let killed = outcome.status != StatusCode::OK;
        // The process is gone: nothing of it goes on when the stores answer again.
        state.lifecycle.shutdown().await;

        restarted(&rig).await;
        let stop = CancellationToken::new();
        let lifecycle = lifecycle(&rig, &rig.state.catalog, &rig.state.secrets, Duration::from_secs(3600));
        let state = AdminState { lifecycle: lifecycle.clone(), ..rig.state.clone() };
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { lifecycle.run(stop).await }
        });
        let again = apply(&rig, &state, AFTER).await;
        assert_eq!(again.status, StatusCode::OK, "killed after {healthy} calls: {}", again.text);
        let (found, wanted) = (settled(&rig).await, wanted.as_array().unwrap());
        for (found, wanted) in found.as_array().unwrap().iter().zip(wanted) {
            assert!(found == wanted, "killed after {healthy} calls: {found:#} is there, {wanted:#} is wanted");
        }
        let third = apply(&rig, &state, AFTER).await.expect(200);
        let changed = third["changes"].as_array().unwrap().iter().find(|change| change["action"] != "unchanged");
        assert_eq!(changed, None, "killed after {healthy} calls");
        // What a row named until now stays for a while, for those who still route by it.
        tokio::time::sleep(Duration::from_secs(11)).await;
        let (named, stored) = references(&rig).await;
        assert_eq!(named, stored, "killed after {healthy} calls");
        let hosted = rig.state.runtime.as_ref().unwrap().list().await.unwrap();
        assert_eq!(hosted.len(), 2, "killed after {healthy} calls: {hosted:?}");
        stop.cancel();
        running.await.unwrap();
        if !killed {
            assert!(healthy > 50, "something must have been cut short before");
            return;
        }
    }
}

/// A gateway of somebody else, which names what the document makes.
const FOREIGN: &str = r#"
apiVersion: archestra.dev/v1
gateways:
- {slug: foreign, scope: organization, tools: [{entry: left, tool: add, credential: {installation: organization}}, {entry: stopped, tool: "*", credential: {installation: organization}}]}
"#;

/// Everything with its ids, and what each gateway lists, once everything is ready.
async fn ready(rig: &Rig) -> Value {
    settled(rig).await;
    let mut all = seen(rig).await;
    for gateway in ["g", "dropped", "foreign"] {
        let mut tools = rig.get(&rig.admin, &format!("/gateways/{gateway}/tools")).await.expect(200);
        tools["items"].as_array_mut().unwrap().sort_by_key(|tool| tool["name"].to_string());
        all.as_array_mut().unwrap().push(tools);
    }
    // What is made again is younger.
    strip(&mut all, &["createdAt"]);
    all
}

#[tokio::test(start_paused = true)]
async fn a_pruning_that_fails_once_at_any_point_leaves_what_was_there_with_its_ids_and_pins() {
    for healthy in 0.. {
        let rig = Rig::new().await;
        rig.apply(&rig.admin, "set=s", BEFORE).await.expect(200);
        rig.apply(&rig.admin, "", FOREIGN).await.expect(200);
        let before = ready(&rig).await;
        let faults = Faults::default();
        let state = doomed(&rig, &faults);
        faults.delay(QUICK * 10);
        faults.fail_after(healthy);
        let healing = tokio::spawn(async move {
            // The call that fails takes a moment, so that the stores are well again before the next one.
            while faults.calls() <= healthy {
                tokio::time::sleep(QUICK).await;
            }
            faults.heal();
        });
        let outcome = apply(&rig, &state, AFTER).await;
        if !healing.is_finished() {
            healing.abort();
            assert!(healthy > 50, "something must have failed before");
            assert_eq!(outcome.status, StatusCode::OK, "{}", outcome.text);
            return;
        }
        if outcome.status != StatusCode::OK {
            assert!(!outcome.text.contains("but for this"), "after {healthy} calls: {}", outcome.text);
            let after = ready(&rig).await;
            for (after, before) in after.as_array().unwrap().iter().zip(before.as_array().unwrap()) {
                assert!(after == before, "after {healthy} calls: {after:#} is there instead of {before:#}");
            }
        }
        state.lifecycle.shutdown().await;
    }
}
