//! Findings about text that goes out: URLs, header names and header values.

use crate::Finding;

/// Headers that the platform or HTTP itself sets.
const RESERVED_HEADERS: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "proxy-authorization",
    "proxy-authenticate",
    "proxy-connection",
    "accept",
    "accept-encoding",
    "expect",
    "mcp-session-id",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "last-event-id",
];

/// What is wrong with a URL that a person typed.
pub(super) fn url_finding(field: &str, text: &str) -> Option<Finding> {
    let remedy = "use an http or https URL without user name, password or fragment";
    match url::Url::parse(text) {
        Err(error) => Some(Finding::new(field, format!("not a URL: {error}"), remedy)),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Some(Finding::new(field, format!("{} URLs cannot be used here", url.scheme()), remedy))
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Some(Finding::new(field, "the URL holds credentials", remedy))
        }
        Ok(url) if url.fragment().is_some() => Some(Finding::new(field, "the URL has a fragment", remedy)),
        Ok(_) => None,
    }
}

/// What is wrong with a header name that somebody chose.
pub(crate) fn header_name_finding(field: &str, name: &str) -> Option<Finding> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
        return Some(Finding::new(field, format!("{name:?} is not a header name"), "use letters, digits and '-'"));
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED_HEADERS.contains(&lower.as_str()) || lower.starts_with("mcp-param-") {
        return Some(Finding::new(field, format!("header {name} is set by the platform"), "use another header"));
    }
    None
}

/// What is wrong with text that goes into a header.
pub(crate) fn header_text_finding(field: &str, text: &str) -> Option<Finding> {
    let bad = text.bytes().any(|b| b != b'\t' && !(0x20..0x7f).contains(&b));
    bad.then(|| {
        Finding::new(
            field,
            "a header value may hold printable ASCII only",
            "remove line breaks and other special characters",
        )
    })
}
