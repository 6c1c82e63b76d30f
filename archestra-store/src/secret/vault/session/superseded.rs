//! Logins that newer ones took the place of, until they are revoked.

use super::Login;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::Notify, time::Instant};

/// How many wait to be revoked at most; of more than that the oldest ends by itself.
const MOST: usize = 16;

/// Those that wait.
#[derive(Default)]
pub(super) struct Superseded {
    waiting: Mutex<VecDeque<(Instant, Arc<Login>)>>,
    came: Notify,
}

impl Superseded {
    /// Adds one that is to be revoked at this time, when nothing goes by it any more.
    pub(super) fn add(&self, due: Instant, login: Arc<Login>) {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST {
            waiting.pop_front();
        }
        waiting.push_back((due, login));
        self.came.notify_one();
    }

    /// The next one, which stays until it is [done](Self::done).
    pub(super) async fn next(&self) -> (Instant, Arc<Login>) {
        loop {
            let first = self.waiting().front().cloned();
            match first {
                Some(first) => return first,
                None => self.came.notified().await,
            }
        }
    }

    /// Forgets one that was revoked.
    pub(super) fn done(&self, login: &Arc<Login>) {
        self.waiting().retain(|(_, waiting)| !Arc::ptr_eq(waiting, login));
    }

    /// All of them, of which none waits any more.
    pub(super) fn take(&self) -> Vec<Arc<Login>> {
        self.waiting().drain(..).map(|(_, login)| login).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Instant, Arc<Login>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
