//! Findings about text that goes out: URLs, header names and values, and the words of OAuth.

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
    "last-event-id",
    "mcp-session-id",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
];

/// What the names of the headers begin with that the protocol makes of a tool's arguments.
const PARAMETER_HEADERS: &str = "mcp-param-";

/// What is wrong with a URL that a person typed.
pub(crate) fn url_finding(field: &str, text: &str) -> Option<Finding> {
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

/// What is wrong with a resource (RFC 8707): an absolute URI of any scheme, since Entra's begin with `api:`.
pub(super) fn resource_finding(field: &str, text: &str) -> Option<Finding> {
    let reason = match url::Url::parse(text) {
        Err(error) => format!("not an absolute URI: {error}"),
        Ok(uri) if !uri.username().is_empty() || uri.password().is_some() => "the URI holds credentials".to_owned(),
        Ok(uri) if uri.fragment().is_some() => "the URI has a fragment".to_owned(),
        Ok(_) => return None,
    };
    Some(Finding::new(field, reason, "use a URI with its scheme, without user name, password or fragment"))
}

/// What is wrong with scopes (RFC 6749 section 3.3): each is one or more of `!`, `#` to `[`, `]` to `~`.
pub(crate) fn scope_findings<'a>(
    field: &'a str,
    scopes: impl IntoIterator<Item = &'a String> + 'a,
) -> impl Iterator<Item = Finding> + 'a {
    let fits = |scope: &str| {
        !scope.is_empty() && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) && scope.len() <= 512
    };
    scopes.into_iter().enumerate().filter(move |(_, scope)| !fits(scope)).map(move |(n, scope)| {
        Finding::new(
            format!("{field}[{n}]"),
            format!("{scope:?} is not a scope"),
            "use printable ASCII without blanks, '\"' and '\\'; one scope for each item of the list",
        )
    })
}

/// What is wrong with a client identifier (RFC 6749 appendix A.1).
pub(crate) fn client_id_finding(field: &str, id: &str) -> Option<Finding> {
    visible_finding(field, id, "a client identifier")
}

/// What is wrong with a word of OAuth that is sent as it is: one or more of the printable ASCII characters.
pub(crate) fn visible_finding(field: &str, text: &str, what: &str) -> Option<Finding> {
    let fits = !text.trim().is_empty() && text.len() <= 2048 && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    (!fits)
        .then(|| Finding::new(field, format!("{text:?} is not {what}"), "use printable ASCII, at least one character"))
}

/// What is wrong with a header name that somebody chose.
pub(crate) fn header_name_finding(field: &str, name: &str) -> Option<Finding> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
        return Some(Finding::new(field, format!("{name:?} is not a header name"), "use letters, digits and '-'"));
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED_HEADERS.contains(&lower.as_str()) || lower.starts_with(PARAMETER_HEADERS) {
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
