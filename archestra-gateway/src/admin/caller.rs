//! What a handler knows about a request: who calls, what version they believe in, and the audit record of what they change.

use super::{AdminState, Problem, page::Params};
use archestra_core::{
    event::{Actor, AuditRecord, Outcome},
    feed::Version,
    id::{AuditId, UserId},
    identity::Principal,
};
use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    http::request::Parts,
    middleware::Next,
    response::Response,
};
use chrono::Utc;
use futures::future::BoxFuture;
use http::{Method, StatusCode, header};
use serde::Deserialize;
use std::{collections::BTreeMap, future::Future, net::SocketAddr, ops::Deref, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How much of a path goes into the record of a refusal.
const MAX_SUBJECT: usize = 256;

/// The authenticated caller of a request.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    principal: Arc<Principal>,
    address: Option<String>,
}

impl Who {
    /// The user who is noted as the author of what is made now.
    pub(crate) fn author(&self) -> Option<UserId> {
        self.principal.user()
    }

    fn actor(&self) -> Actor {
        Actor {
            kind: self.principal.caller.kind().to_owned(),
            id: self.principal.caller.id(),
            name: self.principal.name.to_string(),
            method: self.principal.method.kind().to_owned(),
            address: self.address.clone(),
        }
    }
}

impl Deref for Who {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let principal =
            parts.extensions.get::<Arc<Principal>>().map(Arc::clone).ok_or_else(Problem::unauthenticated)?;
        if principal.consumer.is_some() {
            return Err(Problem::refused(
                "this credential opens one gateway or agent and nothing else; use a token without `consumer`",
            ));
        }
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_string());
        Ok(Self { principal, address })
    }
}

/// Asks again who the caller of a request that has been let in is, for answers that go on for long. Among the request's
/// extensions, beside the principal.
#[derive(Clone)]
pub(crate) struct Recheck(Arc<dyn Fn() -> BoxFuture<'static, Option<Arc<Principal>>> + Send + Sync>);

impl Recheck {
    /// `ask` answers `None` once the credential is no longer good, or when that cannot be found out.
    pub(crate) fn new(ask: impl Fn() -> BoxFuture<'static, Option<Arc<Principal>>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// The same caller as they are now.
    pub(crate) async fn ask(&self, who: &Who) -> Option<Who> {
        let principal = (self.0)().await?;
        Some(Who { principal, address: who.address.clone() })
    }
}

impl std::fmt::Debug for Recheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recheck").finish_non_exhaustive()
    }
}

/// The version that a writer read, from `If-Match` or `?resourceVersion=`; a body may name one too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Precondition(pub(crate) Option<Version>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InQuery {
    resource_version: Option<u64>,
}

impl Precondition {
    /// Adds what the body says.
    ///
    /// # Errors
    /// When header and body name different versions.
    pub(crate) fn or_body(self, body: Option<u64>) -> Result<Self, Problem> {
        match (self.0, body.map(Version)) {
            (Some(header), Some(body)) if header != body => {
                Err(Problem::finding("resourceVersion", "another version than the one in If-Match", "send one of them"))
            }
            (header, body) => Ok(Self(header.or(body))),
        }
    }

    /// Refuses a write that was made for another version than the present one.
    ///
    /// # Errors
    /// A 412 that says so.
    pub(crate) fn check(self, kind: &str, id: impl std::fmt::Display, present: Version) -> Result<(), Problem> {
        match self.0 {
            Some(wanted) if wanted != present => Err(Problem::version_lost(kind, id, present)),
            _ => Ok(()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Precondition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Params(InQuery { resource_version }) = Params::from_request_parts(parts, state).await?;
        let header = match parts.headers.get(header::IF_MATCH).map(|value| value.to_str().unwrap_or_default().trim()) {
            None | Some("*") => None,
            Some(tag) => {
                let number = tag.trim_start_matches("W/").trim_matches('"').parse().ok();
                Some(number.ok_or_else(|| {
                    Problem::malformed(
                        "If-Match holds no version; send the `resourceVersion` you read, as in `If-Match: \"3\"`",
                    )
                })?)
            }
        };
        Self(header.map(Version)).or_body(resource_version)
    }
}

/// Runs a change to its end, whether or not the caller waits for it, and records it.
///
/// `subject` names what is changed as far as the request does; `found` names it better once it is done.
pub(crate) async fn audited<T, F>(
    state: &AdminState,
    who: &Who,
    action: &str,
    subject: String,
    found: fn(&T) -> Option<String>,
    change: F,
) -> Result<T, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Problem>> + Send + 'static,
{
    let (record, actor, action) = (Arc::clone(&state.record), who.actor(), action.to_owned());
    let change = async move {
        let (at, started) = (Utc::now(), Instant::now());
        let result = change.await;
        let (outcome, error, subject) = match &result {
            Ok(value) => (Outcome::Success, None, found(value).unwrap_or(subject)),
            Err(problem) if problem.status() == StatusCode::FORBIDDEN => {
                (Outcome::Denied, Some(problem.to_string()), subject)
            }
            Err(problem) => (Outcome::Error, Some(problem.to_string()), subject),
        };
        record(AuditRecord {
            id: AuditId::new(),
            at,
            action,
            actor,
            outcome,
            error,
            duration_us: micros(started.elapsed()),
            call: None,
            subject: Some(subject),
            details: BTreeMap::new(),
        });
        result
    };
    state.tasks.spawn(change).await.map_err(|error| Problem::internal(format!("a change did not end: {error}")))?
}

/// Records that somebody was refused a change.
pub(super) async fn record_refusals(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let path: String = request.uri().path().chars().take(MAX_SUBJECT).collect();
    let method = request.method().clone();
    let (mut parts, body) = request.into_parts();
    let who = Who::from_request_parts(&mut parts, &state).await.ok();
    let response = next.run(Request::from_parts(parts, body)).await;
    if response.status() == StatusCode::FORBIDDEN
        && method != Method::GET
        && let Some(who) = who
    {
        (state.record)(AuditRecord {
            id: AuditId::new(),
            at: Utc::now(),
            action: "control.refused".to_owned(),
            actor: who.actor(),
            outcome: Outcome::Denied,
            error: Some("a permission is missing".to_owned()),
            duration_us: 0,
            call: None,
            subject: Some(format!("{method} {path}")),
            details: BTreeMap::new(),
        });
    }
    response
}

/// Records a part of a change that has worked.
pub(crate) fn note(state: &AdminState, who: &Who, action: String, subject: String) {
    (state.record)(AuditRecord {
        id: AuditId::new(),
        at: Utc::now(),
        action,
        actor: who.actor(),
        outcome: Outcome::Success,
        error: None,
        duration_us: 0,
        call: None,
        subject: Some(subject),
        details: BTreeMap::new(),
    });
}

/// For changes whose subject the request names well enough.
pub(crate) fn as_asked<T>(_: &T) -> Option<String> {
    None
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
