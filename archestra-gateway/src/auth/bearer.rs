//! Static bearer tokens, looked up by hash and cached until anything about identities changes.

use super::{
    AuthError, principal,
    usage::{Bounds, Usage, Usages},
};
use crate::route::{Freshness, Source};
use archestra_core::{
    feed::FeedEvent,
    identity::{IdentityLookup, IdentityStore, IdentityStoreExt as _, Principal, Token, TokenHash},
};
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use http::{HeaderMap, header::AUTHORIZATION};
use moka::sync::Cache;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const CACHED: u64 = 10_000;
const CACHE_TTL: Duration = Duration::from_secs(300);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);

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
    /// The count of identity changes when the store was asked: what was read before a later one is not used.
    epoch: u64,
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
    epoch: AtomicU64,
    usages: Usages,
}

impl Authenticator {
    pub(crate) fn new(store: Arc<dyn IdentityStore>, freshness: Arc<Freshness>, bounds: Bounds) -> Self {
        let known = Cache::builder().max_capacity(CACHED).time_to_live(CACHE_TTL).build();
        Self { store, freshness, known, epoch: AtomicU64::new(0), usages: Usages::new(bounds) }
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
        if self.freshness.check().is_err() {
            return Err(AuthError::Unavailable);
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        if let Some(known) = self.known.get(&credential)
            && known.epoch == epoch
        {
            return alive(known);
        }
        // Failures are not kept: a token that is made a moment later must work at once.
        let known = match tokio::time::timeout(LOOKUP_TIMEOUT, self.look_up(credential, epoch)).await {
            Ok(Ok(known)) => known.ok_or(AuthError::Invalid)?,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a token could not be looked up");
                return Err(AuthError::Unavailable);
            }
            Err(_) => return Err(AuthError::Unavailable),
        };
        let known = alive(known)?;
        self.known.insert(credential, known.clone());
        Ok(known)
    }

    async fn look_up(&self, credential: TokenHash, epoch: u64) -> archestra_core::Result<Option<Known>> {
        let Some(token) = self.store.find_one::<Token>(IdentityLookup::TokenByHash(credential)).await? else {
            return Ok(None);
        };
        let principal = principal::of_token(&*self.store, &token.value).await?;
        Ok(principal.map(|principal| Known {
            epoch,
            usage: self.usages.of(&principal),
            principal: Arc::new(principal),
            expires_at: token.value.expires_at,
        }))
    }

    fn forget_everybody(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}

fn alive(known: Known) -> Result<Known, AuthError> {
    match known.expires_at {
        Some(at) if at <= Utc::now() => Err(AuthError::Invalid),
        _ => Ok(known),
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Malformed);
    }
    let text = value.to_str().map_err(|_| AuthError::Malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthError::Malformed)?;
    let token = token.trim_start_matches(' ');
    let fits = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= 16 * 1024;
    if fits && !token.contains(' ') { Ok(token) } else { Err(AuthError::Malformed) }
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
            loop {
                let asked = Instant::now();
                let Some(event) = feed.next().await else { break };
                match event {
                    Ok(event) => {
                        since = Some(event.revision());
                        if !matches!(event, FeedEvent::Confirmed { .. }) {
                            self.authenticator.forget_everybody();
                        }
                        self.authenticator.freshness.confirm(Source::Identity, asked);
                    }
                    Err(error) => tracing::warn!(%error, "the identity store's change feed is interrupted"),
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
