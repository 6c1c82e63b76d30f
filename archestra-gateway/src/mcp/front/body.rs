//! The body of an answer: a whole message, an upstream's bytes as they come, or a stream of events.

use super::record::CallLog;
use crate::{
    mcp::{
        error::{ErrorKind, RpcError},
        outcome::{BodyFormat, Outcome, OutcomeScanner},
        sse,
        version::Era,
    },
    upstream::deadline_body::DeadlineBody,
};
use archestra_core::event::Outcome as Recorded;
use bytes::Bytes;
use futures::{Stream, stream::BoxStream};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// What is noted of an answer that breaks off.
pub(super) const BROKE_OFF: &str = "the server broke off its answer";
/// What its caller is told.
pub(super) const BROKEN_OFF: &str = "the server broke off its answer; whether the call took effect is not known";

/// The body of an answer of the front door.
pub struct McpBody(Kind);

enum Kind {
    Full(Option<Bytes>),
    Upstream(Box<Upstream>),
    Events(BoxStream<'static, Bytes>),
}

/// An upstream's answer on its way through, with what is noted of it at its end.
pub(super) struct Upstream {
    body: DeadlineBody<Incoming>,
    scanner: OutcomeScanner,
    format: BodyFormat,
    bytes: u64,
    /// The caller's request id as JSON text, for the error that takes the place of an answer that breaks off.
    id: Box<str>,
    /// Whether an error can still be the answer: how long it is has not been said, and only blanks have been sent.
    unsaid: bool,
    log: Option<CallLog>,
}

impl McpBody {
    /// A whole message.
    #[must_use]
    pub const fn full(bytes: Bytes) -> Self {
        Self(Kind::Full(Some(bytes)))
    }

    /// Nothing.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Full(None))
    }

    /// Whether all of it is here.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!(self.0, Kind::Full(_))
    }

    pub(super) fn upstream(body: DeadlineBody<Incoming>, format: BodyFormat, id: &str, log: CallLog) -> Self {
        let scanner = OutcomeScanner::new(format);
        let unsaid = format == BodyFormat::Json && body.size_hint().exact().is_none();
        let id = id.into();
        Self(Kind::Upstream(Box::new(Upstream { body, scanner, format, bytes: 0, id, unsaid, log: Some(log) })))
    }

    /// Encoded events.
    pub(super) fn events(stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self(Kind::Events(Box::pin(stream)))
    }
}

impl fmt::Debug for McpBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Full(_) => "McpBody(full)",
            Kind::Upstream(_) => "McpBody(upstream)",
            Kind::Events(_) => "McpBody(events)",
        })
    }
}

impl Body for McpBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.0 {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Upstream(upstream) => upstream.poll(cx),
            Kind::Events(stream) => stream.as_mut().poll_next(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Upstream(upstream) => upstream.body.size_hint(),
            Kind::Events(_) => SizeHint::default(),
        }
    }
}

impl Upstream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if self.log.is_none() {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.scanner.push(&data);
                    self.unsaid = self.unsaid && data.iter().all(u8::is_ascii_whitespace);
                    self.bytes += data.len() as u64;
                    if self.body.is_end_stream() && !self.unsaid {
                        // A client that has its content-length's worth polls no further.
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    tracing::info!(%error, "an upstream broke off its answer");
                    if let Some(log) = self.log.take() {
                        log.finish(Recorded::Error, Some(BROKE_OFF), self.bytes);
                    }
                    return Poll::Ready(Some(match self.format {
                        BodyFormat::EventStream => Ok(Frame::data(self.last_event())),
                        BodyFormat::Json if self.unsaid => Ok(Frame::data(self.broken_off())),
                        BodyFormat::Json => Err(io::Error::other(BROKE_OFF)),
                    }));
                }
                None if self.unsaid => {
                    if let Some(log) = self.log.take() {
                        log.finish(Recorded::Error, Some("the server's answer is empty"), self.bytes);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(self.broken_off()))));
                }
                None => {
                    let scanner = std::mem::replace(&mut self.scanner, OutcomeScanner::new(self.format));
                    let outcome = scanner.finish();
                    if let Some(log) = self.log.take() {
                        log.finish_by(outcome, self.bytes);
                    }
                    let silent = outcome == Outcome::Missing && self.format == BodyFormat::EventStream;
                    return Poll::Ready(silent.then(|| Ok(Frame::data(self.last_event()))));
                }
            }
        }
    }

    fn finish(&mut self) {
        if let Some(log) = self.log.take() {
            let scanner = std::mem::replace(&mut self.scanner, OutcomeScanner::new(self.format));
            log.finish_by(scanner.finish(), self.bytes);
        }
    }

    fn broken_off(&self) -> Bytes {
        let error = RpcError::new(ErrorKind::Internal, BROKEN_OFF);
        error.render(crate::mcp::envelope::Id::parse(&self.id), Era::Modern)
    }

    fn last_event(&self) -> Bytes {
        // A blank line first ends whatever event was cut off.
        let mut out = bytes::BytesMut::from(&b"\n\n"[..]);
        out.extend_from_slice(&sse::encode_message(&self.broken_off(), None));
        out.freeze()
    }
}
