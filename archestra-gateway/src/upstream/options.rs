//! What an operator or embedder may set about upstream connections.

use std::time::Duration;

use tokio::time::Instant;

use super::deadline_body::BodyLimits;
use crate::mcp::sse::DEFAULT_EVENT_LIMIT;

/// Limits and times of upstream connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamOptions {
    /// How large a message may be that has to be read whole.
    pub message_limit: usize,
    /// How long an answer may fall silent once it has begun.
    pub stream_idle: Duration,
    /// How long a server may take to say which era it speaks.
    pub probe_timeout: Duration,
    /// How long a session, or the connection to a workload, may take to be set up.
    pub setup_timeout: Duration,
    /// How long what a server said about its era holds before a refused request may put it in doubt.
    pub reprobe_after: Duration,
    /// After how long without calls a session, an idle channel or a listening stream is closed.
    pub idle_after: Duration,
    /// How many sessions with legacy servers are kept open.
    pub max_sessions: usize,
    /// For how long a session that calls nothing keeps a process which serves one session at a time. One that goes on calling
    /// keeps it for 60 s while others wait.
    pub exclusive_idle: Duration,
    /// How many unused channels are kept for one workload.
    pub max_idle_channels: usize,
    /// How many streams are kept open to hear of changed tools.
    pub max_listeners: usize,
    /// How old headers may be that were made from secrets which the secret store only refers to. While they are used they are
    /// read again after half of that, and calls do not wait for it; what cannot be read again in time is used no more. Of what
    /// the store keeps itself the same holds for 60 s, whatever this says, and it is read at once when the installation or its
    /// entry names other secrets.
    pub credential_ttl: Duration,
    /// For how many installations headers made from secrets are kept.
    pub max_credentials: u64,
}

impl Default for UpstreamOptions {
    fn default() -> Self {
        Self {
            message_limit: DEFAULT_EVENT_LIMIT,
            stream_idle: Duration::from_secs(300),
            probe_timeout: Duration::from_secs(10),
            setup_timeout: Duration::from_secs(30),
            reprobe_after: Duration::from_secs(30),
            idle_after: Duration::from_secs(15 * 60),
            exclusive_idle: Duration::from_secs(15),
            max_sessions: 4096,
            max_idle_channels: 64,
            max_listeners: 256,
            credential_ttl: Duration::from_secs(5),
            max_credentials: 10_000,
        }
    }
}

impl UpstreamOptions {
    /// How long the body of an answer that must be there at `deadline` may take.
    pub(super) const fn limits(&self, deadline: Instant) -> BodyLimits {
        BodyLimits { deadline: Some(deadline), idle: Some(self.stream_idle) }
    }
}
