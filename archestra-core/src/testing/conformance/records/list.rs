//! Pages and cursors.

use super::{Records, create};
use crate::{
    ErrorKind,
    feed::{ChangeSet, Cursor, MAX_PAGE, PageRequest, StoreKey as _, StoreRecord as _, Versioned},
    secret::Expect,
    testing::conformance::{fails, works},
};

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

pub(in super::super) async fn lists_are_ordered_by_id<S: Records>(store: &S) {
    // Written in the reverse order of their ids.
    let mut samples: Vec<_> = NAMES.iter().map(|name| S::sample(name)).collect();
    samples.sort_by_key(|record| *record.key().uuid());
    for record in samples.iter().rev() {
        works(store.apply(ChangeSet::new().create(record.clone())).await, "a new record can be written");
    }
    let page = works(store.page(&PageRequest::default()).await, "a list can be read");
    let listed: Vec<_> = page.items.into_iter().map(|item| item.value).collect();
    assert_eq!(listed, samples, "a list is ordered by id and holds whole records");
    assert!(page.next.is_none(), "the last page has no cursor");
}

pub(in super::super) async fn cursors_lead_through_a_list<S: Records>(store: &S) {
    let records = create(store, &NAMES).await;
    for limit in [1, 3, 7, 100, usize::MAX] {
        let mut request = PageRequest { limit, cursor: None };
        let mut visited = Vec::new();
        loop {
            let page = works(store.page(&request).await, "a page can be read");
            assert!(page.items.len() <= limit.min(MAX_PAGE), "a page holds no more than was asked for");
            visited.extend(page.items.into_iter().map(|item| item.value.key()));
            match page.next {
                Some(cursor) => request.cursor = Some(cursor),
                None => break,
            }
            assert!(visited.len() <= records.len(), "following the cursors ends");
        }
        let expected: Vec<_> = records.iter().map(|record| record.key()).collect();
        assert_eq!(visited, expected, "following the cursors with limit {limit} visits each record once, in order");
    }
}

pub(in super::super) async fn cursors_hold_while_records_come_and_go<S: Records>(store: &S) {
    // Ids are ordered by time of making: these come before and after what is there.
    let before = S::sample("before");
    let records = create(store, &NAMES).await;
    let after = S::sample("after");
    let first = works(store.page(&PageRequest { limit: 3, cursor: None }).await, "a page can be read");
    assert!(first.next.is_some(), "a page that is not the last has a cursor");
    let visited_last =
        first.items.last().map(|Versioned { value, .. }| value.key()).expect("the first page holds records");
    let changes = ChangeSet::new()
        .create(before)
        .create(after)
        .delete(visited_last, Expect::Any)
        .delete(records[5].key(), Expect::Any);
    works(store.apply(changes).await, "records come and go between pages");

    let mut visited: Vec<_> = first.items.iter().map(|item| item.value.key()).collect();
    let mut cursor = first.next;
    while let Some(next) = cursor {
        let page = works(
            store.page(&PageRequest { limit: 3, cursor: Some(next) }).await,
            "a cursor holds although its record is gone",
        );
        visited.extend(page.items.iter().map(|item| item.value.key()));
        cursor = page.next;
        assert!(visited.len() <= 2 * NAMES.len(), "following the cursors ends");
    }
    for (n, record) in records.iter().enumerate().filter(|(n, _)| *n != 5) {
        let times = visited.iter().filter(|key| **key == record.key()).count();
        assert_eq!(times, 1, "a record that is there throughout is visited exactly once (record {n})");
    }
}

pub(in super::super) async fn foreign_cursors_are_refused<S: Records>(store: &S) {
    create(store, &["only"]).await;
    let request = PageRequest { limit: 10, cursor: Some(Cursor("'; drop table entries; --".to_owned())) };
    fails(store.page(&request).await, ErrorKind::Invalid, "a cursor that the store did not make is refused");
}
