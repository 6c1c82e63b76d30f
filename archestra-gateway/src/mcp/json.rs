//! A strict JSON cursor over borrowed text: it skips, borrows and locates values and never builds a tree.

use std::borrow::Cow;

mod quote;
#[cfg(test)]
pub(crate) mod tests;

pub use quote::{quoted_len, write_quoted};

/// Containers nested deeper than this are refused; whatever passes can still be decoded by `serde_json`.
pub const MAX_DEPTH: u32 = 127;

/// Why a text is not the JSON that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The grammar is violated at this byte.
    #[error("invalid JSON at byte {at}")]
    Syntax {
        /// Offset of the offending byte.
        at: usize,
    },
    /// More than [`MAX_DEPTH`] containers are open at this byte.
    #[error("JSON nested deeper than {MAX_DEPTH} levels at byte {at}")]
    TooDeep {
        /// Offset of the bracket that goes too deep.
        at: usize,
    },
    /// A string that had to be decoded holds half of a surrogate pair.
    #[error("string with an unpaired surrogate at byte {at}")]
    Surrogate {
        /// Offset of the string.
        at: usize,
    },
}

/// A byte range of the message, end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset after the last byte.
    pub end: usize,
}

impl Span {
    /// The range from `start` up to, not including, `end`.
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
}

/// What a JSON value is, told from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
}

/// One value as it stands in the message, not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a> {
    text: &'a str,
    start: usize,
}

impl<'a> Raw<'a> {
    /// A `null` that stands nowhere.
    pub(crate) const NULL: Self = Self { text: "null", start: 0 };

    /// Checks that `text` is exactly one JSON value and wraps it, with spans counted from its first byte.
    ///
    /// # Errors
    /// The text is not one valid JSON value.
    pub fn parse(text: &'a str) -> Result<Self, ScanError> {
        let mut cursor = Cursor::new(text);
        let value = cursor.skip()?;
        cursor.finish()?;
        Ok(value)
    }

    /// The value's text.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.text
    }

    /// The value's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// Where the value stands in the message.
    #[must_use]
    pub const fn span(&self) -> Span {
        Span::new(self.start, self.start + self.text.len())
    }

    /// What the value is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        // A raw value was scanned, so its first byte is one of these.
        kind_of(self.text.as_bytes().first().copied()).unwrap_or(Kind::Null)
    }

    /// Whether the value is `{}` or `[]`.
    #[must_use]
    pub fn is_empty_container(&self) -> bool {
        matches!(self.kind(), Kind::Object | Kind::Array)
            && self.as_bytes()[1..self.text.len() - 1].iter().all(|byte| is_space(*byte))
    }

    /// A cursor over the value whose spans still count from the start of the message.
    #[must_use]
    pub const fn cursor(&self) -> Cursor<'a> {
        Cursor { text: self.text, at: 0, base: self.start, depth: 0 }
    }

    /// The decoded string, or nothing if the value is no string or holds half of a surrogate pair.
    #[must_use]
    pub fn to_text(&self) -> Option<Text<'a>> {
        if self.kind() == Kind::String { self.cursor().text().ok() } else { None }
    }
}

/// A decoded JSON string and where its quoted form stands in the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<'a> {
    /// The decoded text; borrowed unless it contains escapes.
    pub value: Cow<'a, str>,
    /// The range of the string with its quotes.
    pub span: Span,
}

/// Progress through one object's members, between [`Cursor::open_object`] and the closing brace.
#[derive(Debug, Clone, Copy)]
pub struct Members {
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    Later,
}

/// A position in a JSON text.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    base: usize,
    depth: u32,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `text`.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self { text, at: 0, base: 0, depth: 0 }
    }

    /// What the next value is, or nothing where no value can start.
    pub fn kind(&mut self) -> Option<Kind> {
        self.space();
        kind_of(self.peek())
    }

    /// The offset of the next byte that is not white space.
    pub fn offset(&mut self) -> usize {
        self.space();
        self.base + self.at
    }

    /// Passes over one value of any kind and returns it undecoded.
    ///
    /// # Errors
    /// The value is malformed or nested too deeply.
    pub fn skip(&mut self) -> Result<Raw<'a>, ScanError> {
        self.space();
        let start = self.at;
        // One bit per open container, set for objects; `MAX_DEPTH` fits.
        let mut stack: u128 = 0;
        let mut open: u32 = 0;
        'value: loop {
            match self.peek() {
                Some(b'"') => {
                    self.skip_string()?;
                }
                Some(bracket @ (b'{' | b'[')) => {
                    if self.depth + open >= MAX_DEPTH {
                        return Err(ScanError::TooDeep { at: self.base + self.at });
                    }
                    self.at += 1;
                    self.space();
                    let object = bracket == b'{';
                    if self.peek() == Some(if object { b'}' } else { b']' }) {
                        self.at += 1;
                    } else {
                        stack = (stack << 1) | u128::from(object);
                        open += 1;
                        if object {
                            self.skip_key()?;
                        }
                        continue 'value;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.skip_number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.syntax()),
            }
            while open > 0 {
                self.space();
                let object = stack & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.space();
                        if object {
                            self.skip_key()?;
                        }
                        continue 'value;
                    }
                    Some(b'}') if object => self.at += 1,
                    Some(b']') if !object => self.at += 1,
                    _ => return Err(self.syntax()),
                }
                stack >>= 1;
                open -= 1;
            }
            return Ok(Raw { text: &self.text[start..self.at], start: self.base + start });
        }
    }

    /// Reads and decodes one string.
    ///
    /// # Errors
    /// The next value is no string, or holds half of a surrogate pair.
    pub fn text(&mut self) -> Result<Text<'a>, ScanError> {
        self.space();
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        let plain = self.skip_string()?;
        let quoted = &self.text[start..self.at];
        let value = match plain {
            Escapes::None => Cow::Borrowed(&quoted[1..quoted.len() - 1]),
            Escapes::Some => {
                Cow::Owned(serde_json::from_str(quoted).map_err(|_| ScanError::Surrogate { at: self.base + start })?)
            }
        };
        Ok(Text { value, span: Span::new(self.base + start, self.base + self.at) })
    }

    /// Enters an object.
    ///
    /// # Errors
    /// The next value is no object, or it is nested too deeply.
    pub fn open_object(&mut self) -> Result<Members, ScanError> {
        self.space();
        if self.peek() != Some(b'{') {
            return Err(self.syntax());
        }
        if self.depth >= MAX_DEPTH {
            return Err(ScanError::TooDeep { at: self.base + self.at });
        }
        self.at += 1;
        self.depth += 1;
        Ok(Members { place: Place::First })
    }

    /// Reads the next key and stops before its value, which the caller must consume; nothing after the closing brace.
    ///
    /// # Errors
    /// The object is malformed here.
    pub fn next_key(&mut self, members: &mut Members) -> Result<Option<Text<'a>>, ScanError> {
        self.space();
        match (self.peek(), members.place) {
            (Some(b'}'), _) => {
                self.at += 1;
                self.depth -= 1;
                return Ok(None);
            }
            (Some(b','), Place::Later) => self.at += 1,
            (Some(b'"'), Place::First) => members.place = Place::Later,
            _ => return Err(self.syntax()),
        }
        let key = self.text()?;
        self.colon()?;
        Ok(Some(key))
    }

    /// Checks that nothing but white space is left.
    ///
    /// # Errors
    /// Something is left.
    pub fn finish(&mut self) -> Result<(), ScanError> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.syntax()) }
    }

    /// What lies between this position's next value and where `later`, which went on from here, has come to.
    pub(crate) fn until(mut self, later: &Self) -> Raw<'a> {
        self.space();
        Raw { text: &self.text[self.at..later.at], start: self.base + self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn syntax(&self) -> ScanError {
        ScanError::Syntax { at: self.base + self.at }
    }

    fn space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn colon(&mut self) -> Result<(), ScanError> {
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.syntax());
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn skip_key(&mut self) -> Result<(), ScanError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        self.skip_string()?;
        self.colon()
    }

    fn skip_string(&mut self) -> Result<Escapes, ScanError> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        let mut escapes = Escapes::None;
        loop {
            self.at = end_of_plain(bytes, self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escapes);
                }
                Some(b'\\') => {
                    escapes = Escapes::Some;
                    match bytes.get(self.at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
                        Some(b'u') if is_hex4(bytes.get(self.at + 2..self.at + 6)) => self.at += 6,
                        _ => return Err(self.syntax()),
                    }
                }
                _ => return Err(self.syntax()),
            }
        }
    }

    fn skip_number(&mut self) -> Result<(), ScanError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.syntax()) } else { Ok(()) }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), ScanError> {
        if !self.text.as_bytes()[self.at..].starts_with(word) {
            return Err(self.syntax());
        }
        self.at += word.len();
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Escapes {
    None,
    Some,
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_hex4(digits: Option<&[u8]>) -> bool {
    digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

const fn kind_of(first: Option<u8>) -> Option<Kind> {
    match first {
        Some(b'{') => Some(Kind::Object),
        Some(b'[') => Some(Kind::Array),
        Some(b'"') => Some(Kind::String),
        Some(b'-' | b'0'..=b'9') => Some(Kind::Number),
        Some(b't') => Some(Kind::True),
        Some(b'f') => Some(Kind::False),
        Some(b'n') => Some(Kind::Null),
        _ => None,
    }
}

/// The offset of the first quote, backslash or control character at or after `at`, eight bytes at a time.
fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let hits = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let hits = hits & HIGHS;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            break;
        }
        at += 1;
    }
    at
}
