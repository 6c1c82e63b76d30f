//! Tools: what a server offers, how it is recognized again, and the name it is called by.

mod name;

pub use name::{ExposedName, MAX_NAME, expose, slug};

use crate::id::{EntryId, ToolId};
use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A tool of an entry. (entry, raw name) is unique; the raw name is what the server calls it and is never guessed back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// Its identifier, which survives every change of its definition.
    pub id: ToolId,
    /// Whose it is.
    pub entry: EntryId,
    /// What the server calls it.
    pub name: String,
    /// The definition as the server listed it, as JSON text: nothing is lost of fields that we do not know.
    pub definition: String,
    /// The hash of the definition.
    pub hash: DefinitionHash,
    /// When an installation first listed another definition than the one before, what that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<ToolChange>,
    /// When it was first listed.
    pub created_at: DateTime<Utc>,
    /// When its definition last changed.
    pub updated_at: DateTime<Utc>,
}

/// A change of a tool's definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ToolChange {
    /// The definition before.
    pub previous: DefinitionHash,
    /// When it was seen.
    pub at: DateTime<Utc>,
}

/// The SHA-256 of a tool's definition with its keys in order, so that only a real change changes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DefinitionHash([u8; 32]);

impl DefinitionHash {
    /// The hash of a definition.
    #[must_use]
    pub fn of(definition: &serde_json::Value) -> Self {
        // serde_json's map is ordered by key unless somebody turns `preserve_order` on, which this does not depend on.
        let mut context = digest::Context::new(&digest::SHA256);
        feed(definition, &mut context);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn feed(value: &serde_json::Value, context: &mut digest::Context) {
    match value {
        serde_json::Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| key.as_str());
            context.update(b"{");
            for (key, value) in keys {
                context.update(serde_json::Value::from(key.as_str()).to_string().as_bytes());
                context.update(b":");
                feed(value, context);
                context.update(b",");
            }
            context.update(b"}");
        }
        serde_json::Value::Array(items) => {
            context.update(b"[");
            for item in items {
                feed(item, context);
                context.update(b",");
            }
            context.update(b"]");
        }
        other => context.update(other.to_string().as_bytes()),
    }
}

impl fmt::Display for DefinitionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DefinitionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DefinitionHash({self})")
    }
}

impl Serialize for DefinitionHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DefinitionHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut hash = [0; 32];
        let valid = text.len() == 64
            && text.bytes().all(|b| b.is_ascii_hexdigit())
            && hash.iter_mut().enumerate().all(|(n, byte)| {
                text.get(2 * n..2 * n + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).map(|b| *byte = b).is_some()
            });
        if valid { Ok(Self(hash)) } else { Err(serde::de::Error::custom("not 64 hexadecimal digits")) }
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for DefinitionHash {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        String::schema()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for DefinitionHash {}

#[cfg(test)]
mod tests;
