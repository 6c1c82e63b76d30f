//! Header values that may hold any text: what is written comes back, in characters that every proxy passes on.
#![no_main]

use archestra_gateway::mcp::headers::{decode_value, encode_value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let value = encode_value(text);
    let written = value.to_str().expect("visible ASCII");
    assert_eq!(written.trim(), written, "blanks at either end would be lost on the way");
    assert_eq!(decode_value(written).as_deref(), Some(text));
    if let Some(decoded) = decode_value(text) {
        let again = encode_value(&decoded);
        assert_eq!(decode_value(again.to_str().expect("visible ASCII")), Some(decoded));
    }
});
