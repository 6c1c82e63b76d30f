//! Values that stand in a definition: plain ones, secret ones on their way to the secret store, and secret ones kept there.

use crate::secret::{ExternalRef, SecretValue};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// A string, number or boolean, taken as its text. JSON and YAML write `5` where a variable holds `"5"`.
///
/// It is treated as a secret until the field it belongs to says that it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar(pub SecretValue);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or a boolean")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.into()))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Scalar, E> {
                Ok(Scalar(text.into()))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string().into()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string().into()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string().into()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string().into()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A value that is given for a field: a [`Scalar`], or where a secret is kept, written `{"vault": "path#key"}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "WireGiven")]
pub struct Given(pub SecretValue);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a string, a number, a boolean, or `{vault: \"path#key\"}` with a path of letters, digits, '.', '_', '-' and '/'"
)]
enum WireGiven {
    Scalar(Scalar),
    Kept(Kept),
}

impl From<WireGiven> for Given {
    fn from(wire: WireGiven) -> Self {
        match wire {
            WireGiven::Scalar(Scalar(value)) => Self(value),
            WireGiven::Kept(Kept(reference)) => Self(SecretValue::kept_at(reference)),
        }
    }
}

/// Where a secret is kept.
#[derive(Deserialize)]
#[serde(try_from = "WireKept")]
pub(crate) struct Kept(ExternalRef);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireKept {
    vault: String,
}

impl TryFrom<WireKept> for Kept {
    type Error = crate::Error;

    fn try_from(WireKept { vault }: WireKept) -> crate::Result<Self> {
        vault.parse().map(Self)
    }
}

/// The value of a field that is fixed by the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FixedValue {
    /// Anybody who may see the entry may see it.
    Plain(String),
    /// A secret that has not been moved to the secret store yet. It cannot be serialized.
    Secret(SecretValue),
    /// A secret that is in the entry's bundle of the secret store. Written `{"stored": true}`; sent back unchanged, it
    /// keeps what is stored.
    Stored,
}

impl FixedValue {
    /// The plain text, unless it is secret.
    #[must_use]
    pub fn plain(&self) -> Option<&str> {
        match self {
            Self::Plain(text) => Some(text),
            Self::Secret(_) | Self::Stored => None,
        }
    }

    /// The text, secret or not, to be checked and never to be shown; `None` for one that is stored elsewhere.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Plain(text) => Some(text),
            Self::Secret(secret) if secret.external().is_none() => Some(secret.expose()),
            Self::Secret(_) | Self::Stored => None,
        }
    }
}

impl Serialize for FixedValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(text) => serializer.serialize_str(text),
            Self::Secret(_) => Err(serde::ser::Error::custom(
                "a secret value must be moved to the secret store before its field is stored",
            )),
            Self::Stored => Stored { stored: true }.serialize(serializer),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    stored: bool,
}

/// What comes in over the wire where a [`FixedValue`] is meant, before it is known whether the field is secret.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string, a number, a boolean, `{stored: true}` or `{vault: \"path#key\"}`")]
pub(crate) enum WireValue {
    Scalar(Scalar),
    Kept(Kept),
    Stored(StoredMark),
}

#[derive(Deserialize)]
#[serde(try_from = "Stored")]
pub(crate) struct StoredMark;

impl TryFrom<Stored> for StoredMark {
    type Error = &'static str;

    fn try_from(Stored { stored }: Stored) -> Result<Self, Self::Error> {
        if stored { Ok(Self) } else { Err("only `stored: true` says something") }
    }
}

/// Whether a field is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    Secret,
    Plain,
}

impl Secrecy {
    /// As a field's own `secret` says.
    pub(crate) const fn of(secret: bool) -> Self {
        if secret { Self::Secret } else { Self::Plain }
    }
}

impl WireValue {
    pub(crate) fn into_fixed(self, secrecy: Secrecy) -> FixedValue {
        match (self, secrecy) {
            (Self::Scalar(Scalar(value)), Secrecy::Secret) => FixedValue::Secret(value),
            (Self::Scalar(Scalar(value)), Secrecy::Plain) => FixedValue::Plain(value.expose().to_owned()),
            (Self::Kept(Kept(reference)), _) => FixedValue::Secret(SecretValue::kept_at(reference)),
            (Self::Stored(_), _) => FixedValue::Stored,
        }
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for FixedValue {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        String::schema()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for FixedValue {}
