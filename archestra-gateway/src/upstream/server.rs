//! What is known of one server, shared by all calls to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::clock::Clock;
use super::era::Known;
use super::stdio::StdioPool;
use super::target::{Endpoint, ServerKey};

/// How a workload is reached.
#[derive(Debug, Clone)]
pub(super) enum Link {
    Http(Arc<Endpoint>),
    Stdio(Arc<StdioPool>),
}

/// One server: a remote one as one installation sees it, or a workload.
#[derive(Debug)]
pub(super) struct Server {
    known: ArcSwapOption<Known>,
    link: ArcSwapOption<Link>,
    clock: Clock,
    used: AtomicU64,
}

impl Server {
    fn new(clock: Clock) -> Self {
        let used = AtomicU64::new(clock.now());
        Self { known: ArcSwapOption::empty(), link: ArcSwapOption::empty(), clock, used }
    }

    /// What is known of this generation.
    pub(super) fn known(&self, generation: u64) -> Option<Arc<Known>> {
        self.known.load_full().filter(|known| known.generation == generation)
    }

    pub(super) fn learn(&self, known: Arc<Known>) {
        self.known.store(Some(known));
    }

    /// Whether `known` still holds.
    pub(super) fn is_known(&self, known: &Arc<Known>) -> bool {
        self.known.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, known))
    }

    /// Forgets `known`, unless somebody has learned better since.
    pub(super) fn doubt(&self, known: &Arc<Known>) {
        if self.is_known(known) {
            self.known.store(None);
        }
    }

    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.load_full()
    }

    pub(super) fn connect(&self, link: Arc<Link>) {
        self.link.store(Some(link));
    }

    /// Forgets `link`, unless somebody has found another since.
    pub(super) fn disconnect(&self, link: &Arc<Link>) {
        if self.link.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            self.link.store(None);
        }
    }

    pub(super) fn touch(&self) {
        self.used.store(self.clock.now(), Ordering::Relaxed);
    }

    /// For how long nobody has used it.
    pub(super) fn idle(&self) -> Duration {
        Duration::from_millis(self.clock.now().saturating_sub(self.used.load(Ordering::Relaxed)))
    }
}

/// Every server that was used lately.
#[derive(Debug)]
pub(super) struct Servers {
    clock: Clock,
    all: RwLock<HashMap<ServerKey, Arc<Server>>>,
}

impl Servers {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, all: RwLock::default() }
    }

    /// The server under `key`, marked as used.
    pub(super) fn get(&self, key: &ServerKey) -> Arc<Server> {
        let found = self.all.read().unwrap_or_else(PoisonError::into_inner).get(key).map(Arc::clone);
        let server = found.unwrap_or_else(|| {
            let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(key.clone()).or_insert_with(|| Arc::new(Server::new(self.clock.clone()))))
        });
        server.touch();
        server
    }

    pub(super) fn forget(&self, key: &ServerKey) {
        let forgotten = self.all.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some(server) = forgotten {
            server.known.store(None);
            server.link.store(None);
        }
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.all.write().unwrap_or_else(PoisonError::into_inner));
        drop(all);
    }

    /// Ends what a session that has ended kept for itself.
    pub(super) fn end_session(&self, session: u128) {
        let all: Vec<Arc<Server>> =
            self.all.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        for server in all {
            if let Some(Link::Stdio(pool)) = server.link().as_deref() {
                pool.end_session(session);
            }
        }
    }

    /// Closes channels that are unused for `idle`, and forgets servers that are unused for four times as long.
    pub(super) fn sweep(&self, idle: Duration) {
        let mut forgotten = Vec::new();
        let kept: Vec<Arc<Server>> = {
            let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, server| {
                let keep = server.idle() < idle * 4;
                if !keep {
                    forgotten.push(Arc::clone(server));
                }
                keep
            });
            all.values().map(Arc::clone).collect()
        };
        drop(forgotten);
        for server in kept {
            if let Some(Link::Stdio(pool)) = server.link().as_deref() {
                pool.trim(idle);
            }
        }
    }
}
