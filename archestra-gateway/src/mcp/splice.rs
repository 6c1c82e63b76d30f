//! Byte-range edits on a message, applied together in one copy.

use bytes::{BufMut, Bytes, BytesMut};

use super::json::{Raw, ScanError, Span, quoted_len, write_quoted};

mod request;
#[cfg(test)]
mod tests;

pub use request::{MetaEdit, ModernMeta, RequestEdits, TokenEdit};

/// Why edits could not be applied. Either is a mistake of the caller, never of the message's sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpliceError {
    /// Two edits change the same bytes.
    #[error("edits overlap at byte {at}")]
    Overlap {
        /// Where.
        at: usize,
    },
    /// An edit lies outside of the message, which therefore is another one than was parsed.
    #[error("edit outside of the message at byte {at}")]
    OutOfBounds {
        /// Where.
        at: usize,
    },
    /// A member to be replaced is not in the message.
    #[error("`{key}` is not in the message")]
    Absent {
        /// The member.
        key: &'static str,
    },
    /// An object to be edited cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// Text that an edit puts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'e> {
    /// JSON text, as it is.
    Raw(&'e str),
    /// A string, which is quoted and escaped.
    Quoted(&'e str),
    /// A number, such as an id of the gateway's own.
    Number(u64),
}

impl Piece<'_> {
    fn len(self) -> usize {
        match self {
            Self::Raw(text) => text.len(),
            Self::Quoted(text) => quoted_len(text),
            Self::Number(number) => number.checked_ilog10().unwrap_or(0) as usize + 1,
        }
    }

    pub(crate) fn write(self, out: &mut BytesMut) {
        match self {
            Self::Raw(text) => out.put_slice(text.as_bytes()),
            Self::Quoted(text) => write_quoted(out, text),
            Self::Number(number) => write_number(out, number),
        }
    }
}

fn write_number(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// A member to be put into an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'e> {
    /// The key, not yet quoted.
    pub key: &'e str,
    /// The value.
    pub value: Piece<'e>,
}

/// Collected edits of one message.
#[derive(Debug, Clone, Default)]
pub struct Splice<'e> {
    edits: Vec<Edit<'e>>,
}

#[derive(Debug, Clone, Copy)]
struct Edit<'e> {
    at: Span,
    with: Piece<'e>,
}

/// What follows members that are put in at the start of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    Members,
}

impl<'e> Splice<'e> {
    /// No edits.
    #[must_use]
    pub const fn new() -> Self {
        Self { edits: Vec::new() }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Puts `with` in place of `at`.
    pub fn replace(&mut self, at: Span, with: Piece<'e>) {
        if self.edits.is_empty() {
            // A typical rewrite has fewer edits than this.
            self.edits.reserve(16);
        }
        self.edits.push(Edit { at, with });
    }

    /// Puts `with` in before the byte at `at`; several at one place keep their order.
    pub fn insert(&mut self, at: usize, with: Piece<'e>) {
        self.replace(Span::new(at, at), with);
    }

    /// Takes `at` out.
    pub fn remove(&mut self, at: Span) {
        self.replace(at, Piece::Raw(""));
    }

    /// Puts members in at the start of `object`, whose present members all stay.
    pub fn insert_members(&mut self, object: Raw<'_>, members: &[Member<'e>]) {
        let rest = if object.is_empty_container() { Rest::Nothing } else { Rest::Members };
        self.put_members(object.span().start + 1, members, rest);
    }

    /// Takes the members whose keys `unwanted` names out of `object`, and puts `members` in at its start.
    ///
    /// # Errors
    /// `object` is no object.
    pub fn edit_members(
        &mut self,
        object: Raw<'_>,
        mut unwanted: impl FnMut(&str) -> bool,
        members: &[Member<'e>],
    ) -> Result<(), SpliceError> {
        let mut cursor = object.cursor();
        let mut open = cursor.open_object()?;
        let mut cuts = Cuts::default();
        while let Some(key) = cursor.next_key(&mut open)? {
            let member = Span::new(key.span.start, cursor.skip()?.span().end);
            let cut = if unwanted(&key.value) { cuts.drop_member(member) } else { cuts.keep_member(member) };
            if let Some(cut) = cut {
                self.remove(cut);
            }
        }
        let rest = cuts.rest();
        if let Some(cut) = cuts.finish() {
            self.remove(cut);
        }
        self.put_members(object.span().start + 1, members, rest);
        Ok(())
    }

    pub(crate) fn put_members(&mut self, at: usize, members: &[Member<'e>], rest: Rest) {
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                self.insert(at, Piece::Raw(","));
            }
            self.insert(at, Piece::Quoted(member.key));
            self.insert(at, Piece::Raw(":"));
            self.insert(at, member.value);
        }
        if rest == Rest::Members && !members.is_empty() {
            self.insert(at, Piece::Raw(","));
        }
    }

    /// The edited message: `message` itself if there are no edits, else a copy of exactly the needed size.
    ///
    /// # Errors
    /// The edits overlap or do not fit the message.
    pub fn apply(mut self, message: &Bytes) -> Result<Bytes, SpliceError> {
        if self.edits.is_empty() {
            return Ok(message.clone());
        }
        // Insertions come before what is replaced at the same place; the sort is stable.
        self.edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
        let mut size = message.len();
        let mut done = 0;
        for edit in &self.edits {
            if edit.at.start < done {
                return Err(SpliceError::Overlap { at: edit.at.start });
            }
            if edit.at.end < edit.at.start || edit.at.end > message.len() {
                return Err(SpliceError::OutOfBounds { at: edit.at.end });
            }
            done = edit.at.end;
            size = size + edit.with.len() - (edit.at.end - edit.at.start);
        }
        let mut out = BytesMut::with_capacity(size);
        let mut done = 0;
        for edit in &self.edits {
            out.put_slice(&message[done..edit.at.start]);
            edit.with.write(&mut out);
            done = edit.at.end;
        }
        out.put_slice(&message[done..]);
        debug_assert_eq!(out.len(), size, "the size was computed from the same edits");
        Ok(out.freeze())
    }
}

/// Finds the ranges to cut so that the commas of an object stay right, from its members in order.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cuts {
    /// The start of a run of dropped members that no kept one precedes.
    leading: Option<usize>,
    /// The end of the member before, dropped or kept.
    previous: usize,
    kept: bool,
}

impl Cuts {
    pub(crate) const fn keep_member(&mut self, member: Span) -> Option<Span> {
        self.kept = true;
        self.previous = member.end;
        match self.leading.take() {
            Some(start) => Some(Span::new(start, member.start)),
            None => None,
        }
    }

    pub(crate) const fn drop_member(&mut self, member: Span) -> Option<Span> {
        let before = self.previous;
        self.previous = member.end;
        if self.kept {
            return Some(Span::new(before, member.end));
        }
        if self.leading.is_none() {
            self.leading = Some(member.start);
        }
        None
    }

    pub(crate) const fn rest(&self) -> Rest {
        if self.kept { Rest::Members } else { Rest::Nothing }
    }

    pub(crate) const fn finish(self) -> Option<Span> {
        match self.leading {
            Some(start) => Some(Span::new(start, self.previous)),
            None => None,
        }
    }
}
