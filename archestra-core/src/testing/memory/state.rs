//! `MemoryState`: short-lived state in memory, by tokio's clock.

use crate::{
    Result,
    state::{StateKey, StateStore},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Writes between two sweeps of what has expired.
const SWEEP_EVERY: u32 = 256;

/// Short-lived state in memory. Clones are handles on the same store. Its clock is tokio's, which tests can pause.
#[derive(Debug, Clone, Default)]
pub struct MemoryState {
    inner: Arc<Mutex<Values>>,
}

#[derive(Debug, Default)]
struct Values {
    values: BTreeMap<StateKey, Expiring<Bytes>>,
    counters: BTreeMap<StateKey, Expiring<i64>>,
    writes: u32,
}

#[derive(Debug)]
struct Expiring<T> {
    value: T,
    /// `None`: beyond what the clock can express.
    until: Option<Instant>,
}

impl<T> Expiring<T> {
    fn new(value: T, ttl: Duration) -> Self {
        Self { value, until: Instant::now().checked_add(ttl) }
    }

    fn live(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Values {
    fn live(&self, key: &StateKey) -> Option<&Bytes> {
        self.values.get(key).filter(|stored| stored.live()).map(|stored| &stored.value)
    }

    fn write(&mut self, key: &StateKey, value: Bytes, ttl: Duration) {
        self.sweep();
        self.values.insert(key.clone(), Expiring::new(value, ttl));
    }

    fn sweep(&mut self) {
        self.writes += 1;
        if self.writes >= SWEEP_EVERY {
            self.writes = 0;
            self.values.retain(|_, stored| stored.live());
            self.counters.retain(|_, stored| stored.live());
        }
    }
}

impl MemoryState {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn values(&self) -> MutexGuard<'_, Values> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StateStore for MemoryState {
    async fn get(&self, key: &StateKey) -> Result<Option<Bytes>> {
        Ok(self.values().live(key).cloned())
    }

    async fn put(&self, key: &StateKey, value: Bytes, ttl: Duration) -> Result<()> {
        self.values().write(key, value, ttl);
        Ok(())
    }

    async fn put_if_absent(&self, key: &StateKey, value: Bytes, ttl: Duration) -> Result<bool> {
        let mut values = self.values();
        let absent = values.live(key).is_none();
        if absent {
            values.write(key, value, ttl);
        }
        Ok(absent)
    }

    async fn compare_and_set(&self, key: &StateKey, expected: &[u8], value: Bytes, ttl: Duration) -> Result<bool> {
        let mut values = self.values();
        let same = values.live(key).is_some_and(|present| present == expected);
        if same {
            values.write(key, value, ttl);
        }
        Ok(same)
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Bytes>> {
        Ok(self.values().values.remove(key).filter(Expiring::live).map(|stored| stored.value))
    }

    async fn remove(&self, key: &StateKey) -> Result<()> {
        let mut values = self.values();
        values.values.remove(key);
        values.counters.remove(key);
        Ok(())
    }

    async fn add(&self, key: &StateKey, amount: i64, ttl: Duration) -> Result<i64> {
        let mut values = self.values();
        values.sweep();
        if let Some(counter) = values.counters.get_mut(key).filter(|counter| counter.live()) {
            counter.value = counter.value.saturating_add(amount);
            return Ok(counter.value);
        }
        values.counters.insert(key.clone(), Expiring::new(amount, ttl));
        Ok(amount)
    }

    async fn scan(&self, space: &'static str, prefix: &str) -> Result<Vec<(String, Bytes)>> {
        let values = self.values();
        let from = StateKey::new(space, prefix);
        let found =
            values.values.range(&from..).take_while(|(key, _)| key.space == space && key.name.starts_with(prefix));
        Ok(found
            .filter(|(_, stored)| stored.live())
            .map(|(key, stored)| (key.name.clone(), stored.value.clone()))
            .collect())
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}
