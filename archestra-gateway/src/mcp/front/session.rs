//! Legacy session ids: sealed, bound to caller and consumer, so that any replica can serve them without a store.

use crate::mcp::version::ProtocolVersion;
use archestra_core::{
    id::ConsumerId,
    identity::{AuthMethod, Principal},
    secret::{Derived, KeyId, KeyRing, KeyRingError, Purpose},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use moka::sync::Cache;
use std::{sync::Arc, time::Duration};
use tokio::sync::broadcast;

/// How long a session id is accepted after it was made.
pub(super) const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
const ENDED: u64 = 100_000;
/// How many ends of sessions may wait to be heard of.
const ENDS: usize = 1024;
const PLAIN_LEN: usize = 16 + 8 + 1;

/// Seals and opens session ids. Clones share what was ended.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    keys: Arc<Derived>,
    ended: Cache<u128, ()>,
    ends: broadcast::Sender<u128>,
}

/// An open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    /// Unlike that of any other session.
    pub(crate) id: u128,
    /// What was negotiated.
    pub(crate) version: ProtocolVersion,
}

impl Sessions {
    pub(crate) fn new(ring: &KeyRing) -> Self {
        let ended = Cache::builder().max_capacity(ENDED).time_to_live(LIFETIME).build();
        Self { keys: Arc::new(ring.derive(Purpose::Sessions)), ended, ends: broadcast::Sender::new(ENDS) }
    }

    /// A new session of this caller with this consumer.
    pub(crate) fn open(
        &self,
        principal: &Principal,
        consumer: ConsumerId,
        version: ProtocolVersion,
    ) -> Result<String, KeyRingError> {
        let mut plain = [0; PLAIN_LEN];
        let position = ProtocolVersion::KNOWN.iter().position(|known| *known == version).unwrap_or_default();
        plain[..16].copy_from_slice(uuid::Uuid::now_v7().as_bytes());
        plain[16..24].copy_from_slice(&now().to_be_bytes());
        plain[24] = u8::try_from(position).unwrap_or_default();
        let sealed = self.keys.seal(&plain, &binding(principal, consumer))?;
        Ok(format!("{}.{}", sealed.key, URL_SAFE_NO_PAD.encode(sealed.bytes)))
    }

    /// The session of this id, if it is one of this caller with this consumer, and neither too old nor ended.
    pub(crate) fn resume(&self, id: &str, principal: &Principal, consumer: ConsumerId) -> Option<Session> {
        let (key, sealed) = id.split_once('.')?;
        let key: KeyId = key.parse().ok()?;
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let plain = self.keys.open(&key, &sealed, &binding(principal, consumer)).ok()?;
        let plain: &[u8; PLAIN_LEN] = plain.as_slice().try_into().ok()?;
        let id = u128::from_be_bytes(plain[..16].try_into().ok()?);
        let made = u64::from_be_bytes(plain[16..24].try_into().ok()?);
        let version = *ProtocolVersion::KNOWN.get(usize::from(plain[24]))?;
        let alive = now().saturating_sub(made) < LIFETIME.as_secs() && !self.ended.contains_key(&id);
        alive.then_some(Session { id, version })
    }

    /// Notes that a session has ended.
    pub(super) fn ended(&self, session: u128) {
        self.ended.insert(session, ());
        // Nobody may be listening.
        drop(self.ends.send(session));
    }

    /// Names the sessions that end from now on, here or elsewhere. Who falls behind misses some.
    pub(crate) fn ends(&self) -> broadcast::Receiver<u128> {
        self.ends.subscribe()
    }
}

/// The present second.
pub(super) fn now() -> u64 {
    u64::try_from(chrono::Utc::now().timestamp()).unwrap_or_default()
}

/// What a session id is bound to. Another token of the same user continues it; another user's never does.
fn binding(principal: &Principal, consumer: ConsumerId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(consumer.as_uuid().as_bytes());
    bytes.extend_from_slice(principal.caller.kind().as_bytes());
    bytes.push(0);
    match (&principal.caller.id(), &principal.method) {
        (Some(id), _) => bytes.extend_from_slice(id.as_bytes()),
        // Callers without an id of their own are told apart by their token.
        (None, AuthMethod::Token(token)) => bytes.extend_from_slice(token.as_uuid().as_bytes()),
        (None, method) => bytes.extend_from_slice(method.kind().as_bytes()),
    }
    bytes
}
