//! The background work of an installation: apply, wait until its server answers, list its tools, and say how that ended.

use super::{Lifecycle, discover::DiscoverError, jobs::Claim, listing::Amended};
use archestra_core::{
    Error, Result,
    catalog::Entry,
    id::InstallationId,
    installation::{Installation, InstallationState},
    runtime::{Phase, RevisionNumber, WorkloadId, WorkloadStatus},
};
use futures::{StreamExt as _, stream};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::{Instant, sleep};

/// Why an installation did not get ready, in words for people.
#[derive(Debug)]
struct Failure {
    reason: String,
    hint: Option<String>,
}

impl Failure {
    fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: Some(hint.into()) }
    }
}

/// How one round ended.
#[derive(Debug)]
enum Round {
    /// Its tools are stored.
    Done,
    /// There is nothing to do for it here.
    Gone,
    /// It cannot get ready as it is.
    Failed(Failure),
    /// A backend does not answer; the reconciler comes back to it.
    Later(Error),
}

impl Lifecycle {
    /// Applies, waits and lists in the background. A request while that is under way makes it start over afterwards.
    pub(super) fn bring_up(&self, id: InstallationId) {
        if let Some(claim) = self.inner.jobs.claim(id) {
            self.bring_up_claimed(id, claim);
        }
    }

    /// As [`bring_up`](Self::bring_up), where the runtime has this revision already.
    pub(super) fn bring_up_applied(&self, id: InstallationId, applied: RevisionNumber) {
        if let Some(mut claim) = self.inner.jobs.claim(id) {
            claim.note_applied(applied);
            self.bring_up_claimed(id, claim);
        }
    }

    /// As [`bring_up`](Self::bring_up), by whoever has the claim already.
    pub(super) fn bring_up_claimed(&self, id: InstallationId, claim: Claim) {
        let this = self.clone();
        self.inner.tasks.spawn(async move { this.work(id, claim).await });
    }

    /// Works until nobody asks again.
    pub(super) async fn work(&self, id: InstallationId, claim: Claim) {
        let mut claim = Some(claim);
        while let Some(mut held) = claim {
            let applied = held.take_applied();
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                () = self.round(id, applied) => {}
            }
            claim = held.finish();
        }
    }

    /// Lists installations again, a few at a time, that were ready when the platform ended: a listing that a change had
    /// asked for may have been cut short, and nobody heard when their servers' tools changed meanwhile.
    pub(super) fn catch_up(&self, ids: Vec<InstallationId>) {
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let all = stream::iter(ids).for_each_concurrent(this.options().parallel, |id| this.list_again(id));
            tokio::select! {
                () = this.inner.stop.cancelled() => {}
                () = all => {}
            }
        });
    }

    async fn list_again(&self, id: InstallationId) {
        let Some(claim) = self.inner.jobs.claim(id) else { return };
        match self.try_list_again(id).await {
            Ok(Round::Failed(failure)) => {
                tracing::debug!(installation = %id, reason = %failure.reason, "an installation could not be listed again");
                self.inner.owed.add(id);
            }
            Ok(Round::Later(error)) | Err(error) => {
                tracing::debug!(installation = %id, %error, "an installation could not be listed again");
                self.inner.owed.add(id);
            }
            Ok(Round::Done | Round::Gone) => self.inner.owed.settle(id),
        }
        if let Some(claim) = claim.finish() {
            self.work(id, claim).await;
        }
    }

    async fn try_list_again(&self, id: InstallationId) -> Result<Round> {
        let installation = self.installation(id).await?.value;
        let entry = self.entry(installation.entry).await?.value;
        if let Some(workload) = &installation.workload {
            // What has not been applied yet is applied by the pass that this belongs to.
            let Some(newest) = self.history(workload).await?.pop() else { return Ok(Round::Gone) };
            if let Some(failure) = self.wait_running(workload, newest.value.number).await {
                return Ok(Round::Failed(failure));
            }
        }
        self.discover_round(id, &entry).await
    }

    async fn round(&self, id: InstallationId, applied: Option<RevisionNumber>) {
        let owed = match self.try_round(id, applied).await {
            Ok(Round::Failed(failure)) => self.fail(id, failure).await,
            Ok(Round::Later(error)) | Err(error) => {
                tracing::warn!(installation = %id, %error, "an installation could not be brought up; it is tried again");
                Listing::Owed
            }
            Ok(Round::Done | Round::Gone) => Listing::Settled,
        };
        match owed {
            Listing::Owed => self.inner.owed.add(id),
            Listing::Settled => self.inner.owed.settle(id),
        }
    }

    async fn try_round(&self, id: InstallationId, applied: Option<RevisionNumber>) -> Result<Round> {
        let installation = match self.installation(id).await {
            Ok(installation) => installation.value,
            Err(Error::NotFound { .. }) => return Ok(Round::Gone),
            Err(error) => return Err(error),
        };
        let entry = self.entry(installation.entry).await?.value;
        if let Some(workload) = &installation.workload {
            if self.runtime().is_none() {
                // Another replica may have one; the status says what is missing here.
                return Ok(Round::Gone);
            }
            let number = match self.apply_unless(workload, applied).await {
                Ok(Some(number)) => number,
                Ok(None) => return Ok(Round::Gone),
                Err(error) if error.is_retryable() => return Ok(Round::Later(error)),
                Err(error) => {
                    let reason = format!("the runtime refused it: {error}");
                    return Ok(Round::Failed(Failure::new(reason, "correct the entry, reinstall, or roll back")));
                }
            };
            if let Some(failure) = self.wait_running(workload, number).await {
                return Ok(Round::Failed(failure));
            }
        }
        let discovering = |installation: &mut Installation| match installation.state {
            InstallationState::Pending | InstallationState::Error { .. } => {
                installation.state = InstallationState::Discovering;
                Amended::Yes
            }
            InstallationState::Discovering | InstallationState::Ready => Amended::No,
        };
        self.amend(id, discovering).await?;
        self.discover_round(id, &entry).await
    }

    async fn discover_round(&self, id: InstallationId, entry: &Entry) -> Result<Round> {
        let installation = match self.installation(id).await {
            Ok(installation) => installation.value,
            Err(Error::NotFound { .. }) => return Ok(Round::Gone),
            Err(error) => return Err(error),
        };
        match self.list_with_patience(entry, &installation).await {
            Ok(definitions) => Ok(self.store_tools(id, definitions).await?.map_or(Round::Gone, |_| Round::Done)),
            Err(error) => Ok(Round::Failed(Failure::new(error.to_string(), error.hint(entry)))),
        }
    }

    async fn list_with_patience(
        &self,
        entry: &Entry,
        installation: &Installation,
    ) -> Result<Vec<Value>, DiscoverError> {
        let mut tries = self.options().discover_tries.max(1);
        loop {
            tries -= 1;
            match self.list_once(entry, installation).await {
                Ok(definitions) => return Ok(definitions),
                Err(error) if tries == 0 || !error.retryable() => return Err(error),
                Err(error) => {
                    tracing::debug!(entry = %entry.spec.name, installation = %installation.id, %error, "listing tools failed; trying again");
                    sleep(self.options().discover_pause).await;
                }
            }
        }
    }

    /// Waits until this revision's server answers; what went wrong if it does not.
    async fn wait_running(&self, workload: &WorkloadId, number: RevisionNumber) -> Option<Failure> {
        let deadline = Instant::now() + self.options().start_timeout;
        let runtime = self.runtime()?;
        let mut last: Option<WorkloadStatus> = None;
        loop {
            if let Ok(status) = self.within("reading a status", runtime.status(workload)).await {
                let present = status.revision.is_none_or(|running| running >= number);
                match status.phase {
                    Phase::Running if present => return None,
                    Phase::Error if present => return Some(failure_of(status)),
                    _ => last = Some(status),
                }
            }
            if Instant::now() >= deadline {
                return Some(self.not_in_time(last));
            }
            sleep(self.options().status_pause).await;
        }
    }

    fn not_in_time(&self, last: Option<WorkloadStatus>) -> Failure {
        let seconds = self.options().start_timeout.as_secs();
        let (reason, hint) = last.map(|status| (status.reason, status.hint)).unwrap_or_default();
        let reason = match reason {
            Some(reason) => format!("its server did not answer within {seconds} s: {reason}"),
            None => format!("its server did not answer within {seconds} s"),
        };
        Failure {
            reason,
            hint: hint
                .or_else(|| Some("read the installation's logs; it becomes ready when the server answers".to_owned())),
        }
    }

    /// Notes a failure. What was ready stays so and goes on serving with what runs; the status of its workload, and what the
    /// runtime refused, tell the rest. Its tools are listed later; what is not ready waits for somebody to put it right.
    async fn fail(&self, id: InstallationId, failure: Failure) -> Listing {
        tracing::warn!(installation = %id, reason = %failure.reason, "an installation did not get ready");
        let ready = AtomicBool::new(false);
        let amended = self.amend(id, |installation| {
            ready.store(installation.state == InstallationState::Ready, Ordering::Relaxed);
            match installation.state {
                InstallationState::Ready => Amended::No,
                InstallationState::Pending | InstallationState::Discovering | InstallationState::Error { .. } => {
                    let state = InstallationState::Error { reason: failure.reason.clone(), hint: failure.hint.clone() };
                    if installation.state == state {
                        return Amended::No;
                    }
                    installation.state = state;
                    Amended::Yes
                }
            }
        });
        match amended.await {
            Ok(_) if ready.into_inner() => Listing::Owed,
            Ok(_) => Listing::Settled,
            Err(error) => {
                tracing::warn!(installation = %id, %error, "the state of an installation could not be stored");
                Listing::Owed
            }
        }
    }
}

/// Whether the tools of an installation are still to be listed.
#[derive(Debug, Clone, Copy)]
enum Listing {
    Owed,
    Settled,
}

fn failure_of(status: WorkloadStatus) -> Failure {
    Failure { reason: status.reason.unwrap_or_else(|| "its server ended".to_owned()), hint: status.hint }
}
