//! Finding out where a server is and which era it speaks, once for all callers who wait for it.

use std::sync::Arc;

use archestra_core::runtime::Connection;
use tokio::time::timeout;

use super::era::{Known, probe};
use super::error::UpstreamError;
use super::flight::Role;
use super::headers::CredentialHeaders;
use super::pool::Inner;
use super::server::{Link, Server};
use super::stdio::StdioPool;
use super::target::{Endpoint, Place, Target};

impl Inner {
    /// Asks the runtime where the workload is; callers who need to know share the question.
    pub(super) async fn connect(&self, target: &Arc<Target>, server: &Arc<Server>) -> Result<Arc<Link>, UpstreamError> {
        let name = target.server();
        let (Some(runtime), Place::Workload(workload)) = (&self.runtime, target.place()) else {
            return Err(UpstreamError::unreachable(name, "there is no runtime that could run it"));
        };
        let (connected, _) = self
            .links
            .join(target.key().clone(), || {
                let (runtime, workload) = (Arc::clone(runtime), workload.clone());
                let (name, server) = (Arc::clone(name), Arc::clone(server));
                let (options, concurrency) = (self.http.options, target.entry().spec.tool_concurrency);
                async move {
                    let connecting = async {
                        let connection = runtime.connect(&workload).await;
                        let link = match connection.map_err(|error| UpstreamError::from_runtime(&name, &error))? {
                            Connection::Http(endpoint) => {
                                let endpoint = Endpoint::workload(&endpoint)
                                    .map_err(|reason| UpstreamError::unreachable(&name, reason))?;
                                Link::Http(Arc::new(endpoint))
                            }
                            Connection::Stdio(channel) => {
                                let (runtime, name) = (Arc::clone(&runtime), Arc::clone(&name));
                                let pool =
                                    StdioPool::new(workload, runtime, name, channel, concurrency, &options).await?;
                                Link::Stdio(Arc::new(pool))
                            }
                        };
                        Ok(Arc::new(link))
                    };
                    let after = options.setup_timeout;
                    let link = timeout(after, connecting).await;
                    let link =
                        link.unwrap_or_else(|_| Err(UpstreamError::Timeout { server: Arc::clone(&name), after }))?;
                    server.connect(Arc::clone(&link));
                    Ok(link)
                }
            })
            .await;
        connected
    }

    /// The era of the server; callers who need to know share the question.
    pub(super) async fn known(
        &self,
        target: &Arc<Target>,
        server: &Arc<Server>,
        endpoint: &Arc<Endpoint>,
        credential: &Arc<CredentialHeaders>,
    ) -> Result<Arc<Known>, UpstreamError> {
        if let Some(known) = server.known(endpoint.generation) {
            return Ok(known);
        }
        Box::pin(self.find_out(target, server, endpoint, credential)).await
    }

    async fn find_out(
        &self,
        target: &Arc<Target>,
        server: &Arc<Server>,
        endpoint: &Arc<Endpoint>,
        credential: &Arc<CredentialHeaders>,
    ) -> Result<Arc<Known>, UpstreamError> {
        loop {
            let (known, role) = self
                .eras
                .join((target.key().clone(), endpoint.generation), || {
                    let (http, name, server) = (self.http.clone(), Arc::clone(target.server()), Arc::clone(server));
                    let (endpoint, credential) = (Arc::clone(endpoint), Arc::clone(credential));
                    async move {
                        let known = Arc::new(probe(&http, &endpoint, &credential, &name).await?);
                        server.learn(Arc::clone(&known));
                        Ok(known)
                    }
                })
                .await;
            match known {
                // That was somebody else's credential.
                Err(UpstreamError::Unauthorized { .. }) if role == Role::Joined => {}
                other => return other,
            }
        }
    }
}
