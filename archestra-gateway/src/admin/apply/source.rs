//! A document as text, and the `valueFrom` in it, which is resolved where the document is: never on the server.

use super::super::{
    Problem,
    body::{self, Format},
};
use archestra_core::Finding;
use serde_json::Value;

/// A document that was read and not yet understood: what a client resolves and sends.
#[derive(Clone)]
pub struct RawDocument(Value);

impl std::fmt::Debug for RawDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may hold secrets.
        f.write_str("RawDocument(redacted)")
    }
}

/// Where a value is to be taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// An environment variable of the client.
    Env(String),
    /// A file of the client.
    File(String),
}

impl RawDocument {
    /// Reads a document.
    ///
    /// # Errors
    /// Where it is not JSON or YAML, or has a key twice, by line and column; and a `valueFrom` that is not understood.
    pub fn parse(bytes: &[u8], format: Format) -> Result<Self, Problem> {
        body::parse(bytes, format).map(Self)
    }

    /// Replaces every `{valueFrom: …}` by the value that `lookup` finds.
    ///
    /// # Errors
    /// Every one that is not understood or that `lookup` refuses, by its place in the document.
    pub fn resolve(&mut self, mut lookup: impl FnMut(&ValueSource) -> Result<String, String>) -> Result<(), Problem> {
        let mut findings = Vec::new();
        visit(&mut self.0, "", &mut |path, value| match source(value).map(|source| lookup(&source)) {
            Some(Ok(text)) => *value = Value::String(text),
            Some(Err(reason)) => findings.push(Finding::new(path, reason, "correct `valueFrom`")),
            None => findings.push(Finding::new(
                path,
                "`valueFrom` is not understood",
                "write `{valueFrom: {env: NAME}}` or `{valueFrom: {file: PATH}}`",
            )),
        });
        if findings.is_empty() { Ok(()) } else { Err(Problem::invalid(findings)) }
    }

    /// The document as JSON, for sending.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }
}

/// A finding for each `valueFrom` that no client has resolved.
pub(super) fn unresolved(document: &mut Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    visit(document, "", &mut |path, _| {
        let reason = "`valueFrom` is resolved by the client, and this one was not: the server reads neither your files nor your environment";
        findings.push(Finding::new(
            path,
            reason,
            "send the document with `archestra apply`, or put the value in its place",
        ));
    });
    findings
}

fn source(value: &Value) -> Option<ValueSource> {
    let object = value.get("valueFrom")?.as_object().filter(|object| object.len() == 1)?;
    let (key, text) = object.iter().next()?;
    let text = text.as_str()?.to_owned();
    match key.as_str() {
        "env" => Some(ValueSource::Env(text)),
        "file" => Some(ValueSource::File(text)),
        _ => None,
    }
}

/// Calls `found` with each object that is nothing but `{valueFrom: {…}}`.
fn visit(value: &mut Value, path: &str, found: &mut impl FnMut(&str, &mut Value)) {
    let is_source = value
        .as_object()
        .is_some_and(|object| object.len() == 1 && object.get("valueFrom").is_some_and(Value::is_object));
    if is_source {
        found(path, value);
        return;
    }
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                visit(value, &path, found);
            }
        }
        Value::Array(items) => {
            for (n, value) in items.iter_mut().enumerate() {
                visit(value, &format!("{path}[{n}]"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
