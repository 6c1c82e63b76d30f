//! Where calls to one installation go: made once per installation and entry version, and shared.

use std::fmt;
use std::sync::Arc;

use archestra_core::catalog::{Entry, Server};
use archestra_core::id::InstallationId;
use archestra_core::installation::Installation;
use archestra_core::runtime::{HttpEndpoint, WorkloadId};
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::dial::{Trust, UrlError, parse_url};

/// What every answer may be.
const ACCEPTED: &str = "application/json, text/event-stream";

/// One installation of one version of an entry, with all that can be prepared for calls to it.
pub struct Target {
    entry: Arc<Entry>,
    installation: Arc<Installation>,
    server: Arc<str>,
    key: ServerKey,
    place: Place,
}

/// Where the server is.
#[derive(Debug)]
pub(super) enum Place {
    /// At a URL of the registry.
    Remote(Arc<Endpoint>),
    /// Wherever the runtime runs it.
    Workload(WorkloadId),
    /// Nowhere; this is why.
    Unusable(String),
}

/// What shares an era and a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ServerKey {
    Remote(InstallationId),
    Workload(WorkloadId),
}

impl Target {
    /// The target of an installation. One that cannot be called is made too; calls to it say why.
    #[must_use]
    pub fn new(entry: Arc<Entry>, installation: Arc<Installation>) -> Self {
        let server = Arc::from(entry.spec.name.as_str());
        let (key, place) = match entry.spec.server() {
            Some(Server::Remote(remote)) => {
                let generation = entry.updated_at.timestamp_micros().cast_unsigned();
                let trust = if entry.saved_by_admin { Trust::Registry } else { Trust::Installation };
                let place = match Endpoint::remote(&remote.url, trust, generation) {
                    Ok(endpoint) => Place::Remote(Arc::new(endpoint)),
                    Err(error) => Place::Unusable(error.to_string()),
                };
                (ServerKey::Remote(installation.id), place)
            }
            Some(Server::SelfHosted(_)) => {
                let workload = installation.workload.clone().unwrap_or_else(|| {
                    if entry.spec.shared_deployment {
                        WorkloadId::of_entry(entry.id)
                    } else {
                        WorkloadId::of_installation(installation.id)
                    }
                });
                (ServerKey::Workload(workload.clone()), Place::Workload(workload))
            }
            None => {
                let reason = "its entry describes neither a remote nor a self-hosted server".to_owned();
                (ServerKey::Remote(installation.id), Place::Unusable(reason))
            }
        };
        Self { entry, installation, server, key, place }
    }

    /// The entry.
    #[must_use]
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// The installation.
    #[must_use]
    pub fn installation(&self) -> &Arc<Installation> {
        &self.installation
    }

    /// The entry's name, for texts.
    #[must_use]
    pub fn server(&self) -> &Arc<str> {
        &self.server
    }

    pub(super) const fn key(&self) -> &ServerKey {
        &self.key
    }

    pub(super) const fn place(&self) -> &Place {
        &self.place
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("server", &self.server)
            .field("installation", &self.installation.id)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// A streamable-http endpoint.
pub(super) struct Endpoint {
    pub(super) uri: Uri,
    /// What every request has, whatever else is sent: it wins over all.
    pub(super) base: HeaderMap,
    pub(super) trust: Trust,
    /// Eras and sessions are of one generation.
    pub(super) generation: u64,
}

impl Endpoint {
    pub(super) fn remote(url: &str, trust: Trust, generation: u64) -> Result<Self, UrlError> {
        let uri = parse_url(url)?;
        let base = base_headers(&uri);
        Ok(Self { uri, base, trust, generation })
    }

    pub(super) fn workload(endpoint: &HttpEndpoint) -> Result<Self, String> {
        let uri = parse_url(&endpoint.url).map_err(|error| error.to_string())?;
        let mut base = base_headers(&uri);
        for (name, value) in &endpoint.headers {
            let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::from_str(value.expose())) else {
                return Err("the runtime asks for a header that cannot be sent".to_owned());
            };
            value.set_sensitive(true);
            base.insert(name, value);
        }
        Ok(Self { uri, base, trust: Trust::Runtime, generation: endpoint.generation })
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A query may hold a key.
        f.debug_struct("Endpoint")
            .field("authority", &self.uri.authority())
            .field("trust", &self.trust)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

fn base_headers(uri: &Uri) -> HeaderMap {
    let mut base = HeaderMap::with_capacity(8);
    if let Some(host) = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        base.insert(HOST, host);
    }
    base.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
    base.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    base
}
