//! Host and Origin checks, against DNS rebinding and foreign pages.

use http::{header, request::Parts, uri::Authority};
use std::collections::HashSet;

/// The hosts that we answer to, and the origins whose pages may call us.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostPolicy {
    /// `None`: any.
    hosts: Option<HashSet<Box<str>>>,
    origins: HashSet<Box<str>>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this host name is not served: the operator can add it with --allowed-hosts")]
    Host,
    #[error("pages of this origin may not call: the operator can add it with --allowed-origins")]
    Origin,
}

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl HostPolicy {
    /// Loopback, the public URL's host, and what the operator lists; a `*` among the hosts allows any.
    pub(crate) fn new(public_host: Option<&str>, hosts: &[String], origins: &[String]) -> Self {
        let any = hosts.iter().any(|host| host == "*");
        let listed = hosts.iter().map(String::as_str).chain(public_host).chain(LOOPBACK);
        Self {
            hosts: (!any).then(|| listed.map(|host| bare(host).to_ascii_lowercase().into()).collect()),
            origins: origins.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase().into()).collect(),
        }
    }

    /// Refuses a foreign host or origin.
    pub(crate) fn check(&self, request: &Parts) -> Result<(), Refusal> {
        if let Some(hosts) = &self.hosts {
            let host = match request.uri.host() {
                Some(host) => Some(host),
                None => request.headers.get(header::HOST).and_then(|value| value.to_str().ok()).map(bare),
            };
            if !host.is_some_and(|host| contains(hosts, host)) {
                return Err(Refusal::Host);
            }
        }
        match request.headers.get(header::ORIGIN) {
            None => Ok(()),
            Some(origin) => {
                origin.to_str().ok().filter(|origin| self.trusts(origin)).map(|_| ()).ok_or(Refusal::Origin)
            }
        }
    }

    fn trusts(&self, origin: &str) -> bool {
        if contains(&self.origins, origin) || self.origins.contains("*") {
            return true;
        }
        let Some((_, authority)) = origin.split_once("://") else { return false };
        // A page that we serve ourselves, whatever host name it was loaded by.
        let hosts = self.hosts.as_ref();
        authority.parse::<Authority>().is_ok_and(|parsed| hosts.is_some_and(|hosts| contains(hosts, parsed.host())))
    }
}

fn contains(set: &HashSet<Box<str>>, text: &str) -> bool {
    set.contains(text) || (text.bytes().any(|b| b.is_ascii_uppercase()) && set.contains(&*text.to_ascii_lowercase()))
}

/// A host without its port.
fn bare(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn check(policy: &HostPolicy, host: &str, origin: Option<&str>) -> Result<(), Refusal> {
        let mut request = Request::builder().uri("/v1/mcp/x").header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        policy.check(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn only_known_hosts_and_origins_are_served() {
        let policy = HostPolicy::new(
            Some("gw.example.com"),
            &["other:8080".to_owned()],
            &["https://app.example.com/".to_owned()],
        );
        for host in ["localhost:9000", "127.0.0.1:1", "[::1]:9000", "GW.example.com", "other"] {
            assert_eq!(check(&policy, host, None), Ok(()), "{host}");
        }
        for host in ["evil.com", "localhost.evil.com:9000", "", "localhost:x"] {
            assert_eq!(check(&policy, host, None), Err(Refusal::Host), "{host}");
        }
        for origin in ["https://app.example.com", "http://localhost:3000", "https://gw.example.com"] {
            assert_eq!(check(&policy, "localhost", Some(origin)), Ok(()), "{origin}");
        }
        for origin in ["null", "https://evil.com", "https://app.example.com.evil.com", "localhost"] {
            assert_eq!(check(&policy, "localhost", Some(origin)), Err(Refusal::Origin), "{origin}");
        }
    }

    #[test]
    fn a_star_allows_any_host_and_no_foreign_origin() {
        let policy = HostPolicy::new(None, &["*".to_owned()], &[]);
        assert_eq!(check(&policy, "anything", None), Ok(()));
        assert_eq!(check(&policy, "anything", Some("https://evil.com")), Err(Refusal::Origin));
    }
}
