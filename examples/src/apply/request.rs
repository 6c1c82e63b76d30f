//! The one request of `apply`.

use crate::failure::Failure;
use archestra_core::secret::SecretValue;
use archestra_gateway::{
    admin::apply::RawDocument,
    upstream::{
        client::{HttpClient, PoolOptions, read_limited},
        dial::{ClientTls, DialOptions, DialPolicy, Dialer, Trust, parse_url},
    },
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use std::time::Duration;
use tokio::time::Instant;

/// Remote servers that the document installs are connected to and listed meanwhile.
const DEADLINE: Duration = Duration::from_secs(300);
/// Larger than any answer.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Where to send it, and what is asked for.
pub(super) struct Options<'a> {
    pub(super) server: &'a str,
    pub(super) set: Option<&'a str>,
    pub(super) prune: bool,
    pub(super) dry_run: bool,
}

/// What the server said.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Sends a document.
///
/// # Errors
/// The server's URL is unusable, or the server cannot be reached.
pub(super) async fn send(
    options: &Options<'_>,
    token: &SecretValue,
    document: &RawDocument,
) -> Result<Answer, Failure> {
    let request = request(options, token, document)?;
    let tls = ClientTls::new(std::iter::empty::<Vec<u8>>())
        .map_err(|error| Failure::because("TLS cannot be set up", &error))?;
    let client = HttpClient::new(Dialer::new(DialOptions::new(DialPolicy::public_only(), tls)), PoolOptions::default());
    let deadline = Instant::now() + DEADLINE;
    // Whoever runs this command chose the server; it may be on a private network.
    let response = client
        .request(request, Trust::Runtime, deadline)
        .await
        .map_err(|error| Failure::because(format!("{} cannot be reached", options.server), &error))?;
    let status = response.status();
    let body = read_limited(response.into_body(), MAX_ANSWER, deadline)
        .await
        .map_err(|error| Failure::because(format!("{} broke off", options.server), &error))?;
    Ok(Answer { status, body })
}

fn request(
    options: &Options<'_>,
    token: &SecretValue,
    document: &RawDocument,
) -> Result<Request<Full<Bytes>>, Failure> {
    let unusable = |reason: &dyn std::fmt::Display| Failure::unusable(format!("--server: {reason}"));
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("dryRun", flag(options.dry_run)).append_pair("prune", flag(options.prune));
    if let Some(set) = options.set {
        query.append_pair("set", set);
    }
    let base = options.server.trim_end_matches('/');
    if base.contains(['?', '#']) {
        return Err(unusable(&"the URL of a server has no parameters; use as in `https://mcp.example.com`"));
    }
    let uri = parse_url(&format!("{base}/api/v1/apply?{}", query.finish())).map_err(|error| unusable(&error))?;
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()))
        .map_err(|_| Failure::unusable("the token cannot be sent in a header"))?;
    bearer.set_sensitive(true);
    let mut request = Request::new(Full::new(Bytes::from(document.to_json())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(header::AUTHORIZATION, bearer);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, application/problem+json"));
    Ok(request)
}

const fn flag(set: bool) -> &'static str {
    if set { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::{Options, request};
    use archestra_core::secret::SecretValue;
    use archestra_gateway::admin::{Format, apply::RawDocument};

    fn send_to(server: &str) -> Result<String, String> {
        let options = Options { server, set: Some("a b&c"), prune: true, dry_run: false };
        let document = RawDocument::parse(b"{}", Format::Json).unwrap();
        request(&options, &SecretValue::new("t"), &document)
            .map(|request| request.uri().to_string())
            .map_err(|failure| failure.text().to_owned())
    }

    #[test]
    fn the_request_says_what_was_asked_for() {
        assert_eq!(
            send_to("http://127.0.0.1:9000/").unwrap(),
            "http://127.0.0.1:9000/api/v1/apply?dryRun=false&prune=true&set=a+b%26c"
        );
        assert_eq!(
            send_to("https://example.com/mcp").unwrap(),
            "https://example.com/mcp/api/v1/apply?dryRun=false&prune=true&set=a+b%26c"
        );
    }

    #[test]
    fn unusable_servers_are_refused() {
        for server in ["127.0.0.1:9000", "ftp://host", "http://user:password@host", "http://host?x=1"] {
            let told = send_to(server).unwrap_err();
            assert!(told.starts_with("--server: ") && !told.contains("password@"), "{told}");
        }
    }
}
