//! `Upstreams`: every connection to every upstream server, and the way a request takes through them.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use archestra_core::id::InstallationId;
use archestra_core::runtime::{Runtime, WorkloadId};
use archestra_core::secret::SecretStore;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};

use super::client::HttpClient;
use super::clock::Clock;
use super::era::Known;
use super::error::UpstreamError;
use super::exchange::{Answer, Exchange};
use super::flight::Flights;
use super::headers::Credentials;
use super::http::{Http, until};
use super::listen::{Listeners, Signals};
use super::options::UpstreamOptions;
use super::server::{Link, Servers};
use super::session::Sessions;
use super::target::{ServerKey, Target};
use super::tasks::Tasks;

/// What an [`Upstreams`] is made of.
#[derive(Debug)]
pub struct UpstreamParts {
    /// The one way out.
    pub client: HttpClient,
    /// What runs self-hosted servers, if anything does.
    pub runtime: Option<Arc<dyn Runtime>>,
    /// Where credentials are.
    pub secrets: Arc<dyn SecretStore>,
    /// Limits and times.
    pub options: UpstreamOptions,
}

/// Connections to upstream servers: pooled, shared by all callers, in whichever era a server speaks. Clones are cheap.
///
/// One server that is slow or dead delays nobody but its own callers, and those no longer than their deadlines.
#[derive(Clone)]
pub struct Upstreams {
    inner: Arc<Inner>,
}

/// What the clones of an [`Upstreams`] share.
pub(super) struct Inner {
    pub(super) http: Http,
    pub(super) runtime: Option<Arc<dyn Runtime>>,
    pub(super) credentials: Credentials,
    pub(super) servers: Servers,
    pub(super) sessions: Sessions,
    pub(super) eras: Flights<(ServerKey, u64), Arc<Known>>,
    pub(super) links: Flights<ServerKey, Arc<Link>>,
    pub(super) listeners: Listeners,
    pub(super) signals: Signals,
    tasks: Tasks,
}

impl Upstreams {
    /// Connections made of these parts; none is open yet. It is made within a tokio runtime, which its tasks run on.
    #[must_use]
    pub fn new(parts: UpstreamParts) -> Self {
        let UpstreamParts { client, runtime, secrets, options } = parts;
        let (tasks, clock) = (Tasks::new(), Clock::new());
        let signals = Signals::new(tasks.clone());
        let http = Http { client, options, tasks: tasks.clone() };
        let inner = Arc::new(Inner {
            runtime,
            credentials: Credentials::new(
                secrets,
                options.credential_ttl,
                options.max_credentials,
                tasks.clone(),
                clock.clone(),
            ),
            servers: Servers::new(clock.clone()),
            sessions: Sessions::new(http.clone(), clock),
            eras: Flights::new(tasks.clone()),
            links: Flights::new(tasks.clone()),
            listeners: Listeners::new(http.clone(), signals.clone()),
            signals,
            http,
            tasks,
        });
        inner.tasks.spawn(sweep(Arc::downgrade(&inner), options));
        Self { inner }
    }

    /// Forwards a request and returns its answer, or the beginning of it.
    ///
    /// The exchange's deadline covers everything: connecting, asking for the era, opening a session, the whole answer.
    ///
    /// # Errors
    /// The request was not, or not completely, answered; see [`UpstreamError`]. Errors that the server itself reports in
    /// JSON-RPC are answers.
    pub async fn call(&self, target: &Arc<Target>, exchange: Exchange<'_>) -> Result<Answer, UpstreamError> {
        let started = Instant::now();
        let (cancel, deadline) = (exchange.cancel, exchange.deadline);
        let answer = tokio::select! {
            biased;
            answer = until(deadline, self.inner.forward(target, &exchange)) => answer,
            () = cancel.cancelled() => return Err(UpstreamError::Cancelled),
        };
        let after = deadline.saturating_duration_since(started);
        match answer {
            Some(Err(UpstreamError::Timeout { server, .. })) if Instant::now() >= deadline => {
                Err(UpstreamError::Timeout { server, after })
            }
            Some(answer) => answer,
            None => Err(UpstreamError::Timeout { server: Arc::clone(target.server()), after }),
        }
    }

    /// Names the installations whose servers say that their tools have changed. A receiver that lags has missed some.
    #[must_use]
    pub fn tools_changed(&self) -> broadcast::Receiver<InstallationId> {
        self.inner.signals.subscribe()
    }

    /// Forgets everything about an installation that is gone or has changed. Calls that are under way go on.
    pub fn forget(&self, installation: InstallationId) {
        self.inner.credentials.forget(installation);
        self.inner.servers.forget(&ServerKey::Remote(installation));
        self.inner.servers.forget(&ServerKey::Workload(WorkloadId::of_installation(installation)));
        self.inner.sessions.end_those(|key, _| key.installation == installation);
    }

    /// Forgets how a workload is reached, and what is known of what answers there.
    pub fn forget_workload(&self, workload: &WorkloadId) {
        self.inner.servers.forget(&ServerKey::Workload(workload.clone()));
    }

    /// Ends what a caller's session that has ended kept for itself.
    pub(crate) fn end_session(&self, session: u128) {
        self.inner.servers.end_session(session);
    }

    /// Lets so much time pass for whatever is counted in milliseconds.
    #[cfg(test)]
    pub(super) fn skip(&self, time: Duration) {
        self.inner.credentials.clock().skip(time);
    }

    /// Ends every session, channel, stream and task, and waits for them.
    pub async fn shutdown(&self) {
        self.inner.sessions.close().await;
        self.inner.tasks.stop();
        self.inner.servers.clear();
        self.inner.tasks.stopped().await;
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").field("options", &self.inner.http.options).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// Closes what nobody has used for a while.
async fn sweep(inner: Weak<Inner>, options: UpstreamOptions) {
    let idle = options.idle_after;
    let pause = (idle / 4).min(options.exclusive_idle / 2).clamp(Duration::from_millis(10), Duration::from_secs(30));
    loop {
        sleep(pause).await;
        let Some(inner) = inner.upgrade() else { return };
        let longest = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        inner.sessions.end_those(|_, session| session.idle() > longest);
        inner.servers.sweep(idle);
    }
}
