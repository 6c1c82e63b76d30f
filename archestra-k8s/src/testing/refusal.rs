//! What the API server answers when it does not do what it was asked: a `Status`.

use super::kinds::Kind;
use serde_json::{Value, json};

/// A request that is refused.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    details: Value,
}

impl Refusal {
    pub(super) fn new(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            410 => "Expired",
            413 => "RequestEntityTooLarge",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = json!({"group": kind.group, "kind": kind.plural, "name": name});
        self
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(404, "the server could not find the requested resource")
    }

    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, format!("{} \"{name}\" not found", kind.resource())).about(kind, name)
    }

    pub(super) fn exists(kind: &Kind, name: &str) -> Self {
        let refusal = Self::new(409, format!("{} \"{name}\" already exists", kind.resource()));
        Self { reason: "AlreadyExists", ..refusal.about(kind, name) }
    }

    pub(super) fn changed(kind: &Kind, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to \
             the latest version and try again",
            kind.resource()
        );
        Self::new(409, message).about(kind, name)
    }

    pub(super) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        Self::new(403, format!("{} \"{name}\" is forbidden: {why}", kind.resource())).about(kind, name)
    }

    /// Fields that are wrong: which, and why.
    pub(super) fn invalid(kind: &Kind, name: &str, causes: &[(String, String)]) -> Self {
        let texts: Vec<_> = causes.iter().map(|(field, why)| format!("{field}: {why}")).collect();
        let text = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
        let mut refusal =
            Self::new(422, format!("{}.{} \"{name}\" is invalid: {text}", kind.name, kind.group)).about(kind, name);
        if kind.group.is_empty() {
            refusal.message = format!("{} \"{name}\" is invalid: {text}", kind.name);
        }
        let causes: Vec<_> = causes
            .iter()
            .map(|(field, why)| json!({"reason": "FieldValueInvalid", "field": field, "message": why}))
            .collect();
        refusal.details["causes"] = causes.into();
        refusal.details["kind"] = kind.name.into();
        refusal
    }

    /// Fields that other managers own: by whom, and which.
    pub(super) fn owned(kind: &Kind, name: &str, conflicts: &[(String, String)]) -> Self {
        let texts: Vec<_> =
            conflicts.iter().map(|(manager, field)| format!("conflict with \"{manager}\": {field}")).collect();
        let plural = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
        let message = format!("Apply failed with {} {plural}: {}", conflicts.len(), texts.join(", "));
        let mut refusal = Self::new(409, message).about(kind, name);
        let causes: Vec<_> = conflicts
            .iter()
            .map(|(manager, field)| {
                json!({"reason": "FieldManagerConflict", "field": field, "message": format!("conflict with \"{manager}\"")})
            })
            .collect();
        refusal.details["causes"] = causes.into();
        refusal
    }

    /// The version that a watch or a list wants to go on from is no longer kept.
    pub(super) fn expired(wanted: u64, kept: u64) -> Self {
        Self::new(410, format!("too old resource version: {wanted} ({kept})"))
    }

    /// The `Status` of it.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        if matches!(self.code, 429 | 503) {
            status["details"]["retryAfterSeconds"] = 1.into();
        }
        status
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }
}
