//! One tool call, from its message to its upstream's answer: route, policy, credential, exchange.

use super::record::CallLog;
use crate::{
    auth::Usage,
    mcp::{
        envelope::Request,
        error::{ErrorKind, RpcError},
        tool_result,
        version::{Era, meta},
    },
    platform::Shared,
    route::{ConsumerRoute, ToolRoute},
    unambiguous::Unambiguous,
    upstream::{Answer, Cancel, Exchange, Turn, UpstreamError},
};
use archestra_core::{
    credential::{CallContext, CredentialError, Resolved},
    event::Outcome as Recorded,
    identity::Principal,
    policy::{CallFacts, Verdict, evaluate},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use std::{net::IpAddr, sync::Arc};
use tokio::time::Instant;

/// Who calls, through what, and how they are to be answered.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    /// Who.
    pub(crate) principal: &'a Arc<Principal>,
    /// What the caller uses at once; the embedding program is not counted.
    pub(crate) usage: Option<&'a Arc<Usage>>,
    /// Through what.
    pub(crate) consumer: &'a Arc<ConsumerRoute>,
    /// Within which session of a legacy client, if any.
    pub(crate) session: Option<u128>,
    /// From where.
    pub(crate) address: Option<IpAddr>,
    /// In which era's terms.
    pub(crate) era: Era,
    /// The request's headers.
    pub(crate) headers: &'a HeaderMap,
    /// How the caller takes the call back.
    pub(crate) cancel: Cancel<'a>,
}

/// What became of a call.
#[expect(clippy::large_enum_variant, reason = "the large variant is the common one, and moved once")]
pub(crate) enum Called {
    /// A protocol error: the request itself is wrong.
    Rejected(RpcError),
    /// A whole response, noted already.
    Message(Bytes),
    /// The server's answer, to be noted when it has gone through.
    Answer(Answer, CallLog),
    /// The caller took it back.
    Cancelled,
}

/// Makes the call of this message.
pub(crate) async fn call(shared: &Shared, caller: Caller<'_>, body: &Bytes, request: &Request<'_>) -> Called {
    let begun = Instant::now();
    let (principal, consumer) = (caller.principal, caller.consumer);
    let name = request.params.name.as_ref().map(|name| &*name.value);
    let route = name.and_then(|name| consumer.tools.get(name));
    let begin = |slot| {
        let (principal, consumer) = (Arc::clone(principal), Arc::clone(consumer));
        let mut log = CallLog::begin(slot, begun, principal, consumer, caller.address, body.len());
        match (route, name) {
            (Some(route), _) => log.routed(route),
            (None, Some(name)) => log.unknown(name),
            (None, None) => {}
        }
        log
    };
    // The bound comes before anything that waits, so that no caller can have more waiting than it may have under way.
    let place = match caller.usage.map(Usage::call).transpose() {
        Ok(place) => place,
        Err(bound) => {
            let log = begin(shared.audit.spare());
            log.finish(Recorded::Denied, Some("too many calls at once"), 0);
            let text =
                format!("you have {bound} calls under way, which is as many as a caller may: wait for one to end");
            return Called::Rejected(RpcError::new(ErrorKind::TooManyRequests, text));
        }
    };
    let deadline = begun + route.map_or(shared.options.call_timeout, |route| route.timeout);
    let slot = tokio::select! {
        biased;
        slot = tokio::time::timeout_at(deadline, shared.audit.reserve()) => slot.ok(),
        () = caller.cancel.cancelled() => {
            drop(begin(shared.audit.spare()));
            return Called::Cancelled;
        }
    };
    let noted = slot.is_some();
    let mut log = begin(slot.unwrap_or_else(|| shared.audit.spare()));
    if let Some(place) = place {
        log.hold(place);
    }
    let Some(name) = name else {
        log.finish(Recorded::Error, Some("no tool name"), 0);
        return Called::Rejected(RpcError::new(
            ErrorKind::InvalidParams,
            "`params.name` is required: name the tool to call",
        ));
    };
    let Some(route) = route else {
        log.finish(Recorded::Error, Some("unknown tool"), 0);
        let text =
            format!("unknown tool `{}`: list the tools again, it may have been renamed or taken away", clip(name));
        return Called::Rejected(RpcError::new(ErrorKind::InvalidParams, text));
    };
    if !noted {
        let text =
            "the call was not made: calls are recorded first, and the audit log did not keep up; try again later";
        let detail = serde_json::json!({ "code": "auditUnavailable" });
        return refuse(log, Recorded::Error, "no room in the audit log", request, caller.era, text, &detail);
    }
    if caller.era == Era::Modern
        && let Some(params) = &route.header_params
        && let Err(error) = params.validate(caller.headers, request.params.arguments)
    {
        log.finish(Recorded::Error, Some("header mismatch"), 0);
        return Called::Rejected(error);
    }
    match judge(principal, consumer, route, request) {
        Err(error) => {
            log.finish(Recorded::Error, Some("arguments are not JSON"), 0);
            return Called::Rejected(error);
        }
        Ok(Verdict::Allow(policy)) => log.judged(policy),
        Ok(Verdict::Block { policy, name, message }) => {
            log.judged(Some(policy));
            let text = message.unwrap_or_else(|| format!("the policy \"{name}\" does not allow this call"));
            let detail = serde_json::json!({ "code": "policyDenied", "policy": policy });
            return refuse(log, Recorded::Denied, "blocked by policy", request, caller.era, &text, &detail);
        }
    }
    let resolving = async {
        let resolved = tokio::time::timeout_at(deadline, resolve(shared, principal, consumer, route)).await;
        let late = || CredentialError::Unavailable { reason: "the resolver took too long".to_owned() };
        resolved.unwrap_or_else(|_| Err(late()))
    };
    let resolved = tokio::select! {
        biased;
        resolved = resolving => resolved,
        () = caller.cancel.cancelled() => return Called::Cancelled,
    };
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(error) => {
            let (text, detail) = explain(shared, &error);
            return refuse(log, Recorded::Error, &error.to_string(), request, caller.era, &text, &detail);
        }
    };
    log.resolved(&resolved);
    let Some(target) = route.targets.get(&resolved.installation) else {
        let text = "the installation that was chosen is not ready to serve this tool";
        let detail = serde_json::json!({ "code": "installationUnavailable", "installation": resolved.installation });
        return refuse(log, Recorded::Error, text, request, caller.era, text, &detail);
    };
    let forwarded = match forwarded(caller.headers, route, consumer, request) {
        Ok(forwarded) => forwarded,
        Err(error) => {
            log.finish(Recorded::Error, Some("an argument cannot be sent as a header"), 0);
            return Called::Rejected(error);
        }
    };
    let exchange = Exchange {
        body,
        request,
        caller_era: caller.era,
        name: Some(&route.tool.name),
        plan: &resolved.plan,
        principal: Some(principal),
        turn: Some(match caller.session {
            Some(session) => Turn::Session(session),
            None => Turn::Caller { principal, consumer: consumer.consumer.id },
        }),
        log_level: None,
        traceparent: caller.headers.get(meta::TRACEPARENT).cloned(),
        forwarded,
        deadline,
        cancel: caller.cancel,
    };
    match shared.upstreams.call(target, exchange).await {
        Ok(answer) => Called::Answer(answer, log),
        Err(UpstreamError::Cancelled) => Called::Cancelled,
        Err(error) => {
            tracing::info!(server = %route.entry.spec.name, tool = %route.tool.name, %error, "a tool call failed");
            let detail = serde_json::json!({ "code": error.code(), "server": route.entry.spec.name });
            refuse(log, Recorded::Error, &error.to_string(), request, caller.era, &error.client_text(), &detail)
        }
    }
}

fn judge(
    principal: &Principal,
    consumer: &ConsumerRoute,
    route: &ToolRoute,
    request: &Request<'_>,
) -> Result<Verdict, RpcError> {
    if route.rules.is_empty() {
        return Ok(Verdict::Allow(None));
    }
    let arguments = match (route.judges_arguments, request.params.arguments) {
        (false, _) => None,
        (true, None) => Some(serde_json::Value::Object(serde_json::Map::new())),
        (true, Some(raw)) => {
            Some(serde_json::from_str::<Unambiguous>(raw.as_str()).map(|Unambiguous(value)| value).map_err(|_| {
                let text = "`params.arguments` cannot be read or names a key twice, and a policy depends on it";
                RpcError::new(ErrorKind::InvalidParams, text)
            })?)
        }
    };
    let facts = CallFacts {
        principal,
        consumer: consumer.consumer.id,
        entry: route.entry.id,
        tool: &route.tool.name,
        arguments: arguments.as_ref(),
    };
    Ok(evaluate(route.rules.iter().map(|rule| &**rule), facts))
}

async fn resolve(
    shared: &Shared,
    principal: &Principal,
    consumer: &ConsumerRoute,
    route: &ToolRoute,
) -> Result<Resolved, CredentialError> {
    let context = CallContext {
        principal,
        consumer: &consumer.consumer,
        entry: &route.entry,
        tool: &route.tool.name,
        choice: route.choice,
        candidates: &route.candidates,
    };
    shared.resolver.resolve(&context).await
}

/// The text and the details that a caller is given when no installation can serve the call.
fn explain(shared: &Shared, error: &CredentialError) -> (String, serde_json::Value) {
    match error {
        CredentialError::Missing { entry, entry_name, .. } => {
            let url = shared.install_url(*entry);
            let text = format!("{error}. Install {entry_name} first: {url} Then call again.");
            (text, serde_json::json!({ "code": "credentialMissing", "entry": entry, "installUrl": url }))
        }
        CredentialError::PinUnavailable { entry, installation, .. } => {
            let text = format!("{error}. Ask whoever manages this gateway to check it.");
            (
                text,
                serde_json::json!({ "code": "installationUnavailable", "entry": entry, "installation": installation }),
            )
        }
        CredentialError::Unauthorized { entry, installation, .. } => {
            let url = shared.install_url(*entry);
            let text = format!("{error}. Authorize it first: {url} Then call again.");
            (
                text,
                serde_json::json!({ "code": "credentialUnauthorized", "entry": entry, "installation": installation, "installUrl": url }),
            )
        }
        CredentialError::Expired { entry, installation, .. } => {
            let url = shared.install_url(*entry);
            let text = format!("{error}. Authorize it again: {url} Then call again.");
            (
                text,
                serde_json::json!({ "code": "credentialExpired", "entry": entry, "installation": installation, "installUrl": url }),
            )
        }
        other => (other.to_string(), serde_json::json!({ "code": "credentialUnavailable" })),
    }
}

/// The headers of the caller's request that go on to the server, and those that mirror arguments (SEP-2243), which legacy
/// callers do not send.
fn forwarded(
    headers: &HeaderMap,
    route: &ToolRoute,
    consumer: &ConsumerRoute,
    request: &Request<'_>,
) -> Result<HeaderMap, RpcError> {
    let mut forwarded = HeaderMap::new();
    for name in &consumer.consumer.spec.passthrough_headers {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        for value in headers.get_all(&name) {
            forwarded.append(name.clone(), value.clone());
        }
    }
    if let Some(params) = &route.header_params {
        params.emit(&mut forwarded, request.params.arguments)?;
    }
    Ok(forwarded)
}

fn refuse(
    log: CallLog,
    outcome: Recorded,
    error: &str,
    request: &Request<'_>,
    era: Era,
    text: &str,
    detail: &serde_json::Value,
) -> Called {
    let message = tool_result::error_response(request.id, era, text, detail);
    log.finish(outcome, Some(error), message.len() as u64);
    Called::Message(message)
}

fn clip(name: &str) -> String {
    name.chars().take(128).collect()
}
