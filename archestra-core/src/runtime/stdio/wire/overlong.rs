//! Which request a line answers that is too long to be kept.

/// The number in a line's top-level `id`, as far as head and tail of a line that is too long tell.
///
/// Servers write the id near the beginning or as one of the last two keys.
#[must_use]
pub fn id_of_overlong(head: &[u8], tail: &[u8]) -> Option<u64> {
    id_in_head(head).or_else(|| id_in_tail(tail))
}

/// Follows top-level keys with scalar values until `id`.
fn id_in_head(head: &[u8]) -> Option<u64> {
    let mut rest = head.trim_ascii_start().strip_prefix(b"{")?;
    loop {
        rest = rest.trim_ascii_start().strip_prefix(b"\"")?;
        let (key, after) = rest.split_at_checked(memchr::memchr(b'"', rest)?)?;
        let value = after.strip_prefix(b"\"")?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let end = if let Some(text) = value.strip_prefix(b"\"") {
            memchr::memchr(b'"', text)? + 2
        } else {
            value.iter().position(|byte| matches!(byte, b',' | b'}' | b'{' | b'['))?
        };
        let (value, after) = value.split_at_checked(end)?;
        if key.contains(&b'\\') || value.contains(&b'\\') {
            return None;
        }
        if key == b"id" {
            return std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok();
        }
        rest = after.trim_ascii_start().strip_prefix(b",")?;
    }
}

/// Reads `"id":N}` or `"id":N,"jsonrpc":"2.0"}` at the very end: only the outermost object can end there.
fn id_in_tail(tail: &[u8]) -> Option<u64> {
    let object = tail.trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end();
    let fields = object.strip_suffix(b"\"2.0\"").map_or(Some(object), |rest| {
        let key = rest.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
        key.strip_suffix(b"\"jsonrpc\"")?.trim_ascii_end().strip_suffix(b",").map(<[u8]>::trim_ascii_end)
    })?;
    let digits = fields.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, number) = fields.split_at_checked(fields.len() - digits)?;
    let key = before.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end().strip_suffix(b"\"id\"")?;
    let opens = matches!(key.trim_ascii_end().last(), Some(b',' | b'{'));
    opens.then(|| std::str::from_utf8(number).ok()?.parse().ok()).flatten()
}
