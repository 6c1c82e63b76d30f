//! Requests to legacy servers over HTTP: within a shared session, with ids of our own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;

use super::reader::Events;
use super::refusal::{Refusal, RpcFault};
use super::{Attempt, Format, Setback};
use crate::mcp::error::code;
use crate::mcp::version::Era;
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
    let mut call = UnderWay::new(session, number);
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
                Taken::Response(message, _) => Ok(Answer::Message(message)),
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
        return Err(Setback::SessionLost(Box::new(Err(plain))));
    }
    let outcome = match refusal.json.as_ref().map(|message| mapping.take(message)) {
        Some(Ok(Taken::Response(message, _))) => Ok(Answer::Message(message)),
        _ => Err(plain),
    };
    let fault = refusal.rpc_fault();
    if refusal.status == StatusCode::BAD_REQUEST && session.has_id() && fault.is_some_and(misses_session) {
        return Err(Setback::SessionLost(Box::new(outcome)));
    }
    let puts_in_doubt = fault.is_none_or(|fault| !fault.names_request || is_modern_complaint(fault.code));
    if refusal.status == StatusCode::BAD_REQUEST && puts_in_doubt {
        return Err(Setback::Mistaken(Box::new(outcome)));
    }
    outcome.map_err(Setback::Final)
}

/// Whether a 400 with this error is about the session, so that the request was not executed. The revisions with sessions ask
/// for 404, but the servers that are written after the examples of the official SDK say 400 and one of these numbers, with the
/// request's id or without. The same numbers serve for failures of a call that was executed: where the id is echoed, the words
/// decide.
const fn misses_session(fault: RpcFault) -> bool {
    matches!(fault.code, -32_000 | -32_001) && (!fault.names_request || fault.speaks_of_session)
}

/// What a modern server says of a legacy request: it misses headers and `_meta`.
const fn is_modern_complaint(number: i64) -> bool {
    matches!(
        number,
        code::HEADER_MISMATCH
            | code::MISSING_CLIENT_CAPABILITY
            | code::UNSUPPORTED_PROTOCOL_VERSION
            | code::INVALID_PARAMS
    )
}

/// A request that a legacy server works on. Dropping it before it is over tells the server to stop.
#[derive(Debug)]
pub(in crate::upstream) struct UnderWay {
    session: Arc<Session>,
    number: u64,
    over: bool,
}

impl UnderWay {
    fn new(session: &Arc<Session>, number: u64) -> Self {
        session.active.fetch_add(1, Ordering::Relaxed);
        Self { session: Arc::clone(session), number, over: false }
    }

    pub(in crate::upstream) const fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The answer is there, or the request never arrived.
    pub(in crate::upstream) const fn over(&mut self) {
        self.over = true;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.session.active.fetch_sub(1, Ordering::Relaxed);
        self.session.touch();
        if !self.over {
            self.session.tell(cancelled(&self.number.to_string()));
        }
    }
}
