//! Processes without a bridge: one stream, attached to by the replica that has the Lease, and multiplexed there. The others go
//! over that replica.

use super::{
    Shared,
    bridge::ready_pod,
    lease::{self, Held, NoLease, Sighting},
    link::{Link, ReadyPod},
    lock,
    peer::{self, Forwarded},
    standing::{self, Farewell},
    unavailable,
    ws::{self, HalfClose},
};
use crate::{error::within, names, observe::view};
use archestra_core::{
    Result,
    runtime::stdio::{Channel, Era, Mode, Multiplexer, MultiplexerOptions, NegotiationError},
};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Connection;
use kube::{
    Resource as _,
    api::{AttachParams, Request},
};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

/// The pause before a stream that ended is opened again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A stream that lasted this long was well.
const WELL: Duration = Duration::from_secs(30);
/// How soon a Lease that somebody else had is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long a replica that has the Lease and does not serve is tried before it is said to callers. It is longer than a Lease.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How long a process that is being initialized is waited for.
const WAIT: Duration = Duration::from_secs(10);

/// How often it is looked whether calls to a pod that ends are still under way.
const LOOK: Duration = Duration::from_millis(100);

/// How many notifications wait for a channel, and how many of its requests may be under way, where other replicas have channels.
const PEER_QUEUE: usize = 1024;
const PEER_IN_FLIGHT: usize = 8192;

/// What is said while a stream is given up, and another one is opened.
const ANEW: &str = "its stream is being opened anew";

/// The task that keeps a workload's stream, seen from outside.
#[derive(Debug)]
pub(super) struct Keeper {
    state: watch::Receiver<State>,
    began: Instant,
    seen: Arc<Sighting>,
}

#[derive(Debug, Clone)]
enum State {
    /// Not yet, or not at the moment; with the reason.
    Busy(String),
    Ready(Attached),
    /// Another replica has the stream, and calls go over that one.
    Forwarded(Forwarded),
    /// Not here, or not until somebody does something.
    Refused(String),
}

/// A stream that is attached to.
#[derive(Debug, Clone)]
struct Attached {
    multiplexer: Arc<Multiplexer>,
    pod: ReadyPod,
}

impl Attached {
    /// Whether it is to be used. One that has just ended, or whose pod has just been lost, may still be the one that is published.
    fn is_open(&self, shared: &Shared, link: &Link) -> bool {
        self.multiplexer.closed_now().is_none() && standing::serves(shared, link, &self.pod)
    }
}

/// A private channel over the workload's stream.
pub(super) async fn channel(shared: &Arc<Shared>, link: &Arc<Link>) -> Result<Channel> {
    let mut state = keeper(shared, link);
    let wait = WAIT.min(shared.config.multiplexer.deadline);
    let open = |state: &State| match state {
        State::Ready(attached) => attached.is_open(shared, link),
        State::Forwarded(forwarded) => forwarded.is_open(),
        State::Refused(_) => true,
        State::Busy(_) => false,
    };
    let found = timeout(wait, state.wait_for(open)).await.map(|found| found.map(|state| state.clone()));
    let found = match found {
        Ok(Ok(state)) => state,
        Ok(Err(_)) => return Err(unavailable("its stream has ended".to_owned())),
        Err(_) => state.borrow().clone(),
    };
    match found {
        State::Ready(attached) if attached.is_open(shared, link) => {
            attached.multiplexer.channel().map_err(|error| unavailable(error.to_string()))
        }
        State::Ready(_) => Err(unavailable(ANEW.to_owned())),
        State::Forwarded(forwarded) => forwarded.channel(shared, link).await,
        State::Refused(reason) | State::Busy(reason) => Err(unavailable(reason)),
    }
}

/// The state of the workload's keeper, which is started if there is none.
fn keeper(shared: &Arc<Shared>, link: &Arc<Link>) -> watch::Receiver<State> {
    let mut slot = lock(&link.attach);
    if let Some(keeper) = &*slot
        && (keeper.state.has_changed().is_ok() || keeper.began.elapsed() < LOOK_AGAIN)
    {
        return keeper.state.clone();
    }
    let seen = slot.as_ref().map_or_else(Arc::default, |keeper| Arc::clone(&keeper.seen));
    let (sender, state) = watch::channel(State::Busy("its stream is being opened".to_owned()));
    drop(shared.tasks.spawn(keep(Arc::clone(shared), Arc::clone(link), Arc::clone(&seen), sender)));
    *slot = Some(Keeper { state: state.clone(), began: Instant::now(), seen });
    drop(slot);
    state
}

/// The stream that is attached to here, or why there is none. What goes over another replica is no stream of ours.
pub(super) fn held(shared: &Shared, link: &Link) -> Result<Arc<Multiplexer>, String> {
    let state = lock(&link.attach).as_ref().map(|keeper| keeper.state.borrow().clone());
    match state {
        Some(State::Ready(attached)) if attached.is_open(shared, link) => Ok(attached.multiplexer),
        Some(State::Ready(_)) => Err(ANEW.to_owned()),
        Some(State::Busy(reason) | State::Refused(reason)) => Err(reason),
        Some(State::Forwarded(_)) | None => Err("this replica is not attached to it".to_owned()),
    }
}

/// Keeps a way to the process until the workload is forgotten: its stream, or that of the replica that has the Lease.
async fn keep(shared: Arc<Shared>, link: Arc<Link>, seen: Arc<Sighting>, state: watch::Sender<State>) {
    let (mut pause, mut well) = (PAUSE.0, Instant::now());
    loop {
        // A Lease that is made now would be there for ever.
        if !shared.observer.has(&link.id) {
            state.send_replace(State::Refused("it was removed".to_owned()));
            return;
        }
        let reason = match lease::take(&shared, &link, &seen).await {
            Ok(held) => {
                if hold(&shared, &link, held, &state).await == Ending::Stopped {
                    return;
                }
                (pause, well) = (PAUSE.0, Instant::now());
                "another replica has taken its stream".to_owned()
            }
            Err(NoLease::Lost) => "another replica is taking its stream".to_owned(),
            Err(NoLease::Held(holder)) => {
                if let Some(obstacle) = peer::obstacle(&shared, &holder) {
                    state.send_replace(State::Refused(obstacle));
                    return;
                }
                let publish = |forwarded| drop(state.send_replace(State::Forwarded(forwarded)));
                let followed = tokio::select! {
                    () = link.stop.cancelled() => return,
                    followed = peer::follow(&shared, &link, holder, publish) => followed,
                };
                if followed.is_ok() {
                    (pause, well) = (PAUSE.0, Instant::now());
                }
                followed.err().unwrap_or_else(|| "the replica that had its stream has ended".to_owned())
            }
            Err(NoLease::Failed(error)) => {
                state.send_replace(State::Refused(error.to_string()));
                return;
            }
        };
        tracing::debug!(workload = %link.id, reason, "a stream is looked for again");
        if well.elapsed() > GIVE_UP {
            state.send_replace(State::Refused(reason));
            return;
        }
        state.send_replace(State::Busy(reason));
        tokio::select! {
            () = link.stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(LOOK_AGAIN);
    }
}

/// Why a Lease is not ours any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// We gave it up.
    Stopped,
    /// Somebody else has it, or it ran out.
    Lost,
}

/// Keeps the stream open until the workload is forgotten or the Lease is lost.
async fn hold(shared: &Arc<Shared>, link: &Arc<Link>, mut held: Held<'_>, state: &watch::Sender<State>) -> Ending {
    let ending = tokio::select! {
        () = link.stop.cancelled() => Ending::Stopped,
        () = held.keep() => Ending::Lost,
        () = attach(shared, link, state) => Ending::Stopped,
    };
    let said = match ending {
        Ending::Lost => State::Busy("another replica has taken its stream".to_owned()),
        Ending::Stopped => State::Refused("its stream is being closed".to_owned()),
    };
    if let State::Ready(attached) = state.send_replace(said) {
        attached.multiplexer.shutdown().await;
    }
    match ending {
        Ending::Stopped if shared.observer.has(&link.id) => held.release().await,
        Ending::Stopped => held.remove().await,
        Ending::Lost => {}
    }
    ending
}

/// How a stream ended.
#[derive(Debug)]
enum Ended {
    /// By itself.
    Broken(String),
    /// We gave it up, since its pod does not serve any more.
    GivenUp(String),
}

/// Opens the stream, and opens it again whenever it ends. It does not return.
async fn attach(shared: &Arc<Shared>, link: &Arc<Link>, state: &watch::Sender<State>) {
    let mut pause = PAUSE.0;
    let mut era = None;
    loop {
        let pod = ready_pod(shared, link).await;
        let began = Instant::now();
        let ended = match open(shared, link, &pod).await {
            Ok(connection) => serve(shared, link, &pod, state, connection, &mut era).await,
            Err(error) => Ended::Broken(error.to_string()),
        };
        let reason = match &ended {
            Ended::Broken(reason) | Ended::GivenUp(reason) => reason,
        };
        tracing::debug!(workload = %link.id, reason, "a stream that was attached to has ended");
        drop(state.send_replace(State::Busy(reason.clone())));
        if began.elapsed() > WELL {
            pause = PAUSE.0;
        }
        // Where the pod is another one, there is nothing to wait for.
        if matches!(ended, Ended::Broken(_)) {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

async fn open(shared: &Shared, link: &Link, pod: &ReadyPod) -> Result<Connection> {
    let params = AttachParams {
        container: view::server_name(&pod.pod).map(str::to_owned),
        stdin: true,
        stdout: true,
        stderr: false,
        tty: false,
        ..AttachParams::default()
    };
    let attaching = async {
        let request = Request::new(Pod::url_path(&(), Some(&link.namespace)));
        let mut request = request.attach(pod.name(), &params).map_err(kube::Error::BuildRequest)?;
        request.extensions_mut().insert("attach");
        shared.client.connect(request).await
    };
    within(shared.config.call_timeout, "attaching to a pod", attaching).await
}

/// Serves one stream to its end, and says why it ended.
async fn serve(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    pod: &ReadyPod,
    state: &watch::Sender<State>,
    connection: Connection,
    era: &mut Option<Era>,
) -> Ended {
    let half_close = if connection.supports_stream_close() { HalfClose::Known } else { HalfClose::Unknown };
    let (stdout, stdin) = ws::split(connection.into_stream(), half_close);
    let multiplexer = Arc::new(Multiplexer::start(stdout, stdin, options(shared, link, *era)));
    let mut tools_changed = multiplexer.tools_changed();
    let mut farewell = pin!(standing::farewell(shared, link, pod));
    let negotiated = tokio::select! {
        negotiated = multiplexer.ready() => negotiated,
        farewell = &mut farewell => return give_up(shared, link, pod, multiplexer, farewell).await,
    };
    match negotiated {
        Ok(negotiated) => *era = Some(negotiated.era),
        Err(error) => {
            if error == NegotiationError::DiedWhileProbing {
                *era = Some(Era::Legacy);
            }
            multiplexer.shutdown().await;
            return Ended::Broken(error.to_string());
        }
    }
    let attached = Attached { multiplexer: Arc::clone(&multiplexer), pod: pod.clone() };
    drop(state.send_replace(State::Ready(attached)));
    loop {
        tokio::select! {
            closed = multiplexer.closed() => return Ended::Broken(closed.to_string()),
            Ok(()) = tools_changed.changed() => shared.observer.tools_changed(&link.id),
            farewell = &mut farewell => {
                // Nobody is to begin anything here.
                drop(state.send_replace(State::Busy(ANEW.to_owned())));
                return give_up(shared, link, pod, multiplexer, farewell).await;
            }
        }
    }
}

/// Ends a stream that nobody has closed: at once where nobody answers, otherwise when what is under way has finished, which is
/// not waited for here.
async fn give_up(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    pod: &ReadyPod,
    multiplexer: Arc<Multiplexer>,
    farewell: Farewell,
) -> Ended {
    match farewell {
        Farewell::Lost(reason) => {
            multiplexer.shutdown().await;
            Ended::GivenUp(reason.to_owned())
        }
        Farewell::Leaving(until) => {
            let (shared, link, pod) = (Arc::clone(shared), Arc::clone(link), pod.clone());
            let tasks = shared.tasks.clone();
            drop(tasks.spawn(async move {
                tokio::select! {
                    () = link.stop.cancelled() => {}
                    () = standing::over(&shared, &link, &pod) => {}
                    _ = timeout_at(until, idle(&multiplexer)) => {}
                }
                multiplexer.shutdown().await;
            }));
            Ended::GivenUp("its pod ends, and another one is ready".to_owned())
        }
    }
}

/// Waits until nothing is under way that will be answered, or nothing more can be.
async fn idle(multiplexer: &Multiplexer) {
    while multiplexer.is_busy() && multiplexer.closed_now().is_none() {
        sleep(LOOK).await;
    }
}

fn options(shared: &Shared, link: &Link, era: Option<Era>) -> MultiplexerOptions {
    let place = shared.observer.place(&link.id);
    let exclusive = place.is_some_and(|place| names::is_exclusive(&place.deployment.metadata));
    let set = shared.config.multiplexer.clone();
    // All callers of another replica share one channel.
    let (queue, max_in_flight) = match &shared.config.peers {
        Some(_) => (set.queue.max(PEER_QUEUE), set.max_in_flight.max(PEER_IN_FLIGHT)),
        None => (set.queue, set.max_in_flight),
    };
    MultiplexerOptions {
        mode: if exclusive { Mode::Exclusive } else { Mode::Shared },
        era,
        numbers_from: random_start(),
        queue,
        max_in_flight,
        ..set
    }
}

/// The process may still answer what was asked over an earlier stream, perhaps by another replica: numbers must differ.
fn random_start() -> u32 {
    let mut bytes = [0; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes) >> 1,
        Err(_) => std::process::id(),
    }
}
