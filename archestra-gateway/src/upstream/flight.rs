//! Single flight: many callers that need the same thing at once share one attempt to get it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::oneshot;

use super::error::UpstreamError;
use super::tasks::Tasks;

type Outcome<T> = Result<T, UpstreamError>;
type Joined<T> = Shared<BoxFuture<'static, Outcome<T>>>;
type Running<K, T> = Arc<Mutex<HashMap<K, Joined<T>>>>;

/// The attempts that are under way, by what they are for.
///
/// An attempt is a task of its own and outlives callers who give up, so that even callers with short deadlines get
/// something slow started in the end. Its result goes to those who wait and is not remembered.
pub(super) struct Flights<K, T> {
    running: Running<K, T>,
    tasks: Tasks,
}

/// Whether a caller began the attempt that it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Led,
    Joined,
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { running: Running::default(), tasks }
    }

    /// Waits for the attempt under `key`; `start` begins it if there is none.
    ///
    /// What the attempt finds out must be stored by the attempt itself, before it ends.
    pub(super) async fn join<F>(&self, key: K, start: impl FnOnce() -> F) -> (Outcome<T>, Role)
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let (joined, role) = match locked(&self.running).entry(key.clone()) {
            Entry::Occupied(running) => (running.get().clone(), Role::Joined),
            Entry::Vacant(place) => {
                let joined = async move { receiver.await.unwrap_or(Err(UpstreamError::Stopping)) }.boxed().shared();
                (place.insert(joined).clone(), Role::Led)
            }
        };
        if role == Role::Led {
            // Without the lock: an attempt that gets no task takes itself off the list at once.
            let landing = Landing { running: Arc::clone(&self.running), key };
            let attempt = start();
            self.tasks.spawn(async move {
                let outcome = attempt.await;
                drop(landing);
                // Nobody may be waiting any more.
                drop(sender.send(outcome));
            });
        }
        (joined.await, role)
    }
}

impl<K, T> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("running", &locked(&self.running).len()).finish_non_exhaustive()
    }
}

/// Takes the attempt off the list, however it ends.
struct Landing<K: Eq + Hash, T> {
    running: Running<K, T>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        let landed = locked(&self.running).remove(&self.key);
        drop(landed);
    }
}

/// The contents of a mutex; every user of one leaves it consistent at each step, so poison means nothing.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
