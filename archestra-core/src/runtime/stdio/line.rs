//! Splits a byte stream into lines of bounded length, whatever the chunks it arrives in.

use bytes::{Buf, BytesMut};

/// How much room a read is offered at least.
const READ_SIZE: usize = 64 * 1024;
/// A buffer that grew beyond this for one long line is given back when it is empty.
const KEEP_SIZE: usize = 1024 * 1024;
/// How much of the beginning of a line that is too long is kept.
const HEAD: usize = 1024;
/// How much of its end.
const TAIL: usize = 128;

/// One line, without its line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// It was longer than the limit and has been discarded.
    TooLong {
        /// Its first KiB.
        head: &'a [u8],
        /// Its last bytes.
        tail: &'a [u8],
        /// How long it was.
        length: u64,
    },
}

/// Splits what is read into its [`room`](Self::room) at line feeds.
///
/// A line longer than the limit is passed over while it is read, so that memory stays bounded.
#[derive(Debug)]
pub struct LineSplitter {
    buffer: BytesMut,
    /// Up to here the buffer has been handed out.
    start: usize,
    /// Up to here it is known to hold no line feed.
    scanned: usize,
    limit: usize,
    overlong: Option<Overlong>,
    /// The overlong line that was handed out last.
    finished: Overlong,
}

#[derive(Debug, Default)]
struct Overlong {
    head: Vec<u8>,
    tail: Vec<u8>,
    length: u64,
}

impl LineSplitter {
    /// A splitter for lines of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), start: 0, scanned: 0, limit, overlong: None, finished: Overlong::default() }
    }

    /// The same splitter, with another limit for the lines that follow.
    #[must_use]
    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Where the next bytes of the stream are to be appended. Take all [lines](Self::next_line) out between two reads.
    pub fn room(&mut self) -> &mut BytesMut {
        self.buffer.advance(self.start);
        self.scanned = self.scanned.saturating_sub(self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_SIZE {
            self.buffer = BytesMut::new();
        }
        if self.buffer.capacity() - self.buffer.len() < READ_SIZE / 4 {
            self.buffer.reserve(READ_SIZE.max(self.buffer.len()));
        }
        &mut self.buffer
    }

    /// The next complete line, or `None` when more must be read first.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        let Some(found) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) else {
            self.scanned = self.buffer.len();
            if self.overlong.is_some() || self.scanned - self.start > self.limit {
                self.pass_over(self.scanned);
                self.start = self.scanned;
            }
            return None;
        };
        let end = self.scanned + found;
        let start = self.start;
        if self.overlong.is_some() {
            self.pass_over(end);
        }
        self.start = end + 1;
        self.scanned = self.start;
        Some(self.line(start, end))
    }

    /// What is left when the stream has ended without a line end.
    pub fn finish(&mut self) -> Option<Line<'_>> {
        let (start, end) = (self.start, self.buffer.len());
        if start == end && self.overlong.is_none() {
            return None;
        }
        if self.overlong.is_some() {
            self.pass_over(end);
        }
        self.start = end;
        self.scanned = end;
        Some(self.line(start, end))
    }

    fn line(&mut self, start: usize, end: usize) -> Line<'_> {
        if let Some(overlong) = self.overlong.take() {
            self.finished = overlong;
            return Line::TooLong {
                head: &self.finished.head,
                tail: &self.finished.tail,
                length: self.finished.length,
            };
        }
        let line = &self.buffer[start..end];
        if line.len() > self.limit {
            return Line::TooLong {
                head: &line[..line.len().min(HEAD)],
                tail: &line[line.len().saturating_sub(TAIL)..],
                length: line.len() as u64,
            };
        }
        Line::Whole(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Notes what stands between `start` and `end` as part of a line that is too long.
    fn pass_over(&mut self, end: usize) {
        let piece = &self.buffer[self.start..end];
        let overlong = self.overlong.get_or_insert_default();
        let wanted = HEAD.saturating_sub(overlong.head.len()).min(piece.len());
        overlong.head.extend_from_slice(&piece[..wanted]);
        overlong.tail.extend_from_slice(&piece[piece.len().saturating_sub(TAIL)..]);
        let excess = overlong.tail.len().saturating_sub(TAIL);
        overlong.tail.drain(..excess);
        overlong.length += piece.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, LineSplitter};
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Owned {
        Whole(Vec<u8>),
        TooLong { head: Vec<u8>, tail: Vec<u8>, length: u64 },
    }

    fn own(line: Line<'_>) -> Owned {
        match line {
            Line::Whole(line) => Owned::Whole(line.to_vec()),
            Line::TooLong { head, tail, length } => Owned::TooLong { head: head.to_vec(), tail: tail.to_vec(), length },
        }
    }

    fn split(limit: usize, chunks: &[&[u8]]) -> Vec<Owned> {
        let mut splitter = LineSplitter::new(limit);
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.room().extend_from_slice(chunk);
            while let Some(line) = splitter.next_line() {
                lines.push(own(line));
            }
        }
        lines.extend(splitter.finish().map(own));
        lines
    }

    fn expected(limit: usize, text: &[u8]) -> Vec<Owned> {
        let mut pieces: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        if pieces.last().is_some_and(|last| last.is_empty()) {
            pieces.pop();
        }
        let whole = |line: &[u8]| Owned::Whole(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
        let too_long = |line: &[u8]| Owned::TooLong {
            head: line[..line.len().min(super::HEAD)].to_vec(),
            tail: line[line.len().saturating_sub(super::TAIL)..].to_vec(),
            length: line.len() as u64,
        };
        pieces.into_iter().map(|line| if line.len() > limit { too_long(line) } else { whole(line) }).collect()
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            lines in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\r'), any::<u8>()], 0..40), 0..20),
            cuts in prop::collection::vec(1usize..30, 1..60),
            limit in 1usize..50,
        ) {
            let text = lines.join(&b'\n');
            let mut rest = text.as_slice();
            let mut chunks = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, left) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = left;
            }
            prop_assert_eq!(split(limit, &chunks), expected(limit, &text));
        }
    }

    #[test]
    fn a_line_that_is_too_long_keeps_head_and_tail_and_no_more() {
        let text = [b"{\"id\":7,".as_slice(), &vec![b'x'; 300_000], b"end\nnext\n"].concat();
        let chunks: Vec<&[u8]> = text.chunks(10_000).collect();
        let lines = split(100_000, &chunks);
        let [Owned::TooLong { head, tail, length }, Owned::Whole(next)] = lines.as_slice() else {
            panic!("{} lines", lines.len())
        };
        assert_eq!((head.len(), tail.len(), *length), (1024, 128, 300_011));
        assert!(head.starts_with(b"{\"id\":7") && tail.ends_with(b"end"));
        assert_eq!(next, b"next");
    }
}
