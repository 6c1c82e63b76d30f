//! Requests to modern servers over HTTP: one POST each, its answer streamed on untouched where the caller is modern too.

use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body::Body;

use super::reader::Events;
use super::refusal::Refusal;
use super::{Attempt, Format, Setback};
use crate::mcp::error::code;
use crate::mcp::headers::emit_modern;
use crate::mcp::version::{Era, ProtocolVersion};
use crate::upstream::deadline_body::DeadlineBody;
use crate::upstream::error::UpstreamError;
use crate::upstream::exchange::Answer;
use crate::upstream::mapping::{Ids, Mapping, Taken, mirrored_name, outgoing};
use crate::upstream::relay::{Relay, Source};

/// Forwards the request of `attempt`.
pub(in crate::upstream) async fn send(attempt: Attempt<'_>) -> Result<Answer, Setback> {
    let Attempt { http, server, exchange, endpoint, .. } = attempt;
    let message = outgoing(exchange, Era::Modern, Ids::Callers, server)?;
    let mut headers = attempt.headers();
    emit_modern(&mut headers, ProtocolVersion::LATEST, &exchange.request.method, mirrored_name(exchange))
        .map_err(|error| UpstreamError::request(server, error.to_string()))?;
    let response =
        http.post(endpoint, headers, message, exchange.deadline).await.map_err(|error| attempt.unanswered(&error))?;
    let (StatusCode::OK, Some(format)) = (response.status(), Format::of(response.headers())) else {
        return refused(attempt, &Refusal::read(response, exchange.deadline).await);
    };
    if exchange.caller_era == Era::Modern {
        let (mut head, body) = response.into_parts();
        let content_length = body.size_hint().exact();
        if content_length == Some(0) {
            return Err(UpstreamError::protocol(server, "its answer is empty").into());
        }
        let body = DeadlineBody::new(body, http.options.limits(exchange.deadline));
        let content_type =
            head.headers.remove(CONTENT_TYPE).unwrap_or_else(|| super::HeaderValue::from_static("application/json"));
        return Ok(Answer::Body { content_type, content_length, body });
    }
    let mapping = Mapping::new(exchange, Era::Modern, Ids::Callers);
    match format {
        Format::Json => {
            let message = attempt.read_json(response).await?;
            match mapping.take(&message).map_err(|reason| UpstreamError::protocol(server, reason))? {
                Taken::Response(message, _) => Ok(Answer::Message(message)),
                _ => Err(UpstreamError::protocol(server, "its answer is not the response to the request").into()),
            }
        }
        Format::Events => {
            let events = Events::of_response(response, attempt, None);
            Ok(Relay::new(Source::Http(Box::new(events)), mapping, attempt).answer().await?)
        }
    }
}

fn refused(attempt: Attempt<'_>, refusal: &Refusal) -> Result<Answer, Setback> {
    let server = attempt.server;
    if refusal.is_unauthorized() {
        return Err(refusal.to_error(server).into());
    }
    let Some(fault) = refusal.rpc_fault() else {
        let outcome = Err(refusal.to_error(server));
        return if refusal.status == StatusCode::BAD_REQUEST {
            Err(Setback::Mistaken(Box::new(outcome)))
        } else {
            outcome.map_err(Setback::Final)
        };
    };
    if fault.code == code::HEADER_MISMATCH {
        // The headers were made from a tool definition that the server does not share any more.
        attempt.signals.tools_changed(attempt.installation);
    }
    let modern = matches!(fault.code, code::HEADER_MISMATCH | code::MISSING_CLIENT_CAPABILITY);
    let outcome = told(attempt, refusal);
    let not_executed = refusal.status == StatusCode::BAD_REQUEST && !modern;
    if fault.code == code::UNSUPPORTED_PROTOCOL_VERSION || (not_executed && !fault.names_request) {
        return Err(Setback::Mistaken(Box::new(outcome)));
    }
    outcome.map_err(Setback::Final)
}

/// The JSON-RPC error in the body, as the caller's answer.
fn told(attempt: Attempt<'_>, refusal: &Refusal) -> Result<Answer, UpstreamError> {
    let mapping = Mapping::new(attempt.exchange, Era::Modern, Ids::Callers);
    match refusal.json.as_ref().map(|message| mapping.take(message)) {
        Some(Ok(Taken::Response(message, _))) => Ok(Answer::Message(message)),
        _ => Err(refusal.to_error(attempt.server)),
    }
}
