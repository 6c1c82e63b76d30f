//! The front door: one endpoint per consumer, for modern clients and for legacy ones with sessions.
#![expect(clippy::result_large_err, reason = "a refusal is an answer like any other, and moved once")]

mod answer;
mod body;
mod call;
mod guard;
mod in_flight;
mod intake;
mod legacy;
mod modern;
mod record;
mod session;
mod streams;
#[cfg(test)]
mod tests;
mod told;

pub use body::McpBody;
pub(crate) use call::{Called, Caller, call};
pub(crate) use guard::HostPolicy;
pub(crate) use in_flight::InFlight;
pub(crate) use session::Sessions;
pub(crate) use told::Told;

use super::{
    envelope::{self, Message},
    error::RpcError,
    headers::era_of,
    version::Era,
};
use crate::{
    auth::{AuthError, Authenticated, challenge},
    platform::Shared,
    route::ConsumerRoute,
};
use answer::{Reply, empty, json, rpc_error};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// A request that was let in, and what it goes through.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    /// Who.
    pub(crate) who: Authenticated,
    /// Through what.
    pub(crate) consumer: Arc<ConsumerRoute>,
    /// From where.
    pub(crate) address: Option<IpAddr>,
}

/// Serves `/v1/mcp/{consumer}`.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    shared: Arc<Shared>,
}

impl Front {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What it shares with the rest of its platform.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Answers one request from `address` to the consumer at `place`.
    pub(crate) async fn handle<B>(&self, place: &str, address: Option<IpAddr>, request: Request<B>) -> Response<McpBody>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        match self.serve(place, address, request).await {
            Ok(reply) | Err(reply) => reply,
        }
    }

    async fn serve<B>(&self, place: &str, address: Option<IpAddr>, request: Request<B>) -> Result<Reply, Reply>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let shared = &*self.shared;
        let (parts, body) = request.into_parts();
        shared.hosts.check(&parts).map_err(|refusal| answer::problem(StatusCode::FORBIDDEN, &refusal.to_string()))?;
        let who = self.enter(place, &parts.headers).await?;
        let consumer =
            shared.routes.load().consumer(place).filter(|route| route.admits(&who.principal)).map(Arc::clone);
        let consumer = consumer.ok_or_else(|| {
            answer::problem(
                StatusCode::NOT_FOUND,
                &format!("there is no gateway or agent `{place}` that your token may use: check the URL, or its scope"),
            )
        })?;
        let visit = Visit { who, consumer, address };
        match parts.method {
            Method::POST => {}
            Method::GET => return streams::legacy(&self.shared, &visit, &parts.headers),
            Method::DELETE => return Box::pin(legacy::end_session(shared, &visit, &parts.headers)).await,
            _ => return Err(answer::method_not_allowed()),
        }
        intake::check_headers(&parts.headers)?;
        let body = intake::read(body, &parts.headers, shared.options.body_limit).await?;
        let message = envelope::parse(&body).map_err(|rejected| {
            let error = RpcError::from(&rejected.error);
            rpc_error(&error, rejected.id, Era::Legacy)
        })?;
        match message {
            Message::Request(request) => match era_of(&parts.headers, &request) {
                Era::Modern => modern::request(&self.shared, visit, &parts.headers, &body, &request).await,
                Era::Legacy => legacy::request(&self.shared, visit, &parts.headers, &body, &request).await,
            },
            Message::Notification(notification) => {
                // Boxed, like the end of a session, to keep small what every tool call carries along.
                Box::pin(legacy::notification(shared, &visit, &parts.headers, &notification)).await
            }
            // Nothing that we ask clients is answered by a POST of its own.
            Message::Response(_) => Ok(empty(StatusCode::ACCEPTED)),
        }
    }

    async fn enter(&self, place: &str, headers: &HeaderMap) -> Result<Authenticated, Reply> {
        self.shared.authenticator.authenticate(headers).await.map_err(|error| {
            if error == AuthError::Unavailable {
                return answer::later(StatusCode::SERVICE_UNAVAILABLE, &error.to_string(), Duration::from_secs(1));
            }
            let metadata = self.shared.resource_metadata_url(place);
            let status = if error == AuthError::Malformed { StatusCode::BAD_REQUEST } else { StatusCode::UNAUTHORIZED };
            let mut reply = answer::problem(status, &error.to_string());
            reply.headers_mut().insert(header::WWW_AUTHENTICATE, challenge(&error, metadata.as_deref()));
            reply
        })
    }
}

/// A whole JSON-RPC response around a result that is ready.
fn result(id: envelope::Id<'_>, result: &[u8]) -> Reply {
    let mut out = bytes::BytesMut::with_capacity(40 + id.as_str().len() + result.len());
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.as_str().as_bytes());
    out.extend_from_slice(b",\"result\":");
    out.extend_from_slice(result);
    out.extend_from_slice(b"}");
    json(StatusCode::OK, out.freeze())
}
