//! Installing: what comes of it, and that nothing is left when it fails.

use super::*;
use archestra_core::{
    ErrorKind,
    runtime::{EnvValue, Phase, WorkloadStatus},
    testing::Faulty,
};

#[tokio::test(start_paused = true)]
async fn a_remote_server_is_ready_at_once_with_its_tools_assigned() {
    let rig = Rig::new();
    let mut spec = remote("tracker");
    spec.labels.insert("department", "finance");
    let gateway = rig.save_consumer(automatic("finance", "department", "finance")).await.unwrap();
    let entry = rig.save(spec).await;
    let installed = rig.install(&entry, owner(), &[("token", "t0k")]).await.unwrap();
    assert_eq!(installed.value.state, InstallationState::Ready);
    assert_eq!(installed.value.tools.keys().collect::<Vec<_>>(), ["add", "echo"]);
    assert_eq!(
        installed,
        rig.lifecycle.installation(installed.value.id).await.unwrap(),
        "what is returned is what is stored"
    );
    assert_eq!(installed.value.secret_fields.iter().collect::<Vec<_>>(), ["token"]);
    assert_eq!(rig.references().await, 1);
    assert_eq!(rig.names(gateway.value.id).await, ["tracker__add", "tracker__echo"]);
}

#[tokio::test(start_paused = true)]
async fn a_self_hosted_server_starts_and_is_listed_in_the_background() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    rig.discover.fail(3, &DiscoverError::Unreachable { reason: "starting".to_owned() });
    let installed = rig.install(&entry, owner(), &[("API_KEY", "k3y")]).await.unwrap();
    assert_eq!(installed.value.state, InstallationState::Pending);
    let ready = rig.ready(installed.value.id).await;
    assert_eq!(ready.tools.len(), 2);
    assert_eq!(rig.discover.asked(), 4);

    let workload = rig.runtime.only();
    assert_eq!(workload.spec.args, ["--region=eu"]);
    let secret = |key: &str| workload.secrets.get(key).map(SecretValue::expose);
    assert_eq!((secret("API_KEY"), secret("env.LICENSE")), (Some("k3y"), Some("l1cense")));
    assert!(workload.spec.env.iter().any(|var| var.value == EnvValue::Secret("API_KEY".to_owned())));
    let revisions = rig.lifecycle.revisions(ready.id).await.unwrap();
    assert_eq!(revisions.len(), 1);
    assert_eq!(revisions[0].spec.namespace.as_deref(), Some("servers"), "where it runs is remembered");
    assert!(!serde_json::to_string(&revisions).unwrap().contains("k3y"), "a stored revision holds no secret value");
}

#[tokio::test(start_paused = true)]
async fn bad_input_leaves_nothing_behind() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let kind = async |values: &[(&str, &str)]| rig.install(&entry, owner(), values).await.unwrap_err();
    let missing = kind(&[]).await;
    assert_eq!(missing.kind(), ErrorKind::Invalid);
    assert!(missing.to_string().contains("values.API_KEY"), "{missing}");
    assert_eq!(kind(&[("API_KEY", "  ")]).await.kind(), ErrorKind::Invalid);
    assert_eq!(kind(&[("API_KEY", "k"), ("UNKNOWN", "x")]).await.kind(), ErrorKind::Invalid);

    rig.runtime.refuse_next(Error::invalid("command", "server does not exist", "install it"));
    let refused = kind(&[("API_KEY", "k3y")]).await;
    assert!(refused.to_string().contains("server does not exist"), "{refused}");
    rig.quiet().await;
    rig.assert_untouched(&entry.value).await;
    assert_eq!(
        rig.lifecycle.install(request(&fixture_entry(), owner(), &[])).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

fn fixture_entry() -> Versioned<Entry> {
    Versioned { version: archestra_core::feed::Version(1), value: fixtures::remote_entry("nowhere") }
}

/// Has somebody edit the entry a second after `installing` began.
async fn edited_meanwhile<T>(
    rig: &Rig,
    entry: &Versioned<Entry>,
    installing: impl Future<Output = T>,
    change: impl FnOnce(&mut EntrySpec),
) -> T {
    let editing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.resave(entry, change).await;
    };
    tokio::join!(installing, editing).0
}

#[tokio::test(start_paused = true)]
async fn what_is_installed_is_the_entry_as_it_is_then() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    rig.discover.take(Duration::from_secs(2));
    let installing = rig.install(&entry, owner(), &[("token", "t")]);
    let elsewhere =
        |spec: &mut EntrySpec| spec.remote.as_mut().unwrap().url = "https://other.example.com/mcp".to_owned();
    edited_meanwhile(&rig, &entry, installing, elsewhere).await.unwrap();
    assert_eq!(rig.discover.asked(), 2, "the server that is there now was asked too");
    assert_eq!(rig.references().await, 1);

    let installing = rig.install(&entry, owner(), &[("token", "t")]);
    let described = |spec: &mut EntrySpec| spec.description = Some("d".to_owned());
    edited_meanwhile(&rig, &entry, installing, described).await.unwrap();
    assert_eq!(rig.discover.asked(), 3, "what it listed holds, for it would be asked in the same way");

    let installing = rig.install(&entry, owner(), &[("token", "t")]);
    let asks_more = |spec: &mut EntrySpec| {
        let header = serde_json::json!([{"name": "x-tenant", "prompt": true, "required": true}]);
        spec.additional_headers = serde_json::from_value(header).unwrap();
    };
    let refused = edited_meanwhile(&rig, &entry, installing, asks_more).await.unwrap_err();
    assert!(refused.to_string().contains("values.x-tenant"), "{refused}");
    assert_eq!((rig.references().await, rig.all::<Installation>().await.len()), (2, 2), "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn a_workload_is_made_of_the_entry_as_it_is_then() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let slow = Arc::new(Faulty::new(Arc::new(rig.secrets.clone())));
    slow.faults().delay(Duration::from_secs(2));
    let parts = LifecycleParts {
        catalog: Arc::new(rig.catalog.clone()),
        secrets: slow,
        runtime: Some(Arc::new(rig.runtime.clone())),
        discover: Arc::new(rig.discover.clone()),
        options: LifecycleOptions::default(),
    };
    let replica = Lifecycle::new(parts);
    let installing = replica.install(request(&entry, owner(), &[("API_KEY", "k")]));
    let other = |spec: &mut EntrySpec| spec.self_hosted.as_mut().unwrap().command = vec!["other".to_owned()];
    let id = edited_meanwhile(&rig, &entry, installing, other).await.unwrap().value.id;
    rig.ready(id).await;
    assert_eq!(rig.runtime.only().spec.command, ["other"]);
    assert_eq!(rig.lifecycle.revisions(id).await.unwrap().len(), 1);
    assert_eq!(rig.references().await, 2, "the entry's and the installation's");
    replica.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_remote_server_that_does_not_answer_leaves_nothing_behind() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    let failures = [
        (DiscoverError::Unreachable { reason: "connection refused".to_owned() }, ErrorKind::Unavailable),
        (DiscoverError::Unauthorized { reason: "401".to_owned() }, ErrorKind::Invalid),
        (DiscoverError::Protocol { reason: "not JSON".to_owned() }, ErrorKind::Backend),
        (DiscoverError::Timeout, ErrorKind::Timeout),
    ];
    for (failure, expected) in failures {
        rig.discover.fail(1, &failure);
        let error = rig.install(&entry, owner(), &[("token", "t0k")]).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert!(!error.to_string().contains("t0k"));
        rig.assert_untouched(&entry.value).await;
    }
    rig.discover.hang();
    assert_eq!(rig.install(&entry, owner(), &[("token", "t0k")]).await.unwrap_err().kind(), ErrorKind::Timeout);
    rig.assert_untouched(&entry.value).await;
}

#[tokio::test(start_paused = true)]
async fn one_owner_installs_an_entry_once() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    let owner = owner();
    let attempts = futures::future::join_all((0..8).map(|_| rig.install(&entry, owner, &[("token", "t")]))).await;
    let (done, refused): (Vec<_>, Vec<_>) = attempts.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1);
    assert!(refused.iter().all(|error| error.as_ref().unwrap_err().kind() == ErrorKind::AlreadyExists));
    assert_eq!(rig.references().await, 1, "the secrets of the refused ones are gone");
    let error = rig.install(&entry, owner, &[("token", "t")]).await.unwrap_err();
    assert!(error.to_string().contains("reinstall"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn many_owners_at_once_share_the_rows_of_tools() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    let attempts = futures::future::join_all((0..4).map(|_| rig.install(&entry, owner(), &[("token", "t")]))).await;
    assert!(attempts.iter().all(Result::is_ok), "{attempts:?}");
    assert_eq!(rig.all::<Tool>().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_runtime_a_server_can_be_saved_but_not_installed() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let bare = Lifecycle::new(LifecycleParts {
        catalog: Arc::new(rig.catalog.clone()),
        secrets: Arc::new(rig.secrets.clone()),
        runtime: None,
        discover: Arc::new(rig.discover.clone()),
        options: LifecycleOptions::default(),
    });
    assert_eq!(
        bare.install(request(&entry, owner(), &[("API_KEY", "k")])).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
    bare.save_entry(None, draft(hosted("others")), Expect::Any).await.unwrap();
    rig.assert_nothing_installed().await;
}

impl Rig {
    async fn assert_nothing_installed(&self) {
        assert!(self.all::<Installation>().await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_start_that_fails_says_why_and_a_later_one_is_noticed() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let failing = WorkloadStatus::new(Phase::Error).because("exited with 1", Some("read its logs".to_owned()));
    rig.runtime.start_in(failing);
    let stop = CancellationToken::new();
    let reconciler = tokio::spawn({
        let (lifecycle, stop) = (rig.lifecycle.clone(), stop.clone());
        async move { lifecycle.run(stop).await }
    });
    let installed = rig.install(&entry, owner(), &[("API_KEY", "k")]).await.unwrap();
    let failed = rig.until(installed.value.id, |one| matches!(one.state, InstallationState::Error { .. })).await;
    assert_eq!(
        failed.state,
        InstallationState::Error { reason: "exited with 1".to_owned(), hint: Some("read its logs".to_owned()) }
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.runtime.set(failed.workload.as_ref().unwrap(), Phase::Running);
    rig.ready(failed.id).await;
    stop.cancel();
    reconciler.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_ends_in_an_error() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    rig.discover.hang();
    let installed = rig.install(&entry, owner(), &[("API_KEY", "k")]).await.unwrap();
    let failed = rig.until(installed.value.id, |one| matches!(one.state, InstallationState::Error { .. })).await;
    assert_eq!(rig.discover.asked(), 6);
    let InstallationState::Error { reason, hint } = failed.state else { unreachable!() };
    assert!(reason.contains("in time") && hint.unwrap().contains("logs"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn credential_models_with_a_flow_of_their_own_are_refused_clearly() {
    let rig = Rig::new();
    let mut spec = fixtures::entry_spec("oauth");
    spec.credential = serde_json::from_value(serde_json::json!({"oauth": {}})).unwrap();
    let entry = rig.save(spec).await;
    let error = rig.install(&entry, owner(), &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    rig.assert_untouched(&entry.value).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_leaves_nothing_half_done() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    let lifecycle = rig.lifecycle.clone();
    let request = request(&entry, owner(), &[("token", "t")]);
    let call = tokio::spawn(async move { lifecycle.install(request).await });
    tokio::task::yield_now().await;
    call.abort();
    rig.quiet().await;
    let installed = rig.all::<Installation>().await;
    assert_eq!((installed.len(), rig.references().await), (1, 1));
    assert_eq!(installed[0].state, InstallationState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_shared_deployment_runs_once_and_goes_with_its_last_installation() {
    let rig = Rig::new();
    let mut spec = hosted("shared");
    let own = spec.self_hosted.as_mut().unwrap();
    own.transport = archestra_core::catalog::Transport::StreamableHttp;
    own.env.retain(|var| !var.prompt);
    own.args.clear();
    spec.shared_deployment = true;
    let entry = rig.save(spec).await;
    let first = rig.install(&entry, owner(), &[]).await.unwrap().value.id;
    let second = rig.install(&entry, owner(), &[]).await.unwrap().value.id;
    rig.ready(first).await;
    rig.ready(second).await;
    assert_eq!(rig.runtime.only().id, WorkloadId::of_entry(entry.value.id));
    assert_eq!(rig.runtime.applies(), 1);
    rig.lifecycle.remove(first).await.unwrap();
    assert_eq!(rig.runtime.applied().len(), 1);
    rig.lifecycle.remove(second).await.unwrap();
    assert!(rig.runtime.applied().is_empty());
    assert!(rig.lifecycle.history(&WorkloadId::of_entry(entry.value.id)).await.unwrap().is_empty());
}
