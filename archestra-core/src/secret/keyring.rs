//! The key ring: versioned master keys from which everything that must be sealed derives its own key by HKDF-SHA256.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac, rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{collections::BTreeMap, fmt, str::FromStr};
use zeroize::Zeroizing;

const MASTER_LEN: usize = 32;
/// The same in base64.
const ENCODED_LEN: usize = MASTER_LEN.div_ceil(3) * 4;

/// Names a master key. Short, public, stored beside everything it sealed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = KeyRingError;

    fn from_str(text: &str) -> Result<Self, KeyRingError> {
        let fits =
            (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits { Ok(Self(text.to_owned())) } else { Err(KeyRingError::KeyId(text.to_owned())) }
    }
}

/// What a derived key is for. Keys for different purposes are unrelated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Secrets in the database.
    Secrets,
    /// Session ids of legacy clients.
    Sessions,
    /// `requestState` of multi-round requests.
    RequestState,
    /// Browser cookies.
    Cookies,
    /// Requests from replica to replica.
    Peers,
    /// Pagination cursors.
    Cursors,
    /// Digests that tell whether secret values have changed, where others can see them.
    Digests,
    /// Refresh tokens, each of which follows from the one before.
    RefreshTokens,
}

impl Purpose {
    const fn info(self) -> &'static [u8] {
        match self {
            Self::Secrets => b"archestra/secrets/v1",
            Self::Sessions => b"archestra/sessions/v1",
            Self::RequestState => b"archestra/request-state/v1",
            Self::Cookies => b"archestra/cookies/v1",
            Self::Peers => b"archestra/peers/v1",
            Self::Cursors => b"archestra/cursors/v1",
            Self::Digests => b"archestra/digests/v1",
            Self::RefreshTokens => b"archestra/refresh-tokens/v1",
        }
    }
}

/// Why a key ring cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// A key id is not 1 to 32 of `[A-Za-z0-9_-]`.
    #[error("{0:?} is not a key id: use 1 to 32 letters, digits, '-' or '_'")]
    KeyId(String),
    /// A line of the key file is not `<id> <base64 of 32 bytes>`.
    #[error("line {line} of the key file is not `<key id> <base64 of 32 random bytes>`")]
    Line {
        /// Which line, from 1.
        line: usize,
    },
    /// A line holds a key that somebody else's key wraps.
    #[error("line {line} of the key file holds a key that a transit key of Vault wraps: name that transit key")]
    Wrapped {
        /// Which line, from 1.
        line: usize,
    },
    /// Two lines have the same id.
    #[error("key id {0} is in the key file twice")]
    Duplicate(KeyId),
    /// The file has no key.
    #[error("the key file holds no key")]
    Empty,
    /// Something was sealed under a key that this ring lacks.
    #[error("the key ring lacks key {0}: add the key file line it was made with")]
    Missing(KeyId),
    /// The sealed bytes were changed, cut, or sealed for something else.
    #[error("sealed data cannot be opened: it was changed, or belongs to something else")]
    Sealed,
    /// The operating system gives no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
}

/// Bytes sealed under one key of a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The key they need.
    pub key: KeyId,
    /// Nonce, ciphertext and tag.
    pub bytes: Vec<u8>,
}

/// Master keys, the newest first. The same ring must be on every replica.
///
/// The text form has one line per key, `<key id> <base64 of 32 bytes>`, newest first; blank lines and lines that start with
/// `#` are skipped. To rotate, put a new line on top and keep the old ones until nothing is sealed under them.
pub struct KeyRing {
    newest: KeyId,
    masters: BTreeMap<KeyId, Zeroizing<[u8; MASTER_LEN]>>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("newest", &self.newest)
            .field("keys", &self.masters.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl KeyRing {
    /// A ring with one new random key.
    ///
    /// # Errors
    /// [`KeyRingError::Random`].
    pub fn generate() -> Result<Self, KeyRingError> {
        let mut master = Zeroizing::new([0; MASTER_LEN]);
        rand::fill(&mut master[..]).map_err(|_| KeyRingError::Random)?;
        let newest = KeyId(uuid::Uuid::now_v7().simple().to_string());
        Ok(Self { masters: BTreeMap::from([(newest.clone(), master)]), newest })
    }

    /// Reads the text form. Keys that are wrapped by a transit key of Vault, `vault:v1:…`, have to be unwrapped before.
    ///
    /// # Errors
    /// [`KeyRingError`], naming the line; never any of its content.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut newest = None;
        let mut masters = BTreeMap::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || KeyRingError::Line { line: n + 1 };
            let (id, key) = line.split_once(char::is_whitespace).ok_or_else(bad)?;
            let id: KeyId = id.parse().map_err(|_| bad())?;
            if key.trim_start().starts_with("vault:") {
                return Err(KeyRingError::Wrapped { line: n + 1 });
            }
            // The decoder wants room for what the text could hold at most.
            let mut bytes = Zeroizing::new([0; MASTER_LEN + 4]);
            let length = STANDARD.decode_slice(key.trim(), &mut bytes[..]).map_err(|_| bad())?;
            let master = Zeroizing::new(<[u8; MASTER_LEN]>::try_from(&bytes[..length]).map_err(|_| bad())?);
            newest.get_or_insert_with(|| id.clone());
            if masters.insert(id.clone(), master).is_some() {
                return Err(KeyRingError::Duplicate(id));
            }
        }
        Ok(Self { newest: newest.ok_or(KeyRingError::Empty)?, masters })
    }

    /// The text form, to be written to a file that only its owner can read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut ids: Vec<_> = self.masters.keys().filter(|id| **id != self.newest).collect();
        ids.insert(0, &self.newest);
        // Of one length from the start: what grows leaves copies behind.
        let length = ids.iter().map(|id| id.as_str().len() + ENCODED_LEN + 2).sum();
        let mut text = Zeroizing::new(String::with_capacity(length));
        for id in ids {
            let encoded = Zeroizing::new(STANDARD.encode(&self.masters[id][..]));
            text.push_str(id.as_str());
            text.push(' ');
            text.push_str(&encoded);
            text.push('\n');
        }
        text
    }

    /// The key that new data is sealed under.
    #[must_use]
    pub fn newest(&self) -> &KeyId {
        &self.newest
    }

    /// All key ids.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.masters.keys()
    }

    /// Two rings with the same keys and the same newest one, and only those, have the same fingerprint: of two that seal under
    /// different keys, each would undo what the other seals anew. It reveals nothing about the keys.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut context =
            hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, b"archestra/key-ring/fingerprint/v2"));
        context.update(self.newest.as_str().as_bytes());
        context.update(&[0]);
        for (id, master) in &self.masters {
            let proof = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &master[..]), b"archestra/key-ring/proof/v1");
            context.update(id.as_str().as_bytes());
            context.update(&[0]);
            context.update(proof.as_ref());
        }
        context.sign().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The keys for one purpose, derived once and kept by whoever seals.
    #[must_use]
    pub fn derive(&self, purpose: Purpose) -> Derived {
        let keys = self.masters.iter().map(|(id, master)| (id.clone(), derive_key(master, purpose))).collect();
        let macs = self
            .masters
            .iter()
            .map(|(id, master)| {
                (id.clone(), hmac::Key::new(hmac::HMAC_SHA256, &derive_bytes(master, purpose, b"mac")[..]))
            })
            .collect();
        Derived { newest: self.newest.clone(), keys, macs }
    }
}

/// The keys of a ring for one [`Purpose`].
pub struct Derived {
    newest: KeyId,
    keys: BTreeMap<KeyId, LessSafeKey>,
    macs: BTreeMap<KeyId, hmac::Key>,
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derived").field("newest", &self.newest).finish_non_exhaustive()
    }
}

impl Derived {
    /// Seals `plain` under the newest key with AES-256-GCM and a random nonce; `context` must be given again to open it.
    ///
    /// # Errors
    /// [`KeyRingError::Random`].
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Sealed, KeyRingError> {
        let key = self.keys.get(&self.newest).ok_or_else(|| KeyRingError::Missing(self.newest.clone()))?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| KeyRingError::Random)?;
        let mut sealed = Zeroizing::new(plain.to_vec());
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut sealed)
            .map_err(|_| KeyRingError::Sealed)?;
        let mut bytes = Vec::with_capacity(NONCE_LEN + sealed.len() + tag.as_ref().len());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        bytes.extend_from_slice(tag.as_ref());
        Ok(Sealed { key: self.newest.clone(), bytes })
    }

    /// Opens what [`seal`](Self::seal) made with the same `context`.
    ///
    /// # Errors
    /// [`KeyRingError::Missing`] without the key, [`KeyRingError::Sealed`] for anything else.
    pub fn open(&self, key: &KeyId, bytes: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
        let opener = self.keys.get(key).ok_or_else(|| KeyRingError::Missing(key.clone()))?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(KeyRingError::Sealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyRingError::Sealed)?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let plain =
            opener.open_in_place(nonce, Aad::from(context), &mut buffer).map_err(|_| KeyRingError::Sealed)?.len();
        buffer.truncate(plain);
        Ok(buffer)
    }

    /// An HMAC-SHA256 over `message` under the newest key.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> (KeyId, Vec<u8>) {
        let key = &self.macs[&self.newest];
        (self.newest.clone(), hmac::sign(key, message).as_ref().to_vec())
    }

    /// The ids of all keys, the newest first.
    pub fn keys(&self) -> impl Iterator<Item = &KeyId> {
        std::iter::once(&self.newest).chain(self.macs.keys().filter(|key| **key != self.newest))
    }

    /// An HMAC-SHA256 over `message` under this key; `None` without that key.
    #[must_use]
    pub fn sign_under(&self, key: &KeyId, message: &[u8]) -> Option<Vec<u8>> {
        Some(hmac::sign(self.macs.get(key)?, message).as_ref().to_vec())
    }

    /// Whether [`sign`](Self::sign) made `tag` for `message`.
    #[must_use]
    pub fn verify(&self, key: &KeyId, message: &[u8], tag: &[u8]) -> bool {
        self.macs.get(key).is_some_and(|key| hmac::verify(key, message, tag).is_ok())
    }

    /// Whether data sealed under `key` should be sealed again under a newer one.
    #[must_use]
    pub fn is_outdated(&self, key: &KeyId) -> bool {
        *key != self.newest
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive_bytes(master: &[u8; MASTER_LEN], purpose: Purpose, kind: &[u8]) -> Zeroizing<[u8; MASTER_LEN]> {
    let mut out = Zeroizing::new([0; MASTER_LEN]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"archestra/key-ring/v1")
        .extract(master)
        .expand(&[purpose.info(), b"/", kind], Length(MASTER_LEN))
        .and_then(|okm| okm.fill(&mut out[..]))
        .expect("32 bytes are far below HKDF's limit");
    out
}

fn derive_key(master: &[u8; MASTER_LEN], purpose: Purpose) -> LessSafeKey {
    let bytes = derive_bytes(master, purpose, b"aead");
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes[..]).expect("AES-256 takes 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_survives_a_round_trip_and_keeps_the_newest_first() {
        let old = KeyRing::generate().unwrap();
        let new = KeyRing::generate().unwrap();
        let both = KeyRing::parse(&format!("# comment\n{}\n{}", *new.to_text(), *old.to_text())).unwrap();
        assert_eq!(both.newest(), new.newest());
        let again = KeyRing::parse(&both.to_text()).unwrap();
        assert_eq!(again.fingerprint(), both.fingerprint());
        assert_ne!(again.fingerprint(), new.fingerprint());
        let the_other_way_round = KeyRing::parse(&format!("{}{}", *old.to_text(), *new.to_text())).unwrap();
        assert_ne!(the_other_way_round.fingerprint(), both.fingerprint(), "which one seals matters");
        assert_eq!(both.to_text().capacity(), both.to_text().len(), "nothing grew");
    }

    #[test]
    fn what_an_old_key_sealed_opens_in_a_rotated_ring_and_not_without_it() {
        let old = KeyRing::generate().unwrap();
        let new = KeyRing::generate().unwrap();
        let both = KeyRing::parse(&format!("{}{}", *new.to_text(), *old.to_text())).unwrap();
        let sealed = old.derive(Purpose::Secrets).seal(b"plain", b"row 1").unwrap();
        let opened = both.derive(Purpose::Secrets).open(&sealed.key, &sealed.bytes, b"row 1").unwrap();
        assert_eq!(&opened[..], b"plain");
        assert!(both.derive(Purpose::Secrets).is_outdated(&sealed.key));
        assert!(matches!(
            new.derive(Purpose::Secrets).open(&sealed.key, &sealed.bytes, b"row 1"),
            Err(KeyRingError::Missing(_))
        ));
    }

    #[test]
    fn nothing_opens_under_another_purpose_context_or_after_a_change() {
        let ring = KeyRing::generate().unwrap();
        let derived = ring.derive(Purpose::Secrets);
        let sealed = derived.seal(b"plain", b"row 1").unwrap();
        assert!(derived.open(&sealed.key, &sealed.bytes, b"row 2").is_err());
        assert!(ring.derive(Purpose::Cookies).open(&sealed.key, &sealed.bytes, b"row 1").is_err());
        for n in 0..sealed.bytes.len() {
            let mut changed = sealed.bytes.clone();
            changed[n] ^= 1;
            assert!(derived.open(&sealed.key, &changed, b"row 1").is_err(), "byte {n}");
            assert!(derived.open(&sealed.key, &sealed.bytes[..n], b"row 1").is_err(), "cut at {n}");
        }
    }

    #[test]
    fn bad_key_files_are_refused_with_their_line_and_nothing_of_their_content() {
        for (text, expected) in [
            ("", "holds no key"),
            ("a", "line 1"),
            ("\na !!!", "line 2"),
            ("a c2hvcnQ=", "line 1"),
            ("\n\na vault:v1:c2hvcnQ=", "line 3 of the key file holds a key that a transit key"),
        ] {
            let error = KeyRing::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("c2hvcnQ="));
        }
    }
}
