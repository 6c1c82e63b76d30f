//! What was read a moment ago: few, for a short time, wiped when they go.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A bounded map whose entries go after a while.
pub(super) struct Cache<K, V> {
    keep: Duration,
    most: usize,
    kept: Mutex<Kept<K, V>>,
}

struct Kept<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Counts what was forgotten, so that a read that began before does not bring it back.
    forgotten: u64,
}

struct Entry<V> {
    value: V,
    until: Instant,
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("keep", &self.keep).field("most", &self.most).finish_non_exhaustive()
    }
}

/// What a reader notes before it asks the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark(u64);

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    pub(super) fn new(keep: Duration, most: usize) -> Self {
        Self { keep, most, kept: Mutex::new(Kept { entries: HashMap::new(), forgotten: 0 }) }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut kept = self.kept();
        let entry = kept.entries.get(key)?;
        if entry.until > Instant::now() {
            return Some(entry.value.clone());
        }
        kept.entries.remove(key);
        None
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.kept().forgotten)
    }

    /// Keeps what was read, unless something was forgotten since `mark`.
    pub(super) fn keep(&self, key: K, value: &V, mark: Mark) {
        if self.keep.is_zero() || self.most == 0 {
            return;
        }
        let mut kept = self.kept();
        if kept.forgotten != mark.0 {
            return;
        }
        let now = Instant::now();
        if kept.entries.len() >= self.most {
            kept.entries.retain(|_, entry| entry.until > now);
        }
        if kept.entries.len() >= self.most {
            let oldest = kept.entries.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                kept.entries.remove(&oldest);
            }
        }
        kept.entries.insert(key, Entry { value: value.clone(), until: now + self.keep });
    }

    pub(super) fn forget(&self, key: &K) {
        let mut kept = self.kept();
        kept.forgotten += 1;
        kept.entries.remove(key);
    }

    fn kept(&self) -> MutexGuard<'_, Kept<K, V>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
