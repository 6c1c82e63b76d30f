//! The one guarded way out: resolve, check every address against the policy, then connect to exactly that address.
//!
//! The policy looks at the address a socket is about to be connected to, not at a name that was resolved earlier, so a
//! name that changes its answer between a check and the connection gains nothing.

mod block;
mod connector;
mod error;
mod networks;
mod policy;
mod resolve;
mod tls;
mod url;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

pub use self::connector::{Connector, DialedStream};
pub use self::error::{DialError, Refusal, Waiting};
pub use self::networks::{PrivateNetworks, PrivateNetworksError};
pub use self::policy::{DialPolicy, PRIVATE_NETWORKS_SETTING, Trust};
pub use self::resolve::{Resolve, SystemResolver};
pub use self::tls::{ClientTls, TlsSetupError};
pub use self::url::{UrlError, parse_url};

use self::error::Authority;

/// How long resolving, connecting and the TLS handshake may take together unless [`DialOptions`] says otherwise.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one address may take to answer while others are still to be tried.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// What a [`Dialer`] is made of.
#[derive(Debug, Clone)]
pub struct DialOptions {
    /// Which addresses may be dialled.
    pub policy: DialPolicy,
    /// The TLS settings of every `https` connection.
    pub tls: ClientTls,
    /// How names become addresses.
    pub resolver: Arc<dyn Resolve>,
    /// How long resolving, connecting and the TLS handshake may take together.
    pub connect_timeout: Duration,
}

impl DialOptions {
    /// Options with the system's resolver and [`DEFAULT_CONNECT_TIMEOUT`].
    #[must_use]
    pub fn new(policy: DialPolicy, tls: ClientTls) -> Self {
        Self { policy, tls, resolver: Arc::new(SystemResolver), connect_timeout: DEFAULT_CONNECT_TIMEOUT }
    }
}

/// Opens connections, and only to addresses its policy allows. Clones share everything.
#[derive(Clone)]
pub struct Dialer {
    options: Arc<DialOptions>,
}

impl Dialer {
    /// A dialer with these options.
    #[must_use]
    pub fn new(options: DialOptions) -> Self {
        Self { options: Arc::new(options) }
    }

    /// The policy every connection of this dialer is checked against.
    #[must_use]
    pub fn policy(&self) -> &DialPolicy {
        &self.options.policy
    }

    /// A connector for hyper's client that dials everything under `trust`.
    #[must_use]
    pub fn connector(&self, trust: Trust) -> Connector {
        Connector::new(self.clone(), trust)
    }

    /// Opens a plain TCP connection to `host`, which is a name or an address without brackets.
    ///
    /// # Errors
    ///
    /// The name does not resolve, the policy allows none of its addresses, or none of the allowed ones can be connected
    /// to in time.
    pub async fn tcp(&self, host: &str, port: u16, trust: Trust) -> Result<TcpStream, DialError> {
        let deadline = Instant::now() + self.options.connect_timeout;
        self.tcp_until(host, port, trust, deadline).await
    }

    /// Opens the connection an `http` or `https` URL asks for.
    ///
    /// # Errors
    ///
    /// As [`Dialer::tcp`]; besides, the URL is not one we dial, or the TLS handshake fails.
    pub async fn open(&self, uri: &Uri, trust: Trust) -> Result<DialedStream, DialError> {
        let deadline = Instant::now() + self.options.connect_timeout;
        let target = url::target(uri)?;
        let tcp = self.tcp_until(target.host, target.port, trust, deadline).await?;
        if !target.tls {
            return Ok(DialedStream::plain(tcp));
        }
        let authority = Authority::new(target.host, target.port);
        let handshake = self.options.tls.handshake(target.host, tcp);
        match timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) => Ok(DialedStream::tls(stream)),
            Ok(Err(source)) => Err(DialError::Tls { authority: authority.to_string(), source: Arc::new(source) }),
            Err(_) => Err(self.timed_out(Waiting::TlsHandshake { authority: authority.to_string() })),
        }
    }

    async fn tcp_until(&self, host: &str, port: u16, trust: Trust, deadline: Instant) -> Result<TcpStream, DialError> {
        let allowed = self.allowed_addresses(host, port, trust, deadline).await?;
        let authority = Authority::new(host, port);
        let mut failure = None;
        for (index, address) in allowed.iter().enumerate() {
            let until = address_deadline(deadline, allowed.len() - index);
            match timeout_at(until, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return prepared(stream, authority),
                Ok(Err(source)) => {
                    failure = Some(DialError::Connect { authority: authority.to_string(), source: Arc::new(source) });
                }
                Err(_) => failure = Some(self.timed_out(Waiting::Connect { authority: authority.to_string() })),
            }
        }
        Err(failure.unwrap_or_else(|| DialError::NoAddress { host: host.to_owned() }))
    }

    async fn allowed_addresses(
        &self,
        host: &str,
        port: u16,
        trust: Trust,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let addresses = self.resolve(host, port, deadline).await?;
        let mut allowed = Vec::with_capacity(addresses.len());
        let mut refused = None;
        for address in addresses {
            match self.options.policy.check(host, address.ip(), trust) {
                Ok(()) => allowed.push(address),
                Err(error) if refused.is_none() => refused = Some(error),
                Err(_) => {}
            }
        }
        if allowed.is_empty() {
            return Err(refused.unwrap_or_else(|| DialError::NoAddress { host: host.to_owned() }));
        }
        Ok(allowed)
    }

    async fn resolve(&self, host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        match timeout_at(deadline, self.options.resolver.resolve(host)).await {
            Ok(Ok(addresses)) => Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()),
            Ok(Err(source)) => Err(DialError::Resolve { host: host.to_owned(), source: Arc::new(source) }),
            Err(_) => Err(self.timed_out(Waiting::Resolve { host: host.to_owned() })),
        }
    }

    fn timed_out(&self, what: Waiting) -> DialError {
        DialError::Timeout { after: self.options.connect_timeout, what }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("policy", &self.options.policy)
            .field("connect_timeout", &self.options.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// The last address gets all the time there is; the others leave a fair share to those after them.
fn address_deadline(deadline: Instant, addresses_left: usize) -> Instant {
    if addresses_left <= 1 {
        return deadline;
    }
    let now = Instant::now();
    let share = deadline.saturating_duration_since(now) / u32::try_from(addresses_left).unwrap_or(u32::MAX);
    now + share.min(ADDRESS_TIMEOUT)
}

/// Without `TCP_NODELAY` a small answer behind a small request can wait 40 ms for a delayed acknowledgement.
fn prepared(stream: TcpStream, authority: Authority<'_>) -> Result<TcpStream, DialError> {
    match stream.set_nodelay(true) {
        Ok(()) => Ok(stream),
        Err(source) => Err(DialError::Connect { authority: authority.to_string(), source: Arc::new(source) }),
    }
}
