//! Many writers and readers at once on two handles, and a check of what they saw: that versions are linearizable.

use archestra_core::{
    Error,
    catalog::{CatalogStore, Entry, Query, Record, RecordKey},
    feed::{ChangeSet, FeedEvent, PageRequest, StoreRevision, Version, Versioned},
    testing::fixtures,
};
use archestra_store::SqlStore;
use futures::StreamExt as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

const WRITERS: usize = 16;
const READERS: usize = 16;
const ENTRIES: usize = 6;

/// For how long tests make trouble: `ARCHESTRA_TEST_SECONDS`, else `default`.
#[expect(clippy::disallowed_methods, reason = "the environment says how long a test may take")]
pub(crate) fn seconds(default: u64) -> Duration {
    let seconds = std::env::var("ARCHESTRA_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(default))
}

/// One commit that succeeded, for one of its records.
#[derive(Debug)]
struct Write {
    version: u64,
    token: String,
    revision: StoreRevision,
    from: Instant,
    until: Instant,
}

/// One read of one record.
#[derive(Debug)]
struct Read {
    version: u64,
    token: String,
    from: Instant,
    until: Instant,
}

#[derive(Debug, Default)]
struct History {
    writes: BTreeMap<RecordKey, Vec<Write>>,
    reads: BTreeMap<RecordKey, Vec<Read>>,
    revisions: Vec<StoreRevision>,
    conflicts: u64,
}

impl History {
    fn join(&mut self, other: Self) {
        for (key, writes) in other.writes {
            self.writes.entry(key).or_default().extend(writes);
        }
        for (key, reads) in other.reads {
            self.reads.entry(key).or_default().extend(reads);
        }
        self.revisions.extend(other.revisions);
        self.conflicts += other.conflicts;
    }

    fn saw(&mut self, found: &Versioned<Record>, from: Instant, until: Instant) {
        let Record::Entry(entry) = &found.value else { panic!("an entry has become something else") };
        let token = entry.spec.description.clone().unwrap_or_default();
        self.reads.entry(entry.id.into()).or_default().push(Read { version: found.version.0, token, from, until });
    }
}

/// Lets writers and readers loose on two handles of one database for a while, and checks everything that they saw.
pub(crate) async fn hammer(handles: [SqlStore; 2], duration: Duration) {
    let entries: Vec<Entry> = (0..ENTRIES).map(|n| fixtures::remote_entry(&format!("entry {n}"))).collect();
    let begun = Instant::now();
    let created = handles[0].commit(entries.iter().cloned().fold(ChangeSet::new(), ChangeSet::create)).await.unwrap();
    let keys: Vec<RecordKey> = entries.iter().map(|entry| entry.id.into()).collect();
    let end = Instant::now() + duration;
    let mut tasks = JoinSet::new();
    for n in 0..WRITERS {
        tasks.spawn(write(handles[n % 2].clone(), keys.clone(), n, end));
    }
    for n in 0..READERS {
        tasks.spawn(read(handles[n % 2].clone(), keys.clone(), n, end));
    }
    let mut history = History::default();
    for entry in &entries {
        let token = entry.spec.description.clone().unwrap_or_default();
        let first = Write { version: 1, token, revision: created, from: begun, until: Instant::now() };
        history.writes.entry(entry.id.into()).or_default().push(first);
    }
    while let Some(done) = tasks.join_next().await {
        history.join(done.unwrap());
    }
    let (commits, reads) = (history.revisions.len(), history.reads.values().map(Vec::len).sum::<usize>());
    println!("{commits} commits, {} conflicts, {reads} reads in {:?}", history.conflicts, begun.elapsed());
    assert!(commits >= WRITERS, "nobody came through");
    for key in &keys {
        let last = handles[1].get(*key).await.unwrap().version;
        check(&mut history, *key, last);
    }
    follow(&handles[1], created, &history.revisions).await;
}

/// Writes one or two records at a time, expecting the versions it read; only an honest conflict may come of it.
async fn write(store: SqlStore, keys: Vec<RecordKey>, n: usize, end: Instant) -> History {
    let mut history = History::default();
    let mut round = n;
    while Instant::now() < end {
        round += 1;
        // Every fourth round takes two, half of the writers in the other order.
        let mut chosen = vec![keys[(round * 7 + n) % keys.len()]];
        let other = keys[(round * 7 + n + 1 + n % 3) % keys.len()];
        if round.is_multiple_of(4) && other != chosen[0] {
            chosen.insert(n % 2, other);
        }
        let mut changes = ChangeSet::new();
        let mut written = Vec::new();
        for key in chosen {
            let from = Instant::now();
            let found = store.get(key).await.unwrap();
            history.saw(&found, from, Instant::now());
            let expect = found.expect();
            let version = found.version.0 + 1;
            let Record::Entry(mut entry) = found.value else { panic!("an entry has become something else") };
            let token = format!("{n}-{round}");
            entry.spec.description = Some(token.clone());
            changes.push_put(entry, expect);
            written.push((key, version, token));
        }
        let from = Instant::now();
        match store.commit(changes).await {
            Ok(revision) => {
                let until = Instant::now();
                history.revisions.push(revision);
                for (key, version, token) in written {
                    history.writes.entry(key).or_default().push(Write { version, token, revision, from, until });
                }
            }
            Err(Error::Conflict { reason, .. }) => {
                assert!(reason.contains("it was at version"), "{reason}");
                history.conflicts += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    history
}

async fn read(store: SqlStore, keys: Vec<RecordKey>, n: usize, end: Instant) -> History {
    let mut history = History::default();
    let mut round = n;
    while Instant::now() < end {
        round += 1;
        let from = Instant::now();
        if round.is_multiple_of(5) {
            let query = Query::Entries { search: None, labels: None };
            let page = store.list(&query, &PageRequest::default()).await.unwrap();
            let until = Instant::now();
            assert_eq!(page.items.len(), keys.len());
            page.items.iter().for_each(|found| history.saw(found, from, until));
        } else {
            let found = store.get(keys[(round * 5 + n) % keys.len()]).await.unwrap();
            history.saw(&found, from, Instant::now());
        }
    }
    history
}

/// Versions of one record are in one order that fits what everybody saw and when.
fn check(history: &mut History, key: RecordKey, last: Version) {
    let writes = history.writes.get_mut(&key).unwrap();
    writes.sort_by_key(|write| write.version);
    // Each commit that was acknowledged is exactly one step, and each step is a commit that was acknowledged.
    let versions: Vec<u64> = writes.iter().map(|write| write.version).collect();
    assert_eq!(versions, (1..=last.0).collect::<Vec<_>>(), "of {key}");
    for pair in writes.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        assert!(before.revision < after.revision, "{before:?} {after:?}");
        assert!(
            before.from <= after.until,
            "a later version was complete before an earlier one began: {before:?} {after:?}"
        );
    }
    for read in history.reads.get(&key).into_iter().flatten() {
        let write = &writes[usize::try_from(read.version).unwrap() - 1];
        assert_eq!(read.token, write.token, "version {} of {key} is what its writer wrote", read.version);
        assert!(write.from <= read.until, "a read saw a write that had not begun: {read:?} {write:?}");
        if let Some(next) = writes.get(usize::try_from(read.version).unwrap()) {
            assert!(next.until >= read.from, "a read did not see a write that was complete: {read:?} {next:?}");
        }
    }
}

/// The feed names every commit, in order.
async fn follow(store: &SqlStore, created: StoreRevision, revisions: &[StoreRevision]) {
    let mut expected: BTreeSet<StoreRevision> = revisions.iter().copied().collect();
    assert_eq!(expected.len(), revisions.len(), "each commit has a revision of its own");
    let newest = *expected.last().unwrap();
    let mut events = store.changes(Some(created));
    let mut before = created;
    while before < newest {
        match timeout(Duration::from_secs(20), events.next()).await.unwrap().unwrap().unwrap() {
            FeedEvent::Changed { revision, .. } => {
                assert!(revision > before, "in order");
                assert!(expected.remove(&revision), "only what was committed");
                before = revision;
            }
            // More was committed than is kept; what is kept comes next to a new reading of everything.
            FeedEvent::Resync { revision } => {
                expected.retain(|one| *one > revision);
                before = revision;
            }
            FeedEvent::Confirmed { .. } => {}
        }
    }
    assert!(expected.is_empty(), "nothing is missing: {expected:?}");
}
