//! What an operator may set of a platform.

use crate::{lifecycle::LifecycleOptions, observe::Overflow, upstream::dial::PrivateNetworks};
use std::{num::NonZeroUsize, time::Duration};
use url::Url;

/// What an operator may set; the defaults are safe for a listener on loopback.
#[derive(Debug, Clone)]
pub struct Options {
    /// What clients call us: scheme, host, and the path we are mounted under, if any.
    pub public_url: Option<Url>,
    /// Host names that are served beside loopback and the public URL's; `*` allows any.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may call us.
    pub allowed_origins: Vec<String>,
    /// Private hosts and ranges that entries of registry admins may name.
    pub private_networks: PrivateNetworks,
    /// Certificates, each file in PEM, that are trusted beside the public ones.
    pub extra_roots: Vec<Vec<u8>>,
    /// The largest request body, in bytes.
    pub body_limit: usize,
    /// How long a call may take if neither entry nor consumer says.
    pub call_timeout: Duration,
    /// How long a principal or credential may be used after the change feeds were last confirmed, beyond 5 s.
    pub stale_grace: Duration,
    /// How long calls under way may go on at shutdown.
    pub drain_timeout: Duration,
    /// How many clients may listen for changes at the same time.
    pub max_listeners: usize,
    /// How many tool calls one caller may have under way at the same time, with all tokens together; 0 is no bound.
    pub max_calls_per_caller: usize,
    /// How many streams one caller may listen on at the same time; 0 is no bound.
    pub max_streams_per_caller: usize,
    /// How long a client may leave what it is sent unread before its connection is closed.
    pub write_timeout: Duration,
    /// How many connections may be open at the same time.
    pub max_connections: usize,
    /// How many threads of their own drive connections and the calls on them, each with its own upstream connections; if
    /// absent, the runtime that serves does. One per core is the fastest; whatever is no tool call stays on that runtime.
    pub workers: Option<NonZeroUsize>,
    /// What happens when audit records come faster than they can be written.
    pub audit_overflow: Overflow,
    /// How long audit records are kept; for ever if absent.
    pub audit_retention: Option<Duration>,
    /// Of the lifecycle.
    pub lifecycle: LifecycleOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            public_url: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            private_networks: PrivateNetworks::default(),
            extra_roots: Vec::new(),
            body_limit: 4 * 1024 * 1024,
            call_timeout: Duration::from_secs(60),
            stale_grace: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            max_listeners: 10_000,
            max_calls_per_caller: 1024,
            max_streams_per_caller: 32,
            write_timeout: Duration::from_secs(60),
            max_connections: 50_000,
            workers: None,
            audit_overflow: Overflow::Drop,
            audit_retention: Some(Duration::from_secs(90 * 24 * 3600)),
            lifecycle: LifecycleOptions::default(),
        }
    }
}
