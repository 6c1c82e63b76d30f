//! How much each caller uses at once: counters that calls and streams hold on to, one set for all tokens of a caller.

use archestra_core::identity::{AuthMethod, Principal};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How many sessions one caller may end, or calls of other replicas take back, within this time: each is told to all replicas.
const TELLS: u32 = 600;
const TELLS_WITHIN: Duration = Duration::from_secs(60);

/// From how many callers on those that use nothing any more are looked for.
const SWEEP: usize = 1024;

/// What one caller may use at once; 0 is no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds {
    /// Tool calls.
    pub(crate) calls: usize,
    /// Streams that listen for changes.
    pub(crate) streams: usize,
}

/// What one caller uses.
#[derive(Debug)]
pub(crate) struct Usage {
    calls: Lane,
    streams: Lane,
    /// What it had the other replicas told, and since when that is counted.
    tells: Mutex<(Instant, u32)>,
}

#[derive(Debug)]
struct Lane {
    used: AtomicUsize,
    bound: usize,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Call,
    Stream,
}

/// Something under way, counted until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Place {
    usage: Arc<Usage>,
    kind: Kind,
}

impl Usage {
    fn new(bounds: Bounds) -> Self {
        let lane = |bound| Lane { used: AtomicUsize::new(0), bound: if bound == 0 { usize::MAX } else { bound } };
        Self { calls: lane(bounds.calls), streams: lane(bounds.streams), tells: Mutex::new((Instant::now(), 0)) }
    }

    /// Whether the caller may have the other replicas told something more; counted if so.
    ///
    /// # Errors
    /// For how long not.
    pub(crate) fn tell(&self) -> Result<(), Duration> {
        let mut tells = self.tells.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = &mut *tells;
        if since.elapsed() >= TELLS_WITHIN {
            (*since, *count) = (Instant::now(), 0);
        }
        if *count >= TELLS {
            return Err(TELLS_WITHIN.saturating_sub(since.elapsed()));
        }
        *count += 1;
        Ok(())
    }

    /// Counts one more call.
    ///
    /// # Errors
    /// How many the caller may make at once, if that many are under way.
    pub(crate) fn call(self: &Arc<Self>) -> Result<Place, usize> {
        self.enter(Kind::Call)
    }

    /// Counts one more stream.
    ///
    /// # Errors
    /// How many the caller may hold open at once, if that many are.
    pub(crate) fn stream(self: &Arc<Self>) -> Result<Place, usize> {
        self.enter(Kind::Stream)
    }

    fn enter(self: &Arc<Self>, kind: Kind) -> Result<Place, usize> {
        let lane = self.lane(kind);
        // A counter publishes nothing else, so that no order is asked for.
        if lane.used.fetch_add(1, Ordering::Relaxed) >= lane.bound {
            lane.used.fetch_sub(1, Ordering::Relaxed);
            return Err(lane.bound);
        }
        Ok(Place { usage: Arc::clone(self), kind })
    }

    const fn lane(&self, kind: Kind) -> &Lane {
        match kind {
            Kind::Call => &self.calls,
            Kind::Stream => &self.streams,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.usage.lane(self.kind).used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The usage of all callers. It is asked when a token is looked up, and not for each request.
#[derive(Debug)]
pub(super) struct Usages {
    bounds: Bounds,
    known: Mutex<HashMap<Key, Weak<Usage>>>,
}

pub(crate) type Key = (&'static str, String);

impl Usages {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, known: Mutex::default() }
    }

    /// The usage of this caller, the same for as long as anything of it is in use.
    pub(super) fn of(&self, principal: &Principal) -> Arc<Usage> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // A doubled capacity is the sign of many newcomers, so that sweeps stay rare.
        if known.len() >= SWEEP && known.len() == known.capacity() {
            known.retain(|_, usage| usage.strong_count() > 0);
        }
        let usage = known.entry(caller_key(principal)).or_default();
        usage.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(Usage::new(self.bounds));
            *usage = Arc::downgrade(&fresh);
            fresh
        })
    }
}

/// What tells callers apart, whichever of their tokens they come with.
pub(crate) fn caller_key(principal: &Principal) -> Key {
    let id = match (principal.caller.id(), &principal.method) {
        (Some(id), _) => id,
        // Callers without an id of their own are told apart by their token.
        (None, AuthMethod::Token(token)) => token.to_string(),
        (None, method) => method.kind().to_owned(),
    };
    (principal.caller.kind(), id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use archestra_core::{id::TokenId, testing::fixtures};

    #[test]
    fn a_caller_has_so_many_places_and_gets_them_back() {
        let usage = Arc::new(Usage::new(Bounds { calls: 2, streams: 1 }));
        let (first, _second) = (usage.call().unwrap(), usage.call().unwrap());
        assert_eq!(usage.call().unwrap_err(), 2);
        let _stream = usage.stream().unwrap();
        assert_eq!(usage.stream().unwrap_err(), 1);
        drop(first);
        let _third = usage.call().unwrap();
        assert_eq!(usage.call().unwrap_err(), 2);
    }

    #[test]
    fn nothing_is_no_bound() {
        let usage = Arc::new(Usage::new(Bounds::default()));
        let places: Vec<_> = (0..1000).map(|_| usage.call().unwrap()).collect();
        drop(places);
    }

    #[tokio::test(start_paused = true)]
    async fn other_replicas_are_told_so_much_within_a_minute() {
        let usage = Usage::new(Bounds::default());
        assert!((0..TELLS).all(|_| usage.tell().is_ok()));
        let wait = usage.tell().unwrap_err();
        tokio::time::advance(wait).await;
        usage.tell().unwrap();
    }

    #[test]
    fn all_tokens_of_a_user_count_together_and_those_of_the_organization_apart() {
        let usages = Usages::new(Bounds { calls: 1, streams: 1 });
        let user = fixtures::user("alice@example.com");
        let with = |mut principal: Principal| {
            principal.method = AuthMethod::Token(TokenId::new());
            principal
        };
        let alice = || with(fixtures::user_principal(&user, &[]));
        let _call = usages.of(&alice()).call().unwrap();
        assert!(usages.of(&alice()).call().is_err());
        let organization = || with(fixtures::organization_principal());
        let _call = usages.of(&organization()).call().unwrap();
        assert!(usages.of(&organization()).call().is_ok());
    }

    #[test]
    fn what_is_under_way_is_remembered_and_nothing_else() {
        let usages = Usages::new(Bounds { calls: 1, streams: 1 });
        let principal = || fixtures::user_principal(&fixtures::user("x@example.com"), &[]);
        let busy = principal();
        let place = usages.of(&busy).call().unwrap();
        for _ in 0..10 * SWEEP {
            drop(usages.of(&principal()));
        }
        assert!(usages.known.lock().unwrap().len() <= 4 * SWEEP);
        assert!(usages.of(&busy).call().is_err());
        drop(place);
        assert!(usages.of(&busy).call().is_ok());
    }
}
