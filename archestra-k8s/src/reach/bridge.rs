//! Channels of a bridge, each on a connection of its own, and what its server announces.

use super::{
    RETRY, Shared,
    link::{Link, ReadyPod, Token},
    route::{self, Dead, Others},
    standing, unavailable,
};
use crate::{
    names,
    observe::{Place, view},
};
use archestra_core::{
    Result,
    bridge::{
        Refusal,
        client::{self, ConnectError, Driver, Events},
    },
    runtime::stdio::{Channel, Multiplexer, MultiplexerOptions},
};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::time::sleep;

/// How long a bridge may take to let us in.
const GREETING: Duration = Duration::from_secs(5);
/// The longest pause before a bridge is asked again for its announcements.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// A session of its own.
    Channel,
    /// All callers.
    Multiplexer,
    Events,
}

enum Met {
    Channel(Channel, Driver),
    Multiplexer(Multiplexer),
    Events(Events),
}

/// A private channel to the pod's server. A server that is exclusive gives its turn to a connection; the callers of a shared
/// one share a connection too, so that what they say at the same time travels together.
pub(super) async fn channel(shared: &Arc<Shared>, link: &Arc<Link>, place: &Place, pod: &ReadyPod) -> Result<Channel> {
    let channel = if names::is_exclusive(&place.deployment.metadata) {
        own_connection(shared, link, pod).await?
    } else {
        let stream = link.stream(pod);
        let multiplexer = stream.get_or_try_init(|| shared_connection(shared, link, pod)).await?;
        multiplexer.channel().map_err(|error| unavailable(error.to_string()))?
    };
    if link.begins_to_follow() {
        drop(shared.tasks.spawn(follow(Arc::clone(shared), Arc::clone(link))));
    }
    Ok(channel)
}

async fn own_connection(shared: &Arc<Shared>, link: &Arc<Link>, pod: &ReadyPod) -> Result<Channel> {
    let Met::Channel(channel, driver) = meet(shared, link, pod, Purpose::Channel).await? else {
        return Err(unavailable("its bridge was asked for something else".to_owned()));
    };
    let over = over(shared, link, pod);
    drop(shared.tasks.spawn(async move {
        tokio::select! {
            () = over => {}
            () = driver => {}
        }
    }));
    Ok(channel)
}

async fn shared_connection(shared: &Arc<Shared>, link: &Arc<Link>, pod: &ReadyPod) -> Result<Arc<Multiplexer>> {
    let Met::Multiplexer(multiplexer) = meet(shared, link, pod, Purpose::Multiplexer).await? else {
        return Err(unavailable("its bridge was asked for something else".to_owned()));
    };
    let multiplexer = Arc::new(multiplexer);
    multiplexer.ready().await.map_err(|error| unavailable(format!("its bridge did not answer: {error}")))?;
    let (over, ending) = (over(shared, link, pod), Arc::clone(&multiplexer));
    drop(shared.tasks.spawn(async move {
        tokio::select! {
            () = over => ending.shutdown().await,
            _ = ending.closed() => {}
        }
    }));
    Ok(multiplexer)
}

/// Waits until nothing is to be expected of a pod any more, whether its connection says so or not: through a port-forward, it
/// never does where the node is silent.
fn over(shared: &Arc<Shared>, link: &Arc<Link>, pod: &ReadyPod) -> impl Future<Output = ()> + Send + use<> {
    let (shared, link, pod) = (Arc::clone(shared), Arc::clone(link), pod.clone());
    async move {
        tokio::select! {
            () = link.stop.cancelled() => {}
            () = standing::over(&shared, &link, &pod) => {}
        }
    }
}

async fn meet(shared: &Shared, link: &Link, pod: &ReadyPod, purpose: Purpose) -> Result<Met> {
    let port = pod.port(names::BRIDGE_PORT);
    let ways = route::ways(shared, link, pod);
    let mut dead: Vec<Dead> = Vec::new();
    let mut which = Token::Known;
    let mut tried = 0;
    while let Some(way) = ways.get(tried).copied() {
        let token = link.token(shared, which).await?;
        let others = if tried + 1 < ways.len() { Others::Some } else { Others::None };
        let met = match route::stream(shared, link, pod, way, port, others).await {
            Ok(stream) => match purpose {
                Purpose::Channel => {
                    client::over(stream, &token, GREETING).await.map(|(channel, driver)| Met::Channel(channel, driver))
                }
                Purpose::Multiplexer => {
                    let options = MultiplexerOptions { deadline: GREETING, ..shared.config.multiplexer.clone() };
                    client::multiplexer(stream, &token, GREETING, options).await.map(Met::Multiplexer)
                }
                Purpose::Events => client::events_over(stream, &token, GREETING).await.map(Met::Events),
            },
            Err(nowhere) => {
                route::bury(link, &nowhere);
                dead.push(nowhere);
                tried += 1;
                continue;
            }
        };
        match met {
            Ok(met) => {
                route::note(shared, link, pod, way, &dead);
                return Ok(met);
            }
            Err(ConnectError::Refused(Refusal::Unauthorized)) if which == Token::Known => which = Token::Fresh,
            Err(ConnectError::Refused(refusal)) => {
                return Err(unavailable(format!("its bridge refused: {refusal}")));
            }
            Err(error) => {
                let nowhere = Dead::new(way, error.to_string());
                route::bury(link, &nowhere);
                dead.push(nowhere);
                tried += 1;
            }
        }
    }
    Err(route::nowhere(&dead))
}

/// Tells the observer whenever the server says that its tools changed, whichever pod it is in.
async fn follow(shared: Arc<Shared>, link: Arc<Link>) {
    let following = async {
        let mut pause = RETRY;
        // What was heard last, and of which process.
        let mut heard: Option<(u64, u64)> = None;
        loop {
            let pod = ready_pod(&shared, &link).await;
            if let Ok(Met::Events(mut events)) = meet(&shared, &link, &pod, Purpose::Events).await {
                let mut farewell = pin!(standing::farewell(&shared, &link, &pod));
                let process = pod.generation();
                loop {
                    let count = tokio::select! {
                        // Through a port-forward, the end of a pod that is lost with its node is told by nobody.
                        _ = &mut farewell => {
                            pause = RETRY;
                            break;
                        }
                        count = events.tools_changed() => count,
                    };
                    let Some(count) = count else { break };
                    pause = RETRY;
                    let before = heard.replace((process, count));
                    let before = before.filter(|(of, _)| *of == process).map_or(0, |(_, count)| count);
                    if count > before {
                        shared.observer.tools_changed(&link.id);
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    tokio::select! {
        () = link.stop.cancelled() => {}
        () = following => {}
    }
}

/// Waits for a pod whose server answers.
pub(super) async fn ready_pod(shared: &Shared, link: &Link) -> ReadyPod {
    let mut changed = shared.observer.changed();
    loop {
        changed.mark_unchanged();
        let place = shared.observer.place(&link.id);
        if let Some(pod) = place.and_then(|place| place.pods.into_iter().find(|pod| view::is_ready(pod))) {
            return ReadyPod::of(pod);
        }
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
