//! What the fuzz targets share: cutting inputs into pieces, and judging JSON by another reader.

use serde_json::value::RawValue;

/// Cuts the first byte off an input, for a target to choose by.
#[must_use]
pub fn choose(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(first, rest)| (*first, rest))
}

/// Cuts bytes into chunks of changing sizes, which `seed` decides: what a network does.
#[must_use]
pub fn chunks(bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed) | 1;
    let mut rest = bytes;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let longest = if seed & 1 == 0 { 4 } else { 64 };
        let size = ((state >> 16) as usize % longest + 1).min(rest.len());
        let (chunk, left) = rest.split_at(size);
        chunks.push(chunk);
        rest = left;
    }
    chunks
}

/// Whether `serde_json` takes these bytes for one JSON value.
#[must_use]
pub fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

/// Panics unless `serde_json` takes these bytes for one JSON value.
///
/// # Panics
/// They are none.
pub fn assert_json(bytes: &[u8]) {
    assert!(is_json(bytes), "not JSON: {}", String::from_utf8_lossy(bytes));
}
