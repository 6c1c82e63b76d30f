//! The audit writer: a bounded queue in front of the sink, written in batches, so that no answer waits for it.

use super::Meters;
use archestra_core::{event::AuditRecord, state::AuditSink};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const QUEUE: usize = 65_536;
const BATCH: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(250);
const ATTEMPTS: u32 = 5;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of the platform waits for what is still queued.
const LAST_WRITES: Duration = Duration::from_secs(15);

/// What happens when records come faster than the sink takes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The newest are dropped, and counted in `audit_records_dropped_total`.
    #[default]
    Drop,
    /// A call waits for room before it is made.
    Wait,
}

/// Takes audit records and writes them in batches.
#[derive(Debug, Clone)]
pub struct AuditWriter {
    queue: mpsc::Sender<AuditRecord>,
    overflow: Overflow,
    meters: Meters,
}

impl AuditWriter {
    /// A writer whose task is owned by `tasks` and ends, with everything written, when `stop` says so.
    pub(crate) fn start(
        sink: Arc<dyn AuditSink>,
        overflow: Overflow,
        meters: Meters,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (queue, records) = mpsc::channel(QUEUE);
        tasks.spawn(Task { sink, records, meters: meters.clone() }.run(stop));
        Self { queue, overflow, meters }
    }

    /// Makes sure of room for one record, before what it will be about begins. With [`Overflow::Drop`] it never waits.
    pub(crate) async fn reserve(&self) -> Slot {
        let permit = match self.overflow {
            Overflow::Drop => None,
            Overflow::Wait => self.queue.clone().reserve_owned().await.ok(),
        };
        Slot { writer: self.clone(), permit }
    }

    /// Queues a record if there is room.
    pub fn offer(&self, record: AuditRecord) {
        if self.queue.try_send(record).is_err() {
            self.meters.audit_dropped(1);
        }
    }
}

/// Room for one record.
#[derive(Debug)]
pub(crate) struct Slot {
    writer: AuditWriter,
    permit: Option<mpsc::OwnedPermit<AuditRecord>>,
}

impl Slot {
    /// Queues the record.
    pub(crate) fn write(&mut self, record: AuditRecord) {
        match self.permit.take() {
            Some(permit) => drop(permit.send(record)),
            None => self.writer.offer(record),
        }
    }
}

struct Task {
    sink: Arc<dyn AuditSink>,
    records: mpsc::Receiver<AuditRecord>,
    meters: Meters,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(count) = stop.run_until_cancelled(self.records.recv_many(&mut batch, BATCH)).await {
            if count == 0 {
                return;
            }
            if batch.len() < BATCH {
                // A short pause gathers what a burst brings, at no cost to whoever made the records.
                let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                while batch.len() < BATCH
                    && let Ok(record) = self.records.try_recv()
                {
                    batch.push(record);
                }
            }
            self.write(&mut batch, &stop).await;
        }
        self.records.close();
        let last = tokio::time::timeout(LAST_WRITES, async {
            while self.records.recv_many(&mut batch, BATCH).await > 0 {
                self.write(&mut batch, &stop).await;
            }
        });
        if last.await.is_err() {
            let lost = batch.len() + self.records.len();
            tracing::warn!(lost, "audit records were lost: the sink did not take them in time");
            self.meters.audit_dropped(lost as u64);
        }
    }

    async fn write(&self, batch: &mut Vec<AuditRecord>, stop: &CancellationToken) {
        let mut wait = Duration::from_millis(100);
        for attempt in 1..=ATTEMPTS {
            let outcome = tokio::time::timeout(WRITE_TIMEOUT, self.sink.write(batch)).await;
            match outcome {
                Ok(Ok(())) => {
                    batch.clear();
                    return;
                }
                Ok(Err(error)) => tracing::warn!(%error, attempt, "audit records could not be written"),
                Err(_) => tracing::warn!(attempt, "the audit sink took too long"),
            }
            if stop.is_cancelled() {
                break;
            }
            if attempt < ATTEMPTS {
                stop.run_until_cancelled(tokio::time::sleep(wait)).await;
                wait *= 4;
            }
        }
        self.meters.audit_dropped(batch.len() as u64);
        batch.clear();
    }
}
