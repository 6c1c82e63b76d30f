//! The suite of [`AuditSink`]. Of a sink that only forwards it checks that it takes records and refuses the rest.

use super::{RACERS, fails, race, suite, works};
use crate::{
    Error, ErrorKind,
    event::AuditRecord,
    feed::Cursor,
    id::AuditId,
    state::{AuditQuery, AuditSink},
    testing::fixtures,
};
use chrono::{DateTime, TimeDelta, Utc};
use std::sync::Arc;

suite! {
    $
    /// One `#[test]` for each case of the [audit sink suite](crate::testing::conformance::audit_sink): a module name and an
    /// expression that yields an `Arc` of an empty sink.
    audit_sink_conformance, audit_sink, state::AuditSink, [
        keeps_records_as_written,
        takes_a_record_twice_and_keeps_it_once,
        takes_an_empty_batch,
        lists_newest_first,
        cursors_lead_through_a_list,
        cursors_hold_while_records_come,
        foreign_cursors_are_refused,
        filters_what_it_lists,
        an_absent_record_is_not_found,
        prunes_what_is_older,
        parallel_batches_are_all_kept,
        a_sink_that_only_forwards_says_so,
    ]
}

fn start() -> DateTime<Utc> {
    fixtures::now() - TimeDelta::hours(1)
}

/// Records a second apart, oldest first.
fn records(count: i32) -> Vec<AuditRecord> {
    let start = start();
    (0..count).map(|n| fixtures::audit_record(&format!("action.{n}"), start + TimeDelta::seconds(n.into()))).collect()
}

async fn write(sink: &Arc<dyn AuditSink>, records: &[AuditRecord]) {
    works(sink.write(records).await, "a batch can be written");
}

/// All pages of a query; `None` of a sink that only forwards.
async fn listed(sink: &Arc<dyn AuditSink>, mut query: AuditQuery) -> Option<Vec<AuditRecord>> {
    let mut found = Vec::new();
    loop {
        let page = match sink.list(&query).await {
            Err(Error::Unsupported { .. }) => return None,
            page => works(page, "a page can be read"),
        };
        assert!(page.items.len() <= query.limit, "a page holds no more than was asked for");
        found.extend(page.items);
        match page.next {
            Some(cursor) => query.cursor = Some(cursor),
            None => return Some(found),
        }
        assert!(found.len() < 10_000, "following the cursors ends");
    }
}

fn newest_first(records: &[AuditRecord]) -> Vec<AuditRecord> {
    records.iter().rev().cloned().collect()
}

/// A record comes back as it was written, by list and by id.
pub async fn keeps_records_as_written(sink: &Arc<dyn AuditSink>) {
    let mut call = fixtures::call_record("finance", "echo", start());
    call.error = Some("it said \"no\"\nand 'why'".to_owned());
    call.actor.id = Some("0192".to_owned());
    call.actor.address = Some("[::1]:4711".to_owned());
    call.details.insert("key".to_owned(), "v\u{e4}lue".to_owned());
    let records = [call, fixtures::audit_record("entry.create", start() + TimeDelta::microseconds(1_000_001))];
    write(sink, &records).await;
    let Some(found) = listed(sink, AuditQuery::default()).await else { return };
    assert_eq!(found, newest_first(&records), "records come back as they were written");
    for record in records {
        assert_eq!(
            works(sink.get(record.id).await, "a record can be read"),
            record,
            "a record comes back as it was written"
        );
    }
}

/// Writing what was written already changes nothing, across batches and within one.
pub async fn takes_a_record_twice_and_keeps_it_once(sink: &Arc<dyn AuditSink>) {
    let records = records(3);
    write(sink, &records[..2]).await;
    write(sink, &records).await;
    write(sink, &[records[2].clone(), records[2].clone()]).await;
    let Some(found) = listed(sink, AuditQuery::default()).await else { return };
    assert_eq!(found, newest_first(&records), "a record that is written again is there once");
}

/// An empty batch is no error.
pub async fn takes_an_empty_batch(sink: &Arc<dyn AuditSink>) {
    write(sink, &[]).await;
    let Some(found) = listed(sink, AuditQuery::default()).await else { return };
    assert_eq!(found, [], "an empty batch writes nothing");
}

/// A list is ordered by time, newest first, whatever the order of writing.
pub async fn lists_newest_first(sink: &Arc<dyn AuditSink>) {
    let records = records(5);
    write(sink, &[records[3].clone(), records[0].clone()]).await;
    write(sink, &[records[4].clone(), records[1].clone(), records[2].clone()]).await;
    let Some(found) = listed(sink, AuditQuery::default()).await else { return };
    assert_eq!(found, newest_first(&records), "a list is ordered by time, newest first");
}

/// Following the cursors visits each record once, also where several are of the same time.
pub async fn cursors_lead_through_a_list(sink: &Arc<dyn AuditSink>) {
    let mut all = records(7);
    let at = all[6].at + TimeDelta::seconds(1);
    let mut same_time: Vec<_> = (0..4).map(|_| fixtures::audit_record("same", at)).collect();
    same_time.sort_by_key(|record| record.id);
    all.extend(same_time);
    write(sink, &all).await;
    for limit in [1, 3, 11, 1000] {
        let Some(found) = listed(sink, AuditQuery { limit, ..AuditQuery::default() }).await else { return };
        assert_eq!(
            found,
            newest_first(&all),
            "following the cursors with limit {limit} visits each record once, in order"
        );
    }
}

/// Following the cursors visits each record that was there from the start, while newer and older ones come.
pub async fn cursors_hold_while_records_come(sink: &Arc<dyn AuditSink>) {
    let all = records(9);
    let (there, later) = all[1..8].split_at(7);
    assert!(later.is_empty(), "the first and the last come later");
    write(sink, there).await;
    let query = AuditQuery { limit: 3, ..AuditQuery::default() };
    let first = match sink.list(&query).await {
        Err(Error::Unsupported { .. }) => return,
        page => works(page, "a page can be read"),
    };
    write(sink, &[all[0].clone(), all[8].clone()]).await;
    let mut visited = first.items;
    let rest = listed(sink, AuditQuery { cursor: first.next, ..query }).await.unwrap_or_default();
    visited.extend(rest);
    for record in there {
        let times = visited.iter().filter(|visited| visited.id == record.id).count();
        assert_eq!(times, 1, "a record that is there throughout is visited exactly once");
    }
}

/// A cursor that the sink did not make is refused.
pub async fn foreign_cursors_are_refused(sink: &Arc<dyn AuditSink>) {
    write(sink, &records(2)).await;
    let query = AuditQuery { cursor: Some(Cursor("'; drop table audit; --".to_owned())), ..AuditQuery::default() };
    match sink.list(&query).await {
        Err(Error::Unsupported { .. }) => {}
        page => {
            fails(page, ErrorKind::Invalid, "a cursor that the sink did not make is refused");
        }
    }
}

/// Each field of a query filters, alone and together with others.
pub async fn filters_what_it_lists(sink: &Arc<dyn AuditSink>) {
    let start = start();
    let at = |seconds| start + TimeDelta::seconds(seconds);
    let mut records = vec![
        fixtures::audit_record("entry.create", at(0)),
        fixtures::call_record("finance", "echo", at(1)),
        fixtures::call_record("legal", "echo", at(2)),
        fixtures::audit_record("entry.create", at(3)),
    ];
    records[2].actor.id = Some("alice".to_owned());
    records[3].actor.id = Some("alice".to_owned());
    write(sink, &records).await;
    let text = |text: &str| Some(text.to_owned());
    let all = AuditQuery::default;
    let expected: [(AuditQuery, &[usize]); 8] = [
        (AuditQuery { action: text("entry.create"), ..all() }, &[3, 0]),
        (AuditQuery { action: text("entry"), ..all() }, &[]),
        (AuditQuery { actor: text("alice"), ..all() }, &[3, 2]),
        (AuditQuery { consumer: text("finance"), ..all() }, &[1]),
        (AuditQuery { from: Some(at(2)), ..all() }, &[3, 2]),
        (AuditQuery { until: Some(at(2)), ..all() }, &[1, 0]),
        (AuditQuery { from: Some(at(1)), until: Some(at(3)), limit: 1, ..all() }, &[2, 1]),
        (AuditQuery { actor: text("alice"), action: text("tools/call"), ..all() }, &[2]),
    ];
    for (query, indices) in expected {
        let wanted: Vec<_> = indices.iter().map(|n| records[*n].clone()).collect();
        let Some(found) = listed(sink, query.clone()).await else { return };
        assert_eq!(found, wanted, "a list holds what its query asks for: {query:?}");
    }
}

/// A record that was never written is not found.
pub async fn an_absent_record_is_not_found(sink: &Arc<dyn AuditSink>) {
    if listed(sink, AuditQuery::default()).await.is_some() {
        fails(sink.get(AuditId::new()).await, ErrorKind::NotFound, "a record that was never written is not found");
    }
}

/// Pruning removes what began before a time, and says how much that was.
pub async fn prunes_what_is_older(sink: &Arc<dyn AuditSink>) {
    let records = records(5);
    write(sink, &records).await;
    if listed(sink, AuditQuery::default()).await.is_none() {
        return;
    }
    for (removed, promise) in [(2, "pruning says how many records it removed"), (0, "pruning again removes nothing")] {
        assert_eq!(works(sink.prune(records[2].at).await, "old records can be pruned"), removed, "{promise}");
    }
    let left = listed(sink, AuditQuery::default()).await.unwrap_or_default();
    assert_eq!(left, newest_first(&records[2..]), "pruning removes what is older than the time, and nothing else");
    fails(sink.get(records[0].id).await, ErrorKind::NotFound, "a pruned record is not found");
}

/// Batches that are written in parallel are all kept, also when they overlap.
pub async fn parallel_batches_are_all_kept(sink: &Arc<dyn AuditSink>) {
    let all = records(i32::try_from(RACERS).expect("few racers") + 1);
    race((0..RACERS).map(|n| {
        let (sink, batch) = (Arc::clone(sink), all[n..n + 2].to_vec());
        async move { works(sink.write(&batch).await, "batches that overlap can be written in parallel") }
    }))
    .await;
    let Some(found) = listed(sink, AuditQuery::default()).await else { return };
    assert_eq!(found, newest_first(&all), "every record of every batch is there once");
}

/// A sink refuses `list` and `prune` both, or neither.
pub async fn a_sink_that_only_forwards_says_so(sink: &Arc<dyn AuditSink>) {
    let forwards = listed(sink, AuditQuery::default()).await.is_none();
    let pruned = sink.prune(start()).await;
    if forwards {
        fails(pruned, ErrorKind::Unsupported, "a sink that cannot list cannot prune");
    } else {
        works(pruned, "a sink that can list can prune");
    }
}
