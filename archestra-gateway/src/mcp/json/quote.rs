//! Writing text as a JSON string.

use bytes::{BufMut, BytesMut};

/// Appends `text` as a JSON string, quotes included.
pub fn write_quoted(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    let mut done = 0;
    for (at, byte) in text.bytes().enumerate() {
        let Some(escape) = escape_of(byte) else { continue };
        out.put_slice(&text.as_bytes()[done..at]);
        done = at + 1;
        match escape {
            Escape::Short(letter) => out.put_slice(&[b'\\', letter]),
            Escape::Unicode => {
                out.put_slice(&[b'\\', b'u', b'0', b'0', hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
            }
        }
    }
    out.put_slice(&text.as_bytes()[done..]);
    out.put_u8(b'"');
}

/// How many bytes [`write_quoted`] appends for `text`.
#[must_use]
pub fn quoted_len(text: &str) -> usize {
    let extra: usize = text
        .bytes()
        .map(|byte| match escape_of(byte) {
            None => 0,
            Some(Escape::Short(_)) => 1,
            Some(Escape::Unicode) => 5,
        })
        .sum();
    text.len() + extra + 2
}

enum Escape {
    Short(u8),
    Unicode,
}

const fn escape_of(byte: u8) -> Option<Escape> {
    match byte {
        b'"' | b'\\' => Some(Escape::Short(byte)),
        b'\n' => Some(Escape::Short(b'n')),
        b'\r' => Some(Escape::Short(b'r')),
        b'\t' => Some(Escape::Short(b't')),
        0..0x20 => Some(Escape::Unicode),
        _ => None,
    }
}

const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}
