//! Which URLs are dialled at all, and what they name.

use http::Uri;
use http::uri::Scheme;
use thiserror::Error;
use url::Url;

/// Reads a URL that will be dialled: `http` or `https`, with a host, without credentials and without a fragment.
///
/// The result is normalized (`http://127.1/` becomes `http://127.0.0.1/`), so what is shown is what is dialled.
///
/// # Errors
///
/// [`UrlError`], whose text never repeats the URL: it may carry a secret.
pub fn parse_url(text: &str) -> Result<Uri, UrlError> {
    if text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ' || byte == b'\\') {
        return Err(UrlError::Malformed { reason: "it contains spaces, backslashes or control characters".to_owned() });
    }
    let url = Url::parse(text).map_err(|error| UrlError::Malformed { reason: error.to_string() })?;
    check(&url)?;
    Uri::try_from(url.as_str()).map_err(|error| UrlError::Malformed { reason: error.to_string() })
}

/// Why a URL is not dialled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It is not an absolute URL.
    #[error("the URL is not valid: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// Another scheme than `http` or `https`.
    #[error("the URL has the scheme {scheme:?}: only http and https are supported")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// A user name or a password in the URL.
    #[error("the URL holds a user name or password: give credentials in a header or as a secret instead")]
    Userinfo,
    /// A fragment, which no server ever sees.
    #[error("the URL has a fragment: remove everything from the '#' on")]
    Fragment,
    /// No host.
    #[error("the URL has no host")]
    NoHost,
    /// A port nobody can listen on.
    #[error("the URL has the port 0: give the port the server listens on")]
    Port,
}

/// What a URL asks to connect to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// A name, or an address without brackets.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// Every URI that is dialled passes here, also one that was not made by [`parse_url`].
pub(super) fn target(uri: &Uri) -> Result<Target<'_>, UrlError> {
    let (tls, default_port) = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => (true, 443),
        Some(scheme) if *scheme == Scheme::HTTP => (false, 80),
        Some(scheme) => return Err(UrlError::Scheme { scheme: scheme.as_str().to_owned() }),
        None => return Err(UrlError::Malformed { reason: "it is relative".to_owned() }),
    };
    let authority = uri.authority().ok_or(UrlError::NoHost)?;
    if authority.as_str().contains('@') {
        return Err(UrlError::Userinfo);
    }
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    match authority.port_u16().unwrap_or(default_port) {
        0 => Err(UrlError::Port),
        port => Ok(Target { host, port, tls }),
    }
}

fn check(url: &Url) -> Result<(), UrlError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlError::Scheme { scheme: url.scheme().to_owned() });
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Userinfo);
    }
    if url.fragment().is_some() {
        return Err(UrlError::Fragment);
    }
    if !url.has_host() {
        return Err(UrlError::NoHost);
    }
    if url.port() == Some(0) {
        return Err(UrlError::Port);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_urls_are_normalized() {
        for (url, normal) in [
            ("https://example.com/mcp?a=b", "https://example.com/mcp?a=b"),
            ("HTTP://Example.COM:80", "http://example.com/"),
            ("http://127.1:8080/x y".replace(' ', "%20").as_str(), "http://127.0.0.1:8080/x%20y"),
            ("http://[0:0::1]:9/", "http://[::1]:9/"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ] {
            assert_eq!(parse_url(url).unwrap().to_string(), normal);
        }
    }

    #[test]
    fn other_urls_are_refused_without_being_repeated() {
        for url in [
            "",
            "example.com",
            "/mcp",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "ftp://s3cr3t.example/",
            "https://s3cr3t@example.com/",
            "https://a:s3cr3t@example.com/",
            "https://example.com/#s3cr3t",
            "https://",
            "http://example.com:0/",
            "http://exa mple.com/",
            "http://example.com\\@s3cr3t/",
            "https://example.com/\ns3cr3t",
            "https://example.com:99999/s3cr3t",
            "http://[fe80::1%25eth0]/s3cr3t",
            "data:text/plain,s3cr3t",
            "gopher://s3cr3t/",
        ] {
            let text = parse_url(url).unwrap_err().to_string();
            assert!(!text.contains("s3cr3t"), "{url}: {text}");
        }
        assert_eq!(parse_url("https://a:b@example.com/"), Err(UrlError::Userinfo));
        assert_eq!(parse_url("https://example.com/#"), Err(UrlError::Fragment));
        assert_eq!(parse_url("file:///x"), Err(UrlError::Scheme { scheme: "file".to_owned() }));
    }

    #[test]
    fn a_uri_made_elsewhere_is_checked_too() {
        let fault = |uri: &'static str| target(&Uri::from_static(uri)).map(|_| ()).unwrap_err();
        assert_eq!(fault("http://user@example.com/"), UrlError::Userinfo);
        assert_eq!(fault("ftp://example.com/"), UrlError::Scheme { scheme: "ftp".to_owned() });
        assert!(matches!(fault("/relative"), UrlError::Malformed { .. }));
        assert_eq!(fault("http://example.com:0/"), UrlError::Port);

        let uri = Uri::from_static("https://[::1]/");
        let target = target(&uri).unwrap();
        assert_eq!((target.host, target.port, target.tls), ("::1", 443, true));
    }
}
