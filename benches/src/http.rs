//! One MCP connection over HTTP/1.1 as a client of either era, as bare as hyper allows.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode, Uri,
    client::conn::http1::{self, SendRequest},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::{
    Failure,
    message::{self, excerpt},
    peer::{LEGACY_VERSION, MODERN_VERSION},
    target::{Endpoint, Era},
};

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const CONTROL_DEADLINE: Duration = Duration::from_secs(15);

/// A keep-alive connection with the headers every request of its caller carries.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    /// Ends the connection's task together with this value.
    _driver: JoinSet<()>,
}

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self, Failure> {
        let stream = timeout(CONTROL_DEADLINE, TcpStream::connect(endpoint.address)).await??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // A broken connection shows in the request that was waiting for it.
            connection.await.ok();
        });
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::try_from(endpoint.address.to_string())?);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &endpoint.bearer {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self { sender, uri: endpoint.path.parse()?, headers, _driver: driver })
    }

    /// Opens a connection that is ready for calls of `tool`: a legacy one has its session.
    pub(crate) async fn for_calls(endpoint: &Endpoint, era: Era, tool: &str) -> Result<Self, Failure> {
        let mut connection = Self::open(endpoint).await?;
        match era {
            Era::Modern => {
                connection.headers.insert(VERSION, HeaderValue::from_static(MODERN_VERSION));
                connection.headers.insert(METHOD, HeaderValue::from_static("tools/call"));
                connection.headers.insert(NAME, HeaderValue::try_from(tool)?);
            }
            Era::Legacy => timeout(CONTROL_DEADLINE, connection.begin_session()).await??,
        }
        Ok(connection)
    }

    async fn begin_session(&mut self) -> Result<(), Failure> {
        let (status, headers, body) = self.exchange(Method::POST, message::initialize()).await?;
        let session = headers.get(SESSION).cloned();
        let Some(session) = session.filter(|_| status == StatusCode::OK) else {
            return Err(format!("initialize got status {status} and no usable session: {}", excerpt(&body)).into());
        };
        self.headers.insert(SESSION, session);
        self.headers.insert(VERSION, HeaderValue::from_static(LEGACY_VERSION));
        let (status, _, body) = self.exchange(Method::POST, message::initialized()).await?;
        if !status.is_success() {
            return Err(format!("notifications/initialized got status {status}: {}", excerpt(&body)).into());
        }
        Ok(())
    }

    /// A single modern request other than a call.
    pub(crate) async fn request(&mut self, method: &'static str) -> Result<Bytes, Failure> {
        self.headers.insert(VERSION, HeaderValue::from_static(MODERN_VERSION));
        self.headers.insert(METHOD, HeaderValue::from_static(method));
        let exchange = self.exchange(Method::POST, message::request(Era::Modern, method, ""));
        let (status, _, body) = timeout(CONTROL_DEADLINE, exchange).await??;
        match status {
            StatusCode::OK => Ok(body),
            other => Err(format!("{method} got status {other}: {}", excerpt(&body)).into()),
        }
    }

    /// The status of a GET.
    pub(crate) async fn get(&mut self) -> Result<StatusCode, Failure> {
        let (status, _, _) = timeout(CONTROL_DEADLINE, self.exchange(Method::GET, Bytes::new())).await??;
        Ok(status)
    }

    /// Sends a call and accepts nothing but its echo; the caller bounds the time.
    pub(crate) async fn call(&mut self, id: u64, body: Bytes) -> Result<(), Failure> {
        let (status, _, body) = self.exchange(Method::POST, body).await?;
        if status != StatusCode::OK {
            return Err(format!("call {id} got status {status}: {}", excerpt(&body)).into());
        }
        message::check(id, &body)
    }

    async fn exchange(&mut self, method: Method, body: Bytes) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((head.status, head.headers, body))
    }
}
