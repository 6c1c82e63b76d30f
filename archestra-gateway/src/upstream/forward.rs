//! The way of one request: to its server, in its era, with one more try where it is certain that the first had no effect.

use std::sync::Arc;

use super::era::Known;
use super::error::UpstreamError;
use super::exchange::{Answer, Exchange};
use super::http::{Attempt, Setback, legacy, modern};
use super::mapping::{Ids, Mapping, outgoing};
use super::pool::Inner;
use super::relay::{Relay, Source};
use super::server::{Link, Server};
use super::stdio::{Conversation, NoLine, StdioPool};
use super::target::{Endpoint, Place, Target};
use crate::mcp::version::Era;

/// Whether something has been tried a second time in this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tries {
    First,
    Second,
}

impl Inner {
    pub(super) async fn forward(&self, target: &Arc<Target>, exchange: &Exchange<'_>) -> Result<Answer, UpstreamError> {
        let server = self.servers.get(target.key());
        match target.place() {
            Place::Remote(endpoint) => self.over_http(target, &server, endpoint, exchange).await.or_else(settled),
            Place::Workload(_) => self.to_workload(target, &server, exchange).await,
            Place::Unusable(reason) => {
                Err(UpstreamError::Refused { server: Arc::clone(target.server()), reason: reason.clone() })
            }
        }
    }

    async fn to_workload(
        &self,
        target: &Arc<Target>,
        server: &Arc<Server>,
        exchange: &Exchange<'_>,
    ) -> Result<Answer, UpstreamError> {
        let mut tries = Tries::First;
        loop {
            let link = match server.link() {
                Some(link) => link,
                None => Box::pin(self.connect(target, server)).await?,
            };
            let outcome = match &*link {
                Link::Http(endpoint) => self.over_http(target, server, endpoint, exchange).await,
                Link::Stdio(pool) => self.over_stdio(target, pool, exchange).await,
            };
            match outcome {
                Err(Setback::Unreached(_)) if tries == Tries::First => server.disconnect(&link),
                other => return other.or_else(settled),
            }
            tries = Tries::Second;
        }
    }

    async fn over_stdio(
        &self,
        target: &Arc<Target>,
        pool: &Arc<StdioPool>,
        exchange: &Exchange<'_>,
    ) -> Result<Answer, Setback> {
        let name = target.server();
        loop {
            let line = pool.take(exchange.turn).await.map_err(|none| match none {
                NoLine::Http => Setback::Unreached(UpstreamError::unreachable(name, "it is reached over HTTP now")),
                NoLine::Busy => {
                    let reason = "it serves one session at a time, and too many requests wait for it; try again later";
                    Setback::Final(UpstreamError::unreachable(name, reason))
                }
                NoLine::Failed(error) => Setback::Final(error),
            })?;
            let mapping = Mapping::new(exchange, line.era, Ids::Callers);
            let message = match outgoing(exchange, line.era, Ids::Callers, name) {
                Ok(message) => message,
                Err(error) => {
                    pool.put(line);
                    return Err(error.into());
                }
            };
            // A channel that ended between two calls has brought the request to nobody: the next one is tried.
            if let Ok(conversation) = Conversation::start(pool, line, mapping.sent_id(), message).await {
                let (source, installation) = (Source::Stdio(conversation), target.installation().id);
                let relay = Relay::with(source, mapping, name, installation, &self.signals, exchange);
                return Ok(relay.answer().await?);
            }
        }
    }

    async fn over_http(
        &self,
        target: &Arc<Target>,
        server: &Arc<Server>,
        endpoint: &Arc<Endpoint>,
        exchange: &Exchange<'_>,
    ) -> Result<Answer, Setback> {
        let credential = self.credentials.headers(target, exchange.plan).await?;
        let attempt = Attempt {
            http: &self.http,
            server: target.server(),
            installation: target.installation().id,
            endpoint,
            credential: &credential,
            exchange,
            signals: &self.signals,
        };
        let outcome = self.in_its_era(target, server, attempt).await;
        if let Err(Setback::Final(UpstreamError::Unauthorized { .. })) = &outcome {
            // The value in the store may be a newer one by now.
            self.credentials.forget(attempt.installation);
        }
        outcome
    }

    /// One attempt, and a second one where the era turns out to be another.
    async fn in_its_era(
        &self,
        target: &Arc<Target>,
        server: &Arc<Server>,
        attempt: Attempt<'_>,
    ) -> Result<Answer, Setback> {
        let Attempt { endpoint, credential, .. } = attempt;
        let known = self.known(target, server, endpoint, credential).await?;
        let first = self.once(server, &known, attempt).await;
        let Err(Setback::Mistaken(outcome)) = first else { return first };
        if known.since.elapsed() < self.http.options.reprobe_after {
            return (*outcome).map_err(Setback::Final);
        }
        server.doubt(&known);
        let now = Box::pin(self.known(target, server, endpoint, credential)).await?;
        if (known.era, now.era) == (Era::Modern, Era::Modern) {
            return (*outcome).map_err(Setback::Final);
        }
        match Box::pin(self.once(server, &now, attempt)).await {
            Err(Setback::Mistaken(outcome)) => (*outcome).map_err(Setback::Final),
            other => other,
        }
    }

    async fn once(&self, server: &Arc<Server>, known: &Arc<Known>, attempt: Attempt<'_>) -> Result<Answer, Setback> {
        match known.era {
            Era::Modern => {
                let answer = modern::send(attempt).await?;
                let Attempt { endpoint, credential, installation, .. } = attempt;
                self.listeners.modern(known, server, endpoint, credential, installation);
                Ok(answer)
            }
            // Boxed to keep small what a modern call carries along.
            Era::Legacy => Box::pin(self.in_session(server, known, attempt)).await,
        }
    }

    /// A legacy request, and a second one in a new session where the server has forgotten the old one.
    async fn in_session(
        &self,
        server: &Arc<Server>,
        known: &Arc<Known>,
        attempt: Attempt<'_>,
    ) -> Result<Answer, Setback> {
        let Attempt { endpoint, credential, installation, .. } = attempt;
        let mut tries = Tries::First;
        loop {
            let session = self.sessions.get(installation, attempt.server, endpoint, credential).await;
            let session = session.inspect_err(|error| {
                // A server that cannot be initialized may not be a legacy one after all.
                if matches!(error, UpstreamError::Protocol { .. }) {
                    server.doubt(known);
                }
            })?;
            match legacy::send(attempt, &session).await {
                Ok(answer) => {
                    self.listeners.legacy(&session, installation);
                    return Ok(answer);
                }
                Err(Setback::SessionLost(_)) if tries == Tries::First => self.sessions.lost(&session),
                Err(Setback::Mistaken(outcome)) => {
                    if session.since.elapsed() < self.http.options.reprobe_after {
                        return (*outcome).map_err(Setback::Final);
                    }
                    // The process behind it may be another one, even of another era.
                    self.sessions.lost(&session);
                    return Err(Setback::Mistaken(outcome));
                }
                Err(other) => return Err(other),
            }
            tries = Tries::Second;
        }
    }
}

/// What is left of a setback when there is nothing more to be tried.
fn settled(setback: Setback) -> Result<Answer, UpstreamError> {
    match setback {
        Setback::Final(error) | Setback::Unreached(error) => Err(error),
        Setback::SessionLost(outcome) | Setback::Mistaken(outcome) => *outcome,
    }
}
