//! Hearing from HTTP servers that their tools have changed: one long stream per warm server that says it tells.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use archestra_core::id::InstallationId;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};

use super::deadline_body::{BodyLimits, DeadlineBody};
use super::era::{Known, modern_message};
use super::flight::locked;
use super::headers::CredentialHeaders;
use super::http::{Format, Http, request_headers};
use super::server::Server;
use super::session::Session;
use super::target::Endpoint;
use super::tasks::Tasks;
use crate::mcp::envelope::{self, Message};
use crate::mcp::headers::emit_modern;
use crate::mcp::sse::Decoder;
use crate::mcp::version::ProtocolVersion;

/// How many signals wait for a slow reader before it is told that it has missed some.
const SIGNALS: usize = 1024;

/// How long to wait before a stream is opened again; doubled each time it brings nothing.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A stream that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(60);

/// No event that is listened for is large.
const EVENT_LIMIT: usize = 64 * 1024;

const LISTEN: &str = r#""notifications":{"toolsListChanged":true},"#;

/// How long after a signal the next one for the same installation is held back. A server that announces a change with every
/// answer must not keep us listing its tools.
pub(crate) const QUIET: Duration = Duration::from_secs(10);

/// Where changed tools are announced. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Signals {
    sender: broadcast::Sender<InstallationId>,
    /// The installations that were announced lately, and whether they are to be announced again.
    recent: Arc<Mutex<HashMap<InstallationId, Again>>>,
    tasks: Tasks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    No,
    Yes,
}

impl Signals {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { sender: broadcast::Sender::new(SIGNALS), recent: Arc::default(), tasks }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<InstallationId> {
        self.sender.subscribe()
    }

    pub(super) fn tools_changed(&self, installation: InstallationId) {
        match locked(&self.recent).entry(installation) {
            Entry::Occupied(mut recent) => {
                recent.insert(Again::Yes);
                return;
            }
            Entry::Vacant(place) => place.insert(Again::No),
        };
        self.send(installation);
        let signals = self.clone();
        self.tasks.spawn(async move {
            loop {
                sleep(QUIET).await;
                if !signals.is_due(installation) {
                    return;
                }
                signals.send(installation);
            }
        });
    }

    /// Whether another signal came while it was quiet; if not, there is nothing to wait for any more.
    fn is_due(&self, installation: InstallationId) -> bool {
        let mut recent = locked(&self.recent);
        if recent.get(&installation) == Some(&Again::Yes) {
            recent.insert(installation, Again::No);
            return true;
        }
        recent.remove(&installation);
        false
    }

    fn send(&self, installation: InstallationId) {
        // Nobody may be interested.
        drop(self.sender.send(installation));
    }
}

/// Opens the streams, up to a number.
#[derive(Debug)]
pub(super) struct Listeners {
    http: Http,
    signals: Signals,
    open: Arc<AtomicUsize>,
}

/// How one stream ended.
enum End {
    /// It may be worth another try.
    Broken,
    /// The server does not offer it.
    Refused,
    /// The credential is no longer good; the next call brings another.
    Unauthorized,
}

impl Listeners {
    pub(super) fn new(http: Http, signals: Signals) -> Self {
        Self { http, signals, open: Arc::default() }
    }

    /// Listens to a modern server, if nobody does yet, until `server` has been idle for long.
    pub(super) fn modern(
        &self,
        known: &Arc<Known>,
        server: &Arc<Server>,
        endpoint: &Arc<Endpoint>,
        credential: &Arc<CredentialHeaders>,
        installation: InstallationId,
    ) {
        let Some(slot) = self.slot(known.tells_changes, &known.listening) else { return };
        let (http, signals) = (self.http.clone(), self.signals.clone());
        let (known, server) = (Arc::clone(known), Arc::clone(server));
        let (endpoint, credential) = (Arc::clone(endpoint), Arc::clone(credential));
        self.http.tasks.spawn(async move {
            let _slot = slot;
            let longest = http.options.idle_after;
            let wanted = || server.idle() < longest && server.is_known(&known);
            let open = || open_modern(&http, &endpoint, &credential);
            let refused = listen(&http, open, wanted, || signals.tools_changed(installation)).await;
            known.listening.store(refused, Ordering::Release);
        });
    }

    /// Listens within a legacy session, if nobody does yet, until the session ends.
    pub(super) fn legacy(&self, session: &Arc<Session>, installation: InstallationId) {
        let Some(slot) = self.slot(session.tells_changes, &session.listening) else { return };
        let (http, signals, session) = (self.http.clone(), self.signals.clone(), Arc::clone(session));
        self.http.tasks.spawn(async move {
            let _slot = slot;
            let wanted = || !session.ended.is_cancelled();
            let open = || open_legacy(&http, &session);
            let listening = listen(&http, open, wanted, || signals.tools_changed(installation));
            if let Some(refused) = session.ended.run_until_cancelled(listening).await {
                session.listening.store(refused, Ordering::Release);
            }
        });
    }

    /// A place among the listeners, for a server that tells and to whom nobody listens.
    fn slot(&self, tells: bool, listening: &AtomicBool) -> Option<Slot> {
        if !tells
            || listening.load(Ordering::Acquire)
            || self.open.load(Ordering::Relaxed) >= self.http.options.max_listeners
        {
            return None;
        }
        if listening.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Slot(Arc::clone(&self.open)))
    }
}

struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps a stream open while it is `wanted`; true if the server refused it for good.
async fn listen<F>(
    http: &Http,
    open: impl Fn() -> F + Send + Sync,
    wanted: impl Fn() -> bool + Send + Sync,
    changed: impl Fn() + Send + Sync,
) -> bool
where
    F: Future<Output = Result<Response<Incoming>, End>> + Send,
{
    let mut pause = FIRST_PAUSE;
    while wanted() {
        let began = Instant::now();
        match open().await {
            Ok(response) => read(http, response, &wanted, &changed).await,
            Err(End::Refused) => return true,
            Err(End::Unauthorized) => {
                sleep(GOOD).await;
                return false;
            }
            Err(End::Broken) => {}
        }
        if began.elapsed() >= GOOD {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    false
}

async fn read(
    http: &Http,
    response: Response<Incoming>,
    wanted: impl Fn() -> bool + Send + Sync,
    changed: impl Fn() + Send + Sync,
) {
    let limits = BodyLimits { deadline: None, idle: None };
    let mut body = DeadlineBody::new(response.into_body(), limits);
    let (mut decoder, mut buffer) = (Decoder::new(EVENT_LIMIT), BytesMut::new());
    let look = (http.options.idle_after / 4).max(Duration::from_millis(10));
    while wanted() {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = sleep(look) => continue,
        };
        let Some(Ok(frame)) = frame else { return };
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(event)) if tells_change(&event.data) => changed(),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn tells_change(message: &[u8]) -> bool {
    matches!(envelope::parse(message), Ok(Message::Notification(notification))
        if notification.method == "notifications/tools/list_changed")
}

async fn open_modern(
    http: &Http,
    endpoint: &Endpoint,
    credential: &CredentialHeaders,
) -> Result<Response<Incoming>, End> {
    let mut headers = request_headers(endpoint, credential, &HeaderMap::new(), None);
    emit_modern(&mut headers, ProtocolVersion::LATEST, "subscriptions/listen", None).map_err(|_| End::Refused)?;
    let message = modern_message("\"archestra-listen\"", "subscriptions/listen", LISTEN);
    let deadline = Instant::now() + http.options.setup_timeout;
    judge(http.post(endpoint, headers, message, deadline).await.map_err(|_| End::Broken)?)
}

async fn open_legacy(http: &Http, session: &Session) -> Result<Response<Incoming>, End> {
    let deadline = Instant::now() + http.options.setup_timeout;
    let sent = http.send(Method::GET, session.endpoint(), session.headers(), Bytes::new(), deadline).await;
    judge(sent.map_err(|_| End::Broken)?)
}

fn judge(response: Response<Incoming>) -> Result<Response<Incoming>, End> {
    match response.status() {
        StatusCode::OK if Format::of(response.headers()) == Some(Format::Events) => Ok(response),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(End::Unauthorized),
        StatusCode::TOO_MANY_REQUESTS => Err(End::Broken),
        status if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => Err(End::Broken),
        _ => Err(End::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_noisy_server_is_heard_once_in_a_while() {
        let signals = Signals::new(Tasks::new());
        let (mut heard, noisy) = (signals.subscribe(), InstallationId::new());
        for _ in 0..300 {
            signals.tools_changed(noisy);
            sleep(Duration::from_millis(100)).await;
        }
        sleep(QUIET * 3).await;
        let mut count = 0;
        while heard.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, 4, "at once, then each {QUIET:?}, and the last one is not lost");
        assert!(locked(&signals.recent).is_empty());
    }
}
