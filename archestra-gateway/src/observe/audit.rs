//! The audit writer: a bounded queue in front of the sink, written in batches, so that no answer waits for it.

use super::{CallNote, Meters};
use archestra_core::{event::AuditRecord, state::AuditSink};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const QUEUE: usize = 65_536;
const BATCH: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(250);
/// How often a batch is tried at least, however much waits behind it.
const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of the platform waits for what is still queued.
const LAST_WRITES: Duration = Duration::from_secs(15);

/// What happens when records come faster than the sink takes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overflow {
    /// What there is no room for is dropped, and counted in `audit_records_dropped_total`.
    #[default]
    Drop,
    /// A call waits for room before it is made, as long as it may take. What is noted already is never given up, unless the sink
    /// refuses that very record for good: it is dropped alone, and counted as well.
    Wait,
}

/// Takes audit records and writes them in batches.
#[derive(Debug, Clone)]
pub struct AuditWriter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Queued>,
    overflow: Overflow,
    meters: Meters,
}

/// What waits to be written.
#[derive(Debug)]
enum Queued {
    Call(CallNote),
    Record(Box<AuditRecord>),
}

impl Queued {
    fn into_record(self) -> AuditRecord {
        match self {
            Self::Call(note) => note.into_record(),
            Self::Record(record) => *record,
        }
    }
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
        let (queue, queued) = mpsc::channel(QUEUE);
        tasks.spawn(Task { sink, overflow, queued, meters: meters.clone() }.run(stop));
        Self(Arc::new(Inner { queue, overflow, meters }))
    }

    /// Makes sure of room for one record, before what it will be about begins. With [`Overflow::Drop`] it never waits.
    pub(crate) async fn reserve(&self) -> Slot {
        let permit = match self.0.overflow {
            Overflow::Drop => None,
            Overflow::Wait => self.0.queue.clone().reserve_owned().await.ok(),
        };
        Slot { writer: self.clone(), permit }
    }

    /// Room for one record if there is any when it comes, for what is refused because too much waits already.
    pub(crate) fn spare(&self) -> Slot {
        Slot { writer: self.clone(), permit: None }
    }

    /// Queues a record if there is room.
    pub fn offer(&self, record: AuditRecord) {
        self.queue(Queued::Record(Box::new(record)));
    }

    fn queue(&self, what: Queued) {
        if self.0.queue.try_send(what).is_err() {
            self.0.meters.audit_dropped(1);
        }
    }
}

/// Room for one record.
#[derive(Debug)]
pub(crate) struct Slot {
    writer: AuditWriter,
    permit: Option<mpsc::OwnedPermit<Queued>>,
}

impl Slot {
    /// Queues the note of a call.
    pub(crate) fn write(self, note: CallNote) {
        match self.permit {
            Some(permit) => drop(permit.send(Queued::Call(note))),
            None => self.writer.queue(Queued::Call(note)),
        }
    }
}

struct Task {
    sink: Arc<dyn AuditSink>,
    overflow: Overflow,
    queued: mpsc::Receiver<Queued>,
    meters: Meters,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        let mut taken = Vec::with_capacity(BATCH);
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(count) = stop.run_until_cancelled(self.queued.recv_many(&mut taken, BATCH)).await {
            if count == 0 {
                return;
            }
            if taken.len() < BATCH {
                // A short pause gathers what a burst brings, at no cost to whoever made the records.
                let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                while taken.len() < BATCH
                    && let Ok(queued) = self.queued.try_recv()
                {
                    taken.push(queued);
                }
            }
            batch.extend(taken.drain(..).map(Queued::into_record));
            let _ = stop.run_until_cancelled(self.write(&mut batch)).await;
        }
        self.queued.close();
        let last = tokio::time::timeout(LAST_WRITES, async {
            loop {
                batch.extend(taken.drain(..).map(Queued::into_record));
                if !batch.is_empty() {
                    self.write(&mut batch).await;
                }
                if self.queued.recv_many(&mut taken, BATCH).await == 0 {
                    return;
                }
            }
        });
        if last.await.is_err() {
            let lost = batch.len() + taken.len() + self.queued.len();
            tracing::warn!(lost, "audit records were lost: the sink did not take them in time");
            self.meters.audit_dropped(lost as u64);
        }
    }

    /// Writes a batch, however often it has to be tried. Dropping the future leaves in it what is not written. A batch is given
    /// up only where newer records would be lost for it, since the sink may take those; a record that the sink refuses is
    /// given up by itself, since no record behind it would ever be written.
    async fn write(&self, batch: &mut Vec<AuditRecord>) {
        let (mut wait, mut tries) = (FIRST_WAIT, 0);
        // Smaller once the batch was refused: so the records are found that the sink does not take.
        let mut part = batch.len();
        let mut written = 0;
        while !batch.is_empty() {
            let size = part.min(batch.len());
            tries += 1;
            match self.once(batch.split_at(size).0, tries).await {
                Outcome::Written => {
                    batch.drain(..size);
                    written += size;
                    (wait, tries) = (FIRST_WAIT, 0);
                    part = size.saturating_mul(2);
                    continue;
                }
                // As long as the sink has taken nothing else, it may be the sink that is to blame.
                Outcome::Refused if size == 1 && (written > 0 || tries >= ATTEMPTS) => {
                    let lost = if written == 0 && self.others_are_lost() { batch.len() } else { 1 };
                    self.give_up(batch, lost);
                    (wait, tries) = (FIRST_WAIT, 0);
                    continue;
                }
                Outcome::Refused if size > 1 && (tries >= ATTEMPTS || size < batch.len() || written > 0) => {
                    // The others come first: they tell whether the sink takes anything.
                    batch.rotate_left(size);
                    part = size / 2;
                    tries = 0;
                    continue;
                }
                Outcome::Refused if size < batch.len() => batch.rotate_left(size),
                Outcome::Refused => {}
                Outcome::Failed if tries >= ATTEMPTS && self.others_are_lost() => {
                    return self.give_up(batch, batch.len());
                }
                Outcome::Failed => {}
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 4).min(LONGEST_WAIT);
        }
    }

    async fn once(&self, records: &[AuditRecord], attempt: u32) -> Outcome {
        match tokio::time::timeout(WRITE_TIMEOUT, self.sink.write(records)).await {
            Ok(Ok(())) => Outcome::Written,
            Ok(Err(error)) => {
                let records = records.len();
                tracing::warn!(%error, attempt, records, "audit records could not be written");
                if error.is_retryable() { Outcome::Failed } else { Outcome::Refused }
            }
            Err(_) => {
                tracing::warn!(attempt, "the audit sink took too long");
                Outcome::Failed
            }
        }
    }

    /// Whether there is no room for newer records, which nobody waits for.
    fn others_are_lost(&self) -> bool {
        self.overflow == Overflow::Drop && self.queued.capacity() == 0
    }

    /// Drops the first records of a batch.
    fn give_up(&self, batch: &mut Vec<AuditRecord>, lost: usize) {
        tracing::warn!(lost, "audit records were lost: the sink did not take them, and others wait");
        self.meters.audit_dropped(lost as u64);
        batch.drain(..lost);
    }
}

/// What became of one try to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Written,
    /// The sink does not answer: it may take the same records later.
    Failed,
    /// The sink will not take these records, whenever it is asked.
    Refused,
}

#[cfg(test)]
mod tests;
