//! Header values that may hold any text, by way of the Base64 sentinel.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

const PREFIX: &str = "=?base64?";
const SUFFIX: &str = "?=";

/// Reads a value as it came in a header; nothing if the sentinel wraps what is not Base64 of UTF-8.
#[must_use]
pub fn decode_value(value: &str) -> Option<Cow<'_, str>> {
    match value.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)) {
        Some(wrapped) => String::from_utf8(STANDARD.decode(wrapped).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(value)),
    }
}

/// Writes any text as a header value, wrapped where it could not travel bare.
#[must_use]
pub fn encode_value(value: &str) -> HeaderValue {
    let bare = if travels_bare(value) { HeaderValue::from_str(value).ok() } else { None };
    bare.unwrap_or_else(|| {
        HeaderValue::from_str(&format!("{PREFIX}{}{SUFFIX}", STANDARD.encode(value)))
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    })
}

fn travels_bare(value: &str) -> bool {
    let padded = value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']);
    let wrapped = value.starts_with(PREFIX) && value.ends_with(SUFFIX);
    !padded && !wrapped && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}
