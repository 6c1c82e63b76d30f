//! What changes of an entry ask of its installations, end to end; reinstalling, updating, rolling back.

use super::*;
use archestra_core::{
    ErrorKind,
    catalog::{EnvVar, FixedValue, ReinstallReason},
    runtime::RevisionNumber,
};

async fn installed(rig: &Rig) -> (Versioned<Entry>, InstallationId) {
    let entry = rig.save(hosted("files")).await;
    let id = rig.install(&entry, owner(), &[("API_KEY", "k3y")]).await.unwrap().value.id;
    rig.ready(id).await;
    rig.quiet().await;
    (entry, id)
}

fn var(json: serde_json::Value) -> EnvVar {
    serde_json::from_value(json).unwrap()
}

fn env(spec: &mut EntrySpec) -> &mut Vec<EnvVar> {
    &mut spec.self_hosted.as_mut().unwrap().env
}

#[tokio::test(start_paused = true)]
async fn changes_that_need_no_input_roll_by_themselves_with_the_stored_values() {
    let rig = Rig::new();
    let (entry, id) = installed(&rig).await;
    rig.discover.serve(&["echo", "sum"]);
    rig.resave(&entry, |spec| spec.self_hosted.as_mut().unwrap().args.push("--new".to_owned())).await;
    rig.quiet().await;
    let workload = rig.runtime.only();
    assert_eq!((workload.revision, workload.spec.args.len()), (RevisionNumber(2), 2));
    assert_eq!(workload.secrets["API_KEY"].expose(), "k3y");
    let installation = rig.ready(id).await;
    assert_eq!(installation.tools.keys().collect::<Vec<_>>(), ["echo", "sum"], "listed again");
    assert_eq!(rig.all::<Tool>().await.len(), 3, "the row of a tool that is no longer listed stays");

    rig.resave(&entry, |spec| env(spec)[2].value = Some(FixedValue::Secret("n3w".into()))).await;
    rig.quiet().await;
    let workload = rig.runtime.only();
    assert_eq!((workload.revision, workload.secrets["env.LICENSE"].expose()), (RevisionNumber(3), "n3w"));
    assert_eq!(rig.references().await, 2);
}

#[tokio::test(start_paused = true)]
async fn changes_that_ask_for_nothing_touch_nothing() {
    let rig = Rig::new();
    let (entry, id) = installed(&rig).await;
    let before = rig.lifecycle.installation(id).await.unwrap();
    rig.resave(&entry, |spec| spec.description = Some("d".to_owned())).await;
    rig.resave(&entry, |spec| env(spec)[0].required = false).await;
    rig.resave(&entry, |spec| env(spec).push(var(serde_json::json!({"name": "EXTRA", "prompt": true})))).await;
    rig.quiet().await;
    assert_eq!(rig.lifecycle.installation(id).await.unwrap(), before);
    assert_eq!(rig.runtime.only().revision, RevisionNumber(1));
}

#[tokio::test(start_paused = true)]
async fn new_required_input_waits_for_a_person_and_leaves_what_runs() {
    let rig = Rig::new();
    let (entry, id) = installed(&rig).await;
    // Together with a new fixed secret: what runs goes on with the old one, after a restart too.
    rig.resave(&entry, |spec| {
        env(spec)[2].value = Some(FixedValue::Secret("n3w".into()));
        env(spec).push(var(serde_json::json!({"name": "TENANT", "prompt": true, "required": true})));
    })
    .await;
    rig.quiet().await;
    let waiting = rig.lifecycle.installation(id).await.unwrap().value;
    assert_eq!(waiting.reinstall_required, Some(ReinstallReason::NewInput(vec!["TENANT".to_owned()])));
    assert_eq!((rig.runtime.only().revision, rig.references().await), (RevisionNumber(1), 3));
    assert_eq!(rig.lifecycle.update(id, None).await.unwrap_err().kind(), ErrorKind::Conflict);
    let again = rig.restarted();
    again.lifecycle.apply_newest(waiting.workload.as_ref().unwrap()).await.unwrap();
    assert_eq!(again.runtime.only().secrets["env.LICENSE"].expose(), "l1cense");

    let refused = rig.lifecycle.reinstall(id, values(&[]), None).await.unwrap_err();
    assert!(refused.to_string().contains("TENANT"), "{refused}");
    let done = rig.lifecycle.reinstall(id, values(&[("TENANT", "acme"), ("API_KEY", "")]), None).await.unwrap();
    assert_eq!(done.value.reinstall_required, None);
    rig.quiet().await;
    let workload = rig.runtime.only();
    assert_eq!(
        (workload.revision, workload.secrets["API_KEY"].expose()),
        (RevisionNumber(2), "k3y"),
        "a blank field keeps the secret"
    );
    assert_eq!(workload.secrets["env.LICENSE"].expose(), "n3w");
    assert_eq!(rig.references().await, 2, "the former secret of the entry is gone");
}

#[tokio::test(start_paused = true)]
async fn taking_the_new_input_back_lets_the_installation_follow_again() {
    let rig = Rig::new();
    let (entry, id) = installed(&rig).await;
    rig.resave(&entry, |spec| {
        env(spec).push(var(serde_json::json!({"name": "TENANT", "prompt": true, "required": true})))
    })
    .await;
    assert!(rig.lifecycle.installation(id).await.unwrap().value.reinstall_required.is_some());
    rig.resave(&entry, |spec| spec.self_hosted.as_mut().unwrap().args.clear()).await;
    assert_eq!(rig.runtime.only().spec.args.len(), 1, "what waits for input does not roll");
    rig.resave(&entry, |spec| drop(env(spec).pop())).await;
    rig.quiet().await;
    assert_eq!(rig.lifecycle.installation(id).await.unwrap().value.reinstall_required, None);
    assert!(rig.runtime.only().spec.args.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_changed_type_or_oauth_needs_a_person() {
    let rig = Rig::new();
    let (entry, id) = installed(&rig).await;
    rig.lifecycle.reinstall(id, values(&[("REGION", "us")]), None).await.unwrap();
    rig.quiet().await;
    rig.resave(&entry, |spec| {
        let region = var(serde_json::json!({"name": "REGION", "prompt": true, "type": "number", "default": 1}));
        env(spec)[1] = region;
    })
    .await;
    let waiting = rig.lifecycle.installation(id).await.unwrap().value;
    assert_eq!(waiting.reinstall_required, Some(ReinstallReason::TypeChanged(vec!["REGION".to_owned()])));
    let refused = rig.lifecycle.reinstall(id, values(&[]), None).await.unwrap_err();
    assert!(refused.to_string().contains("values.REGION"), "{refused}");
    rig.lifecycle.reinstall(id, values(&[("REGION", "7")]), None).await.unwrap();
    rig.quiet().await;
    assert_eq!(rig.runtime.only().spec.args, ["--region=7"]);

    let remote_entry = rig.save(remote("tracker")).await;
    let tracker = rig.install(&remote_entry, owner(), &[("token", "t")]).await.unwrap().value.id;
    rig.resave(&remote_entry, |spec| {
        spec.credential = serde_json::from_value(serde_json::json!({"oauth": {}})).unwrap()
    })
    .await;
    let waiting = rig.lifecycle.installation(tracker).await.unwrap().value;
    assert_eq!(waiting.reinstall_required, Some(ReinstallReason::OAuthAdded));
    rig.resave(&remote_entry, |spec| spec.credential = remote("tracker").credential).await;
    assert_eq!(rig.lifecycle.installation(tracker).await.unwrap().value.reinstall_required, None);
}

#[tokio::test(start_paused = true)]
async fn what_takes_oauth_back_and_asks_for_more_needs_a_person() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    let id = rig.install(&entry, owner(), &[("token", "t")]).await.unwrap().value.id;
    rig.resave(&entry, |spec| spec.credential = serde_json::from_value(serde_json::json!({"oauth": {}})).unwrap())
        .await;
    rig.resave(&entry, |spec| {
        spec.credential = remote("tracker").credential;
        spec.additional_headers =
            serde_json::from_value(serde_json::json!([{"name": "x-tenant", "prompt": true, "required": true}]))
                .unwrap();
    })
    .await;
    let waiting = rig.lifecycle.installation(id).await.unwrap().value;
    assert_eq!(waiting.reinstall_required, Some(ReinstallReason::NewInput(vec!["x-tenant".to_owned()])));
}

#[tokio::test(start_paused = true)]
async fn a_refused_reinstallation_changes_nothing() {
    let rig = Rig::new();
    let (_, id) = installed(&rig).await;
    let before = rig.lifecycle.installation(id).await.unwrap().value;
    rig.runtime.refuse_next(Error::invalid("command", "no", "yes"));
    let error = rig.lifecycle.reinstall(id, values(&[("API_KEY", "other")]), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    rig.quiet().await;
    assert_eq!(rig.lifecycle.installation(id).await.unwrap().value, before);
    let revisions = rig.lifecycle.revisions(id).await.unwrap();
    assert_eq!(
        (revisions.len(), &revisions[2].spec, &revisions[2].secrets),
        (3, &revisions[0].spec, &revisions[0].secrets)
    );
    assert_eq!(rig.references().await, 2);
    assert_eq!(rig.runtime.only().secrets["API_KEY"].expose(), "k3y");

    let entry = rig.save(remote("tracker")).await;
    let tracker = rig.install(&entry, owner(), &[("token", "t")]).await.unwrap();
    rig.discover.fail(1, &DiscoverError::Unauthorized { reason: "401".to_owned() });
    rig.lifecycle.reinstall(tracker.value.id, values(&[("token", "wrong")]), None).await.unwrap_err();
    assert_eq!(rig.lifecycle.installation(tracker.value.id).await.unwrap(), tracker);
    let bundle = rig.lifecycle.bundle(tracker.value.secrets.as_ref()).await.unwrap();
    assert_eq!(bundle.get("token").unwrap().expose(), "t");
    assert_eq!(rig.references().await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_reinstallation_that_fails_when_the_runtime_has_it_already_is_taken_back_there_too() {
    let rig = Rig::new();
    let (_, id) = installed(&rig).await;
    let before = rig.lifecycle.installation(id).await.unwrap().value;
    rig.runtime.fail_next(Error::backend("fake", "it broke behind it"));
    rig.lifecycle.reinstall(id, values(&[("API_KEY", "other"), ("REGION", "us")]), None).await.unwrap_err();
    rig.quiet().await;
    let workload = rig.runtime.only();
    assert_eq!((workload.revision, workload.secrets["API_KEY"].expose()), (RevisionNumber(3), "k3y"));
    assert_eq!(workload.spec.args, ["--region=eu"]);
    let status = rig.lifecycle.status(id).await.unwrap();
    assert_eq!((status.installation.value, status.refused, status.desired), (before, None, Some(RevisionNumber(3))));
    assert_eq!(rig.references().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_update_leaves_what_runs_and_shows_why() {
    let rig = Rig::new();
    let (entry, id) = installed(&rig).await;
    rig.runtime.refuse_next(Error::invalid("command", "gone does not exist", "install it"));
    rig.resave(&entry, |spec| spec.self_hosted.as_mut().unwrap().command = vec!["gone".to_owned()]).await;
    rig.quiet().await;
    let status = rig.lifecycle.status(id).await.unwrap();
    assert_eq!(status.installation.value.state, InstallationState::Ready);
    assert!(status.refused.unwrap().contains("gone does not exist"));
    assert_eq!((status.desired, status.workload.unwrap().revision), (Some(RevisionNumber(2)), Some(RevisionNumber(1))));
}

#[tokio::test(start_paused = true)]
async fn what_a_runtime_does_not_know_yet_stays_as_it_was() {
    let rig = Rig::new();
    rig.runtime.adds(&[("scheduling", "here"), ("baseImage", "base:1")]);
    let (_, id) = installed(&rig).await;
    rig.runtime.adds(&[("baseImage", "base:1")]);
    assert!(!rig.lifecycle.status(id).await.unwrap().outdated);
    rig.runtime.adds(&[("baseImage", "base:2")]);
    assert!(rig.lifecycle.status(id).await.unwrap().outdated);
    rig.lifecycle.update(id, None).await.unwrap();
    rig.quiet().await;
    let platform = rig.runtime.only().spec.platform;
    assert_eq!((platform["scheduling"].as_str(), platform["baseImage"].as_str()), ("here", "base:2"));
    assert!(!rig.lifecycle.status(id).await.unwrap().outdated);
}

#[tokio::test(start_paused = true)]
async fn a_newer_platform_shows_and_rolls_only_when_asked() {
    let rig = Rig::new();
    let (_, id) = installed(&rig).await;
    assert_eq!(
        rig.lifecycle.update(id, None).await.unwrap(),
        rig.lifecycle.installation(id).await.unwrap(),
        "nothing to update"
    );
    let platform = [("baseImage".to_owned(), "base:2".to_owned())].into();
    let newer =
        Rig::on(rig.catalog.clone(), rig.secrets.clone(), LifecycleOptions { platform, ..LifecycleOptions::default() });
    assert!(newer.lifecycle.status(id).await.unwrap().outdated);
    newer.lifecycle.update(id, None).await.unwrap();
    newer.quiet().await;
    let workload = newer.runtime.only();
    assert_eq!((workload.revision, workload.spec.platform.len()), (RevisionNumber(2), 1));
    assert!(!newer.lifecycle.status(id).await.unwrap().outdated);
}

#[tokio::test(start_paused = true)]
async fn what_runs_with_a_later_number_than_is_stored_is_gone_on_from() {
    let rig = Rig::new();
    let (_, id) = installed(&rig).await;
    // As after an older backup was restored.
    let running = rig.runtime.only();
    let mut spec = running.spec.clone();
    spec.args.push("later".to_owned());
    rig.runtime.plant(archestra_core::runtime::Workload { revision: RevisionNumber(7), spec, ..running.clone() });
    assert_eq!(rig.lifecycle.apply_newest(&running.id).await.unwrap(), Some(RevisionNumber(8)));
    let workload = rig.runtime.only();
    assert_eq!((workload.revision, workload.spec.args), (RevisionNumber(8), running.spec.args));
    let numbers: Vec<_> = rig.lifecycle.revisions(id).await.unwrap().into_iter().map(|one| one.number).collect();
    assert_eq!(numbers, [RevisionNumber(8)]);
}

#[tokio::test(start_paused = true)]
async fn rolling_back_makes_a_new_revision_equal_to_the_old_one() {
    let rig = Rig::new();
    let (entry, id) = installed(&rig).await;
    rig.resave(&entry, |spec| spec.self_hosted.as_mut().unwrap().args = vec!["broken".to_owned()]).await;
    rig.quiet().await;
    rig.lifecycle.rollback(id, RevisionNumber(1), None).await.unwrap();
    rig.quiet().await;
    let revisions = rig.lifecycle.revisions(id).await.unwrap();
    assert_eq!(
        revisions.iter().map(|one| (one.number.0, one.cause.as_str())).collect::<Vec<_>>(),
        [(1, "install"), (2, "update"), (3, "rollback")]
    );
    assert_eq!(revisions[2].spec, revisions[0].spec);
    assert_eq!(rig.runtime.only().spec.args, ["--region=eu"]);
    assert_eq!(rig.lifecycle.rollback(id, RevisionNumber(9), None).await.unwrap_err().kind(), ErrorKind::NotFound);

    rig.resave(&entry, |spec| drop(env(spec).remove(2))).await;
    rig.quiet().await;
    let error = rig.lifecycle.rollback(id, RevisionNumber(1), None).await.unwrap_err();
    assert!(error.to_string().contains("env.LICENSE"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_revisions_are_kept() {
    let rig = Rig::on(
        MemoryCatalog::new(),
        MemorySecrets::new(),
        LifecycleOptions { revision_history: 3, ..LifecycleOptions::default() },
    );
    let (_, id) = installed(&rig).await;
    for n in 0..5 {
        rig.lifecycle.reinstall(id, values(&[("REGION", &format!("r{n}"))]), None).await.unwrap();
    }
    rig.quiet().await;
    let numbers: Vec<_> = rig.lifecycle.revisions(id).await.unwrap().iter().map(|one| one.number.0).collect();
    assert_eq!(numbers, [4, 5, 6]);
    assert_eq!(rig.runtime.only().revision, RevisionNumber(6));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_becomes_remote_ends_its_workloads() {
    let rig = Rig::new();
    let (entry, id) = installed(&rig).await;
    rig.resave(&entry, |spec| {
        spec.self_hosted = None;
        spec.remote = Some(archestra_core::catalog::RemoteServer { url: "https://files.example.com/mcp".to_owned() });
    })
    .await;
    rig.quiet().await;
    assert!(rig.runtime.applied().is_empty());
    let installation = rig.ready(id).await;
    assert_eq!(installation.workload, None);
    assert!(rig.all::<archestra_core::runtime::Revision>().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_an_entry_no_longer_asks_for_is_taken_from_its_installations() {
    let rig = Rig::new();
    let entry = rig
        .save({
            let mut spec = hosted("files");
            env(&mut spec).push(var(serde_json::json!({"name": "PIN", "secret": true, "prompt": true})));
            env(&mut spec).push(var(serde_json::json!({"name": "TENANT", "prompt": true})));
            spec
        })
        .await;
    let given = [("API_KEY", "k3y"), ("PIN", "p1n"), ("TENANT", "t1")];
    let id = rig.install(&entry, owner(), &given).await.unwrap().value.id;
    let before = rig.ready(id).await;
    rig.quiet().await;
    assert_eq!((before.values["TENANT"].as_str(), before.secret_fields.len()), ("t1", 2));

    rig.resave(&entry, |spec| env(spec).retain(|var| var.name != "PIN" && var.name != "TENANT")).await;
    rig.quiet().await;
    let after = rig.ready(id).await;
    assert!(!after.values.contains_key("TENANT"), "{:?}", after.values);
    assert_eq!(after.secret_fields.iter().collect::<Vec<_>>(), ["API_KEY"]);
    assert_ne!(after.secrets, before.secrets);
    assert_eq!(rig.references().await, 2, "what was dropped is in no secret any more");
    let workload = rig.runtime.only();
    assert_eq!((workload.revision, workload.secrets["API_KEY"].expose()), (RevisionNumber(2), "k3y"));
    assert!(!workload.secrets.contains_key("PIN"));

    // Asked for again, it is not there.
    rig.resave(&entry, |spec| {
        env(spec).push(var(serde_json::json!({"name": "PIN", "secret": true, "prompt": true, "required": true})));
    })
    .await;
    let asked = rig.lifecycle.installation(id).await.unwrap().value;
    assert_eq!(asked.reinstall_required, Some(ReinstallReason::NewInput(vec!["PIN".to_owned()])));
}

#[tokio::test(start_paused = true)]
async fn an_installation_that_gave_secrets_that_nobody_asks_for_any_more_has_none() {
    let rig = Rig::new();
    let (entry, id) = installed(&rig).await;
    rig.resave(&entry, |spec| env(spec).retain(|var| var.name != "API_KEY")).await;
    rig.quiet().await;
    let after = rig.ready(id).await;
    assert_eq!((after.secrets, after.secret_fields.len()), (None, 0));
    assert_eq!(rig.references().await, 1);
}
