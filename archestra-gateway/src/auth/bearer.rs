//! Bearer tokens, looked up by hash and cached until whom they stand for may have changed.

use super::{
    AuthError,
    changes::{Changes, Moment},
    principal,
    usage::{Bounds, Usage, Usages},
};
use crate::{
    route::{Freshness, Source, Told},
    upstream::{Flights, Tasks},
};
use archestra_core::{
    feed::FeedEvent,
    identity::{
        IdentityKey, IdentityLookup, IdentityStore, IdentityStoreExt as _, Principal, Token, TokenHash, TokenOwner,
    },
};
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use http::{HeaderMap, header::AUTHORIZATION};
use moka::sync::Cache;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const CACHED: u64 = 10_000;
const CACHE_TTL: Duration = Duration::from_secs(300);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);
/// How many lookups run at once: anybody can start one with any text.
const LOOKUPS: usize = 256;
/// How often one caller is looked up when identities change meanwhile.
const TRIES: u32 = 4;
/// The longest token that is looked up.
const MAX_TOKEN: usize = 16 * 1024;

/// A caller that was let in.
#[derive(Debug, Clone)]
pub(crate) struct Authenticated {
    /// Who.
    pub(crate) principal: Arc<Principal>,
    /// What the caller uses at once.
    pub(crate) usage: Arc<Usage>,
    /// By what, to look again later.
    pub(crate) credential: TokenHash,
}

#[derive(Debug, Clone)]
struct Known {
    /// When the store was asked: what was read before a change that concerns it is not used.
    asked: Moment,
    /// What the principal is made of: the token, and whom it stands for.
    subjects: [Uuid; 2],
    principal: Arc<Principal>,
    usage: Arc<Usage>,
    expires_at: Option<DateTime<Utc>>,
}

/// Lets callers in.
#[derive(Debug)]
pub(crate) struct Authenticator {
    store: Arc<dyn IdentityStore>,
    freshness: Arc<Freshness>,
    known: Cache<TokenHash, Known>,
    changes: Changes,
    usages: Arc<Usages>,
    /// After a change those whom it concerns are looked up anew: once, and not by each call that is under way.
    lookups: Flights<(TokenHash, Moment), Known, AuthError>,
    /// Bounds what the store is asked at once, on behalf of callers who may have gone by then.
    turns: Arc<Semaphore>,
    tasks: Tasks,
}

/// Whether a credential was good a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Before,
    Never,
}

impl Seen {
    /// A turn to ask the store. Strangers get one at once or never, so that they cannot make a queue; those who were let in before
    /// wait for theirs, since a change of identities sends all of them to the store at the same time.
    async fn turn(self, turns: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, AuthError> {
        let turn = match self {
            Self::Never => turns.try_acquire_owned().ok(),
            Self::Before => {
                let turn = tokio::time::timeout(LOOKUP_TIMEOUT, turns.acquire_owned()).await;
                turn.ok().and_then(Result::ok)
            }
        };
        turn.ok_or(AuthError::Unavailable)
    }
}

impl Authenticator {
    /// It is made within a tokio runtime, which its lookups run on.
    pub(crate) fn new(store: Arc<dyn IdentityStore>, freshness: Arc<Freshness>, bounds: Bounds) -> Self {
        let known = Cache::builder().max_capacity(CACHED).time_to_live(CACHE_TTL).build();
        let (tasks, usages) = (Tasks::new(), Arc::new(Usages::new(bounds)));
        let (lookups, turns) = (Flights::new(tasks.clone()), Arc::new(Semaphore::new(LOOKUPS)));
        Self { store, freshness, known, changes: Changes::new(), usages, lookups, turns, tasks }
    }

    /// The caller of a request with these headers.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap) -> Result<Authenticated, AuthError> {
        let credential = TokenHash::of(bearer(headers)?);
        let Known { principal, usage, .. } = self.known(credential).await?;
        Ok(Authenticated { principal, usage, credential })
    }

    /// Who a credential that was let in before stands for now.
    pub(crate) async fn principal(&self, credential: TokenHash) -> Result<Arc<Principal>, AuthError> {
        self.known(credential).await.map(|known| known.principal)
    }

    async fn known(&self, credential: TokenHash) -> Result<Known, AuthError> {
        for _ in 0..TRIES {
            if self.freshness.check().is_err() {
                return Err(AuthError::Unavailable);
            }
            let now = self.changes.now();
            let seen = match self.known.get(&credential) {
                Some(known) if self.holds(&known) => return alive(known),
                Some(_) => Seen::Before,
                None => Seen::Never,
            };
            // Boxed to keep small what a call carries along whose caller is known.
            let found = Box::pin(self.look_up_together(credential, now, seen)).await;
            // What was read before a change may be what has changed: a token that was revoked meanwhile is not let in.
            let holds = match &found {
                Ok(known) => self.holds(known),
                Err(AuthError::Unavailable) => true,
                Err(_) => !self.changes.everybody_since(now),
            };
            if holds {
                return alive(found?);
            }
        }
        Err(AuthError::Unavailable)
    }

    fn holds(&self, known: &Known) -> bool {
        !self.changes.since(known.asked, &known.subjects)
    }

    async fn look_up_together(&self, credential: TokenHash, now: Moment, seen: Seen) -> Result<Known, AuthError> {
        let (found, _) = self
            .lookups
            .join((credential, now), || {
                let (store, usages, cache) = (Arc::clone(&self.store), Arc::clone(&self.usages), self.known.clone());
                let turns = Arc::clone(&self.turns);
                async move {
                    let _turn = seen.turn(turns).await?;
                    let known = look_up(&*store, &usages, credential, now).await?;
                    // Failures are not kept: a token that is made a moment later must work at once.
                    cache.insert(credential, known.clone());
                    Ok(known)
                }
            })
            .await;
        found
    }

    /// Takes in what has changed.
    pub(super) fn notice(&self, event: &FeedEvent<IdentityKey>) {
        match event {
            FeedEvent::Resync { .. } => self.changes.note_everybody(),
            FeedEvent::Changed { keys, .. } => self.changes.note(keys),
            FeedEvent::Confirmed { .. } => {}
        }
    }

    #[cfg(test)]
    pub(super) fn forget_everybody(&self) {
        self.changes.note_everybody();
    }

    /// What is kept of a credential as if it had been made so much earlier.
    #[cfg(test)]
    pub(super) fn age(&self, credential: TokenHash, by: chrono::TimeDelta) {
        if let Some(mut known) = self.known.get(&credential) {
            known.expires_at = known.expires_at.map(|at| at - by);
            self.known.insert(credential, known);
        }
    }
}

impl Drop for Authenticator {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn look_up(
    store: &dyn IdentityStore,
    usages: &Usages,
    credential: TokenHash,
    asked: Moment,
) -> Result<Known, AuthError> {
    let asking = async {
        let Some(token) = store.find_one::<Token>(IdentityLookup::TokenByHash(credential)).await? else {
            return Ok(None);
        };
        let principal = principal::of_token(store, &token.value).await?;
        let id = Uuid::from(token.value.id);
        let owner = match token.value.owner {
            TokenOwner::User(user) => user.into(),
            TokenOwner::Team(team) => team.into(),
            TokenOwner::Client(client) => client.into(),
            TokenOwner::Organization => id,
        };
        Ok(principal.map(|principal| Known {
            asked,
            subjects: [id, owner],
            usage: usages.of(&principal),
            principal: Arc::new(principal),
            expires_at: token.value.expires_at,
        }))
    };
    match tokio::time::timeout(LOOKUP_TIMEOUT, asking).await {
        Ok(Ok(known)) => known.ok_or(AuthError::Invalid),
        Ok(Err(error)) => {
            let error: archestra_core::Error = error;
            tracing::warn!(%error, "a token could not be looked up");
            Err(AuthError::Unavailable)
        }
        Err(_) => {
            tracing::warn!("a token could not be looked up: the identity store took longer than {LOOKUP_TIMEOUT:?}");
            Err(AuthError::Unavailable)
        }
    }
}

fn alive(known: Known) -> Result<Known, AuthError> {
    match known.expires_at {
        Some(at) if at <= Utc::now() => Err(AuthError::Invalid),
        _ => Ok(known),
    }
}

/// The token that a request brings. Whatever else is in the header is no token, so that the client is told how to get one; two
/// headers are refused, since who reads them may not agree on which counts.
fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Malformed);
    }
    let text = value.to_str().map_err(|_| AuthError::Missing)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthError::Missing)?;
    let token = token.trim_matches(' ');
    let fits = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN;
    if fits && !token.contains(' ') { Ok(token) } else { Err(AuthError::Missing) }
}

/// The task that notes every change of identities.
#[derive(Debug)]
pub(crate) struct IdentityFollower {
    pub(crate) authenticator: Arc<Authenticator>,
}

impl IdentityFollower {
    /// Follows until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(self) {
        let mut since = None;
        loop {
            let mut feed = self.authenticator.store.changes(since);
            let mut told = Told::default();
            loop {
                let asked = Instant::now();
                let Some(event) = feed.next().await else { break };
                match event {
                    Ok(event) => {
                        since = Some(event.revision());
                        self.authenticator.notice(&event);
                        let holds = told.since(&event, asked);
                        if !matches!(event, FeedEvent::Changed { .. }) {
                            self.authenticator.freshness.confirm(Source::Identity, holds);
                        }
                    }
                    Err(error) => tracing::warn!(%error, "the identity store's change feed is interrupted"),
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
