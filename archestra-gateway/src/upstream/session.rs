//! Sessions with legacy servers over HTTP: opened once per credential, shared by its callers, closed when idle.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use archestra_core::id::InstallationId;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::HttpError;
use super::clock::Clock;
use super::era::Capabilities;
use super::error::UpstreamError;
use super::flight::Flights;
use super::headers::{CredentialHeaders, Fingerprint};
use super::http::{Http, Outcome, Reply, request_headers};
use super::mapping::CLIENT_INFO;
use super::target::Endpoint;
use crate::mcp::envelope::{self, Message, Payload};
use crate::mcp::version::{Era, ProtocolVersion, header};

const SESSION_ID: HeaderName = HeaderName::from_static(header::SESSION_ID);
const VERSION: HeaderName = HeaderName::from_static(header::PROTOCOL_VERSION);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static(header::LAST_EVENT_ID);

const INITIALIZED: Bytes = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);

/// Who shares a session: callers with the same installation and credential, while the same process answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionKey {
    pub(super) installation: InstallationId,
    pub(super) generation: u64,
    pub(super) fingerprint: Fingerprint,
}

/// One session with one server.
pub(super) struct Session {
    key: SessionKey,
    id: Option<HeaderValue>,
    version: ProtocolVersion,
    endpoint: Arc<Endpoint>,
    credential: Arc<CredentialHeaders>,
    http: Http,
    next: AtomicU64,
    clock: Clock,
    used: AtomicU64,
    /// How many requests are under way in it.
    pub(super) active: AtomicUsize,
    /// When it was opened.
    pub(super) since: Instant,
    /// Whether the server tells when its tools change.
    pub(super) tells_changes: bool,
    /// Whether somebody listens for that.
    pub(super) listening: AtomicBool,
    /// Fires when the session is no longer used.
    pub(super) ended: CancellationToken,
}

impl Session {
    pub(super) fn next_id(&self) -> u64 {
        self.touch();
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn touch(&self) {
        self.used.store(self.clock.now(), Ordering::Relaxed);
    }

    pub(super) fn has_id(&self) -> bool {
        self.id.is_some()
    }

    pub(super) const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Puts what belongs to the session into the headers of a request.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(VERSION, HeaderValue::from_static(self.version.as_str()));
        match &self.id {
            Some(id) => headers.insert(SESSION_ID, id.clone()),
            None => headers.remove(SESSION_ID),
        };
    }

    /// The headers of a message of our own within the session.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = request_headers(&self.endpoint, &self.credential, &HeaderMap::new(), None);
        self.mark(&mut headers);
        headers
    }

    /// For how long nobody has used it, in milliseconds.
    pub(super) fn idle(&self) -> u64 {
        if self.active.load(Ordering::Relaxed) > 0 {
            return 0;
        }
        self.clock.now().saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Sends something within the session that has no answer, in the background.
    pub(super) fn tell(&self, message: Bytes) {
        self.http.tell(Method::POST, Arc::clone(&self.endpoint), self.headers(), message);
    }

    /// Asks for the rest of a stream that ended after the event with this id.
    pub(super) async fn resume(&self, after: &str, deadline: Instant) -> Result<Response<Incoming>, HttpError> {
        let mut headers = self.headers();
        if let Ok(after) = HeaderValue::from_str(after) {
            headers.insert(LAST_EVENT_ID, after);
        }
        self.http.send(Method::GET, &self.endpoint, headers, Bytes::new(), deadline).await
    }

    /// Ends it, and tells the server where there is anything to tell.
    fn end(&self) {
        self.ended.cancel();
        if self.id.is_some() {
            self.http.tell(Method::DELETE, Arc::clone(&self.endpoint), self.headers(), Bytes::new());
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows a session's id may be able to use it.
        f.debug_struct("Session")
            .field("installation", &self.key.installation)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Every open session.
#[derive(Debug)]
pub(super) struct Sessions {
    http: Http,
    clock: Clock,
    open: Arc<RwLock<HashMap<SessionKey, Arc<Session>>>>,
    opening: Flights<SessionKey, Arc<Session>>,
}

impl Sessions {
    pub(super) fn new(http: Http, clock: Clock) -> Self {
        let opening = Flights::new(http.tasks.clone());
        Self { http, clock, open: Arc::default(), opening }
    }

    /// The session for these callers; the first one opens it.
    pub(super) async fn get(
        &self,
        installation: InstallationId,
        server: &Arc<str>,
        endpoint: &Arc<Endpoint>,
        credential: &Arc<CredentialHeaders>,
    ) -> Result<Arc<Session>, UpstreamError> {
        let key = SessionKey { installation, generation: endpoint.generation, fingerprint: *credential.fingerprint() };
        if let Some(session) = self.open.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(session));
        }
        let (opened, _) = Box::pin(self.opening.join(key, || {
            let (http, clock, open) = (self.http.clone(), self.clock.clone(), Arc::clone(&self.open));
            let (server, endpoint, credential) = (Arc::clone(server), Arc::clone(endpoint), Arc::clone(credential));
            async move {
                let session = Arc::new(initialize(&http, key, &server, endpoint, credential, clock).await?);
                let dropped = insert(&open, Arc::clone(&session), http.options.max_sessions);
                for session in dropped {
                    session.end();
                }
                Ok(session)
            }
        }))
        .await;
        opened
    }

    /// Stops using a session that the server does not know any more.
    pub(super) fn lost(&self, session: &Arc<Session>) {
        session.ended.cancel();
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.get(&session.key).is_some_and(|current| Arc::ptr_eq(current, session)) {
            open.remove(&session.key);
        }
    }

    /// Ends the sessions that `unwanted` says are.
    pub(super) fn end_those(&self, mut unwanted: impl FnMut(&SessionKey, &Session) -> bool) {
        let mut ended = Vec::new();
        self.open.write().unwrap_or_else(PoisonError::into_inner).retain(|key, session| {
            let end = unwanted(key, session);
            if end {
                ended.push(Arc::clone(session));
            }
            !end
        });
        for session in ended {
            session.end();
        }
    }

    /// Ends every session and waits for the servers to hear of it.
    pub(super) async fn close(&self) {
        let all: Vec<_> =
            self.open.write().unwrap_or_else(PoisonError::into_inner).drain().map(|(_, one)| one).collect();
        let deadline = Instant::now() + super::http::COURTESY / 2;
        let farewells = all.iter().map(|session| async {
            session.ended.cancel();
            if session.id.is_some() {
                let sent = self.http.send(Method::DELETE, &session.endpoint, session.headers(), Bytes::new(), deadline);
                drop(sent.await);
            }
        });
        futures::future::join_all(farewells).await;
    }
}

/// Adds a session, and takes those out that are one too many, the longest unused first.
fn insert(open: &RwLock<HashMap<SessionKey, Arc<Session>>>, session: Arc<Session>, most: usize) -> Vec<Arc<Session>> {
    let mut open = open.write().unwrap_or_else(PoisonError::into_inner);
    let mut dropped: Vec<_> = open.insert(session.key, session).into_iter().collect();
    while open.len() > most.max(1) {
        let idle = open.values().filter(|session| session.idle() > 0 || session.active.load(Ordering::Relaxed) == 0);
        let Some(key) = idle.max_by_key(|session| session.idle()).map(|session| session.key) else { break };
        dropped.extend(open.remove(&key));
    }
    dropped
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    protocol_version: String,
    #[serde(default)]
    capabilities: Capabilities,
}

async fn initialize(
    http: &Http,
    key: SessionKey,
    server: &Arc<str>,
    endpoint: Arc<Endpoint>,
    credential: Arc<CredentialHeaders>,
    clock: Clock,
) -> Result<Session, UpstreamError> {
    let deadline = Instant::now() + http.options.setup_timeout;
    let version = ProtocolVersion::LATEST_LEGACY;
    let message = Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{CLIENT_INFO}}}}}"#
    ));
    let headers = request_headers(&endpoint, &credential, &HeaderMap::new(), None);
    let reply = http.ask(&endpoint, headers, message, deadline).await;
    let reply = reply.map_err(|error| UpstreamError::from_http(server, &error))?;
    let (version, capabilities, id) = read_reply(&reply, server)?;
    let session = Session {
        key,
        id,
        version,
        endpoint,
        credential,
        http: http.clone(),
        next: AtomicU64::new(1),
        used: AtomicU64::new(clock.now()),
        clock,
        active: AtomicUsize::new(0),
        since: Instant::now(),
        tells_changes: capabilities.tells_changes(),
        listening: AtomicBool::new(false),
        ended: CancellationToken::new(),
    };
    let sent = http.post(&session.endpoint, session.headers(), INITIALIZED, deadline).await;
    let response = sent.map_err(|error| UpstreamError::from_http(server, &error))?;
    if !response.status().is_success() {
        let status = response.status().as_u16();
        return Err(UpstreamError::protocol(server, format!("it refuses notifications/initialized (HTTP {status})")));
    }
    Ok(session)
}

fn read_reply(
    reply: &Reply,
    server: &Arc<str>,
) -> Result<(ProtocolVersion, Capabilities, Option<HeaderValue>), UpstreamError> {
    let refuse = |reason: String| UpstreamError::protocol(server, reason);
    let message = match &reply.outcome {
        Outcome::Message(message) => message,
        Outcome::Refused(refusal) => return Err(refusal.to_error(server)),
    };
    let Ok(Message::Response(response)) = envelope::parse(message) else {
        return Err(refuse("its answer to initialize is no JSON-RPC response".to_owned()));
    };
    let result = match response.payload {
        Payload::Result(result) => result,
        Payload::Error(error) => return Err(refuse(format!("it refuses initialize with error {}", error.code))),
    };
    let initialized: Initialized = serde_json::from_str(result.raw.as_str())
        .map_err(|_| refuse("its answer to initialize has no protocolVersion".to_owned()))?;
    let Some(version) =
        ProtocolVersion::parse(&initialized.protocol_version).filter(|version| version.era() == Era::Legacy)
    else {
        let name: String = initialized.protocol_version.chars().take(32).collect();
        return Err(refuse(format!("it answers initialize with the unknown revision {name:?}")));
    };
    let id = reply.headers.get(&SESSION_ID).cloned().map(|mut id| {
        id.set_sensitive(true);
        id
    });
    Ok((version, initialized.capabilities, id))
}
