//! What was followed is what would be read, whatever came and went.

use super::*;
use archestra_core::{
    catalog::{CatalogChanges, Entry},
    installation::Owner,
    secret::Expect,
    testing::{Faulty, MemoryCatalog, fixtures},
};
use futures::FutureExt as _;
use proptest::prelude::*;
use std::sync::Arc;

/// What happens to one of the installations.
#[derive(Debug, Clone, Copy)]
enum Step {
    Put(Progress),
    Revise,
    /// As when what was made last is taken back.
    DropNewest,
    /// As when older ones are not kept.
    DropOldest,
    Remove,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Put(Progress::Unfinished)),
        Just(Step::Put(Progress::Failed)),
        Just(Step::Put(Progress::Ready)),
        Just(Step::Revise),
        Just(Step::Revise),
        Just(Step::DropNewest),
        Just(Step::DropOldest),
        Just(Step::Remove),
    ]
}

struct World {
    catalog: MemoryCatalog,
    installations: Vec<Installation>,
    changed: BTreeSet<RecordKey>,
}

/// The memory never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a store in memory answers at once")
}

impl World {
    fn new() -> Self {
        let catalog = MemoryCatalog::new();
        let entry: Entry = fixtures::self_hosted_entry("files", &["files"]);
        let mut installations: Vec<_> =
            (0..3).map(|_| fixtures::installation(&entry, Owner::Team(archestra_core::id::TeamId::new()))).collect();
        // Two of them share what runs, and a remote one has nothing that does.
        installations[1].workload = installations[0].workload.clone();
        let mut remote = fixtures::installation(&entry, Owner::Organization);
        remote.workload = None;
        installations.push(remote);
        now(catalog.commit(CatalogChanges::new().create(entry))).unwrap();
        Self { catalog, installations, changed: BTreeSet::new() }
    }

    fn history(&self, installation: &Installation) -> Vec<Revision> {
        let Some(workload) = installation.workload.clone() else { return Vec::new() };
        let found = now(self.catalog.list_all::<Revision>(Query::Revisions { workload: Some(workload) })).unwrap();
        let mut history: Vec<_> = found.into_iter().map(|revision| revision.value).collect();
        history.sort_by_key(|revision| revision.number);
        history
    }

    fn take(&mut self, n: usize, step: Step) {
        let mut installation = self.installations[n].clone();
        let history = self.history(&installation);
        let mut changes = CatalogChanges::new();
        match step {
            Step::Put(progress) => {
                installation.state = match progress {
                    Progress::Unfinished => InstallationState::Pending,
                    Progress::Failed => InstallationState::Error { reason: "why".to_owned(), hint: None },
                    Progress::Ready => InstallationState::Ready,
                };
                changes.push_put(installation, Expect::Any);
            }
            Step::Revise => {
                let Some(workload) = installation.workload.clone() else { return };
                let number = history.last().map_or(1, |newest| newest.number.0 + 1);
                changes.push_put(Revision { workload, ..fixtures::revision(&installation, number) }, Expect::Absent);
            }
            Step::DropNewest => history.last().into_iter().for_each(|one| changes.push_delete(one.id, Expect::Any)),
            Step::DropOldest => history.first().into_iter().for_each(|one| changes.push_delete(one.id, Expect::Any)),
            Step::Remove => {
                changes.push_delete(installation.id, Expect::Any);
                history.iter().for_each(|one| changes.push_delete(one.id, Expect::Any));
            }
        }
        self.changed.extend(changes.operations().iter().map(archestra_core::feed::Operation::key));
        now(self.catalog.commit(changes)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_was_followed_is_what_would_be_read(
        passes in prop::collection::vec(prop::collection::vec((0_usize..4, step()), 1..8), 1..10)
    ) {
        let mut world = World::new();
        let mut known = now(Known::read(&world.catalog)).unwrap();
        for steps in passes {
            for (n, step) in steps {
                world.take(n, step);
            }
            let changed = std::mem::take(&mut world.changed);
            now(known.follow(&world.catalog, &changed)).unwrap();
            prop_assert_eq!(&known, &now(Known::read(&world.catalog)).unwrap());
        }
    }
}

#[test]
fn what_is_unfinished_is_looked_at_again_without_having_been_told() {
    let mut world = World::new();
    world.take(0, Step::Put(Progress::Unfinished));
    world.take(1, Step::Put(Progress::Ready));
    let mut known = now(Known::read(&world.catalog)).unwrap();
    world.take(0, Step::Put(Progress::Ready));
    world.take(1, Step::Put(Progress::Failed));
    now(known.follow(&world.catalog, &BTreeSet::new())).unwrap();
    let progress = |n: usize| known.installations[&world.installations[n].id].progress;
    assert_eq!((progress(0), progress(1)), (Progress::Ready, Progress::Ready));
}

#[test]
fn what_could_not_be_read_is_read_the_next_time() {
    let mut world = World::new();
    for _ in 0..3 {
        world.take(0, Step::Revise);
    }
    world.take(0, Step::Put(Progress::Ready));
    let mut known = now(Known::read(&world.catalog)).unwrap();
    let workload = world.installations[0].workload.clone().unwrap();
    assert_eq!(known.newest(&workload), Some(RevisionNumber(3)));
    world.changed.clear();
    world.take(0, Step::DropNewest);
    let faulty = Faulty::new(Arc::new(world.catalog.clone()));
    for healthy in 0..2 {
        faulty.faults().fail_after(healthy);
        assert!(now(known.follow(&faulty, &world.changed)).is_err(), "after {healthy} calls");
        faulty.faults().heal();
    }
    now(known.follow(&faulty, &world.changed)).unwrap();
    assert_eq!(known.newest(&workload), Some(RevisionNumber(2)));
    assert_eq!(known, now(Known::read(&world.catalog)).unwrap());
}
