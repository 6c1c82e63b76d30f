//! What every store of versioned records shares: versions, expectations, pages, and the change feed.

mod typed;

pub(crate) use typed::typed;

use crate::{Error, Result, secret::Expect as GenericExpect};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, hash::Hash};

/// The version of one record; the first is 1, and each write adds 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a writer believes about a record before its write.
pub type Expect = GenericExpect<Version>;

/// A record with the version that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Versioned<T> {
    /// The version that was read.
    pub version: Version,
    /// The record.
    #[serde(flatten)]
    pub value: T,
}

impl<T> Versioned<T> {
    /// The same version around another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Versioned<U> {
        Versioned { version: self.version, value: f(self.value) }
    }

    /// What a writer who read this expects to replace.
    #[must_use]
    pub fn expect(&self) -> Expect {
        Expect::Version(self.version)
    }
}

/// A position in the order of all commits of one store. Commits are visible in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreRevision(pub u64);

impl fmt::Display for StoreRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One message of a change feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedEvent<K> {
    /// Changes before `revision` may have been missed: read everything again. Always the first event of a feed that was
    /// opened without a position, or with one that the store no longer knows.
    Resync {
        /// Where the feed goes on.
        revision: StoreRevision,
    },
    /// These records were written or removed by the commit `revision`.
    Changed {
        /// The commit.
        revision: StoreRevision,
        /// What it touched. The record's present state is read from the store.
        keys: Vec<K>,
    },
    /// Everything up to `revision` has been delivered, and the store was reachable just now. Comes at least once a second
    /// while it is.
    Confirmed {
        /// The newest commit.
        revision: StoreRevision,
    },
}

impl<K> FeedEvent<K> {
    /// The position after this event.
    #[must_use]
    pub fn revision(&self) -> StoreRevision {
        match self {
            Self::Resync { revision } | Self::Changed { revision, .. } | Self::Confirmed { revision } => *revision,
        }
    }
}

/// Which part of a list to return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// At most this many; a store may return fewer, and caps it at 1000.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: 100, cursor: None }
    }
}

/// The greatest page a store returns.
pub const MAX_PAGE: usize = 1000;

/// Where a page ended: opaque to everybody but the store, which refuses one that it did not make as
/// [`Invalid`](Error::Invalid).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// One page of a list that is ordered by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<Cursor>,
}

/// A record that is there and cannot be read, as one of which a newer version says more than this one knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable<K> {
    /// Which record.
    pub key: K,
    /// Why it cannot be read; nothing of what is in it but names of fields.
    pub reason: String,
}

/// A record, or that it is there and cannot be read.
pub type Readable<R, K> = std::result::Result<Versioned<R>, Unreadable<K>>;

impl<K: fmt::Display> fmt::Display for Unreadable<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stored {} cannot be read; it may be of a newer version: {}", self.key, self.reason)
    }
}

impl<K: fmt::Display> From<Unreadable<K>> for Error {
    fn from(unreadable: Unreadable<K>) -> Self {
        Self::Backend { backend: "database", reason: unreadable.to_string(), source: None }
    }
}

/// The key of a record in a store.
pub trait StoreKey: fmt::Debug + fmt::Display + Copy + Ord + Hash + Send + Sync + 'static {
    /// What a person would call the kind of record it names.
    fn label(&self) -> &'static str;
    /// The bare id.
    fn uuid(&self) -> &uuid::Uuid;
}

/// A record of a store, of whatever kind.
pub trait StoreRecord: fmt::Debug + Clone + PartialEq + Send + Sync + 'static {
    /// What it is stored under.
    type Key: StoreKey;
    /// The key it is stored under.
    fn key(&self) -> Self::Key;
}

/// Declares the enum of all records of a store, their keys, and the conversions between them and each type.
macro_rules! records {
    (
        $(#[$doc:meta])* $record:ident, $(#[$key_doc:meta])* $key:ident, $(#[$kind_doc:meta])* $kind:ident,
        $(#[$trait_doc:meta])* $document:ident { $($name:ident($id:ty) = $label:literal),+ $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "records are built once and moved rarely; boxing would show in every match")]
        #[allow(missing_docs, reason = "each variant is documented by its type")]
        pub enum $record { $($name($name)),+ }

        $(#[$key_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each variant is documented by its type")]
        pub enum $key { $($name($id)),+ }

        $(#[$kind_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each variant is documented by its type")]
        pub enum $kind { $($name),+ }

        impl $kind {
            /// Every kind there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// What a person would call it.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }

            /// The reverse of [`label`](Self::label).
            #[must_use]
            pub fn from_label(label: &str) -> Option<Self> {
                match label { $($label => Some(Self::$name),)+ _ => None }
            }

            /// The key of this kind with that id.
            #[must_use]
            pub fn key(self, id: uuid::Uuid) -> $key {
                match self { $(Self::$name => $key::$name(<$id>::from_uuid(id))),+ }
            }
        }

        impl $record {
            /// The key it is stored under.
            #[must_use]
            pub fn key(&self) -> $key {
                match self { $(Self::$name(value) => $key::$name(value.id)),+ }
            }
        }

        impl $key {
            /// What kind of record it names.
            #[must_use]
            pub const fn kind(&self) -> $kind {
                match self { $(Self::$name(_) => $kind::$name),+ }
            }

            /// The bare id.
            #[must_use]
            pub const fn uuid(&self) -> &uuid::Uuid {
                match self { $(Self::$name(id) => id.as_uuid()),+ }
            }
        }

        impl std::fmt::Display for $key {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} {}", self.kind().label(), self.uuid())
            }
        }

        impl $crate::feed::StoreRecord for $record {
            type Key = $key;
            fn key(&self) -> $key { Self::key(self) }
        }

        impl $crate::feed::StoreKey for $key {
            fn label(&self) -> &'static str { self.kind().label() }
            fn uuid(&self) -> &uuid::Uuid { Self::uuid(self) }
        }

        $(#[$trait_doc])*
        pub trait $document: Clone + Send + Sync + Sized + 'static {
            /// Its identifier.
            type Id: Copy + Send + Sync + std::fmt::Display;
            /// Its kind.
            const KIND: $kind;
            /// The record that holds it.
            fn into_record(self) -> $record;
            /// The value, if the record holds one of this type.
            fn from_record(record: $record) -> Option<Self>;
            /// The key of an id.
            fn key(id: Self::Id) -> $key;
        }

        $(
            impl $document for $name {
                type Id = $id;
                const KIND: $kind = $kind::$name;
                fn into_record(self) -> $record { $record::$name(self) }
                fn from_record(record: $record) -> Option<Self> {
                    match record { $record::$name(value) => Some(value), _ => None }
                }
                fn key(id: $id) -> $key { $key::$name(id) }
            }

            impl From<$name> for $record {
                fn from(value: $name) -> Self { Self::$name(value) }
            }

            impl From<$id> for $key {
                fn from(id: $id) -> Self { Self::$name(id) }
            }
        )+
    };
}
pub(crate) use records;

/// Operations that happen together or not at all.
///
/// * A set names each record at most once; another one is refused whole as [`Invalid`](Error::Invalid).
/// * Every expectation is about what was there before the set.
/// * Removals take effect first, then the writes in their order: a unique value that a removal, or a write further up, gives
///   up may be taken.
/// * What is only required is not written: it keeps its version, and is in no feed.
/// * References are judged by what is there after the set, so that their order does not matter.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeSet<R, K> {
    operations: Vec<Operation<R, K>>,
}

/// One operation of a [`ChangeSet`].
#[derive(Debug, Clone, PartialEq)]
pub enum Operation<R, K> {
    /// Writes a record whole.
    Put {
        /// The record.
        record: R,
        /// What must be there before.
        expect: Expect,
    },
    /// Removes a record. Removing what is absent succeeds with [`Expect::Any`](GenericExpect::Any) only.
    Delete {
        /// Which record.
        key: K,
        /// What must be there before.
        expect: Expect,
    },
    /// Leaves a record as it is: the set was made for what it says.
    Require {
        /// Which record.
        key: K,
        /// What must be there.
        expect: Expect,
    },
}

impl<R, K> Default for ChangeSet<R, K> {
    fn default() -> Self {
        Self { operations: Vec::new() }
    }
}

impl<R, K> ChangeSet<R, K> {
    /// No operation yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record that must not be there yet.
    #[must_use]
    pub fn create(mut self, record: impl Into<R>) -> Self {
        self.push_put(record, GenericExpect::Absent);
        self
    }

    /// Adds a write.
    #[must_use]
    pub fn put(mut self, record: impl Into<R>, expect: Expect) -> Self {
        self.push_put(record, expect);
        self
    }

    /// Adds a removal.
    #[must_use]
    pub fn delete(mut self, key: impl Into<K>, expect: Expect) -> Self {
        self.push_delete(key, expect);
        self
    }

    /// Adds that a record must be there like this, which it stays.
    #[must_use]
    pub fn require(mut self, key: impl Into<K>, expect: Expect) -> Self {
        self.operations.push(Operation::Require { key: key.into(), expect });
        self
    }

    /// Adds a write in place.
    pub fn push_put(&mut self, record: impl Into<R>, expect: Expect) {
        self.operations.push(Operation::Put { record: record.into(), expect });
    }

    /// Adds a removal in place.
    pub fn push_delete(&mut self, key: impl Into<K>, expect: Expect) {
        self.operations.push(Operation::Delete { key: key.into(), expect });
    }

    /// Adds all operations of another set.
    pub fn extend(&mut self, other: Self) {
        self.operations.extend(other.operations);
    }

    /// The operations, in order.
    #[must_use]
    pub fn operations(&self) -> &[Operation<R, K>] {
        &self.operations
    }

    /// The operations, in order.
    #[must_use]
    pub fn into_operations(self) -> Vec<Operation<R, K>> {
        self.operations
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

impl<R: StoreRecord> ChangeSet<R, R::Key> {
    /// Refuses a set that names a record twice. Every store calls this first.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn check(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (n, operation) in self.operations.iter().enumerate() {
            let key = operation.key();
            if !seen.insert(key) {
                return Err(Error::invalid(
                    format!("operations[{n}]"),
                    format!("{key} is in the set twice"),
                    "name each record once",
                ));
            }
        }
        Ok(())
    }
}

impl<R: StoreRecord> Operation<R, R::Key> {
    /// The record that it is about.
    #[must_use]
    pub fn key(&self) -> R::Key {
        match self {
            Self::Put { record, .. } => record.key(),
            Self::Delete { key, .. } | Self::Require { key, .. } => *key,
        }
    }

    /// What must be there before.
    #[must_use]
    pub const fn expect(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Delete { expect, .. } | Self::Require { expect, .. } => *expect,
        }
    }
}
