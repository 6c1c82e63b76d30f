//! What was read a moment ago: few, for a short time, wiped when they go.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

/// How many bytes of values are kept at most, however few values they are.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// A bounded map whose entries go after a while, asked for or not.
pub(super) struct Cache<K, V> {
    keep: Duration,
    most: usize,
    kept: Arc<Mutex<Kept<K, V>>>,
    _sweep: Option<AbortOnDropHandle<()>>,
}

struct Kept<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Of all of them.
    bytes: usize,
    /// Counts what was forgotten, so that a read that began before does not bring it back.
    forgotten: u64,
}

struct Entry<V> {
    value: V,
    bytes: usize,
    until: Instant,
}

impl<K: Hash + Eq + Clone, V> Kept<K, V> {
    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }

    fn remove_those_that_are_over(&mut self, now: Instant) {
        let Self { entries, bytes, .. } = self;
        entries.retain(|_, entry| {
            let stays = entry.until > now;
            if !stays {
                *bytes -= entry.bytes;
            }
            stays
        });
    }

    fn remove_oldest(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.remove(&oldest);
        }
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("keep", &self.keep).field("most", &self.most).finish_non_exhaustive()
    }
}

/// What a reader notes before it asks the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    forgotten: u64,
    asked: Instant,
}

impl<K: Hash + Eq + Clone + Send + 'static, V: Clone + Send + 'static> Cache<K, V> {
    /// An empty one, swept on the runtime that this is called in.
    pub(super) fn new(keep: Duration, most: usize) -> Self {
        let kept = Arc::new(Mutex::new(Kept { entries: HashMap::new(), bytes: 0, forgotten: 0 }));
        let sweep = (!keep.is_zero() && most > 0)
            .then(|| AbortOnDropHandle::new(tokio::spawn(sweep(Arc::downgrade(&kept), keep))));
        Self { keep, most, kept, _sweep: sweep }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let kept = self.kept();
        let entry = kept.entries.get(key)?;
        if entry.until > Instant::now() {
            return Some(entry.value.clone());
        }
        None
    }

    /// What was kept until its time was over, if it is still there: of use to whoever finds out that it is the same. The sweep
    /// takes it soon.
    pub(super) fn outlived(&self, key: &K) -> Option<V> {
        self.kept().entries.get(key).map(|entry| entry.value.clone())
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { forgotten: self.kept().forgotten, asked: Instant::now() }
    }

    /// Keeps what was read, of so many bytes, unless something was forgotten since `mark`. Its time begins there: the value may be
    /// as old, and what somebody asked for later is newer.
    pub(super) fn keep(&self, key: K, value: &V, bytes: usize, mark: Mark) {
        if self.keep.is_zero() || self.most == 0 {
            return;
        }
        let mut kept = self.kept();
        let (now, until) = (Instant::now(), mark.asked + self.keep);
        let newer = kept.entries.get(&key).is_some_and(|entry| entry.until > until);
        if kept.forgotten != mark.forgotten || until <= now || newer {
            return;
        }
        kept.remove(&key);
        if bytes > MOST_BYTES {
            return;
        }
        let full = |kept: &Kept<K, V>| kept.entries.len() >= self.most || kept.bytes + bytes > MOST_BYTES;
        if full(&kept) {
            kept.remove_those_that_are_over(now);
        }
        while full(&kept) {
            kept.remove_oldest();
        }
        kept.bytes += bytes;
        kept.entries.insert(key, Entry { value: value.clone(), bytes, until });
    }

    pub(super) fn forget(&self, key: &K) {
        let mut kept = self.kept();
        kept.forgotten += 1;
        kept.remove(key);
    }

    fn kept(&self) -> MutexGuard<'_, Kept<K, V>> {
        held(&self.kept)
    }
}

fn held<K, V>(kept: &Mutex<Kept<K, V>>) -> MutexGuard<'_, Kept<K, V>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops what nobody asks for any more, so that no secret stays in memory much longer than it may be used.
async fn sweep<K: Hash + Eq + Clone, V>(kept: Weak<Mutex<Kept<K, V>>>, every: Duration) {
    loop {
        sleep(every).await;
        let Some(kept) = kept.upgrade() else { return };
        held(&kept).remove_those_that_are_over(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_again_does_not_stay_in_memory() {
        let keep = Duration::from_secs(5);
        let cache = Cache::new(keep, 10);
        let value = Arc::new(());
        cache.keep("a", &value, 1, cache.mark());
        assert!(cache.get(&"a").is_some());
        sleep(keep * 2 + Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&value), 1, "it is gone without anybody asking");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_began_before_something_was_forgotten_brings_nothing_back() {
        let cache = Cache::new(Duration::from_secs(5), 2);
        let before = cache.mark();
        cache.forget(&"a");
        cache.keep("a", &1, 1, before);
        assert_eq!(cache.get(&"a"), None);
        for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
            cache.keep(key, &value, 1, cache.mark());
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((cache.get(&"a"), cache.get(&"b"), cache.get(&"c")), (None, Some(2), Some(3)), "the oldest goes");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_value_begins_when_it_is_asked_for_and_an_older_one_does_not_take_the_place_of_a_newer_one() {
        let keep = Duration::from_secs(5);
        let cache = Cache::new(keep, 10);
        let slow = cache.mark();
        sleep(Duration::from_secs(3)).await;
        let quick = cache.mark();
        cache.keep("a", &2, 1, quick);
        cache.keep("a", &1, 1, slow);
        assert_eq!(cache.get(&"a"), Some(2));
        sleep(Duration::from_secs(1)).await;
        cache.keep("b", &1, 1, slow);
        assert_eq!(cache.get(&"b"), Some(1));
        sleep(Duration::from_secs(1)).await;
        assert_eq!((cache.get(&"a"), cache.get(&"b")), (Some(2), None));
        cache.keep("b", &1, 1, slow);
        assert_eq!(cache.outlived(&"c"), None);
        let late = cache.mark();
        sleep(keep).await;
        cache.keep("c", &1, 1, late);
        assert_eq!(cache.outlived(&"c"), None, "what was under way for so long is not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn few_large_values_are_kept_and_none_that_is_too_large() {
        let cache = Cache::new(Duration::from_secs(5), 1000);
        for n in 0..8 {
            cache.keep(n, &n, MOST_BYTES / 4, cache.mark());
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!((0..8).filter(|n| cache.get(n).is_some()).collect::<Vec<_>>(), [4, 5, 6, 7], "the newest");
        cache.keep(7, &7, MOST_BYTES + 1, cache.mark());
        assert_eq!(cache.get(&7), None, "what took the place of it does not fit");
        cache.forget(&6);
        for n in 8..10 {
            cache.keep(n, &n, MOST_BYTES / 4, cache.mark());
        }
        assert!([4, 5, 8, 9].iter().all(|n| cache.get(n).is_some()));
        sleep(Duration::from_secs(11)).await;
        assert_eq!(cache.kept().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_is_at_hand_until_it_is_swept_and_may_be_kept_anew() {
        let keep = Duration::from_secs(5);
        let cache = Cache::new(keep, 10);
        sleep(Duration::from_secs(2)).await;
        cache.keep("a", &1, 1, cache.mark());
        sleep(Duration::from_secs(6)).await;
        assert_eq!((cache.get(&"a"), cache.outlived(&"a")), (None, Some(1)));
        cache.keep("a", &1, 1, cache.mark());
        assert_eq!(cache.get(&"a"), Some(1));
        sleep(keep * 2 + Duration::from_millis(1)).await;
        assert_eq!(cache.outlived(&"a"), None);
    }
}
