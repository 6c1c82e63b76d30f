//! What a scripted tool answers.

use serde_json::{Value, json};
use std::time::Duration;

/// What a scripted tool answers to one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub(super) kind: Kind,
    pub(super) delay: Duration,
    pub(super) progress: Vec<(u64, u64)>,
    pub(super) log: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Result(Value),
    Error { code: i64, message: String },
    Crash(String),
    Never,
}

impl Answer {
    /// This result, as it is.
    #[must_use]
    pub fn result(result: Value) -> Self {
        Self { kind: Kind::Result(result), delay: Duration::ZERO, progress: Vec::new(), log: Vec::new() }
    }

    /// One text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::result(json!({"content": [{"type": "text", "text": text.into()}]}))
    }

    /// Structured content, and the same as text.
    #[must_use]
    pub fn structured(value: &Value) -> Self {
        Self::result(json!({"content": [{"type": "text", "text": value.to_string()}], "structuredContent": value}))
    }

    /// A tool error: a result with `isError`.
    #[must_use]
    pub fn tool_error(text: impl Into<String>) -> Self {
        Self::result(json!({"content": [{"type": "text", "text": text.into()}], "isError": true}))
    }

    /// A JSON-RPC error.
    #[must_use]
    pub fn error(code: i64, message: impl Into<String>) -> Self {
        Self { kind: Kind::Error { code, message: message.into() }, ..Self::result(Value::Null) }
    }

    /// None: the server's process ends in the middle of the call, and is started again.
    #[must_use]
    pub fn crash(reason: impl Into<String>) -> Self {
        Self { kind: Kind::Crash(reason.into()), ..Self::result(Value::Null) }
    }

    /// None, ever; the call ends when it is cancelled or the server ends.
    #[must_use]
    pub fn never() -> Self {
        Self { kind: Kind::Never, ..Self::result(Value::Null) }
    }

    /// The same, later.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The same, with progress notifications before it, `(progress, total)`, to callers that gave a progress token. The delay
    /// is spread over them.
    #[must_use]
    pub fn with_progress(mut self, steps: impl IntoIterator<Item = (u64, u64)>) -> Self {
        self.progress.extend(steps);
        self
    }

    /// The same, and the server writes this line to its log.
    #[must_use]
    pub fn with_log(mut self, line: impl Into<String>) -> Self {
        self.log.push(line.into());
        self
    }
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Self::structured(&value)
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<&str> for Answer {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}
