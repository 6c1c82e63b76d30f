//! The task that keeps one workload running: start, ready, watch, start again after a pause, end.

mod attempt;

use super::{
    Shared, marker,
    plan::Directories,
    ports::PortLease,
    record::Record,
    server::Hints,
    slot::{Desired, Observed, Slot},
};
use crate::{
    runtime::{Phase, WorkloadStatus},
    secret::redact,
};
use chrono::Utc;
use std::{io, sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};

/// What somebody wants of a keeper.
enum Order {
    /// Start what is desired now.
    Roll,
    /// End and leave the directories.
    Stop,
    /// End and leave nothing.
    Remove,
}

/// How an attempt to run the workload came to its end.
struct Failure {
    reason: String,
    /// Without secrets.
    hint: Option<String>,
    /// How long the server had been answering.
    healthy_for: Duration,
    /// The attempt taught us how to start it better, so the next one is made at once.
    learned: bool,
    /// No further attempt is likely to do better until somebody changes something.
    hopeless: bool,
}

/// Keeps one workload running.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) slot: Arc<Slot>,
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) directories: Directories,
    /// What earlier attempts learned about the server of the present plan.
    hints: Hints,
    /// Held as long as the plan needs one, also between attempts.
    lease: Option<PortLease>,
    restarts: u32,
    rolled: u64,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        slot: Arc<Slot>,
        desired: watch::Receiver<Desired>,
        directories: Directories,
    ) -> Self {
        let rolled = desired.borrow().roll;
        Self { shared, slot, desired, directories, hints: Hints::default(), lease: None, restarts: 0, rolled }
    }

    /// Runs until the workload is removed or the runtime is shut down.
    pub(super) async fn run(mut self) {
        let removed = loop {
            match self.keep().await {
                Order::Roll => {
                    self.restarts = 0;
                    self.hints = Hints::default();
                }
                Order::Stop => break false,
                Order::Remove => break true,
            }
        };
        // Whoever waits for the end of this workload may want its port.
        self.lease = None;
        if removed {
            remove_directories(&self.directories).await;
            self.slot.logs.close();
            self.shared.forget(&self.slot);
        } else {
            self.publish(WorkloadStatus::new(Phase::Stopped).because("the platform is shutting down", None));
            self.slot.logs.close();
            self.slot.gone.cancel();
        }
    }

    /// Keeps the desired plan running until there is another order.
    async fn keep(&mut self) -> Order {
        let plan = {
            let desired = self.desired.borrow_and_update();
            self.rolled = desired.roll;
            Arc::clone(&desired.plan)
        };
        self.publish(WorkloadStatus::new(Phase::Pending).because("its process is being started", None));
        let backoff = self.shared.config.backoff;
        let mut failures = 0_u32;
        loop {
            if let Some(order) = self.order_now() {
                return order;
            }
            let failure = match self.attempt(&plan).await {
                Ok(order) => return order,
                Err(failure) => failure,
            };
            if failure.learned {
                continue;
            }
            failures = if failure.healthy_for >= backoff.healthy_after { 1 } else { failures.saturating_add(1) };
            self.restarts = self.restarts.saturating_add(1);
            let pause = backoff.pause(failures);
            let phase = if failure.hopeless || failures >= backoff.failures_until_error {
                Phase::Error
            } else {
                Phase::Restarting
            };
            let reason = redact(failure.reason, plan.secrets());
            self.slot.logs.say(format!("{reason}; it is started again in {pause:?}"));
            self.publish(WorkloadStatus::new(phase).because(reason, failure.hint));
            tokio::select! {
                () = sleep(pause) => {}
                order = self.order() => return order,
            }
        }
    }

    /// Waits for the next order. Dropping the future loses nothing.
    async fn order(&mut self) -> Order {
        loop {
            if let Some(order) = self.order_now() {
                return order;
            }
            self.renumber();
            tokio::select! {
                () = self.slot.remove.cancelled() => {}
                () = self.shared.stop.cancelled() => {}
                changed = self.desired.changed() => if changed.is_err() {
                    return Order::Stop;
                },
            }
        }
    }

    /// The order that was given and not yet carried out. The end comes before a new beginning.
    fn order_now(&mut self) -> Option<Order> {
        if self.slot.remove.is_cancelled() {
            return Some(Order::Remove);
        }
        if self.shared.stop.is_cancelled() {
            return Some(Order::Stop);
        }
        (self.desired.borrow_and_update().roll != self.rolled).then_some(Order::Roll)
    }

    /// Another revision that runs the same thing changes nothing but the number.
    fn renumber(&self) {
        let revision = self.desired.borrow().revision;
        let status = self.slot.observed.borrow().status.clone();
        if status.revision.is_some_and(|shown| shown != revision) {
            self.publish(WorkloadStatus { revision: Some(revision), ..status });
        }
    }

    /// Shows a status in which the server cannot be reached, or the same reach as before with another revision.
    fn publish(&self, mut status: WorkloadStatus) {
        status.restarts = self.restarts;
        status.revision = Some(self.desired.borrow().revision);
        self.slot.observed.send_modify(|observed| {
            if status.phase != Phase::Running {
                observed.reach = None;
            }
            if status.phase == observed.status.phase {
                status.since = observed.status.since;
            }
            observed.status = status.clone();
        });
        self.shared.hub.set(&self.slot.id, status);
    }

    fn publish_running(&self, reach: super::server::Reach, started_at: chrono::DateTime<Utc>) {
        let status = WorkloadStatus {
            restarts: self.restarts,
            revision: Some(self.desired.borrow().revision),
            started_at: Some(started_at),
            ..WorkloadStatus::new(Phase::Running)
        };
        self.slot.observed.send_replace(Observed { status: status.clone(), reach: Some(reach) });
        self.shared.hub.set(&self.slot.id, status);
    }
}

/// Removes what an earlier runtime left of a workload that nobody applied since.
pub(super) async fn remove_left_over(shared: &Shared, slot: &Slot, directories: &Directories) {
    remove_directories(directories).await;
    slot.logs.close();
    shared.forget(slot);
}

async fn remove_directories(directories: &Directories) {
    let root = directories.root.clone();
    let removed = tokio::task::spawn_blocking(move || {
        if marker::is_ours(&root) && !Record::end_left(&root) {
            // By its record the next start finds them.
            return Err(io::Error::other("processes of its last run are still there and cannot be ended"));
        }
        marker::remove(&root).inspect_err(|_| {
            // Without the record nothing will be looked for in vain; what is left are files.
            if marker::is_ours(&root) {
                Record::remove(&root);
            }
        })
    });
    if let Err(error) = removed.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        tracing::error!(directory = %directories.root.display(), %error, "the directory of a removed workload could not be removed");
    }
}
