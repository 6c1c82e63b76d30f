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
