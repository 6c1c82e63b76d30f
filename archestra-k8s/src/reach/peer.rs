//! A stream that another replica has: calls go over that one, as long as it has it.

use super::{Shared, lease::Holder, link::Link, unavailable};
use crate::names;
use archestra_core::{
    Result,
    bridge::{
        client::{ConnectError, Events},
        peer::{self, Subject},
    },
    runtime::stdio::{Channel, Multiplexer, MultiplexerOptions},
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long the other replica may take to let us in.
const GREETING: Duration = Duration::from_secs(5);

/// The way over the replica that has the stream.
#[derive(Debug, Clone)]
pub(super) struct Forwarded {
    address: String,
    subject: Subject,
    /// What the callers of a shared server share. Those of an exclusive one have a connection each, and take turns over there.
    shared: Option<Arc<Multiplexer>>,
}

impl Forwarded {
    pub(super) fn is_open(&self) -> bool {
        self.shared.as_ref().is_none_or(|multiplexer| multiplexer.closed_now().is_none())
    }

    /// A private channel.
    pub(super) async fn channel(&self, shared: &Shared, link: &Link) -> Result<Channel> {
        if let Some(multiplexer) = &self.shared {
            return multiplexer.channel().map_err(|error| unavailable(error.to_string()));
        }
        let Some(peers) = &shared.config.peers else {
            return Err(unavailable("this replica knows no others".to_owned()));
        };
        let connected = peer::channel(&self.address, peers.keys(), &self.subject, GREETING).await;
        let (channel, driver) =
            connected.map_err(|error| unavailable(why_not(&self.subject, &self.address, &error)))?;
        let stop = link.stop.clone();
        drop(shared.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = driver => {}
            }
        }));
        Ok(channel)
    }
}

/// What keeps calls from going over another replica; `None`: nothing that is known beforehand.
pub(super) fn obstacle(shared: &Shared, holder: &Holder) -> Option<String> {
    let name = &holder.identity;
    let why = match (&shared.config.peers, &holder.peer) {
        (Some(_), Some(_)) => return None,
        (None, _) => "and this one does not listen for others",
        (Some(_), None) => "which does not listen for others",
    };
    Some(format!("its stream belongs to another replica of the platform, {name}, {why}; only that one can call it"))
}

/// Lets calls go over the replica that has the stream, until that ends. It fails if it never began.
pub(super) async fn follow(
    shared: &Shared,
    link: &Link,
    holder: Holder,
    publish: impl FnOnce(Forwarded),
) -> Result<(), String> {
    let (Some(peers), Some(address)) = (&shared.config.peers, holder.peer) else {
        return Err("this replica knows no others".to_owned());
    };
    let subject = Subject { holder: holder.identity, namespace: link.namespace.clone(), workload: link.id.to_string() };
    let failed = |error: &ConnectError| why_not(&subject, &address, error);
    let place = shared.observer.place(&link.id);
    if place.is_some_and(|place| names::is_exclusive(&place.deployment.metadata)) {
        let events = peer::events(&address, peers.keys(), &subject, GREETING).await.map_err(|error| failed(&error))?;
        publish(Forwarded { address, subject, shared: None });
        ended(events).await;
        return Ok(());
    }
    let options = MultiplexerOptions { deadline: GREETING, ..shared.config.multiplexer.clone() };
    let multiplexer = peer::multiplexer(&address, peers.keys(), &subject, GREETING, options).await;
    let multiplexer = Arc::new(multiplexer.map_err(|error| failed(&error))?);
    multiplexer.ready().await.map_err(|error| format!("the replica {} did not answer: {error}", subject.holder))?;
    publish(Forwarded { address, subject, shared: Some(Arc::clone(&multiplexer)) });
    let _guard = ShutDown(Some(Arc::clone(&multiplexer)), shared.tasks.clone());
    multiplexer.closed().await;
    Ok(())
}

/// Waits until the connection is gone. Whoever is attached tells the platform what the server announces.
async fn ended(mut events: Events) {
    while events.tools_changed().await.is_some() {}
}

/// Ends the callers' channels also when following is given up.
struct ShutDown(Option<Arc<Multiplexer>>, tokio_util::task::TaskTracker);

impl Drop for ShutDown {
    fn drop(&mut self) {
        if let Some(multiplexer) = self.0.take() {
            drop(self.1.spawn(async move { drop(timeout(GREETING, multiplexer.shutdown()).await) }));
        }
    }
}

fn why_not(subject: &Subject, address: &str, error: &ConnectError) -> String {
    let why = match error {
        ConnectError::Unreachable(error) => format!("cannot be reached at {address}: {error}"),
        ConnectError::TimedOut { after } => format!("did not answer at {address} within {after:?}"),
        ConnectError::Refused(refusal) => format!("does not serve it at the moment: {refusal}"),
        error => format!("is not what answers at {address}: {error}"),
    };
    format!("its stream belongs to another replica of the platform, {}, which {why}", subject.holder)
}
