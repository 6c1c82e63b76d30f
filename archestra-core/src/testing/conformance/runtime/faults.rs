//! Workloads that do not come to run.

use super::RuntimeFixture;
use crate::{
    Error, ErrorKind,
    runtime::{Phase, Workload, WorkloadSpec},
    testing::{
        conformance::{fails, works},
        fixtures,
    },
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

async fn applied(fixture: &RuntimeFixture, spec: &WorkloadSpec) -> Workload {
    let workload = fixtures::workload(spec.clone());
    works(fixture.runtime.apply(&workload).await, "applying is accepted, whatever becomes of the workload");
    workload
}

/// Waits for a status that says what is wrong.
async fn reported(fixture: &RuntimeFixture, workload: &Workload) {
    let broken = |phase| matches!(phase, Phase::Error | Phase::Restarting);
    let status = fixture.status_where(&workload.id, "it is reported as broken", |status| broken(status.phase)).await;
    assert!(
        status.reason.as_ref().is_some_and(|reason| !reason.is_empty()),
        "a status that is not `running` says what happened: {status:?}"
    );
    fails(
        fixture.runtime.connect(&workload.id).await,
        ErrorKind::Unavailable,
        "a workload that does not run cannot be connected to",
    );
    works(fixture.runtime.remove(&workload.id).await, "a workload that does not run can be removed");
    fixture.listed_exactly(&[]).await;
}

/// A process that ends at once is reported with the reason.
pub async fn what_ends_at_once_is_reported(fixture: &RuntimeFixture) {
    if let Some(spec) = &fixture.exits {
        reported(fixture, &applied(fixture, spec).await).await;
    }
}

/// A command that does not exist is refused when it is applied, or reported with the reason.
pub async fn what_does_not_exist_is_reported(fixture: &RuntimeFixture) {
    let Some(spec) = &fixture.missing else { return };
    let workload = fixtures::workload(spec.clone());
    match fixture.runtime.apply(&workload).await {
        Err(Error::Invalid(findings)) => {
            assert!(!findings.is_empty(), "a refusal says what is wrong");
            fixture.listed_exactly(&[]).await;
        }
        applied => {
            works(applied, "a workload that cannot run is refused as invalid, or accepted and reported");
            reported(fixture, &workload).await;
        }
    }
}

/// A process whose server does not answer is never `running`, and cannot be connected to.
pub async fn what_never_answers_is_not_ready(fixture: &RuntimeFixture) {
    let Some(spec) = &fixture.silent else { return };
    let workload = applied(fixture, spec).await;
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let status = fixture.status(&workload.id).await;
        assert_ne!(status.phase, Phase::Running, "ready means that the server has answered");
        sleep(Duration::from_millis(100)).await;
    }
    fails(
        fixture.runtime.connect(&workload.id).await,
        ErrorKind::Unavailable,
        "a workload whose server does not answer cannot be connected to",
    );
    works(fixture.runtime.remove(&workload.id).await, "a workload whose server does not answer can be removed");
    fixture.listed_exactly(&[]).await;
}
