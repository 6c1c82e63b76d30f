//! The two doors of the bridge: channels and health. Both are bounded, and both have an end.

use super::{State, args::Options, connection, health, log::Log};
use crate::secret::SecretValue;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many connections may be about to say who they are; the next ones wait in the listener's queue.
const MAX_GREETING: usize = 64;
/// How many health checks may be answered at a time.
const MAX_CHECKS: usize = 16;
/// The pause after an accept that failed: what fails is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// File descriptors that are needed for other things than connections.
const OTHER_FILES: u64 = 64;

/// What is open.
pub(super) struct Doors {
    connections: TaskTracker,
    closing: CancellationToken,
    checks: TaskTracker,
}

/// What every connection is judged by.
pub(super) struct House {
    pub(super) token: SecretValue,
    pub(super) state: watch::Receiver<State>,
    pub(super) log: Log,
    /// One for each connection that is let in.
    pub(super) places: Arc<Semaphore>,
    pub(super) max_connections: usize,
}

impl Doors {
    pub(super) async fn open(
        options: &Options,
        token: SecretValue,
        state: &watch::Sender<State>,
        log: &Log,
    ) -> io::Result<Self> {
        let channels = bind(options.listen).await?;
        let health = bind(options.health).await?;
        let doors =
            Self { connections: TaskTracker::new(), closing: CancellationToken::new(), checks: TaskTracker::new() };
        let house = Arc::new(House {
            token,
            state: state.subscribe(),
            log: log.clone(),
            places: Arc::new(Semaphore::new(options.max_connections)),
            max_connections: options.max_connections,
        });
        let greeting = Arc::new(Semaphore::new(MAX_GREETING));
        let connections = doors.connections.clone();
        let closing = doors.closing.clone();
        drop(doors.connections.spawn(async move {
            let accepting = accept(channels, greeting, |stream, greeting| {
                drop(connections.spawn(connection::serve(Arc::clone(&house), stream, greeting)));
            });
            tokio::select! {
                () = closing.cancelled() => {}
                () = accepting => {}
            }
        }));
        let (state, checks) = (state.subscribe(), doors.checks.clone());
        drop(doors.checks.spawn(async move {
            accept(health, Arc::new(Semaphore::new(MAX_CHECKS)), |stream, permit| {
                let state = state.clone();
                drop(checks.spawn(async move {
                    health::answer(stream, &state).await;
                    drop(permit);
                }));
            })
            .await;
        }));
        Ok(doors)
    }

    /// Takes no more connections; those that are open stay.
    pub(super) fn close(&self) {
        self.closing.cancel();
        self.connections.close();
    }

    /// Waits until all connections have ended.
    pub(super) async fn left(&self) {
        self.connections.wait().await;
    }
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{address} cannot be listened on: {error}")))
}

async fn accept(
    listener: TcpListener,
    bound: Arc<Semaphore>,
    mut take: impl FnMut(TcpStream, tokio::sync::OwnedSemaphorePermit),
) {
    while let Ok(permit) = Arc::clone(&bound).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => take(stream, permit),
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Lets the bridge open as many files as its connections need. It is called after the server was started, whose own limit is
/// none of our business.
pub(super) fn raise_limit(connections: usize) {
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < most) {
        // Without it fewer connections are taken.
        let _not_allowed = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    }
}
