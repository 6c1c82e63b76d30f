//! Key files: what is read is written back the same, what was sealed opens, and no error repeats a key.
#![no_main]

use archestra_core::secret::{KeyRing, Purpose};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let ring = match KeyRing::parse(text) {
        Ok(ring) => ring,
        Err(error) => {
            let shown = format!("{error} {error:?}");
            let keys = text.split_whitespace().filter(|word| word.len() >= 40 && word.bytes().all(is_base64));
            keys.for_each(|key| assert!(!shown.contains(key), "a key is in an error"));
            return;
        }
    };
    let again = KeyRing::parse(&ring.to_text()).expect("what we write we read");
    assert_eq!(again.newest(), ring.newest());
    assert_eq!(again.fingerprint(), ring.fingerprint());
    assert!(again.ids().eq(ring.ids()));
    let sealed = ring.derive(Purpose::Secrets).seal(b"plain", b"context").expect("random bytes");
    let opener = again.derive(Purpose::Secrets);
    assert_eq!(**opener.open(&sealed.key, &sealed.bytes, b"context").expect("the same ring"), *b"plain");
    assert!(opener.open(&sealed.key, &sealed.bytes, b"another").is_err());
    assert!(opener.open(&sealed.key, text.as_bytes(), b"context").is_err());
});

const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}
