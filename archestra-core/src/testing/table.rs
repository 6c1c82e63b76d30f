//! A table of versioned records in memory, with all-or-nothing commits and a change feed: what both in-memory stores are made of.

mod feed;

use crate::{
    Error, Result,
    feed::{
        ChangeSet, Cursor, Expect, FeedEvent, MAX_PAGE, Operation, Page, PageRequest, StoreKey, StoreRecord,
        StoreRevision, Version, Versioned,
    },
    secret::Expect as GenericExpect,
};
use futures::stream::BoxStream;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// What is particular to one store.
pub(super) trait Rules: fmt::Debug + Send + Sync + 'static {
    type Record: StoreRecord;

    /// Refuses a record that must not be stored, whatever else is there.
    fn check(_record: &Self::Record) -> Result<()> {
        Ok(())
    }

    /// The values of a record that no other record may have.
    fn uniques(record: &Self::Record) -> Vec<Unique>;

    /// The records that must be there as long as this one is.
    fn references(record: &Self::Record) -> Vec<<Self::Record as StoreRecord>::Key>;

    /// What becomes of a record when others are removed.
    fn cascade(
        _record: &Self::Record,
        _removed: &BTreeSet<<Self::Record as StoreRecord>::Key>,
    ) -> Cascade<Self::Record> {
        Cascade::Keep
    }
}

/// A value that only one record may have, and what it is unique as.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Unique {
    pub(super) index: &'static str,
    pub(super) value: String,
}

impl Unique {
    pub(super) fn new(index: &'static str, value: impl fmt::Display) -> Self {
        Self { index, value: value.to_string() }
    }
}

/// What becomes of a record when others are removed.
pub(super) enum Cascade<R> {
    Keep,
    Change(R),
    Remove,
}

type Key<S> = <<S as Rules>::Record as StoreRecord>::Key;

/// A handle on a table; clones are handles on the same one.
pub(super) struct Table<S: Rules>(Arc<Shared<S>>);

struct Shared<S: Rules> {
    state: Mutex<State<S>>,
    newest: watch::Sender<StoreRevision>,
    history: usize,
}

struct State<S: Rules> {
    records: BTreeMap<Key<S>, Versioned<S::Record>>,
    uniques: HashMap<Unique, Key<S>>,
    revision: StoreRevision,
    /// The newest commits, without a gap.
    log: VecDeque<(StoreRevision, Arc<[Key<S>]>)>,
}

impl<S: Rules> Clone for Table<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Rules> fmt::Debug for Table<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Table").field("revision", &state.revision).field("records", &state.records.len()).finish()
    }
}

impl<S: Rules> Table<S> {
    /// An empty table that remembers its last `history` commits for feeds.
    pub(super) fn new(history: usize) -> Self {
        let state = State {
            records: BTreeMap::new(),
            uniques: HashMap::new(),
            revision: StoreRevision(0),
            log: VecDeque::new(),
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            newest: watch::Sender::new(StoreRevision(0)),
            history: history.max(1),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        // A commit changes the state only once nothing in it can fail any more, so what a panic left behind is whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: Key<S>) -> Result<Versioned<S::Record>> {
        self.state().records.get(&key).cloned().ok_or_else(|| Error::not_found(key.label(), key.uuid()))
    }

    pub(super) fn get_many(&self, keys: &[Key<S>]) -> Vec<Option<Versioned<S::Record>>> {
        let state = self.state();
        keys.iter().map(|key| state.records.get(key).cloned()).collect()
    }

    pub(super) fn find(&self, unique: &Unique) -> Option<Versioned<S::Record>> {
        let state = self.state();
        state.uniques.get(unique).and_then(|key| state.records.get(key)).cloned()
    }

    /// One page of the records between two keys that match.
    pub(super) fn list(
        &self,
        kind: impl Fn(uuid::Uuid) -> Key<S>,
        page: &PageRequest,
        matches: impl Fn(&S::Record) -> bool,
    ) -> Result<Page<Versioned<S::Record>>> {
        let start = match &page.cursor {
            None => Bound::Included(kind(uuid::Uuid::nil())),
            Some(Cursor(text)) => Bound::Excluded(kind(text.parse().map_err(|_| bad_cursor())?)),
        };
        let end = Bound::Included(kind(uuid::Uuid::max()));
        let limit = page.limit.clamp(1, MAX_PAGE);
        let state = self.state();
        let mut found = state.records.range((start, end)).filter(|(_, record)| matches(&record.value));
        let items: Vec<_> = found.by_ref().take(limit).map(|(_, record)| record.clone()).collect();
        let next =
            items.last().filter(|_| found.next().is_some()).map(|last| Cursor(last.value.key().uuid().to_string()));
        Ok(Page { items, next })
    }

    pub(super) fn commit(&self, changes: ChangeSet<S::Record, Key<S>>) -> Result<StoreRevision> {
        changes.check()?;
        let mut state = self.state();
        if changes.is_empty() {
            return Ok(state.revision);
        }
        let staged = state.stage(changes)?;
        let revision = state.apply(staged, self.0.history);
        drop(state);
        self.0.newest.send_replace(revision);
        Ok(revision)
    }

    pub(super) fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<Key<S>>>> {
        feed::follow(self.clone(), since)
    }
}

pub(super) fn bad_cursor() -> Error {
    Error::invalid("cursor", "not a cursor of this list", "use the one that came with the page before")
}

/// A commit that holds: what becomes of each record, and of each unique value.
struct Staged<S: Rules> {
    records: BTreeMap<Key<S>, Option<S::Record>>,
    uniques: HashMap<Unique, Option<Key<S>>>,
}

impl<S: Rules> State<S> {
    fn stage(&self, changes: ChangeSet<S::Record, Key<S>>) -> Result<Staged<S>> {
        for operation in changes.operations() {
            if let Operation::Put { record, .. } = operation {
                S::check(record)?;
            }
            self.check_expectation(operation)?;
        }
        let writes = changes.operations().iter().filter(|operation| !matches!(operation, Operation::Require { .. }));
        let named: BTreeSet<_> = writes.map(Operation::key).collect();
        let mut staged = Staged { records: BTreeMap::new(), uniques: HashMap::new() };
        let mut puts = Vec::new();
        for operation in changes.into_operations() {
            match operation {
                Operation::Put { record, .. } => puts.push(record),
                Operation::Delete { key, .. } => {
                    staged.records.insert(key, None);
                }
                Operation::Require { .. } => {}
            }
        }
        let mut gone: BTreeSet<_> =
            staged.records.keys().copied().filter(|key| self.records.contains_key(key)).collect();
        let mut settled = named;
        // What goes with something may take more along.
        while !gone.is_empty() {
            let mut entailed = BTreeSet::new();
            let mut changed = BTreeSet::new();
            for (key, record) in self.records.iter().filter(|(key, _)| !settled.contains(key)) {
                match S::cascade(&record.value, &gone) {
                    Cascade::Keep => {}
                    Cascade::Change(record) => {
                        puts.push(record);
                        changed.insert(*key);
                    }
                    Cascade::Remove => {
                        staged.records.insert(*key, None);
                        entailed.insert(*key);
                    }
                }
            }
            settled.extend(changed);
            settled.extend(&entailed);
            gone = entailed;
        }
        for key in staged.records.keys() {
            if let Some(record) = self.records.get(key) {
                staged.uniques.extend(S::uniques(&record.value).into_iter().map(|unique| (unique, None)));
            }
        }
        for record in puts {
            self.stage_put(record, &mut staged)?;
        }
        self.check_references(&staged)?;
        Ok(staged)
    }

    fn check_expectation(&self, operation: &Operation<S::Record, Key<S>>) -> Result<()> {
        let key = operation.key();
        let present = self.records.get(&key).map(|record| record.version);
        let removal = matches!(operation, Operation::Delete { .. });
        let reason = match (operation.expect(), present) {
            (GenericExpect::Any, _) => return Ok(()),
            (Expect::Absent, None) if !removal => return Ok(()),
            (Expect::Version(expected), Some(version)) if expected == version => return Ok(()),
            (Expect::Version(expected), Some(version)) => {
                format!("it was at version {expected} and is at {version} now; read it again")
            }
            (Expect::Absent, Some(_)) => "it is there already".to_owned(),
            (_, None) => "it is not there any more".to_owned(),
        };
        Err(Error::conflict(key.label(), key.uuid(), reason))
    }

    fn stage_put(&self, record: S::Record, staged: &mut Staged<S>) -> Result<()> {
        let key = record.key();
        if let Some(before) = self.records.get(&key) {
            for unique in S::uniques(&before.value) {
                // A put further up may hold it by now, but then it was not free and that put has failed.
                staged.uniques.insert(unique, None);
            }
        }
        for unique in S::uniques(&record) {
            let holder = staged.uniques.get(&unique).copied().unwrap_or_else(|| self.uniques.get(&unique).copied());
            if holder.is_some_and(|holder| holder != key) {
                return Err(Error::already_exists(key.label(), unique.value));
            }
            staged.uniques.insert(unique, Some(key));
        }
        staged.records.insert(key, Some(record));
        Ok(())
    }

    fn check_references(&self, staged: &Staged<S>) -> Result<()> {
        for (key, record) in &staged.records {
            let Some(record) = record else { continue };
            for target in S::references(record) {
                let there =
                    staged.records.get(&target).map_or_else(|| self.records.contains_key(&target), Option::is_some);
                if !there {
                    return Err(Error::conflict(
                        key.label(),
                        key.uuid(),
                        format!("it refers to {target}, which does not exist"),
                    ));
                }
            }
        }
        let removed = |key: &Key<S>| matches!(staged.records.get(key), Some(None));
        if !staged.records.values().any(Option::is_none) {
            return Ok(());
        }
        for (key, record) in self.records.iter().filter(|(key, _)| !staged.records.contains_key(key)) {
            if let Some(target) = S::references(&record.value).into_iter().find(removed) {
                return Err(Error::conflict(
                    target.label(),
                    target.uuid(),
                    format!("{key} refers to it; remove or change that first"),
                ));
            }
        }
        Ok(())
    }

    fn apply(&mut self, staged: Staged<S>, history: usize) -> StoreRevision {
        let touched: Arc<[Key<S>]> = staged.records.keys().copied().collect();
        for (key, record) in staged.records {
            match record {
                None => {
                    self.records.remove(&key);
                }
                Some(value) => {
                    let version = Version(self.records.get(&key).map_or(0, |before| before.version.0) + 1);
                    self.records.insert(key, Versioned { version, value });
                }
            }
        }
        for (unique, holder) in staged.uniques {
            match holder {
                None => self.uniques.remove(&unique),
                Some(key) => self.uniques.insert(unique, key),
            };
        }
        self.revision = StoreRevision(self.revision.0 + 1);
        self.log.push_back((self.revision, touched));
        if self.log.len() > history {
            self.log.pop_front();
        }
        self.revision
    }
}
