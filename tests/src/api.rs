//! A plain HTTP client for the binary under test.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use std::{fmt, time::Duration};

const DEADLINE: Duration = Duration::from_secs(120);

/// A server and the token to call it with.
#[derive(Clone)]
pub struct Api {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    token: Option<String>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body of a success.
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        self.json()
    }
}

impl Api {
    /// One at this URL, for whoever has this token.
    pub fn new(url: String, token: Option<String>) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), url, token }
    }

    /// The same server with another token, or none.
    #[must_use]
    pub fn as_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    /// `GET`, when the server may not be there.
    pub async fn try_get(&self, path: &str) -> Option<Answer> {
        whole(self.open(Method::GET, path, &[], Bytes::new()).await.ok()?).await.ok()
    }

    /// Any request with JSON, when the server may not be there.
    pub async fn try_send(&self, method: Method, path: &str, body: Option<&Value>) -> Option<Answer> {
        let headers: &[_] = if body.is_some() { &[("content-type", "application/json")] } else { &[] };
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        whole(self.open(method, path, headers, body).await.ok()?).await.ok()
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    /// `PUT` of JSON.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, &[], Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], None).await
    }

    /// Any request, with further headers.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let mut all = headers.to_vec();
        if body.is_some() {
            all.push(("content-type", "application/json"));
        }
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        self.raw(method, path, &all, body).await
    }

    /// Any request, with exactly this body.
    pub async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let opened = self.open(method, path, headers, body).await;
        let response = opened.unwrap_or_else(|error| panic!("{path}: {error}"));
        whole(response).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Any request, up to the head of its answer.
    ///
    /// # Errors
    /// The server is not there, or takes too long.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<http::Response<Incoming>, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        match tokio::time::timeout(DEADLINE, self.client.request(request)).await {
            Ok(outcome) => outcome.map_err(|error| format!("{error:?}")),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

async fn whole(response: http::Response<Incoming>) -> Result<Answer, String> {
    let (parts, body) = response.into_parts();
    let body = tokio::time::timeout(DEADLINE, body.collect()).await.map_err(|_| "the body never ends".to_owned())?;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}
