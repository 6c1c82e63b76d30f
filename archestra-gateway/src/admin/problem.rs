//! The one place that turns what went wrong into an `application/problem+json` answer (RFC 9457).

use archestra_core::{Error, Finding, identity::Permission};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, time::Duration};

/// The media type of every error answer.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// An error as the caller sees it. What only the log may hold is not in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    findings: Vec<Finding>,
    undone: Option<Undone>,
}

/// Whether what a refused request had begun has been taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Undone {
    /// Nothing of it is left.
    Complete,
    /// Something is left, which `detail` names.
    Incomplete,
}

/// The body of an error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Names the kind of problem: `urn:archestra:problem:invalid`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same in words.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What happened, and what to do.
    pub detail: String,
    /// Each thing to change in what was sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// For a whole document: whether anything of it is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone: Option<Undone>,
}

impl ProblemBody {
    /// Whether `detail` says more than the findings do.
    #[must_use]
    pub fn says_more_than_findings(&self) -> bool {
        self.findings.is_empty() || self.detail != summary(&self.findings)
    }
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), findings: Vec::new(), undone: None }
    }

    /// 400: what was sent cannot even be read.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// 401.
    pub(crate) fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "no valid token came with the request; send `Authorization: Bearer <token>`",
        )
    }

    /// 403, naming the permission that is missing.
    pub(crate) fn forbidden(permission: Permission, what: impl fmt::Display) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            format!("{what} needs the permission {permission}, which you do not hold"),
        )
    }

    /// 403 for another reason than one missing permission.
    pub(crate) fn refused(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404.
    pub(crate) fn not_found(kind: &str, id: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("{kind} {id} does not exist, or you may not see it"))
    }

    /// 409.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// 412: somebody else was faster.
    pub(crate) fn version_lost(kind: &str, id: impl fmt::Display, present: impl fmt::Display) -> Self {
        let detail = format!(
            "{kind} {id} was changed by somebody else and is now at version {present}; read it again, redo your change, and send that version"
        );
        Self::new(StatusCode::PRECONDITION_FAILED, "version-lost", detail)
    }

    /// 408.
    pub(crate) fn slow(after: Duration) -> Self {
        let detail = format!("the body took longer than {} s to arrive; send it again", after.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow", detail)
    }

    /// 413.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("the body is larger than {limit} bytes; send less"),
        )
    }

    /// 415.
    pub(crate) fn media_type(accepted: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media-type",
            format!("this is not understood here; send `Content-Type: {accepted}`"),
        )
    }

    /// 429: the caller uses as much of something at once as one may.
    pub(crate) fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", detail)
    }

    /// 422.
    pub(crate) fn invalid(findings: Vec<Finding>) -> Self {
        let detail = summary(&findings);
        Self { findings, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail) }
    }

    /// 422 with one finding.
    pub(crate) fn finding(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::invalid(vec![Finding::new(field, reason, remedy)])
    }

    /// 500. The reason goes to the log only.
    pub(crate) fn internal(reason: impl fmt::Display) -> Self {
        tracing::error!(%reason, "a control plane request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the platform failed; its log says why")
    }

    /// The same problem with other words before its detail.
    #[must_use]
    pub(crate) fn after(mut self, introduction: &str) -> Self {
        self.detail = format!("{introduction}: {}", self.detail);
        self
    }

    /// The same problem with more words after its detail.
    #[must_use]
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.detail = format!("{}; {more}", self.detail);
        self
    }

    /// The same problem, its findings under `parent`.
    #[must_use]
    pub(crate) fn under(self, parent: &str) -> Self {
        if self.findings.is_empty() {
            return self.after(parent);
        }
        let findings: Vec<_> = self.findings.into_iter().map(|finding| finding.under(parent)).collect();
        Self { status: self.status, undone: self.undone, ..Self::invalid(findings) }
    }

    /// The same problem, saying whether anything is left of what was begun.
    #[must_use]
    pub(crate) const fn undone(mut self, undone: Undone) -> Self {
        self.undone = Some(undone);
        self
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// What happened, in words that a caller may see.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What must be changed.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The body of the answer.
    #[must_use]
    pub fn body(&self) -> ProblemBody {
        ProblemBody {
            kind: format!("urn:archestra:problem:{}", self.kind),
            title: title(self.kind).to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            findings: self.findings.clone(),
            undone: self.undone,
        }
    }
}

fn summary(findings: &[Finding]) -> String {
    match findings {
        [only] => only.to_string(),
        many => format!(
            "{} things must be changed first: {}",
            many.len(),
            many.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        ),
    }
}

fn title(kind: &str) -> &'static str {
    match kind {
        "malformed" => "the request cannot be read",
        "unauthenticated" => "authentication is missing",
        "forbidden" => "a permission is missing",
        "not-found" => "there is no such thing",
        "method" => "this cannot be done here",
        "exists" => "it exists already",
        "conflict" => "the present state does not allow it",
        "version-lost" => "somebody else was faster",
        "too-large" => "the body is too large",
        "media-type" => "the media type is not understood",
        "slow" => "the request took too long to arrive",
        "too-many" => "too much at once",
        "invalid" => "what was sent is not acceptable",
        "backend-refused" => "a backend refused the platform",
        "unavailable" => "a backend does not answer",
        "timeout" => "it took too long",
        "unsupported" => "the backend cannot do that",
        _ => "the platform failed",
    }
}

impl Problem {
    /// 404 for a path that nothing is at.
    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "nothing is at this path; see /api/v1/openapi.json")
    }

    /// 405.
    pub(crate) fn no_method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method",
            "this path does not take this method; see /api/v1/openapi.json",
        )
    }
}

/// Texts about servers and workloads help whoever manages them; texts about our own backends are for the log.
fn is_internal(backend: &str) -> bool {
    ["store", "database", "catalog", "identity", "secret", "state", "audit", "vault", "sqlite", "postgres", "random"]
        .iter()
        .any(|part| backend.contains(part))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let internal = |backend: &'static str, reason: String, error: &dyn std::error::Error| -> Cow<'static, str> {
            tracing::warn!(backend, %error, "a backend failed a control plane request");
            if is_internal(backend) { Cow::Borrowed("the platform's log says why") } else { Cow::Owned(reason) }
        };
        match error {
            Error::NotFound { kind, id } => Self::not_found(kind, id),
            Error::AlreadyExists { kind, id } => {
                Self::new(StatusCode::CONFLICT, "exists", format!("{kind} {id} exists already"))
            }
            Error::Conflict { .. } => Self::conflict(error.to_string()),
            Error::Invalid(findings) => Self::invalid(findings),
            Error::PermissionDenied { backend, .. } => {
                tracing::error!(backend, %error, "a backend refused our credentials");
                Self::new(
                    StatusCode::BAD_GATEWAY,
                    "backend-refused",
                    format!("{backend} refused the platform's own credentials; an operator must correct them"),
                )
            }
            Error::Unavailable { backend, ref reason, .. } => {
                let reason = internal(backend, reason.clone(), &error);
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "unavailable",
                    format!("{backend} is not available: {reason}"),
                )
            }
            Error::Timeout { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", error.to_string()),
            Error::Unsupported { .. } => Self::new(StatusCode::NOT_IMPLEMENTED, "unsupported", error.to_string()),
            Error::Backend { backend, ref reason, .. } => {
                let reason = internal(backend, reason.clone(), &error);
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("{backend} failed: {reason}"))
            }
            other => Self::internal(other),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body()).expect("strings and numbers are always JSON");
        let mut response = (self.status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
        let later = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => Some("5"),
            StatusCode::TOO_MANY_REQUESTS => Some("1"),
            _ => None,
        };
        if let Some(later) = later {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(later));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"archestra\""));
        }
        response
    }
}
