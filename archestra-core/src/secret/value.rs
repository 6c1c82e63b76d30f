//! `SecretValue`, `SecretBundle` and `SecretRef`: what is secret, what is stored together, and where it is.

use super::ExternalRef;
use crate::{Error, Result};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use std::{collections::BTreeMap, fmt, io, str::FromStr};
use zeroize::Zeroizing;

/// A secret in memory: never printed, never serialized, wiped when dropped.
///
/// It may instead name a value that is kept elsewhere, see [`external`](Self::external). Only a store that
/// [accepts](super::SecretStore::accepts) references takes such a one, and gives back the value itself.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue {
    text: Zeroizing<String>,
    external: Option<ExternalRef>,
}

impl SecretValue {
    /// Takes over `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self { text: Zeroizing::new(value.into()), external: None }
    }

    /// What is kept elsewhere under this reference.
    #[must_use]
    pub fn kept_at(reference: ExternalRef) -> Self {
        Self { text: Zeroizing::default(), external: Some(reference) }
    }

    /// Where the value is kept, if it is not here.
    #[must_use]
    pub fn external(&self) -> Option<&ExternalRef> {
        self.external.as_ref()
    }

    /// The value itself, which is empty for one that is kept elsewhere. Whoever calls this must not print, log or store what
    /// it returns.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Whether there is nothing in it once blanks are taken off.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.external.is_none() && self.text.trim().is_empty()
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(redacted)")
    }
}

impl From<String> for SecretValue {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&str> for SecretValue {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// The secrets that are stored and versioned together, by key.
///
/// It deserializes, because secrets come in over the wire, and never serializes.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretBundle(BTreeMap<String, SecretValue>);

impl SecretBundle {
    /// An empty bundle.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&SecretValue> {
        self.0.get(key)
    }

    /// Sets `key`, and returns what it was.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<SecretValue>) -> Option<SecretValue> {
        self.0.insert(key.into(), value.into())
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<SecretValue> {
        self.0.remove(key)
    }

    /// Keys and values in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretValue)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is kept elsewhere of it, by key.
    pub fn external(&self) -> impl Iterator<Item = (&str, &ExternalRef)> {
        self.iter().filter_map(|(key, value)| Some((key, value.external()?)))
    }

    /// The JSON object of all values, for a backend that encrypts it before it goes anywhere. What is kept elsewhere is
    /// `{"vault": "path#key"}` in it, which no value can be taken for.
    ///
    /// # Panics
    /// Never: a map of strings is always JSON.
    #[must_use]
    pub fn to_plaintext(&self) -> Zeroizing<Vec<u8>> {
        let plain: BTreeMap<&str, Plain<'_>> = self
            .iter()
            .map(|(key, value)| match value.external() {
                None => (key, Plain::Here(value.expose())),
                Some(reference) => (key, Plain::Elsewhere { vault: reference.as_str() }),
            })
            .collect();
        wiped_json(&plain).expect("a map of strings is always JSON")
    }

    /// The reverse of [`to_plaintext`](Self::to_plaintext).
    ///
    /// # Errors
    /// [`Error::Backend`] when this is not an object of strings and references; the text never holds any of it.
    pub fn from_plaintext(bytes: &[u8]) -> Result<Self> {
        let stored: BTreeMap<String, Stored> = serde_json::from_slice(bytes).map_err(|_| Error::Backend {
            backend: "secret store",
            reason: "a stored bundle is not an object of strings".to_owned(),
            source: None,
        })?;
        Ok(stored.into_iter().map(|(key, Stored(value))| (key, value)).collect())
    }
}

impl fmt::Debug for SecretBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K: Into<String>, V: Into<SecretValue>> FromIterator<(K, V)> for SecretBundle {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        Self(iter.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

/// JSON that is wiped when dropped, and of which no copy was left behind while it was made.
///
/// # Errors
/// What cannot be JSON.
pub fn wiped_json(value: &impl Serialize) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut length = Count(0);
    serde_json::to_writer(&mut length, value)?;
    // What grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *bytes, value)?;
    Ok(bytes)
}

/// One value in a plaintext.
#[derive(Serialize)]
#[serde(untagged)]
enum Plain<'a> {
    Here(&'a str),
    Elsewhere { vault: &'a str },
}

/// The same, read. Nothing between holds a copy of a value that is not wiped, as serde's own enums would.
struct Stored(SecretValue);

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StoredVisitor)
    }
}

struct StoredVisitor;

impl<'de> Visitor<'de> for StoredVisitor {
    type Value = Stored;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, or where it is kept")
    }

    fn visit_str<E>(self, text: &str) -> Result<Stored, E> {
        Ok(Stored(SecretValue::new(text)))
    }

    fn visit_string<E>(self, text: String) -> Result<Stored, E> {
        Ok(Stored(SecretValue::new(text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stored, A::Error> {
        use serde::de::Error as _;
        let place = map.next_entry::<String, String>()?;
        match (place, map.next_key::<String>()?) {
            (Some((key, text)), None) if key == "vault" => {
                let reference = text.parse().map_err(|_| A::Error::custom("not a reference"))?;
                Ok(Stored(SecretValue::kept_at(reference)))
            }
            _ => Err(A::Error::custom("not a reference")),
        }
    }
}

/// Where a bundle is: a path of `/`-separated segments of `[A-Za-z0-9._-]`, at most 512 bytes, no `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretRef(String);

impl SecretRef {
    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A new reference that nothing uses yet: `<kind>/<owner>/<unique>`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `kind` or `owner` is not a path segment.
    pub fn unique(kind: &str, owner: impl fmt::Display) -> Result<Self> {
        format!("{kind}/{owner}/{}", uuid::Uuid::now_v7()).parse()
    }
}

impl FromStr for SecretRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let segment = |s: &str| {
            !s.is_empty()
                && s != "."
                && s != ".."
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if text.len() <= 512 && text.split('/').all(segment) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid(
            "secretRef",
            format!("{text:?} is not a secret reference"),
            "use segments of letters, digits, '.', '_' and '-' joined by '/', at most 512 bytes",
        ))
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for SecretRef {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        String::schema()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for SecretRef {}

#[cfg(test)]
mod tests;
