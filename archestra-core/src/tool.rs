//! Tools: what a server offers, how it is recognized again, and the name it is called by.

mod name;

pub use name::{ExposedName, MAX_NAME, expose, slug};

use crate::{
    hash::hashes,
    id::{EntryId, ToolId},
};
use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

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

hashes! {
    /// The SHA-256 of a tool's definition with its keys in order, so that only a real change changes it.
    DefinitionHash;
}

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

#[cfg(test)]
mod tests;
