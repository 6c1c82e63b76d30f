//! What a server listed, checked and compared with the tools that are known, as pure functions.

use archestra_core::{
    feed::{Expect, Versioned},
    id::{EntryId, ToolId},
    tool::{DefinitionHash, Tool, ToolChange},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::BTreeMap;

/// The largest definition of a tool that is kept, in bytes of JSON.
pub const MAX_DEFINITION: usize = 1 << 20;
/// The most tools of one server that are kept.
pub const MAX_TOOLS: usize = 10_000;
/// How many tools of one entry are kept that no installation lists any more, beside those that are named by a selector.
pub(super) const MAX_UNLISTED: usize = 1_000;
const MAX_NAME: usize = 1024;

/// A usable tool definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What the server calls it.
    pub name: String,
    /// The definition as JSON text.
    pub definition: String,
    /// Its hash.
    pub hash: DefinitionHash,
}

/// What a server listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// What can be used, in the server's order.
    pub tools: Vec<Listed>,
    /// Why the rest cannot.
    pub notes: Vec<String>,
}

/// Sorts out definitions that cannot be kept: without a usable name, named like one before, or too large.
#[must_use]
pub fn read_definitions(definitions: Vec<Value>) -> Listing {
    let mut listing = Listing::default();
    let mut seen = std::collections::BTreeSet::new();
    for (n, definition) in definitions.into_iter().enumerate() {
        let Some(name) = definition.get("name").and_then(Value::as_str).filter(|name| usable(name)).map(str::to_owned)
        else {
            listing.notes.push(format!("tool {n} has no usable name"));
            continue;
        };
        if seen.contains(&name) {
            listing.notes.push(format!("tool {name:?} is listed twice; the first counts"));
            continue;
        }
        let hash = DefinitionHash::of(&definition);
        let definition = definition.to_string();
        if definition.len() > MAX_DEFINITION {
            listing.notes.push(format!("the definition of tool {name:?} is larger than {MAX_DEFINITION} bytes"));
            continue;
        }
        if listing.tools.len() == MAX_TOOLS {
            listing.notes.push(format!("the server lists more than {MAX_TOOLS} tools; the rest is left out"));
            break;
        }
        seen.insert(name.clone());
        listing.tools.push(Listed { name, definition, hash });
    }
    listing
}

/// What a listing changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolDiff {
    /// Tools that no installation of the entry listed before.
    pub create: Vec<Tool>,
    /// Tools whose definition became another one, with the version that was compared.
    pub update: Vec<(Tool, Expect)>,
    /// What the installation has now.
    pub hashes: BTreeMap<String, DefinitionHash>,
}

/// Compares what one installation lists now with the rows of its entry and with what it listed `before`.
///
/// A row follows an installation only when that installation's own definition changed: two installations that are served
/// different definitions do not overwrite each other at every listing. Rows of tools that are no longer listed stay,
/// until there are many of them.
#[must_use]
pub fn diff_tools(
    entry: EntryId,
    listed: &[Listed],
    rows: &[Versioned<Tool>],
    before: &BTreeMap<String, DefinitionHash>,
    now: DateTime<Utc>,
) -> ToolDiff {
    let known: BTreeMap<&str, &Versioned<Tool>> = rows.iter().map(|row| (row.value.name.as_str(), row)).collect();
    let mut diff = ToolDiff::default();
    for tool in listed {
        diff.hashes.insert(tool.name.clone(), tool.hash);
        let Some(row) = known.get(tool.name.as_str()) else {
            diff.create.push(Tool {
                id: ToolId::new(),
                entry,
                name: tool.name.clone(),
                definition: tool.definition.clone(),
                hash: tool.hash,
                changed: None,
                created_at: now,
                updated_at: now,
            });
            continue;
        };
        if row.value.hash == tool.hash || before.get(&tool.name) == Some(&tool.hash) {
            continue;
        }
        let changed = Some(ToolChange { previous: row.value.hash, at: now });
        let tool = Tool {
            definition: tool.definition.clone(),
            hash: tool.hash,
            changed,
            updated_at: now,
            ..row.value.clone()
        };
        diff.update.push((tool, row.expect()));
    }
    diff
}

fn usable(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
