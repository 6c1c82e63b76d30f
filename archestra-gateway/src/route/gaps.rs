//! Records that cannot be read: which of them routes do without, and which stop everything.
//!
//! | kind | what its absence comes to | so it |
//! |---|---|---|
//! | entry | its tools are neither listed nor called | is left out |
//! | installation | calls pinned to it fail; others are resolved as if it were not there, to what the caller may use anyway | is left out |
//! | tool | it is neither listed nor called | is left out |
//! | consumer | its endpoint is not found | is left out |
//! | assignment | the consumer has one tool less | is left out |
//! | revision | nothing: routes are not made of them | is not read |
//! | policy | what it blocks is allowed | stops the follower |
//! | limit | what it limits is not limited | stops the follower |
//!
//! Where the follower is stopped nothing is confirmed any more, and once that is too old nobody is let in (503), until the record
//! can be read or is gone. Identities are not in here: whom a token stands for is read for each of them, whole or not at all, and
//! nothing of it is left out, since a rule may block a team that somebody would no longer be in.

use archestra_core::{
    Error,
    catalog::{Kind, Record, RecordKey},
    feed::{Readable, Unreadable},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What the present routes lack.
#[derive(Debug, Default)]
pub(crate) struct Gaps(Mutex<BTreeMap<RecordKey, String>>);

/// What became of one record.
type Found = Option<Readable<Record, RecordKey>>;

/// What was read, and what of it is left out.
pub(super) struct Read {
    pub(super) key: RecordKey,
    pub(super) record: Option<Record>,
    gap: Option<String>,
}

impl Read {
    /// Takes what was found under `key`.
    ///
    /// # Errors
    /// Where it cannot be read and may not be left out.
    pub(super) fn of(key: RecordKey, found: Found) -> Result<Self, Error> {
        match found {
            None => Ok(Self { key, record: None, gap: None }),
            Some(Ok(found)) => Ok(Self { key, record: Some(found.value), gap: None }),
            Some(Err(unreadable)) if grants_by_absence(key.kind()) => Err(stopped(&unreadable)),
            Some(Err(unreadable)) => Ok(Self { key, record: None, gap: Some(unreadable.reason) }),
        }
    }
}

/// Whether more would be allowed without a record of this kind.
const fn grants_by_absence(kind: Kind) -> bool {
    match kind {
        Kind::Policy | Kind::Limit => true,
        Kind::Entry | Kind::Installation | Kind::Tool | Kind::Consumer | Kind::Assignment | Kind::Revision => false,
    }
}

/// What is read of a catalog, first of all what may stop the follower: it is not to read all the rest each time it tries again.
pub(super) const KINDS: [Kind; 7] =
    [Kind::Policy, Kind::Limit, Kind::Entry, Kind::Installation, Kind::Tool, Kind::Consumer, Kind::Assignment];

fn stopped(unreadable: &Unreadable<RecordKey>) -> Error {
    Error::Backend {
        backend: "catalog",
        reason: format!(
            "{unreadable}; without it more would be allowed, so that no change is followed; run the version that wrote it, or remove it there"
        ),
        source: None,
    }
}

impl Gaps {
    /// Takes in the present state of records that changed, and says how many the routes lack.
    pub(super) fn note(&self, read: &[Read]) -> usize {
        let mut known = self.known();
        for Read { key, gap, .. } in read {
            match gap {
                Some(reason) if known.get(key) == Some(reason) => {}
                Some(reason) => {
                    tracing::error!(kind = key.kind().label(), id = %key.uuid(), reason, "a record cannot be read; calls are served as if it were not there");
                    known.insert(*key, reason.clone());
                }
                None => {
                    known.remove(key);
                }
            }
        }
        known.len()
    }

    /// Takes in all that is left out, after everything was read.
    pub(super) fn replace(&self, missing: &[Read]) -> usize {
        let still: BTreeSet<RecordKey> = missing.iter().map(|read| read.key).collect();
        self.known().retain(|key, _| still.contains(key));
        self.note(missing)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<RecordKey, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
