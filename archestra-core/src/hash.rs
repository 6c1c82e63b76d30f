//! SHA-256 hashes as types of their own, written as hexadecimal digits.

use serde::{Deserialize, Deserializer};

/// Makes one type for each kind of thing that is hashed.
macro_rules! hashes {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::hash::from_hex(deserializer).map(Self)
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                String::schema()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    )+};
}
pub(crate) use hashes;

/// Reads 64 hexadecimal digits.
pub(crate) fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut hash = [0; 32];
    let valid = text.len() == 64
        && text.bytes().all(|b| b.is_ascii_hexdigit())
        && hash.iter_mut().enumerate().all(|(n, byte)| {
            text.get(2 * n..2 * n + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).map(|b| *byte = b).is_some()
        });
    if valid { Ok(hash) } else { Err(serde::de::Error::custom("not 64 hexadecimal digits")) }
}
