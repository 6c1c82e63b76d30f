//! Requests to legacy servers over HTTP: within a shared session, with ids of our own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::reader::Events;
use super::refusal::Refusal;
use super::{Attempt, Format, Http, Setback};
use crate::mcp::version::Era;
use crate::upstream::client::HttpError;
use crate::upstream::error::UpstreamError;
use crate::upstream::exchange::Answer;
use crate::upstream::mapping::{Ids, Mapping, Taken, cancelled, outgoing};
use crate::upstream::relay::{Relay, Source};
use crate::upstream::session::Session;

/// Forwards the request of `attempt` within `session`.
pub(in crate::upstream) async fn send(attempt: Attempt<'_>, session: &Arc<Session>) -> Result<Answer, Setback> {
    let Attempt { http, server, exchange, endpoint, .. } = attempt;
    let number = session.next_id();
    let ids = Ids::Ours(number);
    let message = outgoing(exchange, Era::Legacy, ids, server)?;
    let mapping = Mapping::new(exchange, Era::Legacy, ids);
    let mut headers = attempt.headers();
    session.mark(&mut headers);
    let mut call = UnderWay::new(http, session, number);
    let response = match http.post(endpoint, headers, message, exchange.deadline).await {
        Ok(response) => response,
        Err(error) => {
            if error.is_connect() {
                call.over();
            }
            return Err(attempt.unanswered(&error));
        }
    };
    match (response.status(), Format::of(response.headers())) {
        (StatusCode::OK, Some(Format::Json)) => {
            let message = attempt.read_json(response).await?;
            call.over();
            match mapping.take(&message).map_err(|reason| UpstreamError::protocol(server, reason))? {
                Taken::Response(message) => Ok(Answer::Message(message)),
                _ => Err(UpstreamError::protocol(server, "its answer is not the response to the request").into()),
            }
        }
        (StatusCode::OK, Some(Format::Events)) => {
            let events = Events::of_response(response, attempt, Some(call));
            Ok(Relay::new(Source::Http(Box::new(events)), mapping, attempt).answer().await?)
        }
        _ => {
            call.over();
            let refusal = Refusal::read(response, exchange.deadline).await;
            refused(attempt, session, &mapping, &refusal)
        }
    }
}

fn refused(attempt: Attempt<'_>, session: &Session, mapping: &Mapping, refusal: &Refusal) -> Result<Answer, Setback> {
    let server = attempt.server;
    let plain = refusal.to_error(server);
    if refusal.is_unauthorized() {
        return Err(plain.into());
    }
    if refusal.status == StatusCode::NOT_FOUND && session.has_id() {
        return Err(Setback::SessionLost(plain));
    }
    let outcome = match refusal.json.as_ref().map(|message| mapping.take(message)) {
        Some(Ok(Taken::Response(message))) => Ok(Answer::Message(message)),
        _ => Err(plain),
    };
    let names_request = refusal.rpc_fault().is_some_and(|fault| fault.names_request);
    if refusal.status == StatusCode::BAD_REQUEST && !names_request {
        return Err(Setback::Mistaken(Box::new(outcome)));
    }
    outcome.map_err(Setback::Final)
}

/// A request that a legacy server works on. Dropping it before it is over tells the server to stop.
#[derive(Debug)]
pub(in crate::upstream) struct UnderWay {
    http: Http,
    session: Arc<Session>,
    number: u64,
    over: bool,
}

impl UnderWay {
    fn new(http: &Http, session: &Arc<Session>, number: u64) -> Self {
        session.active.fetch_add(1, Ordering::Relaxed);
        Self { http: http.clone(), session: Arc::clone(session), number, over: false }
    }

    /// The answer is there, or the request never arrived.
    pub(in crate::upstream) fn over(&mut self) {
        self.over = true;
    }

    /// Answers a request of the server's.
    pub(in crate::upstream) fn reply(&self, answer: Bytes) {
        self.tell(answer);
    }

    /// Asks for the rest of a stream that ended after the event with this id.
    pub(in crate::upstream) async fn resume(
        &self,
        after: &str,
        deadline: Instant,
    ) -> Result<http::Response<Incoming>, HttpError> {
        let headers = self.session.resume_headers(after);
        self.http.send(Method::GET, self.session.endpoint(), headers, Bytes::new(), deadline).await
    }

    fn tell(&self, message: Bytes) {
        let endpoint = Arc::clone(self.session.endpoint());
        self.http.tell(Method::POST, endpoint, self.session.headers(), message);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.session.active.fetch_sub(1, Ordering::Relaxed);
        self.session.touch();
        if !self.over {
            self.tell(cancelled(&self.number.to_string()));
        }
    }
}
