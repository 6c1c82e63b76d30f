//! Judges a response body while it streams by: success, tool error or protocol error, without keeping any of it.

use memchr::memchr2;

#[cfg(test)]
mod tests;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// One JSON message.
    Json,
    /// Server-sent events, each with a JSON message as data.
    EventStream,
}

/// How the call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A result that is not marked as an error.
    Success,
    /// A result with `isError: true`.
    ToolError,
    /// A JSON-RPC error.
    ProtocolError,
    /// The body held no complete response.
    Missing,
}

/// Reads a body chunk by chunk.
#[derive(Debug, Clone)]
pub struct OutcomeScanner {
    format: BodyFormat,
    json: JsonScan,
    lines: LineScan,
    last: Outcome,
}

impl OutcomeScanner {
    /// A scanner at the start of a body.
    #[must_use]
    pub const fn new(format: BodyFormat) -> Self {
        Self { format, json: JsonScan::new(), lines: LineScan::new(), last: Outcome::Missing }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, chunk: &[u8]) {
        match self.format {
            BodyFormat::Json => self.json.push(chunk),
            BodyFormat::EventStream => self.push_events(chunk),
        }
    }

    /// What the body said; of several responses the last one counts.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        self.end_message();
        self.last
    }

    fn end_message(&mut self) {
        if let Some(outcome) = self.json.outcome() {
            self.last = outcome;
        }
        self.json = JsonScan::new();
    }

    fn push_events(&mut self, mut chunk: &[u8]) {
        while let Some(&byte) = chunk.first() {
            if self.lines.state == Line::Data {
                // The bulk of a body: everything up to the end of this line is JSON.
                let end = memchr2(b'\n', b'\r', chunk).unwrap_or(chunk.len());
                self.json.push(&chunk[..end]);
                chunk = &chunk[end..];
                if !chunk.is_empty() {
                    // Data lines are joined by line feeds, which are white space to JSON.
                    self.json.push(b"\n");
                    self.lines.state = Line::Ended;
                }
                continue;
            }
            if self.lines.state == Line::Other {
                let end = memchr2(b'\n', b'\r', chunk).unwrap_or(chunk.len());
                chunk = &chunk[end..];
                if !chunk.is_empty() {
                    self.lines.state = Line::Ended;
                }
                continue;
            }
            chunk = &chunk[1..];
            if self.lines.step(byte) == Step::EndOfEvent {
                self.end_message();
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Within,
    EndOfEvent,
}

/// Where in a line of an event stream the scanner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// At the first line, of which so many bytes may be a byte order mark.
    Mark(u8),
    /// So many bytes into the field name, all of them like `data`.
    Field(u8),
    /// After `data:`; a space before the value is white space to JSON too.
    Data,
    /// In a line of no interest.
    Other,
    /// At the line ending of a line that had content.
    Ended,
}

#[derive(Debug, Clone)]
struct LineScan {
    state: Line,
    after_cr: bool,
}

impl LineScan {
    const fn new() -> Self {
        Self { state: Line::Mark(0), after_cr: false }
    }

    /// Takes one byte of a field name or line ending.
    fn step(&mut self, byte: u8) -> Step {
        let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
        if after_cr && byte == b'\n' {
            return Step::Within;
        }
        if matches!(byte, b'\r' | b'\n') {
            let empty = matches!(self.state, Line::Field(0) | Line::Mark(0 | 3));
            self.state = Line::Field(0);
            return if empty { Step::EndOfEvent } else { Step::Within };
        }
        self.state = match (self.state, byte) {
            (Line::Mark(0), 0xef) => Line::Mark(1),
            (Line::Mark(1), 0xbb) => Line::Mark(2),
            (Line::Mark(2), 0xbf) => Line::Mark(3),
            (Line::Mark(0 | 3) | Line::Field(0), b'd') => Line::Field(1),
            (Line::Field(1), b'a') => Line::Field(2),
            (Line::Field(2), b't') => Line::Field(3),
            (Line::Field(3), b'a') => Line::Field(4),
            (Line::Field(4), b':') => Line::Data,
            _ => Line::Other,
        };
        Step::Within
    }
}

/// A key at the two levels that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Method,
    Result,
    Error,
    IsError,
    Other,
}

/// What a string is and how far into it the scanner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// Not in a string.
    Outside,
    /// In its plain part.
    Plain,
    /// After a backslash.
    Escape,
    /// So many hexadecimal digits are still to come.
    Unicode { left: u8, value: u16 },
}

/// Follows one JSON message.
#[derive(Debug, Clone)]
struct JsonScan {
    depth: u32,
    text: Text,
    /// Whether the string being read is a key at a level that matters.
    is_key: bool,
    /// Whether the next string at this place is a key.
    key_next: bool,
    /// Whether the next token is the value of `key`.
    value_next: bool,
    /// Whether the message is an object.
    object: bool,
    /// Whether the scanner is inside of the `result` object.
    in_result: bool,
    complete: bool,
    key: Key,
    name: Name,
    has_method: bool,
    has_result: bool,
    has_error: bool,
    is_error: bool,
}

/// The start of a decoded key; the keys that matter are shorter than this.
#[derive(Debug, Clone, Copy)]
struct Name {
    bytes: [u8; 8],
    len: u8,
}

impl Name {
    const EMPTY: Self = Self { bytes: [0; 8], len: 0 };

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(usize::from(self.len)) {
            *slot = byte;
            self.len += 1;
        } else {
            self.len = 9;
        }
    }

    fn spoil(&mut self) {
        self.len = 9;
    }

    fn key(&self) -> Key {
        match self.bytes.get(..usize::from(self.len)) {
            Some(b"method") => Key::Method,
            Some(b"result") => Key::Result,
            Some(b"error") => Key::Error,
            Some(b"isError") => Key::IsError,
            _ => Key::Other,
        }
    }
}

impl JsonScan {
    const fn new() -> Self {
        Self {
            depth: 0,
            text: Text::Outside,
            is_key: false,
            key_next: false,
            value_next: false,
            object: false,
            in_result: false,
            complete: false,
            key: Key::Other,
            name: Name::EMPTY,
            has_method: false,
            has_result: false,
            has_error: false,
            is_error: false,
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        if !self.complete || self.has_method {
            return None;
        }
        match (self.has_error, self.has_result, self.is_error) {
            (true, _, _) => Some(Outcome::ProtocolError),
            (false, true, true) => Some(Outcome::ToolError),
            (false, true, false) => Some(Outcome::Success),
            (false, false, _) => None,
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        let mut at = 0;
        while at < chunk.len() {
            match self.text {
                Text::Outside => {
                    self.structural(chunk[at]);
                    at += 1;
                }
                Text::Plain => {
                    let end = memchr2(b'"', b'\\', &chunk[at..]).map_or(chunk.len(), |found| at + found);
                    if self.is_key {
                        chunk[at..end].iter().for_each(|byte| self.name.push(*byte));
                    }
                    at = end;
                    match chunk.get(at) {
                        Some(b'"') => self.end_text(),
                        Some(_) => self.text = Text::Escape,
                        None => {}
                    }
                    at += 1;
                }
                Text::Escape => {
                    self.escape(chunk[at]);
                    at += 1;
                }
                Text::Unicode { left, value } => {
                    let digit = char::from(chunk[at]).to_digit(16).unwrap_or(0) as u16;
                    let value = (value << 4) | digit;
                    self.text = if left > 1 { Text::Unicode { left: left - 1, value } } else { self.unicode(value) };
                    at += 1;
                }
            }
        }
    }

    fn structural(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.is_key = std::mem::take(&mut self.key_next);
                self.name = Name::EMPTY;
                self.text = Text::Plain;
                self.value(byte);
            }
            b'{' | b'[' => {
                self.value(byte);
                self.depth += 1;
                let object = byte == b'{';
                match self.depth {
                    1 => {
                        self.object = object;
                        self.key_next = object;
                    }
                    2 => {
                        self.in_result = object && self.object && self.key == Key::Result;
                        self.key_next = self.in_result;
                    }
                    _ => {}
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.key_next = false;
                match self.depth {
                    0 => self.complete = self.object,
                    1 => self.in_result = false,
                    _ => {}
                }
            }
            b',' => self.key_next = self.matters(),
            b':' => self.value_next = self.matters(),
            b' ' | b'\t' | b'\n' | b'\r' => {}
            literal => self.value(literal),
        }
    }

    const fn matters(&self) -> bool {
        (self.depth == 1 && self.object) || (self.depth == 2 && self.in_result)
    }

    /// The first byte of a value.
    fn value(&mut self, first: u8) {
        if !std::mem::take(&mut self.value_next) {
            return;
        }
        match (self.depth, self.key) {
            (1, Key::Method) => self.has_method = true,
            (1, Key::Result) => {
                self.has_result = true;
                self.is_error = false;
            }
            (1, Key::Error) => self.has_error = first != b'n',
            (2, Key::IsError) => self.is_error = first == b't',
            _ => {}
        }
    }

    fn escape(&mut self, letter: u8) {
        if letter == b'u' {
            self.text = Text::Unicode { left: 4, value: 0 };
            return;
        }
        // No key that matters contains a character that has a short escape.
        self.name.spoil();
        self.text = Text::Plain;
    }

    fn unicode(&mut self, value: u16) -> Text {
        match u8::try_from(value) {
            Ok(byte) if byte.is_ascii() => self.name.push(byte),
            _ => self.name.spoil(),
        }
        Text::Plain
    }

    fn end_text(&mut self) {
        self.text = Text::Outside;
        if std::mem::take(&mut self.is_key) {
            self.key = self.name.key();
        }
    }
}
