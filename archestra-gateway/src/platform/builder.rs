//! Builds a platform from its backends, and refuses what cannot work with a typed error.

use super::{Options, Platform, Shared, tasks::Background};
use crate::{
    auth::{Authenticator, Bounds},
    lifecycle::{Lifecycle, LifecycleParts},
    mcp::front::{HostPolicy, InFlight, Sessions},
    observe::{AuditWriter, Meters},
    route::{Committed, Follower, Freshness, Names, RouteParts, Routes},
    server::Workers,
    upstream::{
        UpstreamOptions, UpstreamParts, Upstreams,
        client::{HttpClient, PoolOptions},
        dial::{ClientTls, DialOptions, DialPolicy, Dialer, TlsSetupError},
    },
};
use archestra_core::{
    catalog::CatalogStore,
    credential::{CredentialResolver, DefaultResolver},
    identity::IdentityStore,
    runtime::Runtime,
    secret::{KeyRing, SecretStore},
    state::{AuditSink, StateStore},
};
use std::{
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How old a confirmation of the change feeds may be.
const FRESH: Duration = Duration::from_secs(5);

/// Why a platform cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A backend was not given.
    #[error("the platform needs a {what}: call PlatformBuilder::{method}")]
    Absent {
        /// What is missing.
        what: &'static str,
        /// How it is given.
        method: &'static str,
    },
    /// TLS cannot be set up; most often because no crypto provider is installed.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// The threads that drive connections cannot be started.
    #[error("the threads for connections cannot be started: {0}")]
    Threads(std::io::Error),
    /// A store does not answer.
    #[error("a backend is not usable: {0}")]
    Backend(#[from] archestra_core::Error),
}

/// Collects the parts of a platform.
#[derive(Debug, Default)]
#[must_use]
pub struct PlatformBuilder {
    catalog: Option<Arc<dyn CatalogStore>>,
    identity: Option<Arc<dyn IdentityStore>>,
    secrets: Option<Arc<dyn SecretStore>>,
    state: Option<Arc<dyn StateStore>>,
    audit: Option<Arc<dyn AuditSink>>,
    runtime: Option<Arc<dyn Runtime>>,
    resolver: Option<Arc<dyn CredentialResolver>>,
    key_ring: Option<Arc<KeyRing>>,
    options: Options,
}

impl PlatformBuilder {
    /// Where the catalog is.
    pub fn catalog(mut self, catalog: Arc<dyn CatalogStore>) -> Self {
        self.catalog = Some(catalog);
        self
    }

    /// Where identities are.
    pub fn identity(mut self, identity: Arc<dyn IdentityStore>) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Where secrets are.
    pub fn secrets(mut self, secrets: Arc<dyn SecretStore>) -> Self {
        self.secrets = Some(secrets);
        self
    }

    /// Where short-lived state is.
    pub fn state(mut self, state: Arc<dyn StateStore>) -> Self {
        self.state = Some(state);
        self
    }

    /// Where audit records go.
    pub fn audit(mut self, audit: Arc<dyn AuditSink>) -> Self {
        self.audit = Some(audit);
        self
    }

    /// What runs self-hosted servers. Without one, only remote servers can be installed.
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Who decides whose installation serves a call; [`DefaultResolver`] unless given.
    pub fn resolver(mut self, resolver: Arc<dyn CredentialResolver>) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// The keys that session ids and the like are sealed with; the same on every replica.
    pub fn key_ring(mut self, key_ring: Arc<KeyRing>) -> Self {
        self.key_ring = Some(key_ring);
        self
    }

    /// What an operator may set.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Checks the backends, starts the platform's tasks in the present Tokio runtime, and waits until calls can be routed.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn build(self) -> Result<Platform, BuildError> {
        let absent = |what, method| BuildError::Absent { what, method };
        let catalog = self.catalog.ok_or_else(|| absent("catalog store", "catalog"))?;
        let identity = self.identity.ok_or_else(|| absent("identity store", "identity"))?;
        let secrets = self.secrets.ok_or_else(|| absent("secret store", "secrets"))?;
        let state = self.state.ok_or_else(|| absent("state store", "state"))?;
        let sink = self.audit.ok_or_else(|| absent("audit sink", "audit"))?;
        let ring = self.key_ring.ok_or_else(|| absent("key ring", "key_ring"))?;
        let (options, runtime) = (self.options, self.runtime);

        let policy = DialPolicy::new(options.private_networks.clone());
        let dialer = Dialer::new(DialOptions::new(policy, ClientTls::new(&options.extra_roots)?));
        let threads = options.workers.map_or(0, NonZeroUsize::get);
        let client = HttpClient::new(dialer, PoolOptions { threads, ..PoolOptions::default() });
        let workers = Workers::start(options.workers).await.map_err(BuildError::Threads)?;
        catalog.check().await?;
        identity.check().await?;
        secrets.check().await?;
        state.check().await?;
        let committed = Arc::new(Committed::new(catalog));
        let catalog: Arc<dyn CatalogStore> = Arc::<Committed>::clone(&committed);

        let upstreams = Upstreams::new(UpstreamParts {
            client,
            runtime: runtime.clone(),
            secrets: Arc::clone(&secrets),
            options: UpstreamOptions::default(),
        });
        let lifecycle = Lifecycle::new(LifecycleParts {
            catalog: Arc::clone(&catalog),
            secrets: Arc::clone(&secrets),
            runtime: runtime.clone(),
            discover: Arc::new(upstreams.clone()),
            options: options.lifecycle.clone(),
        });
        let background = Background::new();
        let meters = Meters::with_runtime(runtime.as_ref());
        let (audit_tasks, audit_stop) = background.audit();
        let audit = AuditWriter::start(
            Arc::clone(&sink),
            options.audit_overflow,
            meters.clone(),
            audit_tasks,
            audit_stop.clone(),
        );
        let freshness = Arc::new(Freshness::new(FRESH + options.stale_grace));
        let routes = Arc::new(Routes::default());
        let names = Arc::new(Names::default());
        let server_info = serde_json::json!({ "name": "archestra", "version": env!("CARGO_PKG_VERSION") });
        let follower = Follower {
            catalog: Arc::clone(&catalog),
            routes: Arc::clone(&routes),
            names: Arc::clone(&names),
            freshness: Arc::clone(&freshness),
            upstreams: upstreams.clone(),
            parts: RouteParts {
                meters: meters.clone(),
                server_info: server_info.to_string().into(),
                call_timeout: options.call_timeout,
            },
        };
        let public_host = options.public_url.as_ref().and_then(|url| url.host_str()).map(str::to_owned);
        let bounds = Bounds { calls: options.max_calls_per_caller, streams: options.max_streams_per_caller };
        let shared = Arc::new(Shared {
            authenticator: Arc::new(Authenticator::new(Arc::clone(&identity), Arc::clone(&freshness), bounds)),
            hosts: HostPolicy::new(public_host.as_deref(), &options.allowed_hosts, &options.allowed_origins),
            sessions: Sessions::new(&ring),
            in_flight: InFlight::default(),
            listeners: Arc::new(Semaphore::new(options.max_listeners)),
            resolver: self.resolver.unwrap_or_else(|| Arc::new(DefaultResolver)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            drained_by: OnceLock::new(),
            kill: CancellationToken::new(),
            catalog,
            committed,
            identity,
            secrets,
            state,
            sink,
            runtime,
            routes,
            freshness,
            upstreams,
            meters,
            audit,
            server_info,
            workers,
            options,
        });
        background.start(&shared, &lifecycle, follower, names);
        let platform = Platform { shared, lifecycle, background };
        match platform.synced(None, Duration::from_secs(60)).await {
            Ok(()) => Ok(platform),
            Err(error) => {
                platform.shutdown().await;
                Err(error.into())
            }
        }
    }
}
