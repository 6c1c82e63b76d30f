//! The pooled HTTP client every outgoing request uses.
//!
//! hyper's pool keeps finished connections per scheme and authority. A request that finds its pooled connection already
//! closed, before one byte of it was written, is sent again on another one by hyper itself; nothing else is ever
//! repeated. Redirects are not followed: a response with status 307 is a response like any other, except for
//! [`HttpClient::get_following`].

mod error;
mod read;
mod redirect;

#[cfg(test)]
mod h2_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

pub use self::error::{HttpError, RedirectFault, Sent};
pub use self::read::read_limited;

use crate::server::worker;

use super::dial::{Connector, Dialer, Trust, Waiting};

/// How many redirects [`HttpClient::get_following`] follows.
const MAX_REDIRECTS: usize = 3;

/// How often an open HTTP/2 stream asks whether the other side is still there, and how long it waits for the answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// How many connections are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct PoolOptions {
    /// How long a connection may be unused before it is closed.
    pub idle_timeout: Duration,
    /// How many unused connections are kept for one scheme and authority.
    pub max_idle_per_host: usize,
    /// How many threads have pools of their own, besides the one that all others share.
    pub threads: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(90), max_idle_per_host: 1024, threads: 0 }
    }
}

type Pool = Client<Connector, Full<Bytes>>;

/// Sends requests over pooled connections that the dialer's policy allowed.
///
/// Clones are cheap and share the pools. The tasks that drive connections belong to the pools: they end when their
/// connection closes or is unused for the idle timeout, and when the last clone is dropped.
#[derive(Clone)]
pub struct HttpClient {
    dialer: Dialer,
    /// The first for threads that have none of their own.
    pools: Arc<[Pools]>,
}

/// One pool per trust: a connection that a wider trust was needed for is never found by a narrower one.
struct Pools {
    registry: Pool,
    installation: Pool,
    runtime: Pool,
}

impl HttpClient {
    /// A client whose connections `dialer` makes.
    #[must_use]
    pub fn new(dialer: Dialer, options: PoolOptions) -> Self {
        let pool = |trust| build_pool(dialer.connector(trust), options);
        let pools = (0..=options.threads).map(|_| Pools {
            registry: pool(Trust::Registry),
            installation: pool(Trust::Installation),
            runtime: pool(Trust::Runtime),
        });
        let pools = pools.collect();
        Self { dialer, pools }
    }

    /// What makes the connections.
    #[must_use]
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Sends `request`, whose URI is absolute, and waits for the head of the response until `deadline`.
    ///
    /// Where the request has no `Host`, one is made for it; put it into the headers that are prepared once to save that.
    ///
    /// The body of the response has no deadline of its own: read it with [`read_limited`] or wrap it in a
    /// [`DeadlineBody`](super::deadline_body::DeadlineBody). Dropping the future or the body abandons the exchange.
    ///
    /// # Errors
    ///
    /// The connection is refused or cannot be made, the exchange breaks off, or the deadline passes.
    pub fn request(
        &self,
        request: Request<Full<Bytes>>,
        trust: Trust,
        deadline: Instant,
    ) -> impl Future<Output = Result<Response<Incoming>, HttpError>> + Send + use<> {
        let started = Instant::now();
        let authority = request.uri().authority().cloned();
        let response = self.pool(trust).request(request);
        async move {
            match timeout_at(deadline, response).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(error)) => Err(HttpError::from_exchange(authority.as_ref(), error)),
                Err(_) => {
                    let authority = error::authority_text(authority.as_ref());
                    let what = Waiting::Response { authority };
                    Err(HttpError::Timeout { after: deadline.saturating_duration_since(started), what })
                }
            }
        }
    }

    /// Sends a GET and follows up to three redirects that stay within the origin (scheme, host and port).
    ///
    /// This is for discovery documents, which servers like to move by a slash.
    ///
    /// # Errors
    ///
    /// As [`HttpClient::request`]; besides, [`HttpError::Redirect`] for a redirect that leaves the origin, leads
    /// nowhere, or is one too many.
    pub async fn get_following(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        trust: Trust,
        deadline: Instant,
    ) -> Result<Response<Incoming>, HttpError> {
        let mut uri = uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(Full::new(Bytes::new()));
            *request.uri_mut() = uri.clone();
            request.headers_mut().clone_from(headers);
            let response = self.request(request, trust, deadline).await?;
            if !redirect::is_redirect(response.status()) {
                return Ok(response);
            }
            uri = redirect::next(&uri, response.headers())?;
        }
        Err(redirect::too_many(&uri))
    }

    fn pool(&self, trust: Trust) -> &Pool {
        let pools = self.pools.get(worker()).unwrap_or(&self.pools[0]);
        match trust {
            Trust::Registry => &pools.registry,
            Trust::Installation => &pools.installation,
            Trust::Runtime => &pools.runtime,
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("dialer", &self.dialer).finish_non_exhaustive()
    }
}

fn build_pool(connector: Connector, options: PoolOptions) -> Pool {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(options.idle_timeout)
        .pool_max_idle_per_host(options.max_idle_per_host)
        .retry_canceled_requests(true)
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .build(connector)
}
