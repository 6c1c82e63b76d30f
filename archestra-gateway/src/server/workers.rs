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

/// How long what blocks may go on at the end.
const LAST_WORK: Duration = Duration::from_secs(1);

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
    pub(crate) async fn start(count: Option<NonZeroUsize>) -> io::Result<Self> {
        let stop = CancellationToken::new();
        // Whatever was started ends again when the rest cannot be.
        let guard = stop.clone().drop_guard();
        let (mut workers, mut ended) = (Vec::new(), Vec::new());
        for number in 1..=count.map_or(0, NonZeroUsize::get) {
            let ((begin, begun), (end, ending)) = (oneshot::channel(), oneshot::channel::<()>());
            let stop = stop.clone();
            thread::Builder::new().name(format!("archestra-{number}")).spawn(move || {
                run(number, begin, stop);
                drop(end);
            })?;
            let handle = begun.await.map_err(io::Error::other)??;
            workers.push(Worker { handle, connections: Arc::default() });
            ended.push(ending);
        }
        guard.disarm();
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

/// One thread: its runtime is made and ended here, where blocking is allowed.
fn run(number: usize, begin: oneshot::Sender<io::Result<runtime::Handle>>, stop: CancellationToken) {
    NUMBER.set(number);
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(begin.send(Err(error))),
    };
    if begin.send(Ok(runtime.handle().clone())).is_ok() {
        runtime.block_on(stop.run_until_cancelled_owned(tick()));
    }
    // A name that is still being resolved must not hold the end up.
    runtime.shutdown_timeout(LAST_WORK);
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
