//! What one replica tells the others of legacy sessions: which were ended, and which calls were taken back.
//!
//! It is written into the state store under the second it happened, so that each replica finds what is new there by one
//! cheap query, and no call ever has to ask.

use super::{InFlight, Sessions, session};
use archestra_core::{
    Error, Result,
    state::{StateKey, StateStore},
};
use bytes::Bytes;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

const SPACE: &str = "mcp.session";
/// How often the others are listened to.
const EVERY: Duration = Duration::from_secs(1);
/// How long the store may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// For how long a call that was taken back is worth telling.
const TAKEN_BACK: Duration = Duration::from_secs(60);
/// How far clocks may differ, and how long the store may be gone, until everything is read again. Less than the seconds that
/// share the digits of a prefix.
const SLACK: u64 = 30;
/// How many digits of a second name the hundred seconds that it is among.
const DIGITS: usize = 8;

const ENDED: u8 = b'e';
const CANCELLED: u8 = b'c';

/// Says that a session has ended.
///
/// # Errors
/// The store does not answer: the others go on serving it.
pub(super) async fn ended(store: &dyn StateStore, session: u128) -> Result<()> {
    tell(store, ENDED, session, "", session::LIFETIME).await
}

/// Says that a call of a session was taken back.
///
/// # Errors
/// The store does not answer.
pub(super) async fn cancelled(store: &dyn StateStore, session: u128, request: &str) -> Result<()> {
    tell(store, CANCELLED, session, request, TAKEN_BACK).await
}

async fn tell(store: &dyn StateStore, kind: u8, session: u128, request: &str, ttl: Duration) -> Result<()> {
    let mut value = Vec::with_capacity(17 + request.len());
    value.push(kind);
    value.extend_from_slice(&session.to_be_bytes());
    value.extend_from_slice(request.as_bytes());
    let key = StateKey::new(SPACE, format!("{:010}/{}", session::now(), uuid::Uuid::now_v7().simple()));
    let late = Error::Timeout { operation: "telling the other replicas", after: PATIENCE };
    timeout(PATIENCE, store.put(&key, Bytes::from(value), ttl)).await.unwrap_or(Err(late))
}

/// Listens to the other replicas.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) sessions: Sessions,
    pub(crate) in_flight: InFlight,
}

impl Told {
    /// Listens for ever.
    pub(crate) async fn listen(self) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = HashSet::new();
        let mut read: Option<Instant> = None;
        loop {
            tick.tick().await;
            let asked = Instant::now();
            let all = read.is_none_or(|read| read.elapsed() >= Duration::from_secs(SLACK));
            match timeout(PATIENCE, self.scan(all)).await {
                Ok(Ok(told)) => {
                    for (name, value) in &told {
                        if !known.contains(name) {
                            self.take_in(value);
                        }
                    }
                    known = told.into_iter().map(|(name, _)| name).collect();
                    read = Some(asked);
                }
                Ok(Err(error)) => tracing::debug!(%error, "what other replicas say of sessions cannot be read"),
                Err(_) => tracing::debug!("what other replicas say of sessions cannot be read in time"),
            }
        }
    }

    /// What was told lately, or all that is still told.
    async fn scan(&self, all: bool) -> Result<Vec<(String, Bytes)>> {
        if all {
            return self.store.scan(SPACE, "").await;
        }
        let now = session::now();
        let prefix = |second: u64| format!("{second:010}")[..DIGITS].to_owned();
        let (before, after) = (prefix(now.saturating_sub(SLACK)), prefix(now.saturating_add(SLACK)));
        let mut told = self.store.scan(SPACE, &before).await?;
        if after != before {
            told.extend(self.store.scan(SPACE, &after).await?);
        }
        Ok(told)
    }

    fn take_in(&self, value: &[u8]) {
        let Some((kind, rest)) = value.split_first() else { return };
        let Some((session, request)) = rest.split_first_chunk().map(|(id, rest)| (u128::from_be_bytes(*id), rest))
        else {
            return;
        };
        match *kind {
            ENDED => self.sessions.ended(session),
            CANCELLED => {
                self.in_flight.cancel(session, &String::from_utf8_lossy(request));
            }
            // A later version may have more to say.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::version::ProtocolVersion;
    use archestra_core::{
        id::ConsumerId,
        secret::KeyRing,
        testing::{Faulty, MemoryState, fixtures},
    };
    use tokio_util::sync::CancellationToken;

    fn replica(store: &Arc<dyn StateStore>, ring: &KeyRing) -> (Sessions, InFlight) {
        let (sessions, in_flight) = (Sessions::new(ring), InFlight::default());
        let told = Told { store: Arc::clone(store), sessions: sessions.clone(), in_flight: in_flight.clone() };
        tokio::spawn(told.listen());
        (sessions, in_flight)
    }

    async fn pass() {
        tokio::time::sleep(EVERY * 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_at_one_replica_ends_at_the_others() {
        let faulty = Faulty::<dyn StateStore>::new(Arc::new(MemoryState::new()));
        let faults = faulty.faults();
        let store: Arc<dyn StateStore> = Arc::new(faulty);
        let ring = KeyRing::generate().unwrap();
        let (here, _) = replica(&store, &ring);
        let (there, calls) = replica(&store, &ring);
        let (who, consumer) = (fixtures::organization_principal(), ConsumerId::new());
        let id = here.open(&who, consumer, ProtocolVersion::V2025_06_18).unwrap();
        let session = there.resume(&id, &who, consumer).unwrap();
        let other = there.open(&who, consumer, ProtocolVersion::V2025_06_18).unwrap();
        let taken_back = CancellationToken::new();
        let entry = calls.begin(session.id, "41", taken_back.clone()).unwrap();
        let goes_on = CancellationToken::new();
        let _entry = calls.begin(session.id, "42", goes_on.clone()).unwrap();

        cancelled(&*store, session.id, "41").await.unwrap();
        pass().await;
        assert!(taken_back.is_cancelled() && !goes_on.is_cancelled());
        assert!(there.resume(&id, &who, consumer).is_some());
        drop(entry);
        let again = CancellationToken::new();
        let _entry = calls.begin(session.id, "41", again.clone()).unwrap();
        pass().await;
        assert!(!again.is_cancelled(), "what was told once is taken in once");

        ended(&*store, session.id).await.unwrap();
        pass().await;
        assert_eq!(there.resume(&id, &who, consumer), None);
        assert!(there.resume(&other, &who, consumer).is_some());

        let (later, _) = replica(&store, &ring);
        pass().await;
        assert_eq!(later.resume(&id, &who, consumer), None, "whoever starts later hears of it too");

        faults.fail_after(0);
        assert!(ended(&*store, session.id).await.is_err());
        tokio::time::sleep(Duration::from_secs(2 * SLACK)).await;
        faults.heal();
        let session = here.resume(&other, &who, consumer).unwrap();
        ended(&*store, session.id).await.unwrap();
        pass().await;
        assert_eq!(there.resume(&other, &who, consumer), None);
    }
}
