//! A streaming body that ends with an error when it takes too long as a whole, or falls silent.

#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::client::HttpError;
use super::dial::Waiting;

/// How long a body may take. Without either limit, wrapping a body costs a comparison per frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BodyLimits {
    /// When all of it must have arrived.
    pub deadline: Option<Instant>,
    /// How long nothing may arrive.
    pub idle: Option<Duration>,
}

pin_project! {
    /// A body with [`BodyLimits`]; past one of them it yields one error and then ends.
    #[derive(Debug)]
    pub struct DeadlineBody<B> {
        #[pin]
        inner: B,
        limits: BodyLimits,
        started: Option<Instant>,
        last_frame: Option<Instant>,
        // Armed when the body is first found waiting, and moved only when it fires: a frame costs no timer operation.
        // Boxed, so that the body can be moved whenever the one in it can.
        alarm: Option<Pin<Box<Sleep>>>,
        over: bool,
    }
}

impl<B> DeadlineBody<B> {
    /// `inner`, limited from now on.
    pub fn new(inner: B, limits: BodyLimits) -> Self {
        let limited = limits.deadline.is_some() || limits.idle.is_some();
        let started = limited.then(Instant::now);
        Self { inner, limits, started, last_frame: started, alarm: None, over: false }
    }
}

impl BodyLimits {
    /// The next moment at which one of the limits is passed if nothing arrives.
    fn next_alarm(&self, last_frame: Option<Instant>) -> Option<Instant> {
        let silent = self.idle.zip(last_frame).map(|(idle, last)| last + idle);
        match (self.deadline, silent) {
            (Some(deadline), Some(silent)) => Some(deadline.min(silent)),
            (deadline, silent) => deadline.or(silent),
        }
    }

    fn error(&self, started: Option<Instant>, now: Instant) -> HttpError {
        match (self.deadline, self.idle) {
            (Some(deadline), _) if now >= deadline => {
                let after = started.map_or(Duration::ZERO, |started| deadline.saturating_duration_since(started));
                HttpError::Timeout { after, what: Waiting::Body }
            }
            (_, idle) => HttpError::Timeout { after: idle.unwrap_or_default(), what: Waiting::BodyProgress },
        }
    }
}

impl<B> Body for DeadlineBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = B::Data;
    type Error = HttpError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, HttpError>>> {
        let this = self.project();
        if *this.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = this.inner.poll_frame(cx) {
            return Poll::Ready(match frame {
                Some(Ok(frame)) => match frame_in_time(this.limits, this.last_frame) {
                    Ok(()) => Some(Ok(frame)),
                    Err(now) => {
                        *this.over = true;
                        Some(Err(this.limits.error(*this.started, now)))
                    }
                },
                Some(Err(error)) => {
                    *this.over = true;
                    Some(Err(HttpError::from_body(error)))
                }
                None => {
                    *this.over = true;
                    None
                }
            });
        }
        loop {
            let Some(due) = this.limits.next_alarm(*this.last_frame) else { return Poll::Pending };
            let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
            ready!(alarm.as_mut().poll(cx));
            let now = Instant::now();
            if now >= due {
                *this.over = true;
                return Poll::Ready(Some(Err(this.limits.error(*this.started, now))));
            }
            alarm.as_mut().reset(due);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.over { SizeHint::with_exact(0) } else { self.inner.size_hint() }
    }
}

/// Notes the arrival of a frame; fails with the present time where the deadline of the whole has passed.
fn frame_in_time(limits: &BodyLimits, last_frame: &mut Option<Instant>) -> Result<(), Instant> {
    if last_frame.is_none() {
        return Ok(());
    }
    let now = Instant::now();
    *last_frame = Some(now);
    match limits.deadline {
        Some(deadline) if now >= deadline => Err(now),
        _ => Ok(()),
    }
}
