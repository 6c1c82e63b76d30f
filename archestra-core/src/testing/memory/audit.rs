//! `MemoryAudit`: audit records in memory.

use crate::{
    Error, Result,
    event::AuditRecord,
    feed::{Cursor, MAX_PAGE, Page},
    id::AuditId,
    state::{AuditQuery, AuditSink},
    testing::table::bad_cursor,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Audit records in memory, all of them until they are pruned. Clones are handles on the same sink.
#[derive(Debug, Clone, Default)]
pub struct MemoryAudit {
    inner: Arc<Mutex<Records>>,
}

type Place = (DateTime<Utc>, AuditId);

#[derive(Debug, Default)]
struct Records {
    ordered: BTreeMap<Place, AuditRecord>,
    places: HashMap<AuditId, DateTime<Utc>>,
}

impl MemoryAudit {
    /// An empty sink.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything that was written, oldest first.
    #[must_use]
    pub fn records(&self) -> Vec<AuditRecord> {
        self.inner().ordered.values().cloned().collect()
    }

    fn inner(&self) -> MutexGuard<'_, Records> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn matches(query: &AuditQuery, record: &AuditRecord) -> bool {
    query.action.as_ref().is_none_or(|action| *action == record.action)
        && query.actor.as_ref().is_none_or(|actor| record.actor.id.as_ref() == Some(actor))
        && query
            .consumer
            .as_ref()
            .is_none_or(|consumer| record.call.as_ref().is_some_and(|call| call.consumer == *consumer))
        && query.from.is_none_or(|from| record.at >= from)
        && query.until.is_none_or(|until| record.at < until)
}

fn parse(cursor: &Cursor) -> Result<Place> {
    let parts = cursor.0.split_once('/').and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    parts.ok_or_else(bad_cursor)
}

#[async_trait]
impl AuditSink for MemoryAudit {
    async fn write(&self, records: &[AuditRecord]) -> Result<()> {
        let mut inner = self.inner();
        for record in records {
            let at = *inner.places.entry(record.id).or_insert(record.at);
            inner.ordered.entry((at, record.id)).or_insert_with(|| record.clone());
        }
        Ok(())
    }

    async fn list(&self, query: &AuditQuery) -> Result<Page<AuditRecord>> {
        let end = match &query.cursor {
            None => Bound::Unbounded,
            Some(cursor) => Bound::Excluded(parse(cursor)?),
        };
        let limit = query.limit.clamp(1, MAX_PAGE);
        let inner = self.inner();
        let mut found = inner
            .ordered
            .range((Bound::Unbounded, end))
            .rev()
            .map(|(_, record)| record)
            .filter(|record| matches(query, record));
        let items: Vec<_> = found.by_ref().take(limit).cloned().collect();
        let next = items
            .last()
            .filter(|_| found.next().is_some())
            .map(|last| Cursor(format!("{}/{}", last.at.to_rfc3339(), last.id)));
        Ok(Page { items, next })
    }

    async fn get(&self, id: AuditId) -> Result<AuditRecord> {
        let inner = self.inner();
        let place = inner.places.get(&id).map(|at| (*at, id));
        place.and_then(|place| inner.ordered.get(&place)).cloned().ok_or_else(|| Error::not_found("audit record", id))
    }

    async fn prune(&self, before: DateTime<Utc>) -> Result<u64> {
        let mut inner = self.inner();
        let kept = inner.ordered.split_off(&(before, AuditId::from_uuid(uuid::Uuid::nil())));
        let removed = std::mem::replace(&mut inner.ordered, kept);
        for (_, id) in removed.keys() {
            inner.places.remove(id);
        }
        Ok(removed.len() as u64)
    }
}
