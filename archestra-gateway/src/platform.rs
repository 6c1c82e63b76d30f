//! What an embedder holds: one platform, built from backends, with its router, its server and its agents.

mod agent;
mod builder;
mod options;
mod refresh;
mod tasks;
mod workloads;

pub use agent::{Agent, AgentError, AgentTool};
pub use builder::{BuildError, PlatformBuilder};
pub use options::Options;

use crate::{
    auth::Authenticator,
    lifecycle::Lifecycle,
    mcp::front::{Front, HostPolicy, InFlight, Sessions},
    observe::{AuditWriter, Meters},
    route::{Committed, Freshness, Routes},
    server::{self, Workers},
    upstream::Upstreams,
};
use archestra_core::{
    catalog::CatalogStore,
    credential::CredentialResolver,
    feed::StoreRevision,
    id::EntryId,
    identity::IdentityStore,
    runtime::Runtime,
    secret::SecretStore,
    state::{AuditSink, StateStore},
};
use axum::Router;
use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long calls that are ended may take to say so upstream and to the audit log.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long the answer to a change waits until calls are routed by it. A slower store is followed all the same.
const SETTLE: Duration = Duration::from_secs(1);

/// What the parts of a platform share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) catalog: Arc<dyn CatalogStore>,
    pub(crate) committed: Arc<Committed>,
    pub(crate) identity: Arc<dyn IdentityStore>,
    pub(crate) secrets: Arc<dyn SecretStore>,
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) sink: Arc<dyn AuditSink>,
    pub(crate) runtime: Option<Arc<dyn Runtime>>,
    pub(crate) resolver: Arc<dyn CredentialResolver>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) upstreams: Upstreams,
    pub(crate) hosts: HostPolicy,
    pub(crate) sessions: Sessions,
    pub(crate) in_flight: InFlight,
    pub(crate) listeners: Arc<Semaphore>,
    pub(crate) meters: Meters,
    pub(crate) audit: AuditWriter,
    pub(crate) server_info: serde_json::Value,
    pub(crate) workers: Workers,
    /// Calls that go on without their client.
    pub(crate) tasks: TaskTracker,
    /// Fires when the platform begins to end: streams say goodbye.
    pub(crate) stop: CancellationToken,
    pub(crate) drained_by: OnceLock<Instant>,
    /// Fires when calls under way may no longer go on.
    pub(crate) kill: CancellationToken,
}

impl Shared {
    /// Waits until calls are routed by everything that was committed through this platform, but not for long.
    pub(crate) async fn settled(&self) {
        let newest = self.committed.newest();
        drop(tokio::time::timeout(SETTLE, self.routes.reached(Some(newest))).await);
    }

    /// When everything under way must have ended, however many parts wait for it.
    pub(crate) fn drain_deadline(&self) -> Instant {
        *self.drained_by.get_or_init(|| Instant::now() + self.options.drain_timeout)
    }

    /// Where the metadata of the protected resource at this place is (RFC 9728), if the public URL is known.
    pub(crate) fn resource_metadata_url(&self, place: &str) -> Option<String> {
        let slug = self.routes.load().consumer(place)?.consumer.spec.slug.clone();
        let url = self.options.public_url.as_ref()?;
        let origin = url.origin().ascii_serialization();
        let path = url.path().trim_end_matches('/');
        Some(format!("{origin}/.well-known/oauth-protected-resource{path}/v1/mcp/{slug}"))
    }

    /// The canonical URL of a consumer's endpoint.
    pub(crate) fn resource_url(&self, slug: &str) -> String {
        format!("{}/v1/mcp/{slug}", self.public_base())
    }

    /// Where a person who lacks an installation of an entry is sent.
    pub(crate) fn install_url(&self, entry: EntryId) -> String {
        format!("{}/install/{entry}", self.public_base())
    }

    /// The public URL without `/` at its end; empty while it is not known.
    pub(crate) fn public_base(&self) -> &str {
        self.options.public_url.as_ref().map_or("", |url| url.as_str().trim_end_matches('/'))
    }
}

/// A running platform: the gateway and the control plane around it. Cloning it is cheap.
///
/// Its tasks run until [`shutdown`](Self::shutdown).
#[derive(Debug, Clone)]
pub struct Platform {
    shared: Arc<Shared>,
    lifecycle: Lifecycle,
    background: tasks::Background,
}

impl Platform {
    /// Begins to build one.
    pub fn builder() -> PlatformBuilder {
        PlatformBuilder::default()
    }

    /// Everything that is served on the public listener, as a router to mount or to serve.
    ///
    /// A request may carry [`axum::extract::ConnectInfo<SocketAddr>`], which is what the audit log names as its origin.
    pub fn router(&self) -> Router {
        server::router(&self.shared, &self.lifecycle)
    }

    /// `/metrics`, for a listener that is not public.
    pub fn metrics_router(&self) -> Router {
        server::metrics_router(self.shared.meters.clone())
    }

    /// Serves the router on `listener` until `shutdown` fires and what was under way has ended, or the drain timeout has
    /// passed.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let front = Front::new(Arc::clone(&self.shared));
        server::serve(listener, front, self.router(), &self.shared, shutdown).await
    }

    /// What makes entries into tools.
    #[must_use]
    pub const fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// The metrics.
    #[must_use]
    pub fn meters(&self) -> &Meters {
        &self.shared.meters
    }

    /// The agent or gateway with this slug or id, as the embedding program calls it: with all rights, and no token.
    #[must_use]
    pub fn agent(&self, place: &str) -> Agent {
        Agent::new(Arc::clone(&self.shared), place)
    }

    /// Waits until calls are routed by what the catalog says after `revision`, or by anything at all.
    ///
    /// # Errors
    /// It took longer than `within`.
    pub async fn synced(&self, revision: Option<StoreRevision>, within: Duration) -> Result<(), archestra_core::Error> {
        tokio::time::timeout(within, self.shared.routes.reached(revision))
            .await
            .map_err(|_| archestra_core::Error::Timeout { operation: "following the catalog", after: within })
    }

    /// Whether the stores answer and are being followed.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub async fn ready(&self) -> Result<(), archestra_core::Error> {
        server::ready(&self.shared).await
    }

    /// Ends everything that the platform runs: calls are drained, records written, connections closed, local workloads ended.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout_at(self.shared.drain_deadline(), self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("calls were still under way when the drain timeout passed");
            self.shared.kill.cancel();
            drop(tokio::time::timeout(LAST_WORDS, self.shared.tasks.wait()).await);
        }
        self.lifecycle.shutdown().await;
        self.shared.upstreams.shutdown().await;
        if let Some(runtime) = &self.shared.runtime {
            runtime.shutdown().await;
        }
        self.background.shutdown().await;
        self.shared.workers.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
