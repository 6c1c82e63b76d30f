//! Versions, expectations, all-or-nothing commits, unique values, and races.

use super::{Records, create, is_at};
use crate::{
    Error, ErrorKind,
    feed::{ChangeSet, Expect, StoreKey as _, StoreRecord as _, Version},
    secret::Expect as GenericExpect,
    testing::conformance::{RACERS, fails, race, works},
};
use std::collections::BTreeSet;

pub(in super::super) async fn versions_count_writes_from_one<S: Records>(store: &S) {
    let record = create(store, &["counted"]).await.remove(0);
    is_at(store, &record, 1, "the first version is 1").await;
    let second = S::changed(&record, "second");
    works(store.apply(ChangeSet::new().put(second.clone(), GenericExpect::Any)).await, "a put with Any replaces");
    is_at(store, &second, 2, "each write adds 1 to the version").await;
    let third = S::changed(&record, "third");
    works(
        store.apply(ChangeSet::new().put(third.clone(), Expect::Version(Version(2)))).await,
        "a put that expects the present version replaces",
    );
    is_at(store, &third, 3, "each write adds 1 to the version").await;
    let fresh = S::sample("fresh");
    works(store.apply(ChangeSet::new().put(fresh.clone(), GenericExpect::Any)).await, "a put with Any creates");
    is_at(store, &fresh, 1, "the first version is 1").await;
}

pub(in super::super) async fn revisions_grow_with_each_commit<S: Records>(store: &S) {
    let mut newest = works(store.apply(ChangeSet::new()).await, "an empty set succeeds");
    for name in ["first", "second", "third"] {
        let revision =
            works(store.apply(ChangeSet::new().create(S::sample(name))).await, "a new record can be written");
        assert!(
            revision > newest,
            "a commit's revision is greater than that of every commit before: {revision} after {newest}"
        );
        newest = revision;
    }
    let present = works(store.apply(ChangeSet::new()).await, "an empty set succeeds");
    assert_eq!(present, newest, "an empty set returns the present revision");
}

pub(in super::super) async fn stale_expectations_conflict<S: Records>(store: &S) {
    let record = create(store, &["present"]).await.remove(0);
    let written = S::changed(&record, "written");
    works(store.apply(ChangeSet::new().put(written.clone(), GenericExpect::Any)).await, "a put with Any replaces");
    let missing = S::sample("missing");
    let change = S::changed(&record, "refused");
    let (version, absent) = (|n| Expect::Version(Version(n)), Expect::Absent);
    let refused = [
        ("a put that expects an older version conflicts", ChangeSet::new().put(change.clone(), version(1))),
        (
            "a put that expects a version that is still to come conflicts",
            ChangeSet::new().put(change.clone(), version(3)),
        ),
        ("a put that expects nothing conflicts with what is there", ChangeSet::new().put(change, absent)),
        ("a removal that expects an older version conflicts", ChangeSet::new().delete(record.key(), version(1))),
        ("a removal that expects nothing conflicts with what is there", ChangeSet::new().delete(record.key(), absent)),
        ("a put that expects a version of what is absent conflicts", ChangeSet::new().put(missing.clone(), version(1))),
        (
            "a removal that expects a version of what is absent conflicts",
            ChangeSet::new().delete(missing.key(), version(1)),
        ),
    ];
    for (promise, changes) in refused {
        let about = changes.operations()[0].key();
        let error = fails(store.apply(changes).await, ErrorKind::Conflict, promise);
        assert!(error.to_string().contains(&about.uuid().to_string()), "a conflict names the record: {error}");
    }
    is_at(store, &written, 2, "a conflict changes nothing").await;
    fails(store.read(missing.key()).await, ErrorKind::NotFound, "a conflict changes nothing");
}

pub(in super::super) async fn what_is_required_stays_as_it_is<S: Records>(store: &S) {
    let records = create(store, &["required", "written"]).await;
    let (required, written) = (&records[0], &records[1]);
    let change = S::changed(written, "changed");
    let changes = ChangeSet::new().require(required.key(), Expect::Version(Version(1)));
    works(
        store.apply(changes.put(change.clone(), Expect::Version(Version(1)))).await,
        "a set whose requirements hold succeeds",
    );
    is_at(store, required, 1, "what is only required is not written").await;
    is_at(store, &change, 2, "what is written beside a requirement is").await;

    let missing = S::sample("missing");
    let refused = [
        ("an older version that is required conflicts", required.key(), Expect::Version(Version(0))),
        ("the absence that is required of what is there conflicts", required.key(), Expect::Absent),
        ("what is required and absent conflicts", missing.key(), Expect::Version(Version(1))),
    ];
    for (promise, key, expect) in refused {
        let changes = ChangeSet::new().put(S::changed(written, "refused"), GenericExpect::Any).require(key, expect);
        let error = fails(store.apply(changes).await, ErrorKind::Conflict, promise);
        assert!(error.to_string().contains(&key.uuid().to_string()), "a conflict names the record: {error}");
    }
    is_at(store, &change, 2, "a conflict changes nothing").await;
}

pub(in super::super) async fn removed_records_are_gone<S: Records>(store: &S) {
    let records = create(store, &["one", "two"]).await;
    let changes = ChangeSet::new()
        .delete(records[0].key(), Expect::Version(Version(1)))
        .delete(records[1].key(), GenericExpect::Any);
    works(store.apply(changes).await, "what is there can be removed");
    for record in &records {
        fails(store.read(record.key()).await, ErrorKind::NotFound, "what was removed is not found");
    }
    assert!(works(store.named("one").await, "finding works").is_none(), "what was removed is not found by its name");
    works(
        store.apply(ChangeSet::new().delete(records[0].key(), GenericExpect::Any)).await,
        "removing what is absent succeeds with Any",
    );
}

pub(in super::super) async fn a_failing_operation_undoes_the_whole_set<S: Records>(store: &S) {
    let [kept, changed, removed] =
        <[_; 3]>::try_from(create(store, &["kept", "changed", "removed"]).await).expect("three were written");
    let added = S::sample("added");
    let base = || {
        ChangeSet::new()
            .create(added.clone())
            .put(S::changed(&changed, "refused"), Expect::Version(Version(1)))
            .delete(removed.key(), Expect::Version(Version(1)))
    };
    let stale = base().put(S::changed(&kept, "refused"), Expect::Version(Version(9)));
    let taken = base().create(S::sample("kept"));
    for (changes, error, promise) in [
        (stale, ErrorKind::Conflict, "a last operation with a stale expectation fails the set"),
        (taken, ErrorKind::AlreadyExists, "a last operation with a taken name fails the set"),
    ] {
        fails(store.apply(changes).await, error, promise);
        for record in [&kept, &changed, &removed] {
            is_at(store, record, 1, "a set that fails changes nothing").await;
        }
        fails(store.read(added.key()).await, ErrorKind::NotFound, "a set that fails creates nothing");
        assert!(works(store.named("added").await, "finding works").is_none(), "a set that fails takes no name");
    }
    works(store.apply(base()).await, "the same set without the failing operation succeeds");
}

pub(in super::super) async fn a_set_names_each_record_once<S: Records>(store: &S) {
    let record = create(store, &["twice"]).await.remove(0);
    let changes = ChangeSet::new()
        .put(S::changed(&record, "first"), GenericExpect::Any)
        .put(S::changed(&record, "second"), GenericExpect::Any);
    fails(store.apply(changes).await, ErrorKind::Invalid, "a set that writes a record twice is refused");
    let changes = ChangeSet::new().delete(record.key(), GenericExpect::Any).create(record.clone());
    fails(store.apply(changes).await, ErrorKind::Invalid, "a set that removes and writes the same record is refused");
    is_at(store, &record, 1, "a refused set changes nothing").await;
}

pub(in super::super) async fn names_are_unique_and_can_be_passed_on<S: Records>(store: &S) {
    let [first, second] = <[_; 2]>::try_from(create(store, &["first", "second"]).await).expect("two were written");
    let error = fails(
        store.apply(ChangeSet::new().create(S::sample("first"))).await,
        ErrorKind::AlreadyExists,
        "a name that is taken cannot be created",
    );
    assert!(error.to_string().contains("first"), "the error names what is taken: {error}");
    fails(
        store.apply(ChangeSet::new().put(S::renamed(&second, "first"), GenericExpect::Any)).await,
        ErrorKind::AlreadyExists,
        "a name that is taken cannot be changed to",
    );
    is_at(store, &second, 1, "a taken name changes nothing").await;

    works(
        store.apply(ChangeSet::new().put(S::changed(&first, "again"), GenericExpect::Any)).await,
        "a record does not collide with itself",
    );
    let heir = S::sample("first");
    works(
        store.apply(ChangeSet::new().create(heir.clone()).delete(first.key(), GenericExpect::Any)).await,
        "removals of a set take effect before its writes",
    );
    let found = works(store.named("first").await, "finding works").map(|found| found.value.key());
    assert_eq!(found, Some(heir.key()), "a name leads to the record that has it now");

    let (moved, third) = (S::renamed(&heir, "moved"), S::sample("first"));
    works(
        store.apply(ChangeSet::new().put(moved.clone(), GenericExpect::Any).create(third.clone())).await,
        "a name that a write further up gives up can be taken",
    );
    for (name, record) in [("moved", &moved), ("first", &third)] {
        let found = works(store.named(name).await, "finding works").map(|found| found.value.key());
        assert_eq!(found, Some(record.key()), "a name leads to the record that has it now");
    }
    works(store.apply(ChangeSet::new().delete(third.key(), GenericExpect::Any)).await, "what is there can be removed");
    works(store.apply(ChangeSet::new().create(S::sample("first"))).await, "the name of what was removed is free");
}

pub(in super::super) async fn one_of_many_writers_with_one_expectation_wins<S: Records>(store: &S) {
    let record = create(store, &["contended"]).await.remove(0);
    let outcomes = race((0..RACERS).map(|n| {
        let (store, change) = (store.clone(), S::changed(&record, &format!("writer {n}")));
        async move { store.apply(ChangeSet::new().put(change, Expect::Version(Version(1)))).await }
    }))
    .await;
    one_wins(outcomes, ErrorKind::Conflict, "of several writers with the same expectation exactly one succeeds");
    let read = works(store.read(record.key()).await, "a record can be read after a race");
    assert_eq!(read.version, Version(2), "writers that lost wrote nothing");
}

pub(in super::super) async fn one_of_many_creators_of_a_record_wins<S: Records>(store: &S) {
    let record = S::sample("created");
    let outcomes = race((0..RACERS).map(|_| {
        let (store, record) = (store.clone(), record.clone());
        async move { store.apply(ChangeSet::new().create(record)).await }
    }))
    .await;
    one_wins(outcomes, ErrorKind::Conflict, "of several creators of the same record exactly one succeeds");
}

pub(in super::super) async fn one_of_many_creators_of_a_name_wins<S: Records>(store: &S) {
    let outcomes = race((0..RACERS).map(|_| {
        let store = store.clone();
        async move { store.apply(ChangeSet::new().create(S::sample("wanted"))).await }
    }))
    .await;
    one_wins(outcomes, ErrorKind::AlreadyExists, "of several creators of the same name exactly one succeeds");
}

pub(in super::super) async fn unrelated_commits_all_succeed_at_once<S: Records>(store: &S) {
    let outcomes = race((0..RACERS).map(|n| {
        let store = store.clone();
        async move { store.apply(ChangeSet::new().create(S::sample(&format!("unrelated-{n}")))).await }
    }))
    .await;
    let revisions: BTreeSet<_> = outcomes
        .into_iter()
        .map(|outcome| works(outcome, "commits that have nothing to do with each other all succeed"))
        .collect();
    assert_eq!(revisions.len(), RACERS, "each commit has its own revision");
}

pub(in super::super) fn one_wins<T>(outcomes: Vec<Result<T, Error>>, lost: ErrorKind, promise: &str) {
    let mut winners = 0;
    for outcome in outcomes {
        match outcome {
            Ok(_) => winners += 1,
            Err(error) => assert_eq!(error.kind(), lost, "{promise}; a loser got {error:?}"),
        }
    }
    assert_eq!(winners, 1, "{promise}");
}
