//! Threads that each drive their own share of the connections, so that a call is never handed from one thread to another.
//!
//! Every thread has a runtime and a reactor of its own, and a pool of upstream connections of its own: what a call waits for
//! wakes the thread that asked, and no other. Whatever is not a tool call runs on the runtime that built the platform.

use std::{
    cell::Cell,
    fmt, io,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{runtime, sync::oneshot};
use tokio_util::sync::CancellationToken;

/// Shorter than nearly every deadline, and long for a thread that has nothing to do.
const TICK: Duration = Duration::from_secs(1);

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// The number of the present worker, from 1; 0 on every other thread.
pub(crate) fn number() -> usize {
    NUMBER.get()
}

/// The threads of one platform.
#[derive(Clone, Default)]
pub(crate) struct Workers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    workers: Vec<Worker>,
    stop: CancellationToken,
    ended: Mutex<Vec<oneshot::Receiver<()>>>,
}

struct Worker {
    handle: runtime::Handle,
    connections: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts so many; with none, connections run where they are accepted.
    ///
    /// # Errors
    /// A thread or its reactor could not be made.
    pub(crate) fn start(count: Option<NonZeroUsize>) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let (mut workers, mut ended) = (Vec::new(), Vec::new());
        for number in 1..=count.map_or(0, NonZeroUsize::get) {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            workers.push(Worker { handle: runtime.handle().clone(), connections: Arc::default() });
            let (stop, (end, ending)) = (stop.clone(), oneshot::channel::<()>());
            ended.push(ending);
            thread::Builder::new().name(format!("archestra-{number}")).spawn(move || {
                NUMBER.set(number);
                runtime.block_on(stop.run_until_cancelled_owned(tick()));
                // Everything that it ran is gone before anybody is told.
                drop(runtime);
                drop(end);
            })?;
        }
        Ok(Self(Arc::new(Inner { workers, stop, ended: Mutex::new(ended) })))
    }

    /// The one with the fewest connections, and its count with one more; `None` when there are no workers.
    pub(crate) fn least(&self) -> Option<(&runtime::Handle, Share)> {
        let worker = self.0.workers.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed))?;
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Some((&worker.handle, Share(Arc::clone(&worker.connections))))
    }

    /// Ends them all, and whatever they still run.
    pub(crate) async fn shutdown(&self) {
        self.0.stop.cancel();
        let ended = std::mem::take(&mut *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in ended {
            // Nothing is sent: the end of the thread closes the channel.
            drop(thread.await);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("count", &self.0.workers.len()).finish_non_exhaustive()
    }
}

/// Keeps a timer that is due soon. A reactor that would sleep longer is woken by a system call for every deadline that a call
/// sets, as each is nearer than whatever it sleeps for.
async fn tick() {
    loop {
        tokio::time::sleep(TICK).await;
    }
}

/// A connection that counts for its worker until it is dropped.
#[derive(Debug)]
pub(crate) struct Share(Arc<AtomicUsize>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
