//! The `CatalogStore` trait, the records it keeps, and how they are looked up.

use super::{Entry, Labels};
use crate::{
    Error, Result,
    consumer::{Assignment, Consumer, ConsumerKind},
    feed::{ChangeSet, FeedEvent, Page, PageRequest, Readable, StoreRevision, Versioned, records, typed},
    id::{AssignmentId, ConsumerId, EntryId, InstallationId, LimitId, PolicyId, RevisionId, ToolId},
    installation::{Installation, Owner},
    policy::{Limit, Policy},
    runtime::{Revision, WorkloadId},
    tool::Tool,
};
use async_trait::async_trait;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use std::fmt;

/// How many records are read at once one by one.
const READS: usize = 16;

records! {
    /// Everything the catalog keeps.
    Record,
    /// The key of a [`Record`].
    RecordKey,
    /// The kinds of [`Record`].
    Kind,
    /// A type that the catalog keeps.
    Document {
        Entry(EntryId) = "entry",
        Installation(InstallationId) = "installation",
        Tool(ToolId) = "tool",
        Consumer(ConsumerId) = "consumer",
        Assignment(AssignmentId) = "assignment",
        Revision(RevisionId) = "revision",
        Policy(PolicyId) = "policy",
        Limit(LimitId) = "limit",
    }
}

/// Operations on the catalog that happen together or not at all.
pub type CatalogChanges = ChangeSet<Record, RecordKey>;

/// A record that is found by something else than its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The entry of this name.
    EntryNamed(String),
    /// The installation of an entry that this owner has.
    InstallationOf(EntryId, Owner),
    /// The tool of an entry with this raw name.
    ToolNamed(EntryId, String),
    /// The consumer with this slug.
    ConsumerAt(String),
}

/// Which records to list. Fields that are `None` do not filter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is named after the field it filters by")]
pub enum Query {
    /// Entries; `search` matches a part of the name or description, ignoring case and without wildcards; `labels` matches
    /// entries that share at least one pair with it.
    Entries { search: Option<String>, labels: Option<Labels> },
    /// Installations.
    Installations { entry: Option<EntryId>, owner: Option<Owner> },
    /// Tools.
    Tools { entry: Option<EntryId> },
    /// Consumers.
    Consumers { kind: Option<ConsumerKind> },
    /// Assignments.
    Assignments { consumer: Option<ConsumerId>, entry: Option<EntryId>, installation: Option<InstallationId> },
    /// Revisions of workloads; their ids are in the order of time, so oldest first.
    Revisions { workload: Option<WorkloadId> },
    /// Policies.
    Policies,
    /// Limits.
    Limits,
}

impl Query {
    /// Every record of a kind.
    #[must_use]
    pub const fn all(kind: Kind) -> Self {
        match kind {
            Kind::Entry => Self::Entries { search: None, labels: None },
            Kind::Installation => Self::Installations { entry: None, owner: None },
            Kind::Tool => Self::Tools { entry: None },
            Kind::Consumer => Self::Consumers { kind: None },
            Kind::Assignment => Self::Assignments { consumer: None, entry: None, installation: None },
            Kind::Revision => Self::Revisions { workload: None },
            Kind::Policy => Self::Policies,
            Kind::Limit => Self::Limits,
        }
    }

    /// What it lists.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Entries { .. } => Kind::Entry,
            Self::Installations { .. } => Kind::Installation,
            Self::Tools { .. } => Kind::Tool,
            Self::Consumers { .. } => Kind::Consumer,
            Self::Assignments { .. } => Kind::Assignment,
            Self::Revisions { .. } => Kind::Revision,
            Self::Policies => Kind::Policy,
            Self::Limits => Kind::Limit,
        }
    }
}

/// Where the catalog is kept.
///
/// # Contract
/// * [`commit`](Self::commit) applies all operations or none, as [`ChangeSet`](crate::feed::ChangeSet) says, and its
///   [`StoreRevision`] is greater than that of every commit that became visible before. An empty set returns the present
///   revision.
/// * An operation whose [`Expect`](crate::feed::Expect) does not hold is a [`Conflict`](crate::Error::Conflict) that names the record;
///   nothing is changed. A put with [`Expect::Any`](crate::secret::Expect::Any) creates or replaces. Expectations come before
///   uniqueness, uniqueness before references: the first that does not hold is the error.
/// * Unique, else [`AlreadyExists`](crate::Error::AlreadyExists) with the value: an entry's name; an installation's (entry, owner); a
///   tool's (entry, raw name); a consumer's slug; an assignment's (consumer, exposed name) and (consumer, tool); a revision's
///   (workload, number).
/// * References must exist, else [`Conflict`](crate::Error::Conflict): an installation's, tool's and assignment's entry, an
///   assignment's consumer, tool and pinned installation. Removing a record that another one still refers to is a conflict;
///   whoever removes it removes or changes the others in the same set. Removing an installation removes no assignment that
///   resolves at call time. No other id in a record is checked.
/// * A record that still holds a secret value ([`FixedValue::Secret`](super::FixedValue::Secret)), which cannot be serialized,
///   is refused with an error that does not hold it.
/// * [`get`](Self::get) of what is not there is [`NotFound`](crate::Error::NotFound); [`find`](Self::find) answers `None`.
/// * [`get_many`](Self::get_many) answers in the order of the keys, of which there may be any number, of any kinds and more than
///   once; each record is as it was at some moment of the call.
/// * [`list`](Self::list) is ordered by id; following the cursors visits each record that is there throughout exactly once.
/// * A record of which more is stored than this version knows, as a newer one may have written, is not read as if it said less:
///   whoever acted on it could allow what it forbids, and whoever wrote it back would lose the rest. All methods above fail whole
///   where they meet one, so that nothing takes what is there for absent; [`get_each`](Self::get_each) and
///   [`list_each`](Self::list_each) name it and go on, for those who know what its absence comes to.
/// * [`changes`](Self::changes) delivers at least once, in commit order, whatever process committed; consumers are
///   idempotent. It begins with `Resync` when opened with `None` or with a position that is no longer known, or was never this
///   store's. It sends `Confirmed` at least once a second while the store is reachable, however much is committed
///   meanwhile, an error when it is not, and goes on after an error. Any number of feeds may be open; a slow one delays no other, and no commit.
/// * All methods may be dropped at any time; a dropped commit has either happened or not.
#[async_trait]
pub trait CatalogStore: fmt::Debug + Send + Sync + 'static {
    /// Reads one record.
    async fn get(&self, key: RecordKey) -> Result<Versioned<Record>>;

    /// Reads many records, `None` for each that is not there. Whoever can read them together does so: large commits are
    /// followed this way, and no call is served while that takes too long.
    async fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<Versioned<Record>>>> {
        let reads = keys.iter().map(|key| async {
            match self.get(*key).await {
                Ok(found) => Ok(Some(found)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        stream::iter(reads.collect::<Vec<_>>()).buffered(READS).try_collect().await
    }

    /// The same, with what cannot be read told apart from what is not there.
    async fn get_each(&self, keys: &[RecordKey]) -> Result<Vec<Option<Readable<Record, RecordKey>>>> {
        Ok(self.get_many(keys).await?.into_iter().map(|found| found.map(Ok)).collect())
    }

    /// Reads the record that a unique value leads to, if there is one.
    async fn find(&self, lookup: &Lookup) -> Result<Option<Versioned<Record>>>;

    /// Reads one page of a list.
    async fn list(&self, query: &Query, page: &PageRequest) -> Result<Page<Versioned<Record>>>;

    /// The same, with what cannot be read in its place.
    async fn list_each(&self, query: &Query, page: &PageRequest) -> Result<Page<Readable<Record, RecordKey>>> {
        let Page { items, next } = self.list(query, page).await?;
        Ok(Page { items: items.into_iter().map(Ok).collect(), next })
    }

    /// Applies a set of changes whole.
    async fn commit(&self, changes: CatalogChanges) -> Result<StoreRevision>;

    /// Follows all commits after `since`.
    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<RecordKey>>>;

    /// Whether the store answers, at the cost of one cheap request.
    async fn check(&self) -> Result<()>;
}

typed! {
    /// What is convenient on top of a [`CatalogStore`].
    CatalogStoreExt: CatalogStore { Document, Lookup, Query }
}
