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

type Joined<T, E> = Shared<BoxFuture<'static, Result<T, E>>>;
type Running<K, T, E> = Arc<Mutex<HashMap<K, Joined<T, E>>>>;

/// Why an attempt brought nothing: everything is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopping;

/// The attempts that are under way, by what they are for.
///
/// An attempt is a task of its own and outlives callers who give up, so that even callers with short deadlines get
/// something slow started in the end. Its result goes to those who wait and is not remembered.
pub(crate) struct Flights<K, T, E = UpstreamError> {
    running: Running<K, T, E>,
    tasks: Tasks,
}

/// Whether a caller began the attempt that it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Led,
    Joined,
}

impl<K, T, E> Flights<K, T, E>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
    E: Clone + From<Stopping> + Send + Sync + 'static,
{
    pub(crate) fn new(tasks: Tasks) -> Self {
        Self { running: Running::default(), tasks }
    }

    /// Waits for the attempt under `key`; `start` begins it if there is none.
    ///
    /// What the attempt finds out must be stored by the attempt itself, before it ends.
    pub(crate) async fn join<F>(&self, key: K, start: impl FnOnce() -> F) -> (Result<T, E>, Role)
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (joined, role) = self.begin(key, start);
        (joined.await, role)
    }

    /// As [`join`](Self::join), for whoever need not wait: the attempt goes on when what is returned is dropped.
    pub(crate) fn begin<F>(&self, key: K, start: impl FnOnce() -> F) -> (Joined<T, E>, Role)
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let (joined, role) = match locked(&self.running).entry(key.clone()) {
            Entry::Occupied(running) => (running.get().clone(), Role::Joined),
            Entry::Vacant(place) => {
                let joined = async move { receiver.await.unwrap_or_else(|_| Err(Stopping.into())) }.boxed().shared();
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
        (joined, role)
    }
}

impl<K, T, E> fmt::Debug for Flights<K, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("running", &locked(&self.running).len()).finish_non_exhaustive()
    }
}

/// Takes the attempt off the list, however it ends.
struct Landing<K: Eq + Hash, T, E> {
    running: Running<K, T, E>,
    key: K,
}

impl<K: Eq + Hash, T, E> Drop for Landing<K, T, E> {
    fn drop(&mut self) {
        let landed = locked(&self.running).remove(&self.key);
        drop(landed);
    }
}

/// The contents of a mutex; every user of one leaves it consistent at each step, so poison means nothing.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
