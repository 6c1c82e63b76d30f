//! Limits on bodies whose frames come when the test says.

use std::convert::Infallible;
use std::pin::pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};

use super::*;
use crate::upstream::client::read_limited;

const SECOND: Duration = Duration::from_secs(1);

fn limits(deadline: Option<Duration>, idle: Option<Duration>) -> BodyLimits {
    BodyLimits { deadline: deadline.map(|after| Instant::now() + after), idle }
}

/// A body of `count` frames, each `every` after the one before; then nothing more comes and nothing ends.
fn dripping(every: Duration, count: usize) -> impl Body<Data = Bytes, Error = Infallible> + Send {
    StreamBody::new(futures::stream::unfold(0, move |sent| async move {
        if sent == count {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(every).await;
        Some((Ok(Frame::data(Bytes::from_static(b"x"))), sent + 1))
    }))
}

/// How many frames came, and the error that ended them.
async fn run(limits: BodyLimits, every: Duration, count: usize) -> (usize, HttpError) {
    let mut body = pin!(DeadlineBody::new(dripping(every, count), limits));
    let mut frames = 0;
    loop {
        match body.frame().await.expect("the body underneath never ends") {
            Ok(_) => frames += 1,
            Err(error) => {
                assert!(body.is_end_stream() && body.frame().await.is_none());
                return (frames, error);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_limits_a_body_passes_through() {
    let body = DeadlineBody::new(Full::new(Bytes::from_static(b"hello")), BodyLimits::default());
    assert_eq!(body.size_hint().exact(), Some(5));
    assert!(!body.is_end_stream());
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_body() {
    let (frames, error) = run(limits(None, Some(3 * SECOND)), SECOND, 10).await;
    assert_eq!(frames, 10);
    assert_eq!(error.to_string(), "waiting for more of the body took longer than 3s");

    let (frames, error) = run(limits(None, Some(3 * SECOND)), 4 * SECOND, 10).await;
    assert!(frames == 0 && error.is_timeout());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_lively_body() {
    let (frames, error) = run(limits(Some(10 * SECOND), Some(3 * SECOND)), 2 * SECOND, 100).await;
    assert_eq!(frames, 4);
    assert_eq!(error.to_string(), "receiving the body took longer than 10s");
}

#[tokio::test(start_paused = true)]
async fn whichever_limit_comes_first_is_named() {
    let (_, error) = run(limits(Some(2 * SECOND), Some(5 * SECOND)), SECOND, 0).await;
    assert_eq!(error.to_string(), "receiving the body took longer than 2s");
    let (_, error) = run(limits(Some(5 * SECOND), Some(2 * SECOND)), SECOND, 0).await;
    assert_eq!(error.to_string(), "waiting for more of the body took longer than 2s");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_pauses_meets_the_deadline_too() {
    let endless =
        StreamBody::new(futures::stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")))));
    let mut body = pin!(DeadlineBody::new(endless, limits(Some(SECOND), None)));
    assert!(body.frame().await.unwrap().is_ok());
    tokio::time::advance(SECOND).await;
    assert!(body.frame().await.unwrap().unwrap_err().is_timeout());
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_timeout_survives_reading_the_whole() {
    let body = DeadlineBody::new(dripping(SECOND, 0), limits(None, Some(SECOND)));
    let error = read_limited(body, 10, Instant::now() + 60 * SECOND).await.unwrap_err();
    assert!(matches!(error, HttpError::Timeout { what: Waiting::BodyProgress, .. }), "{error:?}");
}
