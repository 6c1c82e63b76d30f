//! Short-lived state that replicas share, and where audit records go: the `StateStore` and `AuditSink` traits.

use crate::{
    Result,
    event::AuditRecord,
    feed::{Cursor, Page},
    id::AuditId,
};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use std::{fmt, time::Duration};

/// A key of the state store: a namespace and a name within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey {
    /// What it is for: `oauth.code`, `jti`, `lease`.
    pub space: &'static str,
    /// Which one.
    pub name: String,
}

impl StateKey {
    /// A key.
    pub fn new(space: &'static str, name: impl Into<String>) -> Self {
        Self { space, name: name.into() }
    }
}

impl fmt::Display for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.space, self.name)
    }
}

/// Short-lived state that all replicas share: OAuth codes, flow state, replayed token ids, refresh leases, limit windows, peers.
///
/// # Contract
/// * Every value has a time to live and is gone when it has passed: no method returns or counts it any more, by the store's
///   clock. A store may remove it later.
/// * [`put_if_absent`](Self::put_if_absent), [`compare_and_set`](Self::compare_and_set), [`take`](Self::take) and
///   [`add`](Self::add) are atomic over all replicas: of several concurrent takers of one key exactly one gets the value.
/// * A failed write changes nothing. Values are opaque, up to 64 KiB.
/// * A key is either a value's or a counter's: [`add`](Self::add) and [`remove`](Self::remove) are for counters, everything
///   else is for values, and what one does to the other is up to the store.
#[async_trait]
pub trait StateStore: fmt::Debug + Send + Sync + 'static {
    /// Reads a value.
    async fn get(&self, key: &StateKey) -> Result<Option<Bytes>>;

    /// Writes a value, whatever was there.
    async fn put(&self, key: &StateKey, value: Bytes, ttl: Duration) -> Result<()>;

    /// Writes a value unless there is one; says whether it did.
    async fn put_if_absent(&self, key: &StateKey, value: Bytes, ttl: Duration) -> Result<bool>;

    /// Replaces exactly `expected`; says whether it did.
    async fn compare_and_set(&self, key: &StateKey, expected: &[u8], value: Bytes, ttl: Duration) -> Result<bool>;

    /// Reads and removes a value.
    async fn take(&self, key: &StateKey) -> Result<Option<Bytes>>;

    /// Removes a value, if there is one.
    async fn remove(&self, key: &StateKey) -> Result<()>;

    /// Adds to a counter and returns its new value. The first addition sets the time to live; later ones keep it.
    async fn add(&self, key: &StateKey, amount: i64, ttl: Duration) -> Result<i64>;

    /// All live values of a space whose name begins with `prefix`, in the byte order of their names.
    async fn scan(&self, space: &'static str, prefix: &str) -> Result<Vec<(String, Bytes)>>;

    /// Whether the store answers, at the cost of one cheap request.
    async fn check(&self) -> Result<()>;
}

/// Which audit records to return, newest first. Fields that are `None` do not filter; by default 100 of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// With this action.
    pub action: Option<String>,
    /// By the actor with this id.
    pub actor: Option<String>,
    /// Through the consumer with this slug.
    pub consumer: Option<String>,
    /// Not before.
    pub from: Option<DateTime<Utc>>,
    /// Before.
    pub until: Option<DateTime<Utc>>,
    /// At most this many; capped at 1000.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

impl Default for AuditQuery {
    fn default() -> Self {
        Self { action: None, actor: None, consumer: None, from: None, until: None, limit: 100, cursor: None }
    }
}

/// Where audit records go.
///
/// # Contract
/// * [`write`](Self::write) keeps all records or none, and is idempotent by record id: what was written before a lost answer
///   may be written again, and so may one batch hold a record twice. Times are kept to the microsecond at least.
/// * [`list`](Self::list) returns newest first, by time and then by id, complete for what was acknowledged. Following the
///   cursors visits each record that is there throughout exactly once.
/// * [`get`](Self::get) of what is not there is [`NotFound`](crate::Error::NotFound).
/// * [`prune`](Self::prune) removes everything that began before a time and says how much.
/// * A sink that only forwards refuses `list` and `prune` as [`Unsupported`](crate::Error::Unsupported).
#[async_trait]
pub trait AuditSink: fmt::Debug + Send + Sync + 'static {
    /// Writes a batch.
    async fn write(&self, records: &[AuditRecord]) -> Result<()>;

    /// Reads a page.
    async fn list(&self, query: &AuditQuery) -> Result<Page<AuditRecord>>;

    /// Reads one record.
    async fn get(&self, id: AuditId) -> Result<AuditRecord>;

    /// Removes what is older.
    async fn prune(&self, before: DateTime<Utc>) -> Result<u64>;
}
