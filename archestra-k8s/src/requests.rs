//! How often the API server is asked for what, for the metrics.

use archestra_core::runtime::RequestCount;
use http::{Method, Request};
use kube::{Client, client::Body};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tower::service_fn;

/// Requests that name no resource, such as the server's version.
const NO_RESOURCE: &str = "other";

/// Counts by verb and resource, as roles name them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<BTreeMap<(&'static str, String), u64>>>);

impl Requests {
    /// The client, with what it sends counted here.
    pub(crate) fn counted(&self, client: Client) -> Client {
        let (counts, namespace) = (self.clone(), client.default_namespace().to_owned());
        let until = *client.valid_until();
        let service = service_fn(move |request: Request<Body>| {
            counts.count(&request);
            let client = client.clone();
            async move { client.send(request).await }
        });
        Client::new(service, namespace).with_valid_until(until)
    }

    pub(crate) fn counts(&self) -> Vec<RequestCount> {
        let counts = self.lock();
        counts
            .iter()
            .map(|((verb, resource), count)| RequestCount { verb, resource: resource.clone(), count: *count })
            .collect()
    }

    fn count<B>(&self, request: &Request<B>) {
        *self.lock().entry(asked(request.method(), request.uri())).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, String), u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request asks for: `/apis/{group}/{version}[/namespaces/{namespace}]/{resource}[/{name}[/{subresource}]]`, or the same
/// under `/api/{version}`.
fn asked(method: &Method, uri: &http::Uri) -> (&'static str, String) {
    let mut path = uri.path().split('/').filter(|part| !part.is_empty());
    let versions = match path.find(|part| matches!(*part, "api" | "apis")) {
        Some("api") => 1,
        Some(_) => 2,
        None => return (verb(method, uri, false), NO_RESOURCE.to_owned()),
    };
    let mut rest: Vec<_> = path.skip(versions).collect();
    if rest.len() > 2 && rest[0] == "namespaces" {
        rest.drain(..2);
    }
    let resource = match rest.as_slice() {
        [] => NO_RESOURCE.to_owned(),
        [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
        [resource, ..] => (*resource).to_owned(),
    };
    (verb(method, uri, rest.len() == 1), resource)
}

fn verb(method: &Method, uri: &http::Uri, is_collection: bool) -> &'static str {
    match *method {
        Method::GET if uri.query().unwrap_or_default().split('&').any(|pair| pair == "watch=true") => "watch",
        Method::GET if is_collection => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::asked;
    use http::Method;

    #[test]
    fn requests_are_told_apart_as_roles_do() {
        let told = |method: &Method, uri: &str| {
            let (verb, resource) = asked(method, &uri.parse().unwrap());
            format!("{verb} {resource}")
        };
        for (method, uri, expected) in [
            (Method::GET, "/api/v1/namespaces/mcp/pods?labelSelector=a", "list pods"),
            (Method::GET, "/api/v1/namespaces/mcp/pods?&watch=true&timeoutSeconds=290", "watch pods"),
            (Method::GET, "/api/v1/namespaces/mcp/pods/one/log?tailLines=1", "get pods/log"),
            (Method::GET, "/api/v1/namespaces/mcp", "get namespaces"),
            (Method::PATCH, "/apis/apps/v1/namespaces/mcp/deployments/one?force=true", "patch deployments"),
            (Method::POST, "/api/v1/namespaces/mcp/secrets?", "create secrets"),
            (Method::GET, "https://proxy/prefix/apis/coordination.k8s.io/v1/namespaces/mcp/leases/one", "get leases"),
            (Method::DELETE, "/apis/apps/v1/namespaces/mcp/deployments/one", "delete deployments"),
            (Method::GET, "/version", "get other"),
            (Method::GET, "/apis/apps/v1", "get other"),
        ] {
            assert_eq!(told(&method, uri), expected, "{uri}");
        }
    }
}
