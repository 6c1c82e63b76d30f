//! Reading a whole body, up to a limit and a deadline.

use std::error::Error as StdError;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::HttpError;
use crate::upstream::dial::Waiting;

/// The most memory reserved on the word of a `Content-Length` alone.
const MAX_RESERVATION: usize = 1024 * 1024;

/// Reads all of `body`; a body that arrives in one piece is not copied.
///
/// # Errors
///
/// [`HttpError::TooLarge`] as soon as more than `limit` bytes are announced or have arrived, [`HttpError::Timeout`] at
/// the deadline, or what broke the transfer.
pub async fn read_limited<B>(body: B, limit: usize, deadline: Instant) -> Result<Bytes, HttpError>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let started = Instant::now();
    match timeout_at(deadline, collect(body, limit)).await {
        Ok(read) => read,
        Err(_) => Err(HttpError::Timeout { after: deadline.saturating_duration_since(started), what: Waiting::Body }),
    }
}

async fn collect<B>(body: B, limit: usize) -> Result<Bytes, HttpError>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut body = pin!(body);
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(HttpError::TooLarge { limit });
    }
    let Some(first) = next_data(body.as_mut()).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(HttpError::TooLarge { limit });
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let Some(second) = next_data(body.as_mut()).await? else { return Ok(first) };
    let mut whole = BytesMut::with_capacity(announced.min(MAX_RESERVATION).max(first.len() + second.len()));
    whole.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(data) = next {
        if data.len() > limit - whole.len() {
            return Err(HttpError::TooLarge { limit });
        }
        whole.extend_from_slice(&data);
        next = next_data(body.as_mut()).await?;
    }
    Ok(whole.freeze())
}

async fn next_data<B>(mut body: std::pin::Pin<&mut B>) -> Result<Option<Bytes>, HttpError>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(HttpError::from_body)?;
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => return Ok(Some(data)),
            // Trailers.
            Err(_) => {}
        }
    }
    Ok(None)
}
