//! Processes without a bridge: one stream, attached to by the replica that has the Lease, and multiplexed there.

use super::{
    Shared,
    bridge::ready_pod,
    lease::{self, NoLease, Sighting},
    link::{Link, ReadyPod},
    lock, unavailable,
};
use crate::{error::within, names, observe::view};
use archestra_core::{
    Result,
    runtime::stdio::{Channel, Era, Mode, Multiplexer, MultiplexerOptions, NegotiationError},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{AttachParams, AttachedProcess},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// How much waits in each direction of a stream.
const BUFFER: usize = 64 * 1024;
/// The pause before a stream that ended is opened again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A stream that lasted this long was well.
const WELL: Duration = Duration::from_secs(30);
/// How soon a Lease that somebody else had is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long a process that is being initialized is waited for.
const WAIT: Duration = Duration::from_secs(10);

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
    Ready(Arc<Multiplexer>),
    /// Not here, or not until somebody does something.
    Refused(String),
}

/// A private channel over the workload's stream.
pub(super) async fn channel(shared: &Arc<Shared>, link: &Arc<Link>) -> Result<Channel> {
    let mut state = keeper(shared, link);
    let wait = WAIT.min(shared.config.multiplexer.deadline);
    // A stream that has just ended may still be the one that is published.
    let open = |state: &State| match state {
        State::Ready(multiplexer) => multiplexer.closed_now().is_none(),
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
        State::Ready(multiplexer) => multiplexer.channel().map_err(|error| unavailable(error.to_string())),
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

/// Keeps the stream open until the workload is forgotten or the Lease is lost.
async fn keep(shared: Arc<Shared>, link: Arc<Link>, seen: Arc<Sighting>, state: watch::Sender<State>) {
    let mut held = match lease::take(&shared, &link, &seen).await {
        Ok(held) => held,
        Err(NoLease::Held(holder)) => {
            state.send_replace(State::Refused(format!(
                "its stream belongs to another replica of the platform: {holder}; only that one can call it"
            )));
            return;
        }
        Err(NoLease::Failed(error)) => {
            state.send_replace(State::Refused(error.to_string()));
            return;
        }
    };
    let lost = tokio::select! {
        () = link.stop.cancelled() => false,
        () = held.keep() => true,
        () = attach(&shared, &link, &state) => false,
    };
    let ended = if lost { "another replica has taken its stream" } else { "its stream is being closed" };
    if let State::Ready(multiplexer) = state.send_replace(State::Refused(ended.to_owned())) {
        multiplexer.shutdown().await;
    }
    if !lost {
        held.release().await;
    }
}

/// Opens the stream, and opens it again whenever it ends. It does not return.
async fn attach(shared: &Shared, link: &Link, state: &watch::Sender<State>) {
    let mut pause = PAUSE.0;
    let mut era = None;
    loop {
        let pod = ready_pod(shared, link).await;
        let began = Instant::now();
        let reason = match open(shared, link, &pod).await {
            Ok(process) => serve(shared, link, state, process, &mut era).await,
            Err(error) => error.to_string(),
        };
        tracing::debug!(workload = %link.id, reason, "a stream that was attached to has ended");
        drop(state.send_replace(State::Busy(reason)));
        if began.elapsed() > WELL {
            pause = PAUSE.0;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn open(shared: &Shared, link: &Link, pod: &ReadyPod) -> Result<AttachedProcess> {
    let pods: Api<Pod> = Api::namespaced(shared.client.clone(), &link.namespace);
    let params = AttachParams {
        container: view::server_name(&pod.pod).map(str::to_owned),
        stdin: true,
        stdout: true,
        stderr: false,
        tty: false,
        max_stdin_buf_size: Some(BUFFER),
        max_stdout_buf_size: Some(BUFFER),
        ..AttachParams::default()
    };
    within(shared.config.call_timeout, "attaching to a pod", pods.attach(pod.name(), &params)).await
}

/// Serves one stream to its end, and says why it ended.
async fn serve(
    shared: &Shared,
    link: &Link,
    state: &watch::Sender<State>,
    mut process: AttachedProcess,
    era: &mut Option<Era>,
) -> String {
    let (Some(stdin), Some(stdout)) = (process.stdin(), process.stdout()) else {
        return "the API server gave no stream".to_owned();
    };
    let multiplexer = Arc::new(Multiplexer::start(stdout, stdin, options(shared, link, *era)));
    let mut tools_changed = multiplexer.tools_changed();
    match multiplexer.ready().await {
        Ok(negotiated) => *era = Some(negotiated.era),
        Err(error) => {
            if error == NegotiationError::DiedWhileProbing {
                *era = Some(Era::Legacy);
            }
            multiplexer.shutdown().await;
            return error.to_string();
        }
    }
    drop(state.send_replace(State::Ready(Arc::clone(&multiplexer))));
    let closed = loop {
        tokio::select! {
            closed = multiplexer.closed() => break closed,
            Ok(()) = tools_changed.changed() => shared.observer.tools_changed(&link.id),
        }
    };
    closed.to_string()
}

fn options(shared: &Shared, link: &Link, era: Option<Era>) -> MultiplexerOptions {
    let place = shared.observer.place(&link.id);
    let exclusive = place.is_some_and(|place| names::is_exclusive(&place.deployment.metadata));
    MultiplexerOptions {
        mode: if exclusive { Mode::Exclusive } else { Mode::Shared },
        era,
        numbers_from: random_start(),
        ..shared.config.multiplexer.clone()
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
