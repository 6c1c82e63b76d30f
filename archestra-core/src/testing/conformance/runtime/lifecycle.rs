//! Applying, watching, restarting, removing.

use super::{RuntimeFixture, client::Client};
use crate::{
    Error, ErrorKind,
    catalog::{EnvFrom, EnvFromKind, Scope},
    id::InstallationId,
    runtime::{
        EnvValue, LogOptions, Phase, RevisionNumber, Workload, WorkloadEnv, WorkloadEvent, WorkloadId,
        WorkloadPullSecret, WorkloadSummary,
    },
    testing::conformance::{RACERS, fails, race, works},
};
use futures::StreamExt as _;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::timeout;

fn variable(name: &str, value: EnvValue) -> WorkloadEnv {
    WorkloadEnv { name: name.to_owned(), value }
}

/// What is applied comes to run, with its revision, and is listed.
pub async fn runs_what_is_applied(fixture: &RuntimeFixture) {
    let runtime = &fixture.runtime;
    assert!(works(runtime.list().await, "workloads can be listed").is_empty(), "the suite begins without workloads");
    let workload = fixture.echo();
    let applied = works(runtime.apply(&workload).await, "a workload can be applied");
    assert!(applied.changed, "creating a workload is a change");
    assert_eq!(applied.revision, workload.revision, "applying answers with the revision that is desired now");
    let status = fixture.ready(&workload.id).await;
    assert_eq!(status.revision, Some(workload.revision), "a workload that runs says which revision that is");
    assert!(status.started_at.is_some(), "a workload that runs says since when");
    let listed: Vec<_> =
        works(runtime.list().await, "workloads can be listed").into_iter().map(|summary| summary.id).collect();
    assert_eq!(listed, [workload.id], "a list holds what was applied");
}

/// Applying what is there changes nothing, restarts nothing, and leaves connections alone.
pub async fn applying_again_changes_nothing(fixture: &RuntimeFixture) {
    let workload = fixture.running().await;
    let mut client = Client::connect(fixture.channel(&workload.id).await, fixture.limit).await;
    let before = fixture.ready(&workload.id).await;
    let applied = works(fixture.runtime.apply(&workload).await, "a workload can be applied again");
    assert!(!applied.changed, "applying what is there changes nothing");
    client.echo(json!(1), "still here").await;
    let after = fixture.ready(&workload.id).await;
    assert_eq!(
        (after.started_at, after.restarts),
        (before.started_at, before.restarts),
        "applying what is there restarts nothing"
    );
}

/// Another specification under the same id is rolled out.
pub async fn a_changed_workload_is_rolled(fixture: &RuntimeFixture) {
    let mut workload = fixture.running().await;
    workload.revision = RevisionNumber(2);
    workload.spec.env.push(variable("CONFORMANCE", EnvValue::Plain("2".to_owned())));
    let applied = works(fixture.runtime.apply(&workload).await, "a changed workload can be applied");
    assert!(applied.changed, "another specification is a change");
    assert_eq!(applied.revision, RevisionNumber(2), "applying answers with the revision that is desired now");
    fixture
        .status_where(&workload.id, "the new revision runs", |status| {
            status.phase == Phase::Running && status.revision == Some(RevisionNumber(2))
        })
        .await;
    let mut client = Client::connect(fixture.channel(&workload.id).await, fixture.limit).await;
    client.echo(json!(1), "rolled").await;
    assert_eq!(
        works(fixture.runtime.list().await, "workloads can be listed").len(),
        1,
        "rolling makes no second workload"
    );
}

/// Whoever comes late with an older revision does not overwrite a newer one.
pub async fn an_older_revision_is_refused(fixture: &RuntimeFixture) {
    let mut newer = fixture.echo();
    newer.revision = RevisionNumber(2);
    newer.spec.env.push(variable("CONFORMANCE", EnvValue::Plain("2".to_owned())));
    works(fixture.runtime.apply(&newer).await, "a workload can be applied");
    let before = fixture.ready(&newer.id).await;
    let older = Workload { id: newer.id.clone(), revision: RevisionNumber(1), ..fixture.echo() };
    let refused = fixture.runtime.apply(&older).await;
    let told = refused.as_ref().is_err_and(Error::is_stale_revision);
    assert!(told, "that an older revision is refused is told from other conflicts: {refused:?}");
    fails(refused.map(drop), ErrorKind::Conflict, "an older revision than the one that is there is refused");
    let after = fixture.ready(&newer.id).await;
    assert_eq!(
        (after.revision, after.started_at),
        (Some(RevisionNumber(2)), before.started_at),
        "what is refused changes nothing"
    );
    let again = works(fixture.runtime.apply(&newer).await, "the newer revision can be applied again");
    assert!(!again.changed, "what is refused changes nothing");
}

/// Applying the same workload from many sides at once makes one of it.
pub async fn parallel_applies_make_one_workload(fixture: &RuntimeFixture) {
    let workload = fixture.echo();
    race((0..RACERS).map(|_| {
        let (runtime, workload) = (Arc::clone(&fixture.runtime), workload.clone());
        async move { works(runtime.apply(&workload).await, "a workload can be applied from many sides at once") }
    }))
    .await;
    fixture.ready(&workload.id).await;
    assert_eq!(works(fixture.runtime.list().await, "workloads can be listed").len(), 1, "one id is one workload");
}

/// What does not exist is `NotFound`, but for its removal, which succeeds.
pub async fn unknown_workloads_are_not_found(fixture: &RuntimeFixture) {
    let (runtime, id) = (&fixture.runtime, WorkloadId::of_installation(InstallationId::new()));
    fails(runtime.status(&id).await, ErrorKind::NotFound, "the status of an unknown workload is not found");
    fails(
        runtime.logs(&id, LogOptions::default()).await.map(|_| ()),
        ErrorKind::NotFound,
        "the log of an unknown workload is not found",
    );
    fails(runtime.restart(&id).await, ErrorKind::NotFound, "an unknown workload cannot be restarted");
    fails(runtime.connect(&id).await, ErrorKind::NotFound, "an unknown workload cannot be connected to");
    works(runtime.remove(&id).await, "removing an unknown workload succeeds");
}

/// A removed workload is in no list and has no status; removing it again succeeds; others stay.
pub async fn removal_leaves_nothing(fixture: &RuntimeFixture) {
    let (gone, stays) = (fixture.running().await, fixture.running().await);
    for promise in ["a workload can be removed", "removing what is absent succeeds"] {
        works(fixture.runtime.remove(&gone.id).await, promise);
    }
    fixture.listed_exactly(&[&stays.id]).await;
    fails(fixture.runtime.status(&gone.id).await, ErrorKind::NotFound, "a removed workload has no status");
    fails(fixture.runtime.connect(&gone.id).await, ErrorKind::NotFound, "a removed workload cannot be connected to");
    let mut client = Client::connect(fixture.channel(&stays.id).await, fixture.limit).await;
    client.echo(json!(1), "still here").await;
}

/// An id can be applied again once it was removed.
pub async fn a_removed_workload_can_be_applied_again(fixture: &RuntimeFixture) {
    let workload = fixture.running().await;
    works(fixture.runtime.remove(&workload.id).await, "a workload can be removed");
    assert!(
        works(fixture.runtime.apply(&workload).await, "a removed workload can be applied again").changed,
        "creating a workload is a change"
    );
    fixture.ready(&workload.id).await;
    let mut client = Client::connect(fixture.channel(&workload.id).await, fixture.limit).await;
    client.echo(json!(1), "back again").await;
}

/// A watch begins with a snapshot, whenever it is opened, and then tells every change in order.
pub async fn a_watch_tells_everything_from_now_on(fixture: &RuntimeFixture) {
    let first = fixture.running().await;
    let mut watch = Watch::open(fixture).await;
    assert_eq!(watch.state.keys().collect::<Vec<_>>(), [&first.id], "a snapshot holds what there is");
    assert_eq!(watch.state[&first.id].status.phase, Phase::Running, "a snapshot says how it is");

    let second = fixture.running().await;
    watch
        .until("a watch tells of a new workload that runs", |state| {
            state.get(&second.id).is_some_and(|summary| summary.status.phase == Phase::Running)
        })
        .await;
    works(fixture.runtime.remove(&first.id).await, "a workload can be removed");
    watch.until("a watch tells of a removal", |state| !state.contains_key(&first.id)).await;
    assert!(watch.state.contains_key(&second.id), "a watch tells of the removal of what was removed only");
}

/// A watch, and what its events add up to.
struct Watch<'a> {
    fixture: &'a RuntimeFixture,
    events: futures::stream::BoxStream<'static, crate::Result<WorkloadEvent>>,
    state: BTreeMap<WorkloadId, WorkloadSummary>,
}

impl<'a> Watch<'a> {
    async fn open(fixture: &'a RuntimeFixture) -> Self {
        let mut watch = Self { fixture, events: fixture.runtime.watch(), state: BTreeMap::new() };
        match watch.next().await {
            WorkloadEvent::Snapshot(all) => {
                watch.state = all.into_iter().map(|summary| (summary.id.clone(), summary)).collect()
            }
            other => panic!("a watch begins with a snapshot, not with {other:?}"),
        }
        watch
    }

    async fn next(&mut self) -> WorkloadEvent {
        match timeout(self.fixture.limit, self.events.next()).await {
            Ok(Some(event)) => works(event, "a watch of a reachable runtime sends no errors"),
            Ok(None) => panic!("a watch does not end"),
            Err(_) => panic!("a watch tells of changes; nothing came within {:?}", self.fixture.limit),
        }
    }

    async fn until(
        &mut self,
        what: &str,
        holds: impl Fn(&BTreeMap<WorkloadId, WorkloadSummary>) -> bool + Send + Sync,
    ) {
        let limit = self.fixture.limit;
        let read = async {
            while !holds(&self.state) {
                match self.next().await {
                    WorkloadEvent::Snapshot(all) => {
                        self.state = all.into_iter().map(|summary| (summary.id.clone(), summary)).collect()
                    }
                    WorkloadEvent::Changed(summary) => {
                        self.state.insert(summary.id.clone(), summary);
                    }
                    WorkloadEvent::Removed(id) => {
                        self.state.remove(&id);
                    }
                    WorkloadEvent::ToolsChanged(_) => {}
                }
            }
        };
        assert!(timeout(limit, read).await.is_ok(), "not within {limit:?}: {what}");
    }
}

/// A restart ends what ran and starts it anew; nobody counts it as a failure.
pub async fn a_restart_starts_anew(fixture: &RuntimeFixture) {
    let workload = fixture.running().await;
    let before = fixture.ready(&workload.id).await;
    works(fixture.runtime.restart(&workload.id).await, "a workload can be restarted");
    let after = fixture
        .status_where(&workload.id, "it was started again", |status| {
            status.phase == Phase::Running && status.started_at > before.started_at
        })
        .await;
    assert_eq!(after.restarts, before.restarts, "a restart that somebody asked for is not counted");
    let mut client = Client::connect(fixture.channel(&workload.id).await, fixture.limit).await;
    client.echo(json!(1), "started anew").await;
}

/// A shutdown ends, also the second time, and also with workloads and connections.
pub async fn shutdown_can_be_repeated(fixture: &RuntimeFixture) {
    let workload = fixture.running().await;
    let _channel = fixture.channel(&workload.id).await;
    for _ in 0..2 {
        assert!(
            timeout(fixture.limit, fixture.runtime.shutdown()).await.is_ok(),
            "a shutdown ends within {:?}",
            fixture.limit
        );
    }
}

/// What the runtime says it can do it accepts, and what it cannot it refuses with a finding.
pub async fn refuses_what_it_cannot_do(fixture: &RuntimeFixture) {
    let runtime = &fixture.runtime;
    let can = runtime.capabilities();
    assert_eq!(runtime.validate(&fixture.echo), [], "the echo server is a valid workload");
    let mut refused = Vec::new();
    let mut with_image = fixture.echo.clone();
    with_image.image = Some("registry.example.com/mcp/server:1".to_owned());
    refused.push((can.images, with_image.clone(), "an image"));
    let mut with_pull_secret = with_image;
    with_pull_secret.pull_secrets = vec![WorkloadPullSecret::Existing { name: "regcred".to_owned() }];
    refused.push((can.images && can.pull_secrets, with_pull_secret, "a pull secret"));
    let mut with_env_from = fixture.echo.clone();
    let source = EnvFrom { kind: EnvFromKind::Secret, name: "shared".to_owned(), prefix: None };
    with_env_from.env_from = vec![source];
    refused.push((can.env_from, with_env_from, "variables from a Secret"));
    let mut with_override = fixture.echo.clone();
    with_override.deployment_yaml = Some("spec: {template: {spec: {nodeSelector: {disk: ssd}}}}".to_owned());
    refused.push((can.overrides, with_override, "deployment YAML"));
    for (able, spec, what) in refused {
        let findings = runtime.validate(&spec);
        assert_eq!(
            findings.is_empty(),
            able,
            "{what} is accepted exactly if the runtime is capable of it: {findings:?}"
        );
        assert!(
            findings.iter().all(|finding| !finding.reason.is_empty() && !finding.remedy.is_empty()),
            "a finding says why and what to do: {findings:?}"
        );
    }
    match runtime.pull_secrets(&Scope::Organization).await {
        Ok(secrets) => {
            assert!(can.pull_secrets || secrets.is_empty(), "a runtime that pulls without secrets offers none")
        }
        Err(error) => assert!(
            !can.pull_secrets && error.kind() == ErrorKind::Unsupported,
            "a runtime that pulls with secrets lists them: {error:?}"
        ),
    }
}

/// No secret value is in a manifest, a status, a list, a log line of the platform, or debug output.
pub async fn shows_no_secret(fixture: &RuntimeFixture) {
    const CANARY: &str = "canary-4711-do-not-print";
    let mut workload: Workload = fixture.echo();
    workload.spec.env.push(variable("CONFORMANCE_SECRET", EnvValue::Secret("env.CONFORMANCE_SECRET".to_owned())));
    workload.secrets.insert("env.CONFORMANCE_SECRET".to_owned(), CANARY.into());
    let runtime = &fixture.runtime;
    let mut seen = works(runtime.render(&workload).await, "a workload can be rendered").documents;
    assert!(!seen.is_empty(), "a manifest says what applying would do");
    seen.push(format!("{:?}", works(runtime.apply(&workload).await, "a workload with secrets can be applied")));
    seen.push(format!("{:?}", fixture.ready(&workload.id).await));
    seen.push(format!("{:?}", works(runtime.list().await, "workloads can be listed")));
    seen.push(format!("{:?}", fixture.log(&workload.id, LogOptions { tail: None, ..LogOptions::default() }).await));
    seen.push(format!("{runtime:?}"));
    seen.push(format!("{workload:?}"));
    for text in seen {
        assert!(!text.contains(CANARY), "no secret value is shown anywhere");
    }
}
