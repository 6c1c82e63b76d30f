//! What goes wrong with the API server on demand.

use http::Method;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Makes the API server fail: from the next request on, until it is healed.
#[derive(Debug)]
pub struct Faults {
    state: Mutex<State>,
    interruptions: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    failing: Vec<Failing>,
    latency: Duration,
    down: bool,
}

#[derive(Debug)]
struct Failing {
    left: u32,
    status: u16,
    method: Option<Method>,
    path: String,
}

/// What becomes of one request.
#[derive(Debug)]
pub(super) enum Fate {
    Served,
    Failed(u16),
    /// There is no server.
    Lost,
}

impl Faults {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), interruptions: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `n` requests are answered with this HTTP status.
    pub fn fail_next(&self, n: u32, status: u16) {
        self.state().failing.push(Failing { left: n, status, method: None, path: String::new() });
    }

    /// The next `n` requests with this method and this text in their path are answered with this HTTP status.
    pub fn fail_next_of(&self, n: u32, status: u16, method: Method, path: impl Into<String>) {
        self.state().failing.push(Failing { left: n, status, method: Some(method), path: path.into() });
    }

    /// Every request takes this much longer.
    pub fn latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// Watches, logs and streams that are open end, as they do when a load balancer loses patience.
    pub fn drop_watches(&self) {
        self.interruptions.send_modify(|count| *count += 1);
    }

    /// The API server is gone: nothing connects, and what is open ends. Pods run on.
    pub fn down(&self) {
        self.state().down = true;
        self.drop_watches();
    }

    /// The API server is back.
    pub fn up(&self) {
        self.state().down = false;
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        *self.state() = State::default();
    }

    pub(super) fn interruptions(&self) -> watch::Receiver<u64> {
        let mut interruptions = self.interruptions.subscribe();
        interruptions.mark_unchanged();
        interruptions
    }

    pub(super) fn is_down(&self) -> bool {
        self.state().down
    }

    pub(super) fn delay(&self) -> Duration {
        self.state().latency
    }

    pub(super) fn fate(&self, method: &Method, path: &str) -> Fate {
        let mut state = self.state();
        if state.down {
            return Fate::Lost;
        }
        let fits = |failing: &&mut Failing| {
            failing.left > 0
                && failing.method.as_ref().is_none_or(|wanted| wanted == method)
                && path.contains(&failing.path)
        };
        let Some(failing) = state.failing.iter_mut().find(fits) else { return Fate::Served };
        failing.left -= 1;
        let status = failing.status;
        state.failing.retain(|failing| failing.left > 0);
        Fate::Failed(status)
    }
}
