//! Server-sent events: an incremental decoder that copies single-line data nowhere, and an encoder for messages.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use memchr::{memchr, memchr2};

#[cfg(test)]
mod tests;

/// The largest event that is accepted unless the caller says otherwise.
pub const DEFAULT_EVENT_LIMIT: usize = 16 * 1024 * 1024;

/// A comment that keeps an idle stream open.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// What stands before a message without line breaks.
pub const MESSAGE_PREFIX: Bytes = Bytes::from_static(b"event: message\ndata: ");

/// What stands after a message.
pub const MESSAGE_SUFFIX: Bytes = Bytes::from_static(b"\n\n");

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SseError {
    /// One event is larger than allowed.
    #[error("event larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The id to resume after, if one was given by this event or an earlier one.
    pub id: Option<String>,
    /// The type; nothing means `message`.
    pub event: Option<String>,
    /// The data, its lines joined by line feeds.
    pub data: Bytes,
}

impl Event {
    /// Whether the event is a message, as opposed to one with another type.
    #[must_use]
    pub fn is_message(&self) -> bool {
        self.event.as_deref().is_none_or(|kind| kind == "message")
    }
}

/// Splits a byte stream into events.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    start: Start,
    /// How much of the buffer is known to hold no line ending.
    scanned: usize,
    /// Whether a line feed now belongs to the carriage return before it.
    after_cr: bool,
    id: Option<String>,
    event: Option<String>,
    data: Data,
    retry: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Mark,
    Lines,
}

/// The data of the event being read.
#[derive(Debug)]
enum Data {
    None,
    Line(Bytes),
    Lines(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Line(line) => line.len(),
            Self::Lines(lines) => lines.len(),
        }
    }

    fn push(&mut self, line: Bytes) {
        let mut lines = match std::mem::replace(self, Self::None) {
            Self::None => {
                *self = Self::Line(line);
                return;
            }
            Self::Line(first) => BytesMut::from(first.as_ref()),
            Self::Lines(lines) => lines,
        };
        lines.put_u8(b'\n');
        lines.put_slice(&line);
        *self = Self::Lines(lines);
    }

    fn take(&mut self) -> Option<Bytes> {
        match std::mem::replace(self, Self::None) {
            Self::None => None,
            Self::Line(line) => Some(line),
            Self::Lines(lines) => Some(lines.freeze()),
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(DEFAULT_EVENT_LIMIT)
    }
}

impl Decoder {
    /// A decoder that refuses events of more than `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            start: Start::Mark,
            scanned: 0,
            after_cr: false,
            id: None,
            event: None,
            data: Data::None,
            retry: None,
        }
    }

    /// Takes the next event out of `buffer`, which the caller only appends to; nothing if more bytes are needed.
    ///
    /// # Errors
    /// The event is too large; the stream cannot be read on.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, SseError> {
        if self.start == Start::Mark {
            const MARK: &[u8] = b"\xef\xbb\xbf";
            if buffer.len() < MARK.len() && MARK.starts_with(buffer) {
                return Ok(None);
            }
            if buffer.starts_with(MARK) {
                buffer.advance(MARK.len());
            }
            self.start = Start::Lines;
        }
        loop {
            if self.after_cr && !buffer.is_empty() {
                self.after_cr = false;
                if buffer[0] == b'\n' {
                    buffer.advance(1);
                }
            }
            let Some(found) = memchr2(b'\n', b'\r', &buffer[self.scanned..]) else {
                self.scanned = buffer.len();
                self.check(buffer.len())?;
                return Ok(None);
            };
            let end = self.scanned + found;
            self.scanned = 0;
            self.check(end)?;
            let line = buffer.split_to(end).freeze();
            self.after_cr = buffer[0] == b'\r';
            buffer.advance(1);
            if !line.is_empty() {
                self.field(&line);
            } else if let Some(event) = self.dispatch() {
                return Ok(Some(event));
            }
        }
    }

    /// Takes the event that the stream ended in: servers that close without the last blank line do exist.
    ///
    /// # Errors
    /// The event is too large.
    pub fn finish(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, SseError> {
        if let Some(event) = self.decode(buffer)? {
            return Ok(Some(event));
        }
        let rest = buffer.split().freeze();
        self.scanned = 0;
        if !rest.is_empty() {
            self.field(&rest);
        }
        Ok(self.dispatch())
    }

    /// How long the server wants clients to wait before they connect again.
    #[must_use]
    pub const fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The id to resume after.
    #[must_use]
    pub fn last_event_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    fn check(&self, line: usize) -> Result<(), SseError> {
        if self.data.len() + line > self.limit { Err(SseError::TooLarge { limit: self.limit }) } else { Ok(()) }
    }

    fn field(&mut self, line: &Bytes) {
        let colon = memchr(b':', line).unwrap_or(line.len());
        let mut value = line.len().min(colon + 1);
        if line.get(value) == Some(&b' ') {
            value += 1;
        }
        match &line[..colon] {
            b"data" => self.data.push(line.slice(value..)),
            b"event" => self.event = Some(String::from_utf8_lossy(&line[value..]).into_owned()),
            b"id" if memchr(0, &line[value..]).is_none() => {
                let id = String::from_utf8_lossy(&line[value..]).into_owned();
                self.id = Some(id).filter(|id| !id.is_empty());
            }
            b"retry" => {
                let digits = &line[value..];
                if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) {
                    let millis = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                    self.retry = millis.map(Duration::from_millis).or(self.retry);
                }
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<Event> {
        let event = self.event.take().filter(|event| !event.is_empty());
        let data = self.data.take()?;
        Some(Event { id: self.id.clone(), event, data })
    }
}

/// One event of type `message`; line breaks in the JSON text become further data lines.
#[must_use]
pub fn encode_message(json: &[u8], id: Option<&str>) -> Bytes {
    encode_event("message", id, json)
}

/// One event of any type. Line breaks and NUL in `event` or `id`, which cannot be written, are left out.
#[must_use]
pub fn encode_event(event: &str, id: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + event.len() + id.map_or(0, str::len) + 32);
    write_field(&mut out, b"event: ", event);
    if let Some(id) = id {
        write_field(&mut out, b"id: ", id);
    }
    let mut rest = data;
    loop {
        out.put_slice(b"data: ");
        let Some(end) = memchr2(b'\n', b'\r', rest) else { break };
        out.put_slice(&rest[..end]);
        out.put_u8(b'\n');
        let ending = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + ending..];
    }
    out.put_slice(rest);
    out.put_slice(b"\n\n");
    out.freeze()
}

/// Whether a message can be sent as [`MESSAGE_PREFIX`], itself and [`MESSAGE_SUFFIX`], without a copy.
#[must_use]
pub fn is_single_line(json: &[u8]) -> bool {
    memchr2(b'\n', b'\r', json).is_none()
}

/// The event that tells a client how long to wait before it connects again.
#[must_use]
pub fn encode_retry(after: Duration) -> Bytes {
    Bytes::from(format!("retry: {}\n\n", after.as_millis()))
}

fn write_field(out: &mut BytesMut, name: &[u8], value: &str) {
    out.put_slice(name);
    for part in value.split(['\n', '\r', '\0']) {
        out.put_slice(part.as_bytes());
    }
    out.put_u8(b'\n');
}
