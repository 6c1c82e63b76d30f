//! The connections to the API server: as kube makes them, but small messages leave at once, and a silent connection is found
//! out and given up, also while what was sent is unacknowledged.

use http::Request;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt as _},
};
use std::time::Duration;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

/// How long a silent connection is left alone before it is asked whether it lives, how often, and how often in vain: a watch
/// over a connection that nobody told it is dead must not go on for long.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long what was sent may stay unacknowledged.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client for the cluster of this configuration.
///
/// Without `TCP_NODELAY` the second of two small messages, as on a stream that is attached to, waits for the acknowledgement
/// of the first, which may come 40 ms later.
pub(crate) fn client(config: Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        // Connections through a proxy are kube's own business.
        return Client::try_from(config);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    // Nobody is asked whether they live while something that was sent is unacknowledged.
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(USER_TIMEOUT));
    connector.set_connect_timeout(config.connect_timeout);
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http = HttpClient::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http.map_request(|request: Request<Body>| request));
    Ok(Client::new(service, config.default_namespace))
}
