//! Messages of one request on their way to its caller: the response alone where nothing precedes it, a stream otherwise.

use std::sync::Arc;
use std::time::Duration;

use archestra_core::id::InstallationId;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::error::UpstreamError;
use super::exchange::{Answer, Exchange, MessageStream};
use super::http::Attempt;
use super::http::reader::Events;
use super::listen::Signals;
use super::mapping::{Mapping, Taken, Verdict};
use super::stdio::Conversation;

/// Where the messages come from. Dropping it before the response cancels the request.
#[derive(Debug)]
pub(super) enum Source {
    Http(Box<Events>),
    Stdio(Conversation),
}

impl Source {
    async fn next(&mut self) -> Result<Bytes, UpstreamError> {
        match self {
            Self::Http(events) => events.next().await,
            Self::Stdio(conversation) => conversation.next().await,
        }
    }

    async fn reply(&mut self, answer: Bytes) {
        match self {
            Self::Http(events) => events.reply(answer),
            Self::Stdio(conversation) => conversation.reply(answer).await,
        }
    }

    /// The response has been seen.
    fn over(&mut self, verdict: Verdict, response: &[u8]) -> Result<(), UpstreamError> {
        match (self, verdict) {
            (Self::Http(events), _) => events.over(),
            (Self::Stdio(conversation), Verdict::Result) => conversation.over(),
            (Self::Stdio(conversation), Verdict::Error) => conversation.failed(response)?,
        }
        Ok(())
    }
}

/// The messages of one request.
#[derive(Debug)]
pub(super) struct Relay {
    source: Source,
    mapping: Mapping,
    server: Arc<str>,
    installation: InstallationId,
    signals: Signals,
    started: Instant,
    deadline: Instant,
    cancel: Option<CancellationToken>,
}

enum Step {
    Notification(Bytes),
    Response(Bytes),
}

impl Relay {
    pub(super) fn new(source: Source, mapping: Mapping, attempt: Attempt<'_>) -> Self {
        Self::with(source, mapping, attempt.server, attempt.installation, attempt.signals, attempt.exchange)
    }

    pub(super) fn with(
        source: Source,
        mapping: Mapping,
        server: &Arc<str>,
        installation: InstallationId,
        signals: &Signals,
        exchange: &Exchange<'_>,
    ) -> Self {
        Self {
            source,
            mapping,
            server: Arc::clone(server),
            installation,
            signals: signals.clone(),
            started: Instant::now(),
            deadline: exchange.deadline,
            cancel: exchange.cancel.token(),
        }
    }

    /// Waits for the first message that the caller gets.
    pub(super) async fn answer(mut self) -> Result<Answer, UpstreamError> {
        match self.step().await? {
            Step::Response(message) => Ok(Answer::Message(message)),
            Step::Notification(first) => Ok(Answer::Stream(self.into_stream(first))),
        }
    }

    fn into_stream(self, first: Bytes) -> MessageStream {
        let rest = stream::unfold(Some(self), |relay| async {
            let mut relay = relay?;
            Some(match relay.step_in_time().await {
                Ok(Step::Notification(message)) => (Ok(message), Some(relay)),
                Ok(Step::Response(message)) => (Ok(message), None),
                Err(error) => (Err(error), None),
            })
        });
        MessageStream::new(stream::once(async { Ok(first) }).chain(rest).boxed())
    }

    async fn step_in_time(&mut self) -> Result<Step, UpstreamError> {
        let (cancel, deadline) = (self.cancel.clone(), self.deadline);
        let cancelled = async {
            match &cancel {
                Some(token) => token.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            step = timeout_at(deadline, self.step()) => if let Ok(step) = step { return step },
            () = cancelled => return Err(UpstreamError::Cancelled),
        }
        Err(UpstreamError::Timeout { server: Arc::clone(&self.server), after: self.waited() })
    }

    fn waited(&self) -> Duration {
        self.deadline.saturating_duration_since(self.started)
    }

    async fn step(&mut self) -> Result<Step, UpstreamError> {
        loop {
            let message = self.source.next().await?;
            match self.mapping.take(&message) {
                Ok(Taken::Response(answer, verdict)) => {
                    self.source.over(verdict, &message)?;
                    return Ok(Step::Response(answer));
                }
                Ok(Taken::Notification(message)) => return Ok(Step::Notification(message)),
                Ok(Taken::Asked { answer }) => self.source.reply(answer).await,
                Ok(Taken::ToolsChanged) => self.signals.tools_changed(self.installation),
                Ok(Taken::Ignored) => {}
                Err(reason) => return Err(UpstreamError::protocol(&self.server, reason)),
            }
        }
    }
}
