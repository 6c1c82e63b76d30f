//! Protocol revisions, the two eras they fall into, and the names of headers and `_meta` keys.

use std::fmt;

/// The two shapes of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2026-07-28 and later: stateless, protocol fields in every request's `_meta`.
    Modern,
    /// 2025-11-25 and earlier: `initialize` and sessions.
    Legacy,
}

/// A revision of the protocol that the gateway speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProtocolVersion {
    /// 2024-11-05: stdio, HTTP+SSE.
    V2024_11_05,
    /// 2025-03-26: Streamable HTTP.
    V2025_03_26,
    /// 2025-06-18: the version header, structured content, elicitation.
    V2025_06_18,
    /// 2025-11-25: the last one with `initialize`.
    V2025_11_25,
    /// 2026-07-28: stateless.
    V2026_07_28,
}

impl ProtocolVersion {
    /// The newest revision.
    pub const LATEST: Self = Self::V2026_07_28;
    /// The newest revision that has `initialize`.
    pub const LATEST_LEGACY: Self = Self::V2025_11_25;
    /// What a legacy HTTP request without a version header speaks.
    pub const ASSUMED: Self = Self::V2025_03_26;
    /// Every known revision, oldest first.
    pub const KNOWN: [Self; 5] =
        [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];

    /// The revision of this name, if it is a known one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::KNOWN.into_iter().find(|version| version.as_str() == name)
    }

    /// The revision's name, a date.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era the revision belongs to.
    #[must_use]
    pub const fn era(self) -> Era {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => Era::Legacy,
            Self::V2026_07_28 => Era::Modern,
        }
    }

    /// The known revisions of one era, oldest first.
    pub fn of_era(era: Era) -> impl Iterator<Item = Self> {
        Self::KNOWN.into_iter().filter(move |version| version.era() == era)
    }

    /// The answer to a legacy `initialize` that asks for `requested`: the same if it is a legacy revision we know,
    /// the newest legacy one otherwise.
    #[must_use]
    pub fn negotiate_legacy(requested: &str) -> Self {
        Self::parse(requested).filter(|version| version.era() == Era::Legacy).unwrap_or(Self::LATEST_LEGACY)
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Names of HTTP headers, in the lower case that `http::HeaderMap` wants.
pub mod header {
    /// The protocol revision of a request.
    pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
    /// Mirrors `method`.
    pub const METHOD: &str = "mcp-method";
    /// Mirrors `params.name`, `params.uri` or `params.taskId`.
    pub const NAME: &str = "mcp-name";
    /// Starts the headers that mirror tool arguments.
    pub const PARAM_PREFIX: &str = "mcp-param-";
    /// The legacy session.
    pub const SESSION_ID: &str = "mcp-session-id";
    /// Where a legacy stream is to be resumed.
    pub const LAST_EVENT_ID: &str = "last-event-id";
    /// Tells proxies not to hold back a stream.
    pub const ACCEL_BUFFERING: &str = "x-accel-buffering";
}

/// Keys of `_meta`.
pub mod meta {
    /// What every protocol key starts with.
    pub const PREFIX: &str = "io.modelcontextprotocol/";
    /// The revision of a modern request.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// What the modern client can do.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// Who the modern client says it is.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// Which log messages the modern client wants with this request.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// Who the server says it is.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    /// Which `subscriptions/listen` request a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    /// The token under which progress is reported.
    pub const PROGRESS_TOKEN: &str = "progressToken";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C trace context.
    pub const TRACESTATE: &str = "tracestate";
    /// W3C baggage.
    pub const BAGGAGE: &str = "baggage";
    /// Our structured description of a tool error that the gateway made.
    pub const ARCHESTRA_ERROR: &str = "archestra.dev/error";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_versions_round_trip_and_are_ordered() {
        for version in ProtocolVersion::KNOWN {
            assert_eq!(ProtocolVersion::parse(version.as_str()), Some(version));
        }
        assert!(ProtocolVersion::KNOWN.is_sorted());
        assert_eq!(ProtocolVersion::parse("2026-07-28 "), None);
        assert_eq!(ProtocolVersion::parse(""), None);
    }

    #[test]
    fn eras_and_latest_agree() {
        assert_eq!(ProtocolVersion::of_era(Era::Modern).last(), Some(ProtocolVersion::LATEST));
        assert_eq!(ProtocolVersion::of_era(Era::Legacy).last(), Some(ProtocolVersion::LATEST_LEGACY));
    }

    #[test]
    fn a_legacy_handshake_never_yields_a_modern_revision() {
        assert_eq!(ProtocolVersion::negotiate_legacy("2026-07-28"), ProtocolVersion::LATEST_LEGACY);
        assert_eq!(ProtocolVersion::negotiate_legacy("2024-11-05"), ProtocolVersion::V2024_11_05);
        assert_eq!(ProtocolVersion::negotiate_legacy("1.0"), ProtocolVersion::LATEST_LEGACY);
    }

    #[test]
    fn protocol_keys_share_the_prefix() {
        for key in [meta::PROTOCOL_VERSION, meta::CLIENT_CAPABILITIES, meta::CLIENT_INFO, meta::LOG_LEVEL] {
            assert!(key.starts_with(meta::PREFIX));
        }
    }
}
