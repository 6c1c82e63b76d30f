//! The process runtime with real processes: the servers are this test binary itself, started once more with a `mode=`.

#![cfg(target_os = "linux")]

#[cfg(test)]
mod process {
    pub(crate) mod fixture;
    pub(crate) mod help;
    mod ports;
    mod takeover;
}

use archestra_core::{
    Error, ErrorKind,
    catalog::{EnvFrom, EnvFromKind},
    runtime::{
        Connection, EnvValue, LogOptions, LogSource, Phase, Runtime, WorkloadEnv, WorkloadEvent, WorkloadTransport,
        process::{Backoff, ProcessRuntime},
    },
    secret::SecretValue,
    testing::conformance::runtime::RuntimeFixture,
};
use futures::StreamExt;
use process::{
    fixture,
    help::{Place, call, channel, phase, ready, until, until_begun, workload},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

archestra_core::runtime_conformance!(conformance, conforming());

/// A command that does not exist is no part of it: `apply` refuses that.
#[cfg(test)]
async fn conforming() -> RuntimeFixture {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let place = Place::new(&format!("conformance-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let mut config = place.config();
    config.connect_wait = Duration::from_secs(5);
    let runtime = ProcessRuntime::start(config).await.unwrap();
    let spec = |mode| workload(&place, mode).spec;
    RuntimeFixture::new(Arc::new(runtime), spec("mode=mcp"))
        .started_line("fixture is up")
        .exits(spec("mode=crash"))
        .silent(spec("mode=silent"))
        .keeping(place)
}

/// Not a test: what the workloads of the others run.
#[test]
fn fixture_process() {
    fixture::main();
}

#[tokio::test]
async fn a_stdio_server_is_started_called_and_removed() {
    let place = Place::new("echo");
    let runtime = place.runtime().await;
    let work = workload(&place, "mode=mcp");
    let mut watch = runtime.watch();
    assert_eq!(watch.next().await.unwrap().unwrap(), WorkloadEvent::Snapshot(Vec::new()));
    assert!(runtime.apply(&work).await.unwrap().changed);
    assert!(!runtime.apply(&work).await.unwrap().changed);
    let mut channel = channel(&runtime, &work.id).await;
    assert!(call(&mut channel, 1, "echo", "hello").await.contains("hello"));
    assert_eq!(runtime.status(&work.id).await.unwrap().phase, Phase::Running);
    assert_eq!(runtime.list().await.unwrap().len(), 1);
    assert!(place.directory(&work.id).join("home").is_dir());

    runtime.remove(&work.id).await.unwrap();
    assert_eq!(runtime.status(&work.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(place.alive(), Vec::<String>::new());
    assert!(!place.directory(&work.id).exists());
    runtime.remove(&work.id).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&WorkloadEvent::Removed(work.id.clone())) {
        let event = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
        seen.push(event.unwrap_or_else(|_| panic!("no word of the removal: {seen:?}")).unwrap().unwrap());
    }
    assert!(
        seen.iter()
            .any(|event| matches!(event, WorkloadEvent::Changed(summary) if summary.status.phase == Phase::Running))
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn calls_of_many_callers_are_under_way_at_once() {
    let place = Place::new("slow");
    let runtime = place.runtime().await;
    let work = workload(&place, "mode=mcp");
    runtime.apply(&work).await.unwrap();
    ready(&runtime, &work.id).await;
    let mut channels = Vec::new();
    for _ in 0..64 {
        channels.push(channel(&runtime, &work.id).await);
    }
    // None is answered before all have arrived.
    let calls = channels.iter_mut().map(|channel| call(channel, 7, "meet", "64"));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.contains("met 64")), "{answers:?}");
    runtime.shutdown().await;
    assert_eq!(place.alive(), Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_server_fails_what_is_under_way_and_answers_again_after_its_restart() {
    let place = Place::new("killed");
    let runtime = place.runtime().await;
    let work = workload(&place, "mode=mcp");
    runtime.apply(&work).await.unwrap();
    let mut under_way = channel(&runtime, &work.id).await;
    let mut other = channel(&runtime, &work.id).await;
    let (failed, ()) = tokio::join!(call(&mut under_way, "abc", "sleep", "60000"), async {
        until_begun(&mut other, 1).await;
        place.kill_child();
    });
    assert!(failed.contains("\"error\"") && failed.contains("\"abc\""), "{failed}");
    let _ended = other.recv().await;
    let mut channel = channel(&runtime, &work.id).await;
    assert!(call(&mut channel, 1, "echo", "back").await.contains("back"));
    let status = ready(&runtime, &work.id).await;
    assert_eq!(status.restarts, 1);
    let logs = place.log_texts(&runtime, &work.id, LogOptions::default()).await;
    assert!(logs.iter().any(|line| line.contains("was ended by signal 9 (SIGKILL)")), "{logs:?}");
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_crash_loop_is_shown_as_an_error_with_the_last_words() {
    let place = Place::new("crash");
    let mut config = place.config();
    config.backoff = Backoff { first: Duration::from_millis(10), failures_until_error: 3, ..Backoff::default() };
    let runtime = ProcessRuntime::start(config).await.unwrap();
    let mut work = workload(&place, "mode=crash");
    work.spec.env.push(WorkloadEnv { name: "API_KEY".to_owned(), value: EnvValue::Secret("k".to_owned()) });
    work.secrets.insert("k".to_owned(), SecretValue::new(format!("{}\nlast-line", "s3cr3t-value".repeat(80))));
    runtime.apply(&work).await.unwrap();
    let status = phase(&runtime, &work.id, Phase::Error).await;
    assert_eq!(status.reason.as_deref(), Some("exited with code 3"));
    let hint = status.hint.unwrap();
    assert!(hint.contains("cannot go on with <redacted>") && !hint.contains("last-line"), "{hint}");
    assert!(status.restarts >= 3);
    let error = runtime.connect(&work.id).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("exited with code 3"), "{error}");
    runtime.remove(&work.id).await.unwrap();
    assert_eq!(place.alive(), Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_never_answers_is_an_error_and_is_ended() {
    // The second ends by itself when it is given up; that is not why it failed.
    for mode in ["silent", "mute"] {
        let place = Place::new(mode);
        let mut config = place.config();
        config.ready_timeout = Duration::from_millis(700);
        config.backoff.first = Duration::from_secs(30);
        let runtime = ProcessRuntime::start(config).await.unwrap();
        let work = workload(&place, &format!("mode={mode}"));
        runtime.apply(&work).await.unwrap();
        let status = phase(&runtime, &work.id, Phase::Error).await;
        assert!(status.reason.as_deref().unwrap().contains("initialize"), "{status:?}");
        assert_eq!(place.alive(), Vec::<String>::new());
        runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_server_that_dies_of_the_probe_is_started_again_as_a_legacy_one() {
    let place = Place::new("probe");
    let runtime = place.runtime().await;
    let work = workload(&place, "mode=dies-of-probe");
    runtime.apply(&work).await.unwrap();
    let status = ready(&runtime, &work.id).await;
    assert_eq!(status.restarts, 0);
    place.kill_child();
    until("the second start", || async { runtime.status(&work.id).await.unwrap().restarts == 1 }).await;
    ready(&runtime, &work.id).await;
    let logs = place.log_texts(&runtime, &work.id, LogOptions { tail: None, ..LogOptions::default() }).await;
    assert_eq!(logs.iter().filter(|line| line.contains("as a legacy server")).count(), 1, "{logs:?}");
    runtime.shutdown().await;
}

#[tokio::test]
async fn logs_are_followed_over_restarts_until_the_removal() {
    let place = Place::new("logs");
    let runtime = place.runtime().await;
    let work = workload(&place, "mode=mcp");
    runtime.apply(&work).await.unwrap();
    ready(&runtime, &work.id).await;
    let mut follow =
        runtime.logs(&work.id, LogOptions { follow: true, tail: None, ..LogOptions::default() }).await.unwrap();
    runtime.restart(&work.id).await.unwrap();
    let mut own = 0;
    while own < 2 {
        let line = tokio::time::timeout(Duration::from_secs(60), follow.next()).await.unwrap().unwrap().unwrap();
        if line.source == LogSource::Server && line.text.contains("fixture is up") {
            own += 1;
        }
    }
    ready(&runtime, &work.id).await;
    assert_eq!(runtime.status(&work.id).await.unwrap().restarts, 0);
    let previous = place.log_texts(&runtime, &work.id, LogOptions { previous: true, ..LogOptions::default() }).await;
    assert!(previous.iter().any(|line| line.contains("stopped")), "{previous:?}");
    runtime.remove(&work.id).await.unwrap();
    let rest = tokio::time::timeout(Duration::from_secs(30), follow.collect::<Vec<_>>()).await.unwrap();
    assert!(rest.iter().all(Result::is_ok));
}

#[tokio::test]
async fn removal_ends_descendants_that_left_the_group_and_ignore_sigterm() {
    let place = Place::new("tree");
    let mut config = place.config();
    config.stop_grace = Duration::from_millis(500);
    let runtime = ProcessRuntime::start(config).await.unwrap();
    let work = workload(&place, "mode=tree");
    runtime.apply(&work).await.unwrap();
    ready(&runtime, &work.id).await;
    until("the whole tree", || async { place.alive().len() >= 4 }).await;
    runtime.remove(&work.id).await.unwrap();
    assert_eq!(place.alive(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_killed_child_left_is_ended_before_the_restart() {
    let place = Place::new("leftover");
    let runtime = place.runtime().await;
    let work = workload(&place, "mode=tree");
    runtime.apply(&work).await.unwrap();
    ready(&runtime, &work.id).await;
    until("the whole tree", || async { place.alive().len() >= 4 }).await;
    let before = place.pids();
    place.kill_child();
    until("the restart", || async { runtime.status(&work.id).await.unwrap().restarts == 1 }).await;
    ready(&runtime, &work.id).await;
    let after = place.pids();
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
    runtime.shutdown().await;
    assert_eq!(place.alive(), Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_tree_with_it_and_the_server_comes_back() {
    let place = Place::new("supervisor");
    let runtime = place.runtime().await;
    let work = workload(&place, "mode=tree");
    runtime.apply(&work).await.unwrap();
    ready(&runtime, &work.id).await;
    until("the whole tree", || async { place.alive().len() >= 4 }).await;
    let before = place.pids();
    place.kill_supervisor();
    until("the restart", || async { runtime.status(&work.id).await.unwrap().restarts == 1 }).await;
    ready(&runtime, &work.id).await;
    assert!(before.is_disjoint(&place.pids()));
    let mut channel = channel(&runtime, &work.id).await;
    assert!(call(&mut channel, 1, "echo", "again").await.contains("again"));
    runtime.shutdown().await;
    assert_eq!(place.alive(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_lives_five_seconds_after_the_runtime_was_killed() {
    let place = Place::new("orphans");
    let mut parent = place.spawn_parent().await;
    assert!(place.alive().len() >= 4, "{:?}", place.alive());
    parent.kill().await.unwrap();
    let began = Instant::now();
    until("the end of everything", || async { place.alive().is_empty() }).await;
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    let record = place.directory(&workload(&place, "").id).join("run.json");
    assert!(!record.exists(), "the supervisor left its record");
}

#[tokio::test]
async fn what_outlived_runtime_and_supervisor_is_ended_at_the_next_start() {
    let place = Place::new("recovery");
    let mut parent = place.spawn_parent().await;
    let error = ProcessRuntime::start(place.config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    place.kill_supervisor();
    parent.kill().await.unwrap();
    let runtime = place.runtime().await;
    assert_eq!(place.alive(), Vec::<String>::new());
    let listed = runtime.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].status.phase), (1, Phase::Stopped));
    assert_eq!(runtime.connect(&listed[0].id).await.unwrap_err().kind(), ErrorKind::Unavailable);
    runtime.remove(&listed[0].id).await.unwrap();
    assert!(!place.directory(&listed[0].id).exists());
    assert!(runtime.list().await.unwrap().is_empty());
    runtime.shutdown().await;
}

#[tokio::test]
async fn secrets_are_in_the_environment_and_nowhere_else() {
    let place = Place::new("secrets");
    let runtime = place.runtime().await;
    let mut work = workload(&place, "mode=mcp");
    work.spec.env.push(WorkloadEnv { name: "API_KEY".to_owned(), value: EnvValue::Secret("k".to_owned()) });
    work.secrets.insert("k".to_owned(), SecretValue::new("hunter2hunter2"));
    runtime.apply(&work).await.unwrap();
    let mut first = channel(&runtime, &work.id).await;
    assert!(call(&mut first, 1, "env", "API_KEY").await.contains("hunter2hunter2"));
    assert!(call(&mut first, 2, "env", "HOME").await.contains(place.directory(&work.id).to_str().unwrap()));
    assert!(call(&mut first, 3, "env", "CARGO_PKG_NAME").await.contains("<unset>"));
    assert!(place.alive().iter().all(|command| !command.contains("hunter2")), "{:?}", place.alive());
    assert!(!format!("{runtime:?}{:?}", runtime.render(&work).await.unwrap()).contains("hunter2"));
    let record = std::fs::read_to_string(place.directory(&work.id).join("run.json")).unwrap();
    assert!(!record.contains("hunter2"));

    work.secrets.insert("k".to_owned(), SecretValue::new("changed-value"));
    assert!(runtime.apply(&work).await.unwrap().changed);
    until("the new value", || async {
        let mut second = channel(&runtime, &work.id).await;
        call(&mut second, 1, "env", "API_KEY").await.contains("changed-value")
    })
    .await;
    runtime.shutdown().await;
}

#[tokio::test]
async fn an_http_server_is_given_a_port_and_is_ready_when_it_listens() {
    let place = Place::new("http");
    let runtime = place.runtime().await;
    let mut work = workload(&place, "mode=http");
    work.spec.args.push("port=${archestra.http_port}".to_owned());
    work.spec.transport = WorkloadTransport::StreamableHttp { port: None, path: "/mcp".to_owned() };
    runtime.apply(&work).await.unwrap();
    let Connection::Http(first) = runtime.connect(&work.id).await.unwrap() else { panic!("not http") };
    assert!(first.url.starts_with("http://127.0.0.1:") && first.url.ends_with("/mcp"), "{}", first.url);
    runtime.restart(&work.id).await.unwrap();
    until("another process", || async {
        matches!(runtime.connect(&work.id).await, Ok(Connection::Http(second)) if second.generation > first.generation)
    })
    .await;
    let logs = place.log_texts(&runtime, &work.id, LogOptions { tail: None, ..LogOptions::default() }).await;
    assert!(logs.iter().any(|line| line == "on standard output"), "{logs:?}");
    runtime.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused_with_the_field() {
    let place = Place::new("refused");
    let runtime = place.runtime().await;
    let mut work = workload(&place, "mode=mcp");
    work.spec.command = vec!["archestra-no-such-command".to_owned()];
    let Err(Error::Invalid(findings)) = runtime.apply(&work).await else { panic!("not refused") };
    assert_eq!(findings[0].field, "selfHosted.command");
    assert!(findings[0].reason.contains("`archestra-no-such-command` was not found on PATH="), "{findings:?}");
    assert!(runtime.list().await.unwrap().is_empty() && !place.directory(&work.id).exists());

    work.spec.image = Some("image:1".to_owned());
    work.spec.command.clear();
    work.spec.deployment_yaml = Some("spec: {}".to_owned());
    let source = EnvFrom { kind: EnvFromKind::ConfigMap, name: "settings".to_owned(), prefix: None };
    work.spec.env_from = vec![source];
    work.spec.run_as_user = Some(0);
    work.spec.env.push(WorkloadEnv { name: "KEY".to_owned(), value: EnvValue::Mounted("k".to_owned()) });
    let fields: Vec<String> = runtime.validate(&work.spec).into_iter().map(|finding| finding.field).collect();
    assert_eq!(
        fields,
        ["image", "command", "envFrom", "deploymentYaml", "runAsUser", "env[0].mount"]
            .map(|field| format!("selfHosted.{field}"))
    );
    runtime.shutdown().await;
    assert_eq!(runtime.apply(&workload(&place, "mode=mcp")).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_server_whose_tools_change_says_so_to_whoever_watches() {
    let place = Place::new("tools");
    let runtime = place.runtime().await;
    let work = workload(&place, "mode=mcp");
    runtime.apply(&work).await.unwrap();
    let mut channel = channel(&runtime, &work.id).await;
    let watch = runtime.watch();
    call(&mut channel, 1, "change", "").await;
    let said = watch
        .filter(|event| std::future::ready(matches!(event, Ok(WorkloadEvent::ToolsChanged(id)) if *id == work.id)));
    let mut said = std::pin::pin!(said);
    tokio::time::timeout(Duration::from_secs(30), said.next()).await.unwrap().unwrap().unwrap();
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_file_that_is_no_program_is_an_error_at_once() {
    let place = Place::new("noexec");
    let runtime = place.runtime().await;
    let file = place.directory(&workload(&place, "").id).with_extension("txt");
    std::fs::write(&file, "no program").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut work = workload(&place, "mode=mcp");
    work.spec.command = vec![file.to_str().unwrap().to_owned()];
    runtime.apply(&work).await.unwrap();
    let status = phase(&runtime, &work.id, Phase::Error).await;
    assert!(status.reason.as_deref().unwrap().contains("cannot be started: Exec format error"), "{status:?}");
    runtime.remove(&work.id).await.unwrap();
    assert_eq!(place.alive(), Vec::<String>::new());
}

#[tokio::test]
async fn apply_and_remove_of_many_tasks_leave_what_came_last() {
    let place = Place::new("race");
    let runtime = Arc::new(place.runtime().await);
    let work = workload(&place, "mode=mcp");
    for round in 0..5 {
        let tasks: Vec<_> = (0..6)
            .map(|n| {
                let (runtime, work) = (Arc::clone(&runtime), work.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(7 * n * round)).await;
                    if n % 2 == 0 { runtime.apply(&work).await.map(|_| ()) } else { runtime.remove(&work.id).await }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    }
    runtime.apply(&work).await.unwrap();
    let mut channel = channel(&runtime, &work.id).await;
    assert!(call(&mut channel, 1, "echo", "still here").await.contains("still here"));
    assert_eq!(place.alive().len(), 2, "{:?}", place.alive());
    runtime.remove(&work.id).await.unwrap();
    assert_eq!(place.alive(), Vec::<String>::new());
    assert!(runtime.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_renamed_or_renumbered_workload_keeps_its_process() {
    let place = Place::new("renumber");
    let runtime = place.runtime().await;
    let mut work = workload(&place, "mode=mcp");
    runtime.apply(&work).await.unwrap();
    ready(&runtime, &work.id).await;
    let before = place.pids();
    work.revision.0 += 1;
    work.spec.name = "another-name".to_owned();
    assert!(!runtime.apply(&work).await.unwrap().changed);
    until("the new number", || async { runtime.status(&work.id).await.unwrap().revision == Some(work.revision) }).await;
    assert_eq!(place.pids(), before);
    runtime.shutdown().await;
}

#[tokio::test]
async fn what_was_shut_down_can_still_be_removed() {
    let place = Place::new("shut-down");
    let runtime = place.runtime().await;
    let work = workload(&place, "mode=mcp");
    runtime.apply(&work).await.unwrap();
    ready(&runtime, &work.id).await;
    runtime.shutdown().await;
    assert_eq!(runtime.status(&work.id).await.unwrap().phase, Phase::Stopped);
    assert!(place.directory(&work.id).exists());
    runtime.remove(&work.id).await.unwrap();
    assert!(!place.directory(&work.id).exists());
    assert_eq!(runtime.status(&work.id).await.unwrap_err().kind(), ErrorKind::NotFound);
}
