//! Legacy calls under way, so that `notifications/cancelled` finds the one it means.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;

const SHARDS: usize = 16;

type Key = (u128, Box<str>);
type Shard = Mutex<HashMap<Key, CancellationToken>>;

/// The calls under way of every legacy session, by session and request id.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight {
    shards: Arc<[Shard; SHARDS]>,
}

/// One call; it is no longer under way when this is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    calls: InFlight,
    key: Key,
}

impl InFlight {
    /// Notes a call. `None` when the session has one with this id under way.
    pub(crate) fn begin(&self, session: u128, id: &str, token: CancellationToken) -> Option<Entry> {
        let key: Key = (session, id.into());
        let mut shard = self.shard(session).lock().unwrap_or_else(PoisonError::into_inner);
        if shard.contains_key(&key) {
            return None;
        }
        shard.insert(key.clone(), token);
        drop(shard);
        Some(Entry { calls: self.clone(), key })
    }

    /// Cancels a call; says whether it is under way here.
    pub(crate) fn cancel(&self, session: u128, id: &str) -> bool {
        let shard = self.shard(session).lock().unwrap_or_else(PoisonError::into_inner);
        let found = shard.get(&(session, id.into()));
        found.inspect(|token| token.cancel()).is_some()
    }

    fn shard(&self, session: u128) -> &Shard {
        // The low bits of a UUIDv7 are random.
        &self.shards[(session & 0xf) as usize]
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut shard = self.calls.shard(self.key.0).lock().unwrap_or_else(PoisonError::into_inner);
        shard.remove(&self.key);
    }
}
