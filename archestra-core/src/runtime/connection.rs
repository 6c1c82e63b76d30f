//! How a workload's MCP server is reached.

use super::stdio::Channel;
use crate::secret::SecretValue;

/// A private connection to a workload's server.
#[derive(Debug)]
pub enum Connection {
    /// At a URL.
    Http(HttpEndpoint),
    /// Over newline-delimited JSON.
    Stdio(Channel),
}

/// Where a streamable-http server is.
#[derive(Debug, Clone)]
pub struct HttpEndpoint {
    /// Its endpoint.
    pub url: String,
    /// What every request must carry, besides its credential.
    pub headers: Vec<(String, SecretValue)>,
    /// Changes whenever what answers there is another process: sessions and eras are not carried over.
    pub generation: u64,
}
