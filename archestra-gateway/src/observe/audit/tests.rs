//! What becomes of records while the sink does not take them.

use super::*;
use archestra_core::{
    Error, Result,
    feed::Page,
    id::AuditId,
    state::AuditQuery,
    testing::{MemoryAudit, fixtures},
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const POISON: &str = "poison";

/// A sink that is away until it is told otherwise, and never takes what is called [`POISON`].
#[derive(Debug, Default)]
struct Away {
    sink: MemoryAudit,
    back: AtomicBool,
    tries: AtomicUsize,
}

#[async_trait]
impl AuditSink for Away {
    async fn write(&self, records: &[AuditRecord]) -> Result<()> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        if !self.back.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the sink", "away"));
        }
        if records.iter().any(|record| record.action == POISON) {
            return Err(Error::invalid("action", "not one of ours", "use another"));
        }
        self.sink.write(records).await
    }

    async fn list(&self, query: &AuditQuery) -> Result<Page<AuditRecord>> {
        self.sink.list(query).await
    }

    async fn prune(&self, before: DateTime<Utc>) -> Result<u64> {
        self.sink.prune(before).await
    }

    async fn get(&self, id: AuditId) -> Result<AuditRecord> {
        self.sink.get(id).await
    }
}

struct Writing {
    sink: Arc<Away>,
    writer: AuditWriter,
    meters: Meters,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Writing {
    fn with(overflow: Overflow) -> Self {
        let (sink, meters) = (Arc::new(Away::default()), Meters::new());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let writing: Arc<dyn AuditSink> = Arc::<Away>::clone(&sink);
        let writer = AuditWriter::start(writing, overflow, meters.clone(), &tasks, stop.clone());
        Self { sink, writer, meters, tasks, stop }
    }

    fn offer(&self, records: usize) {
        self.offer_of("tool.call", records);
    }

    fn offer_of(&self, action: &str, records: usize) {
        for _ in 0..records {
            self.writer.offer(fixtures::audit_record(action, Utc::now()));
        }
    }

    /// Waits until so many records are written.
    async fn written(&self, records: usize) {
        let all = || async { self.sink.list(&AuditQuery::default()).await.unwrap().items.len() };
        while all().await < records {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn dropped(&self) -> String {
        let shown = self.meters.render();
        let line = shown.lines().find_map(|line| line.strip_prefix("audit_records_dropped_total "));
        line.unwrap_or_default().to_owned()
    }

    async fn tried(&self, more: usize) {
        let enough = self.sink.tries.load(Ordering::SeqCst) + more;
        while self.sink.tries.load(Ordering::SeqCst) < enough {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn end(self) -> usize {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.sink.list(&AuditQuery::default()).await.unwrap().items.len()
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_written_once_the_sink_is_back_however_long_that_takes() {
    for overflow in [Overflow::Wait, Overflow::Drop] {
        let writing = Writing::with(overflow);
        writing.offer(3);
        writing.tried(4 * ATTEMPTS as usize).await;
        writing.sink.back.store(true, Ordering::SeqCst);
        writing.tried(1).await;
        assert_eq!(writing.dropped(), "0");
        assert_eq!(writing.end().await, 3, "{overflow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_costs_the_oldest_only_where_calls_do_not_wait() {
    for (overflow, lost) in [(Overflow::Drop, "1"), (Overflow::Wait, "0")] {
        let writing = Writing::with(overflow);
        writing.offer(1);
        writing.tried(1).await;
        writing.offer(QUEUE);
        writing.tried(4 * ATTEMPTS as usize).await;
        assert_eq!(writing.dropped(), lost, "{overflow:?}");
        writing.sink.back.store(true, Ordering::SeqCst);
        let _written = writing.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_was_under_way_is_tried_again_and_then_counted() {
    let writing = Writing::with(Overflow::Wait);
    writing.offer(2);
    writing.tried(2).await;
    let meters = writing.meters.clone();
    assert_eq!(writing.end().await, 0);
    assert!(meters.render().contains("audit_records_dropped_total 2"), "{}", meters.render());

    let writing = Writing::with(Overflow::Wait);
    writing.offer(2);
    writing.tried(2).await;
    writing.sink.back.store(true, Ordering::SeqCst);
    assert_eq!(writing.end().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_the_sink_refuses_holds_nothing_else_back() {
    for overflow in [Overflow::Wait, Overflow::Drop] {
        for (before, after) in [(0, 0), (0, 1), (1, 0), (0, 20), (20, 0), (7, 13)] {
            let writing = Writing::with(overflow);
            writing.sink.back.store(true, Ordering::SeqCst);
            writing.offer(before);
            writing.offer_of(POISON, 1);
            writing.offer(after);
            writing.written(before + after).await;
            while writing.dropped() == "0" {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            writing.offer(1);
            writing.written(before + after + 1).await;
            assert_eq!(writing.dropped(), "1", "{overflow:?}, {before} before and {after} after");
            assert_eq!(writing.end().await, before + after + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_too_only_what_the_sink_refuses_is_lost() {
    let writing = Writing::with(Overflow::Wait);
    writing.sink.back.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        writing.offer_of(POISON, 1);
        writing.offer(3);
    }
    let meters = writing.meters.clone();
    assert_eq!(writing.end().await, 15);
    assert!(meters.render().contains("audit_records_dropped_total 5"), "{}", meters.render());
}
