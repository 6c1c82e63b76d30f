//! The messages in an event stream that answers one request, resumed where a legacy server cuts it into parts.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use super::legacy::UnderWay;
use super::{Attempt, Format, broke_off};
use crate::mcp::sse::Decoder;
use crate::upstream::client::HttpError;
use crate::upstream::deadline_body::DeadlineBody;
use crate::upstream::error::UpstreamError;
use crate::upstream::options::UpstreamOptions;
use crate::upstream::target::Endpoint;

/// How long to wait before a stream is resumed, unless the server says; and the most it can say.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// How often in a row a stream may end without having brought anything.
const MAX_EMPTY_PARTS: u32 = 5;

/// The messages of one event stream.
#[derive(Debug)]
pub(in crate::upstream) struct Events {
    options: UpstreamOptions,
    server: Arc<str>,
    endpoint: Arc<Endpoint>,
    body: DeadlineBody<Incoming>,
    decoder: Decoder,
    buffer: BytesMut,
    deadline: Instant,
    call: Option<UnderWay>,
    empty_parts: u32,
}

impl Events {
    pub(in crate::upstream) fn of_response(
        response: Response<Incoming>,
        attempt: Attempt<'_>,
        call: Option<UnderWay>,
    ) -> Self {
        let deadline = attempt.exchange.deadline;
        Self {
            options: attempt.http.options,
            server: Arc::clone(attempt.server),
            endpoint: Arc::clone(attempt.endpoint),
            body: DeadlineBody::new(response.into_body(), attempt.http.options.limits(deadline)),
            decoder: Decoder::new(attempt.http.options.message_limit),
            buffer: BytesMut::new(),
            deadline,
            call,
            empty_parts: 0,
        }
    }

    /// The next message.
    pub(in crate::upstream) async fn next(&mut self) -> Result<Bytes, UpstreamError> {
        loop {
            while let Some(event) = self.decoder.decode(&mut self.buffer).map_err(|_| self.too_large())? {
                if event.is_message() && !event.data.is_empty() {
                    self.empty_parts = 0;
                    return Ok(event.data);
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(HttpError::Protocol { .. })) | None => {
                    if let Some(event) = self.decoder.finish(&mut self.buffer).map_err(|_| self.too_large())?
                        && event.is_message()
                        && !event.data.is_empty()
                    {
                        return Ok(event.data);
                    }
                    self.resume().await?;
                }
                Some(Err(error)) => return Err(broke_off(&self.server, &self.endpoint, &error)),
            }
        }
    }

    /// Answers a request of the server's, where there is a way to.
    pub(in crate::upstream) fn reply(&self, answer: Bytes) {
        if let Some(call) = &self.call {
            call.session().tell(answer);
        }
    }

    /// The response has been seen.
    pub(in crate::upstream) fn over(&mut self) {
        if let Some(call) = &mut self.call {
            call.over();
        }
    }

    async fn resume(&mut self) -> Result<(), UpstreamError> {
        let (Some(call), Some(after)) = (&self.call, self.decoder.last_event_id().map(str::to_owned)) else {
            return Err(self.cut());
        };
        self.empty_parts += 1;
        if self.empty_parts > MAX_EMPTY_PARTS {
            return Err(self.cut());
        }
        sleep(self.decoder.retry().unwrap_or(RETRY).min(MAX_RETRY)).await;
        let response = call.session().resume(&after, self.deadline).await;
        let response = response.map_err(|error| broke_off(&self.server, &self.endpoint, &error))?;
        if response.status() != StatusCode::OK || Format::of(response.headers()) != Some(Format::Events) {
            return Err(self.cut());
        }
        self.body = DeadlineBody::new(response.into_body(), self.options.limits(self.deadline));
        self.buffer.clear();
        Ok(())
    }

    fn cut(&self) -> UpstreamError {
        if self.endpoint.trust == crate::upstream::dial::Trust::Runtime {
            return UpstreamError::Gone { server: Arc::clone(&self.server) };
        }
        UpstreamError::protocol(&self.server, "it closed the stream before its response")
    }

    fn too_large(&self) -> UpstreamError {
        UpstreamError::TooLarge { server: Arc::clone(&self.server), limit: self.options.message_limit }
    }
}
