//! The endpoint of a server that listens.
//!
//! It is the pod's own address where that is reachable: a session lives in one process, and which one answers is known by its
//! generation, while a Service may lead to either of two pods during a rollout. That an address is another pod's by now takes a
//! watch that fell silent: the connections to the API server are asked every few seconds whether they live (`transport`).

use super::{
    Shared, forward,
    link::{Link, ReadyPod},
    route::{self, Dead, Others, Way},
};
use crate::{names, observe::Place};
use archestra_core::{Result, runtime::HttpEndpoint, secret::SecretValue};
use std::sync::Arc;

/// Where a way leads.
struct Found {
    authority: String,
    headers: Vec<(String, SecretValue)>,
}

/// Where the pod's server is, on the first way that leads there.
pub(super) async fn endpoint(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    place: &Place,
    pod: &ReadyPod,
) -> Result<HttpEndpoint> {
    let port = pod.port(names::HTTP_PORT);
    let ways = route::ways(shared, link, pod);
    let mut dead: Vec<Dead> = Vec::new();
    for (tried, way) in ways.iter().enumerate() {
        let others = if tried + 1 < ways.len() { Others::Some } else { Others::None };
        match find(shared, link, pod, *way, port, others).await {
            Ok(Found { authority, headers }) => {
                route::note(shared, link, pod, *way, &dead);
                let annotations = place.deployment.metadata.annotations.as_ref();
                let path =
                    annotations.and_then(|annotations| annotations.get(names::PATH)).map_or("/mcp", String::as_str);
                return Ok(HttpEndpoint { url: url(&authority, path), headers, generation: pod.generation() });
            }
            Err(error) => {
                route::bury(link, &error);
                dead.push(error);
            }
        }
    }
    Err(route::nowhere(&dead))
}

/// Whether a way leads there is seen once for each pod; afterwards it is for the client to find out.
async fn find(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    pod: &ReadyPod,
    way: Way,
    port: u16,
    others: Others,
) -> Result<Found, Dead> {
    let failed = |error| Dead::of(way, error);
    let known = route::known(shared, link, pod) == Some(way);
    if way == Way::Forward {
        if !known {
            forward::check(shared, link, pod, port).await.map_err(failed)?;
        }
        let door = forward::door(shared, link, port).await.map_err(failed)?;
        return Ok(Found { authority: door.address.to_string(), headers: vec![door.header()] });
    }
    let address = route::address(shared, link, pod, way, port).await.map_err(failed)?;
    let Some(address) = address else { return Err(Dead::new(way, "there is no address".to_owned())) };
    if !known {
        drop(route::dial(way, address, others).await?);
    }
    let authority = match way {
        Way::Name => format!("{}:{port}", route::service_name(shared, link)),
        Way::Pod | Way::Service | Way::Forward => address.to_string(),
    };
    Ok(Found { authority, headers: Vec::new() })
}

fn url(authority: &str, path: &str) -> String {
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("http://{authority}{slash}{path}")
}

#[cfg(test)]
mod tests {
    use super::url;

    #[test]
    fn urls_have_one_slash() {
        assert_eq!(url("10.0.0.1:8080", "/mcp"), "http://10.0.0.1:8080/mcp");
        assert_eq!(url("[fd00::1]:8080", "mcp"), "http://[fd00::1]:8080/mcp");
    }
}
