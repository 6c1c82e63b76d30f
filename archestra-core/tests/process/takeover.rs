//! What a runtime takes over from an earlier one, and what it never touches.

use super::help::{Place, ready, until, workload};
use archestra_core::{
    id::InstallationId,
    runtime::{Runtime, WorkloadId},
};
use std::fs;

const MARK: &str = ".archestra-workload";

#[tokio::test]
async fn directories_that_no_workload_made_are_never_touched() {
    let place = Place::new("foreign");
    let unmarked = WorkloadId::of_installation(InstallationId::new());
    let marked = WorkloadId::of_installation(InstallationId::new());
    let other: WorkloadId = "mcp-work".parse().unwrap();
    for name in ["src", unmarked.as_str(), marked.as_str(), other.as_str()] {
        fs::create_dir_all(place.state().join(name).join("tmp")).unwrap();
        fs::write(place.state().join(name).join("tmp/kept"), "mine").unwrap();
    }
    fs::write(place.state().join("lock"), "mine").unwrap();
    fs::write(place.directory(&marked).join(MARK), "").unwrap();
    fs::write(place.directory(&other).join(MARK), "").unwrap();

    let runtime = place.runtime().await;
    let listed: Vec<WorkloadId> = runtime.list().await.unwrap().into_iter().map(|summary| summary.id).collect();
    assert_eq!(listed, std::slice::from_ref(&marked));
    for id in ["src".parse().unwrap(), unmarked.clone(), marked.clone(), other.clone()] {
        runtime.remove(&id).await.unwrap();
        let kept = place.directory(&id).join("tmp/kept");
        assert_eq!(kept.exists(), id != marked, "{}", kept.display());
    }
    assert!(!place.directory(&marked).exists());

    let mut work = workload(&place, "mode=mcp");
    work.id = unmarked.clone();
    runtime.apply(&work).await.unwrap();
    until("the refusal", || async {
        let reason = runtime.status(&unmarked).await.unwrap().reason.unwrap_or_default();
        reason.contains("it exists and the platform did not make it")
    })
    .await;
    runtime.remove(&unmarked).await.unwrap();
    assert!(place.directory(&unmarked).join("tmp/kept").exists());
    assert_eq!(fs::read_to_string(place.state().join("lock")).unwrap(), "mine");
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_directory_that_lost_its_mark_stays() {
    let place = Place::new("unmarked");
    let runtime = place.runtime().await;
    let work = workload(&place, "mode=mcp");
    runtime.apply(&work).await.unwrap();
    ready(&runtime, &work.id).await;
    let mark = place.directory(&work.id).join(MARK);
    assert!(mark.is_file());
    fs::remove_file(mark).unwrap();
    runtime.remove(&work.id).await.unwrap();
    assert_eq!(place.alive(), Vec::<String>::new());
    assert!(place.directory(&work.id).join("home").is_dir());
    runtime.shutdown().await;
}

/// The record of a run whose supervisor is this process.
fn record_of(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let started: u64 = fields.split_whitespace().nth(19).unwrap().parse().unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    serde_json::json!({"boot": boot.trim(), "supervisor": {"pid": pid, "started": started}, "group": null}).to_string()
}

#[tokio::test]
async fn what_a_run_left_that_could_not_be_ended_is_ended_by_the_next_and_by_a_removal() {
    let place = Place::new("kept");
    let runtime = place.runtime().await;
    let work = workload(&place, "mode=mcp");
    let directory = place.directory(&work.id);
    let left = || std::process::Command::new("sleep").arg("600").spawn().unwrap();
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(MARK), "").unwrap();
    let mut first = left();
    fs::write(directory.join("run.json"), record_of(first.id())).unwrap();
    runtime.apply(&work).await.unwrap();
    ready(&runtime, &work.id).await;
    assert!(first.try_wait().unwrap().is_some(), "it is ended before its record is replaced");
    runtime.shutdown().await;
    let mut second = left();
    fs::write(directory.join("run.json"), record_of(second.id())).unwrap();
    runtime.remove(&work.id).await.unwrap();
    assert!(second.try_wait().unwrap().is_some());
    assert!(!directory.exists());
}
