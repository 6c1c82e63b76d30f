//! A JSON-RPC id or progress token as it was written, small ones without an allocation.

const INLINE: usize = 22;

/// The JSON text of an id or token.
#[derive(Clone)]
pub(super) enum RawId {
    Inline { length: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl RawId {
    pub(super) fn new(text: &str) -> Self {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(text.as_bytes());
                Self::Inline { length, bytes }
            }
            _ => Self::Heap(text.as_bytes().into()),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Self::Heap(bytes) => bytes,
        }
    }

    /// Whether it is the same value as `text`: strings may be escaped differently.
    pub(super) fn is(&self, text: &str) -> bool {
        let own = self.as_bytes();
        let decoded = |text: &[u8]| serde_json::from_slice::<String>(text).ok();
        own == text.as_bytes()
            || (own.starts_with(b"\"") && text.starts_with('"') && decoded(own) == decoded(text.as_bytes()))
    }
}

impl std::fmt::Debug for RawId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

/// A number's decimal digits, without an allocation.
pub(super) struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    pub(super) fn new(mut number: u64) -> Self {
        let mut bytes = [b'0'; 20];
        let mut start = bytes.len();
        loop {
            start -= 1;
            bytes[start] = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
            if number == 0 {
                return Self { bytes, start };
            }
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::{Digits, RawId};

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 7, 10, 99, 1_048_576, u64::from(u32::MAX) << 20, u64::MAX] {
            assert_eq!(Digits::new(number).as_bytes(), number.to_string().as_bytes());
        }
    }

    #[test]
    fn ids_of_any_length_are_kept_and_compared_by_value() {
        for text in ["1", "\"abc\"", "1234567890123456789012", "12345678901234567890123", &"9".repeat(500)] {
            assert_eq!(RawId::new(text).as_bytes(), text.as_bytes());
        }
        assert!(RawId::new("\"a\\u0062\"").is("\"ab\""));
        assert!(!RawId::new("\"1\"").is("1"));
    }
}
