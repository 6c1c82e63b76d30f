//! Lines of the API server's log streams: cut at our limit, and with their timestamps.

use archestra_core::runtime::{LogLine, LogSource};
use chrono::{DateTime, Utc};
use futures::io::{AsyncBufRead, AsyncBufReadExt as _};
use std::io;

/// The longest line that is kept; the rest is cut.
pub(super) const MAX_LINE: usize = 16 * 1024;
/// The longest timestamp with the blank after it.
const MAX_STAMP: usize = 48;
/// What the kubelet writes instead of a log that it has thrown away.
const NO_LOG: &[u8] = b"unable to retrieve container logs for ";

/// Splits a stream into lines and holds on to no more of one than is kept.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new() }
    }

    /// The next line without its end. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                let rest = std::mem::take(&mut self.line);
                return Ok((!rest.is_empty()).then_some(rest));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = &chunk[..end.unwrap_or(chunk.len())];
            let room = (MAX_LINE + MAX_STAMP).saturating_sub(self.line.len());
            self.line.extend_from_slice(&taken[..taken.len().min(room)]);
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume_unpin(used);
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut self.line)));
            }
        }
    }
}

/// A line with the timestamp it begins with. `None`: it is not the server's.
pub(super) fn parse(line: &[u8]) -> Option<LogLine> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (at, text) = match stamped(line) {
        Some((at, text)) => (at, text),
        None if line.starts_with(NO_LOG) => return None,
        None => (Utc::now(), line),
    };
    let mut text = String::from_utf8_lossy(text).into_owned();
    text.truncate(text.floor_char_boundary(MAX_LINE));
    Some(LogLine { at, source: LogSource::Server, text })
}

fn stamped(line: &[u8]) -> Option<(DateTime<Utc>, &[u8])> {
    let head = &line[..line.len().min(MAX_STAMP)];
    let blank = head.iter().position(|byte| *byte == b' ');
    // An empty line has nothing after its timestamp, and not even the blank.
    let (stamp, text) = blank.map_or((line, &line[line.len()..]), |blank| (&line[..blank], &line[blank + 1..]));
    let stamp = std::str::from_utf8(stamp).ok()?;
    Some((DateTime::parse_from_rfc3339(stamp).ok()?.to_utc(), text))
}
