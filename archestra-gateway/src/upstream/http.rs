//! Streamable HTTP towards upstream servers: requests and their heads, in either era.

pub(super) mod legacy;
pub(super) mod modern;
pub(super) mod reader;
pub(super) mod refusal;

use std::sync::Arc;
use std::time::Duration;

use archestra_core::id::InstallationId;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use self::refusal::Refusal;
use super::client::{HttpClient, HttpError, read_limited};
use super::deadline_body::DeadlineBody;
use super::error::UpstreamError;
use super::exchange::{Answer, Exchange};
use super::headers::{CredentialHeaders, is_connection_header};
use super::listen::Signals;
use super::options::UpstreamOptions;
use super::target::Endpoint;
use super::tasks::Tasks;
use crate::mcp::envelope::{self, Message};
use crate::mcp::sse::Decoder;
use crate::mcp::version::header;

/// The header that W3C trace context travels in.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// How we introduce ourselves, unless an entry says otherwise.
const AGENT: &str = concat!("archestra/", env!("CARGO_PKG_VERSION"));

/// How long a message of ours may take that nobody waits for.
pub(super) const COURTESY: Duration = Duration::from_secs(5);

/// What every HTTP exchange needs. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Http {
    pub(super) client: HttpClient,
    pub(super) options: UpstreamOptions,
    pub(super) tasks: Tasks,
}

/// One attempt to forward one request to one endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) http: &'a Http,
    pub(super) server: &'a Arc<str>,
    pub(super) installation: InstallationId,
    pub(super) endpoint: &'a Arc<Endpoint>,
    pub(super) credential: &'a Arc<CredentialHeaders>,
    pub(super) exchange: &'a Exchange<'a>,
    pub(super) signals: &'a Signals,
}

/// Why an attempt brought no answer, by what may be done about it.
#[derive(Debug)]
pub(super) enum Setback {
    /// Nothing.
    Final(UpstreamError),
    /// No connection could be made: whoever knows where the server is can be asked again.
    Unreached(UpstreamError),
    /// The server has not executed the request, and seems to be of another era or another process than we believe. If it
    /// is not, this is the outcome.
    Mistaken(Box<Result<Answer, UpstreamError>>),
    /// The server has not executed the request, because it does not know the session any more. If that is not why, this is
    /// the outcome.
    SessionLost(Box<Result<Answer, UpstreamError>>),
}

impl From<UpstreamError> for Setback {
    fn from(error: UpstreamError) -> Self {
        Self::Final(error)
    }
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Events,
}

impl Format {
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE)?.as_bytes();
        let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/json") {
            Some(Self::Json)
        } else if essence.eq_ignore_ascii_case(b"text/event-stream") {
            Some(Self::Events)
        } else {
            None
        }
    }
}

/// The answer to a message that we originated ourselves.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// The first response in the body of an answer with status 200.
    Message(Bytes),
    /// Any other answer.
    Refused(Refusal),
}

impl Http {
    /// Sends `message` and waits for the head of the response.
    pub(super) async fn post(
        &self,
        endpoint: &Endpoint,
        headers: HeaderMap,
        message: Bytes,
        deadline: Instant,
    ) -> Result<Response<Incoming>, HttpError> {
        self.send(Method::POST, endpoint, headers, message, deadline).await
    }

    pub(super) async fn send(
        &self,
        method: Method,
        endpoint: &Endpoint,
        headers: HeaderMap,
        message: Bytes,
        deadline: Instant,
    ) -> Result<Response<Incoming>, HttpError> {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = method;
        *request.uri_mut() = endpoint.uri.clone();
        *request.headers_mut() = headers;
        self.client.request(request, endpoint.trust, deadline).await
    }

    /// Sends a message of our own and reads the response, whichever way it comes.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        headers: HeaderMap,
        message: Bytes,
        deadline: Instant,
    ) -> Result<Reply, HttpError> {
        let response = self.post(endpoint, headers, message, deadline).await?;
        let headers = response.headers().clone();
        let outcome = match (response.status(), Format::of(&headers)) {
            (StatusCode::OK, Some(Format::Json)) => {
                Outcome::Message(read_limited(response.into_body(), self.options.message_limit, deadline).await?)
            }
            (StatusCode::OK, Some(Format::Events)) => match self.first_response(response, deadline).await? {
                Some(message) => Outcome::Message(message),
                None => Outcome::Refused(Refusal::of(StatusCode::OK, &headers)),
            },
            _ => Outcome::Refused(Refusal::read(response, deadline).await),
        };
        Ok(Reply { headers, outcome })
    }

    /// Sends something that has no answer worth waiting for, in the background.
    pub(super) fn tell(&self, method: Method, endpoint: Arc<Endpoint>, headers: HeaderMap, message: Bytes) {
        let http = self.clone();
        self.tasks.spawn(async move {
            let deadline = Instant::now() + COURTESY;
            match http.send(method, &endpoint, headers, message, deadline).await {
                // Reading the little there is lets the connection be used again.
                Ok(response) => drop(read_limited(response.into_body(), 64 * 1024, deadline).await),
                Err(error) => tracing::debug!(%error, "a courtesy message to an upstream server was lost"),
            }
        });
    }

    async fn first_response(
        &self,
        response: Response<Incoming>,
        deadline: Instant,
    ) -> Result<Option<Bytes>, HttpError> {
        let mut body = DeadlineBody::new(response.into_body(), self.options.limits(deadline));
        let (mut decoder, mut buffer) = (Decoder::new(self.options.message_limit), BytesMut::new());
        let too_large = |_| HttpError::TooLarge { limit: self.options.message_limit };
        loop {
            while let Some(event) = decoder.decode(&mut buffer).map_err(too_large)? {
                if matches!(envelope::parse(&event.data), Ok(Message::Response(_))) {
                    return Ok(Some(event.data));
                }
            }
            match body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        buffer.extend_from_slice(&data);
                    }
                }
                None => return Ok(decoder.finish(&mut buffer).map_err(too_large)?.map(|event| event.data)),
            }
        }
    }
}

/// The headers of a request, the weakest first: what the caller sent, what the installation says, what must be.
pub(super) fn request_headers(
    endpoint: &Endpoint,
    credential: &CredentialHeaders,
    forwarded: &HeaderMap,
    traceparent: Option<&HeaderValue>,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(forwarded.len() + credential.map().len() + 12);
    for (name, value) in forwarded {
        if is_forwardable(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(traceparent) = traceparent {
        headers.insert(TRACEPARENT, traceparent.clone());
    }
    for (name, value) in credential.map().iter().chain(&endpoint.base) {
        headers.insert(name.clone(), value.clone());
    }
    headers.entry(USER_AGENT).or_insert_with(|| HeaderValue::from_static(AGENT));
    headers
}

/// Whatever a caller may pass on: the protocol's own headers are made anew, and others belong to its connection.
fn is_forwardable(name: &HeaderName) -> bool {
    let made_anew = [header::SESSION_ID, header::PROTOCOL_VERSION, header::METHOD, header::NAME];
    !is_connection_header(name) && !made_anew.contains(&name.as_str())
}

/// Whether a request that ended so may have been seen by a process that is gone now.
pub(super) fn broke_off(server: &Arc<str>, endpoint: &Endpoint, error: &HttpError) -> UpstreamError {
    match error {
        HttpError::Protocol { .. } if endpoint.trust == super::dial::Trust::Runtime => {
            tracing::debug!(%server, %error, "a workload's server broke off");
            UpstreamError::Gone { server: Arc::clone(server) }
        }
        other => UpstreamError::from_http(server, other),
    }
}

impl Attempt<'_> {
    /// What a failure before the head of the response means.
    fn unanswered(&self, error: &HttpError) -> Setback {
        if error.is_connect() && !matches!(error, HttpError::Refused(_) | HttpError::Url(_)) {
            return Setback::Unreached(UpstreamError::from_http(self.server, error));
        }
        Setback::Final(broke_off(self.server, self.endpoint, error))
    }

    fn headers(&self) -> HeaderMap {
        let exchange = self.exchange;
        request_headers(self.endpoint, self.credential, &exchange.forwarded, exchange.traceparent.as_ref())
    }

    /// Reads an answer that is one JSON message.
    async fn read_json(&self, response: Response<Incoming>) -> Result<Bytes, UpstreamError> {
        let read = read_limited(response.into_body(), self.http.options.message_limit, self.exchange.deadline).await;
        read.map_err(|error| broke_off(self.server, self.endpoint, &error))
    }
}

/// `future`, until `deadline`.
pub(super) async fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    timeout_at(deadline, future).await.ok()
}
